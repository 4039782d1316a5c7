"""Motion features of torchvision's video networks: what leaves them before space and time are pooled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avsep_zoo.detection.contract import MotionNet
from avsep_zoo.detection.torchvision_weights import build_fitting, torchvision
from avsep_zoo.errors import WeightsError
from avsep_zoo.weights.checkpoints import read_settings, read_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["VideoNet"]

CLIP = 16  # frames that the networks were trained on (S3D: more, any number from 14)

# architecture -> name of its classifier's weights, frames per second and side in pixels it was trained with
_ARCHITECTURES = {
    "r3d_18": ("fc.weight", 15.0, 112),
    "mc3_18": ("fc.weight", 15.0, 112),
    "r2plus1d_18": ("fc.weight", 15.0, 112),
    "s3d": ("classifier.1.weight", 15.0, 224),
    "mvit_v1_b": ("head.1.weight", 7.5, 224),
    "mvit_v2_s": ("head.1.weight", 7.5, 224),
}


class VideoNet(MotionNet):
    """A video network of torchvision with the user's weights; arguments as :class:`~avsep_zoo.detection.MotionNet`.

    Features are (D, S, h, w) of successive clips of 16 frames: S is 2 per clip (MViT: 8), D is 512 (S3D: 1024,
    MViT: 768). The architecture is the first whose tensors fit, unless ``config.json`` beside the weights
    names it (``architecture``; also ``side``: pixels of the shorter side). Convolutional networks see the
    whole frame, MViT the frame squeezed to a square of 224 pixels.
    """

    window = 8 * CLIP

    def __init__(self, weights: Path | None, *, device: str = "cpu") -> None:
        if weights is None:
            raise WeightsError("video_net needs --motion-weights: a folder, a file, or org/name@commit.")
        package = torchvision()
        settings = read_settings(weights, {"architecture": str, "side": int})
        tensors = read_tensors(weights)

        def build(name: str) -> nn.Module:
            classes = len(tensors[_ARCHITECTURES[name][0]])
            made: nn.Module = package.models.get_model(name, weights=None, num_classes=classes)
            return made

        names = (settings["architecture"],) if "architecture" in settings else tuple(_ARCHITECTURES)
        if not set(names) <= _ARCHITECTURES.keys():
            raise WeightsError(f"There is no architecture {names[0]!r}; known are {', '.join(_ARCHITECTURES)}.")
        having = [name for name in names if _ARCHITECTURES[name][0] in tensors]
        if not having:
            raise WeightsError(
                f"The weights {weights.name!r} have no classifier of {', '.join(names)}; give such ones."
            )
        self.architecture, model = build_fitting(having, tensors, build, f"weights {weights.name!r}")
        _, self.fps, side = _ARCHITECTURES[self.architecture]
        self.side = settings.get("side", side)
        if self.architecture.startswith("mvit") and self.side != side:
            raise WeightsError(
                f"{self.architecture} reads frames of {side} pixels and the side is {self.side}; leave it out."
            )
        usual = package.models.get_model_weights(self.architecture).KINETICS400_V1.transforms()
        self._mean, self._std = usual.mean, usual.std
        self._model = model.to(device)
        self._device = device

    def features(self, frames: np.ndarray, fps: float) -> np.ndarray:
        import torch

        missing = -len(frames) % CLIP
        padded = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
        steps = []
        with torch.inference_mode():
            for start in range(0, len(padded), CLIP):
                steps.append(self._clip_features(padded[start : start + CLIP]).cpu().numpy())
        found = np.concatenate(steps, axis=1)  # (D, S, h, w)
        return found[:, : -(-found.shape[1] * len(frames) // len(padded))].astype(np.float32)

    def _clip_features(self, frames: np.ndarray) -> Tensor:
        """(16, H, W, 3) -> (D, S, h, w)."""
        import torch
        from torch.nn import functional as F

        clip = torch.from_numpy(np.ascontiguousarray(frames)).to(self._device).permute(3, 0, 1, 2).float() / 255
        height, width = clip.shape[2:]
        scale = self.side / min(height, width)
        square = self.architecture.startswith("mvit")
        size = (self.side, self.side) if square else (round(height * scale), round(width * scale))
        if size != (height, width):
            clip = F.interpolate(clip, size=size, mode="bilinear", align_corners=False, antialias=True)
        mean, std = (clip.new_tensor(values).view(3, 1, 1, 1) for values in (self._mean, self._std))
        clip = ((clip - mean) / std)[None]  # (1, 3, 16, h, w)
        model: Any = self._model
        if square:
            return self._tokens(clip)
        if self.architecture == "s3d":
            return model.features(clip)[0]
        return model.layer4(model.layer3(model.layer2(model.layer1(model.stem(clip)))))[0]

    def _tokens(self, clip: Tensor) -> Tensor:
        """Return what MViT's last block leaves, normalised and without the class token, as (D, S, h, w)."""
        model: Any = self._model
        x = model.pos_encoding(model.conv_proj(clip).flatten(2).transpose(1, 2))
        thw = (model.pos_encoding.temporal_size, *model.pos_encoding.spatial_size)
        for block in model.blocks:
            x, thw = block(x, thw)
        x = model.norm(x)[0, 1:]  # (S h w, D)
        return x.T.reshape(-1, *thw)
