"""DAVIS' cue encoders: frames of a source, an image network, a temporal transformer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from avsep_davis.temporal import TemporalTransformer
from avsep_zoo.blocks.recognition import class_loss
from avsep_zoo.blocks.resnet import ResNet18Features
from avsep_zoo.contracts import CueBatch, CueEncoder, Embedding, EncoderPlan
from avsep_zoo.cue import Cue
from avsep_zoo.cue_views import check_shown, cue_views
from avsep_zoo.errors import CueError
from avsep_zoo.pictures import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, centre_view, normalise, varied_views

if TYPE_CHECKING:
    from avsep_zoo.media import VideoSource

__all__ = ["FramesEncoder", "ResNetEncoder", "Statistics"]

Statistics = Literal["imagenet", "clip"]

_STATISTICS = {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "clip": (CLIP_MEAN, CLIP_STD)}


class FramesEncoder(CueEncoder):
    """Frames of a source around the centre of the segment, features of each, the temporal transformer.

    Gives ``tokens`` (one per frame) and their mean, ``vector``; the order of the frames does not matter. A subclass
    has the image network and ``self.temporal``.

    Args:
        frames: number of frames K.
        frame_rate: frames per second they are taken at.
        image_size: pixels of the square input.
        statistics: whose mean and standard deviation of pixels they are normalised with.
        vary: crop and mirror the frames of training items at random
            (:func:`~avsep_zoo.pictures.varied_views`), all frames of a source alike.
    """

    temporal: TemporalTransformer

    def __init__(
        self,
        *,
        frames: int,
        frame_rate: float,
        image_size: int,
        statistics: Statistics = "imagenet",
        vary: bool = False,
    ) -> None:
        super().__init__()
        if frames < 1 or not 0 < frame_rate < float("inf") or image_size < 1:
            raise ValueError(
                f"There are {frames} frames of {image_size} pixels, {frame_rate} per second; give at least one of each."
            )
        if statistics not in _STATISTICS:
            raise ValueError(f"statistics is {statistics!r}; give one of {', '.join(_STATISTICS)}.")
        self.frames, self.frame_rate, self.image_size = frames, frame_rate, image_size
        self.mean, self.std = _STATISTICS[statistics]
        self.vary = vary

    @abstractmethod
    def image_features(self, images: Tensor) -> Tensor:
        """(M, 3, H, W) -> (M, D)."""

    def forward(self, cues: CueBatch) -> Embedding:
        """Encode frames (B, N, 3, K, H, W)."""
        frames = cues.get("frames")
        if frames is None:
            raise CueError("This model needs frames of every source; give frames, or a video with boxes.")
        tokens = self.look(rearrange(frames, "b n c k h w -> (b n) c k h w"))
        tokens = rearrange(tokens, "(b n) k d -> b n k d", b=len(frames))
        return Embedding(vector=tokens.mean(dim=2), tokens=tokens)

    def look(self, frames: Tensor) -> Tensor:
        """(B, 3, K, H, W) -> (B, K, D)."""
        features = self.image_features(rearrange(frames, "b c k h w -> (b k) c h w"))
        return self.temporal(rearrange(features, "(b k) d -> b k d", b=len(frames)))

    def prepare(
        self,
        cues: Sequence[Cue],
        *,
        video: VideoSource | None,
        time: float,
        rng: np.random.Generator | None = None,
    ) -> CueBatch:
        check_shown(cues, video, time)
        offsets = np.arange(self.frames) - self.frames // 2
        times = [time + float(o) / self.frame_rate for o in offsets]
        pictures = [self._pictures(cue, video, times, rng) for cue in cues]
        return CueBatch({"frames": torch.from_numpy(np.stack(pictures))[None]})

    def _pictures(
        self, cue: Cue, video: VideoSource | None, times: Sequence[float], rng: np.random.Generator | None
    ) -> np.ndarray:
        """float32 (3, K, H, W)."""
        views = cue_views(cue, video, times)
        if self.vary and self.training and rng is not None:
            views = varied_views(views, self.image_size, rng)
        else:
            views = [centre_view(view, self.image_size) for view in views]
        return normalise(views, mean=self.mean, std=self.std)


class ResNetEncoder(FramesEncoder):
    """ResNet-18 on each frame, then the temporal transformer.

    Args:
        width: channels of the first ResNet stage; features have 8 times as many.
        frames, frame_rate, image_size, vary: as in :class:`FramesEncoder`.
        first_frame: keep only the first frame (the published code).
        frozen: train no ResNet parameter (its batch-norm statistics still move, as published).
        image_weights: what a training run starts the ResNet from (:meth:`load_pretrained`): torchvision's
            ``resnet18-f37072fd.pth`` or any file with its entries, or ``org/name@commit``; needed where it is frozen.
        heads, feedforward, encoder_layers, decoder_layers, dropout: of the temporal transformer.
        classes: class names that are recognised in training, which teaches what the frames show; labels are not used
            for anything else.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        frames: int = 11,
        frame_rate: float = 0.5,
        image_size: int = 224,
        vary: bool = False,
        first_frame: bool = True,
        frozen: bool = True,
        image_weights: str | None = None,
        heads: int = 8,
        feedforward: int = 512,
        encoder_layers: int = 3,
        decoder_layers: int = 1,
        dropout: float = 0.1,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__(frames=frames, frame_rate=frame_rate, image_size=image_size, vary=vary)
        plan = self.plan(width=width)
        self.reads, self.optional, self.gives = plan.reads, plan.optional, plan.gives
        self.first_frame, self.taught = first_frame, tuple(classes)
        self.frozen, self.image_weights = frozen, image_weights
        self.features = ResNet18Features(width=width).requires_grad_(not frozen)
        self.temporal = TemporalTransformer(
            8 * width,
            heads=heads,
            feedforward=feedforward,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            dropout=dropout,
        )
        self.recogniser = nn.Linear(8 * width, len(classes)) if classes else None

    @classmethod
    def plan(cls, *, width: int = 64, **_: Any) -> EncoderPlan:
        """Frames alone; labels are used in training only, to teach what the frames show."""
        return EncoderPlan(frozenset({"frames"}), {"vector": 8 * width, "tokens": 8 * width})

    def image_features(self, images: Tensor) -> Tensor:
        return self.features(images).mean(dim=(2, 3))

    def look(self, frames: Tensor) -> Tensor:
        """(B, 3, K, H, W) -> (B, K, D), or (B, 1, D) where only the first frame counts; in training all are seen."""
        seen = frames if self.training or not self.first_frame else frames[:, :, :1]
        features = self.image_features(rearrange(seen, "b c k h w -> (b k) c h w"))
        features = rearrange(features, "(b k) d -> b k d", b=len(frames))
        return self.temporal(features[:, :1] if self.first_frame else features)

    def recognition_loss(self, cues: CueBatch) -> Tensor:
        """Cross-entropy of the classes recognised from frames, over the sources whose label is taught."""
        label = cues.get("label")
        if self.recogniser is None or label is None:
            return torch.zeros((), device=next(self.parameters()).device)
        return class_loss(
            self.recogniser(self(cues).vector), torch.where(cues.has("label").to(label.device), label, -1)
        )

    def prepare(
        self,
        cues: Sequence[Cue],
        *,
        video: VideoSource | None,
        time: float,
        rng: np.random.Generator | None = None,
    ) -> CueBatch:
        batch = super().prepare(cues, video=video, time=time, rng=rng)
        if self.taught and self.training:
            known = [self.taught.index(cue.label) if cue.label in self.taught else -1 for cue in cues]
            batch.values["label"] = torch.tensor([known])
        return batch

    def load_pretrained(self) -> None:
        """Load ImageNet's weights into the ResNet, if it is frozen or they are named.

        Raises:
            WeightsError: it is frozen and they are not named, they cannot be had, or they do not fit.
        """
        from avsep_zoo.weights.pretrained import load_resnet

        load_resnet(self.features, self.image_weights, frozen=self.frozen)
