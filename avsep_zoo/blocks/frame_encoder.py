"""What frames of a source show: an image network, pooled over frames and pixels to a vector.

Source: Zhao et al., The Sound of Pixels, ECCV 2018, section 3.1, "Video analysis network".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from avsep_zoo.blocks.recognition import class_loss
from avsep_zoo.blocks.resnet import ResNet18Features
from avsep_zoo.contracts import CueBatch, CueEncoder, Embedding, EncoderPlan
from avsep_zoo.cue import Cue
from avsep_zoo.cue_views import check_shown, cue_views
from avsep_zoo.errors import CueError
from avsep_zoo.pictures import centre_view, normalise

if TYPE_CHECKING:
    from avsep_zoo.media import VideoSource

__all__ = ["FrameEncoder"]


class FrameEncoder(CueEncoder):
    """ResNet-18 on frames of a source, a 3x3 convolution, pooling, a sigmoid: a ``vector`` (B, N, D) in (0, 1).

    Args:
        width: channels of the first ResNet stage.
        stride: 16, which dilates the last stage instead of striding it (published), or 32.
        object_features: width D of the vector.
        pooling: over frames and pixels; ``max`` is published.
        frames: number of frames K around the centre of the segment.
        frame_rate: frames per second they are taken at.
        image_size: pixels of the square input.
        frozen: train no ResNet parameter (its batch-norm statistics still move).
        image_weights: what a training run starts the ResNet from: torchvision's ``resnet18-f37072fd.pth`` or any file
            with its entries, or ``org/name@commit``; None leaves it as it was drawn.
        classes: class names that are recognised in training, which teaches what the frames show; labels are not used
            for anything else.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        stride: Literal[16, 32] = 16,
        object_features: int = 32,
        pooling: Literal["max", "average"] = "max",
        frames: int = 3,
        frame_rate: float = 1.0,
        image_size: int = 224,
        frozen: bool = False,
        image_weights: str | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        plan = FrameEncoder.plan(object_features=object_features)
        self.reads, self.optional, self.gives = plan.reads, plan.optional, plan.gives
        self.pooling, self.frames, self.frame_rate, self.image_size = pooling, frames, frame_rate, image_size
        self.image_weights, self.taught = image_weights, tuple(classes)
        self.features = ResNet18Features(width=width, stride=stride).requires_grad_(not frozen)
        self.fc = nn.Conv2d(self.features.channels, object_features, 3, padding=1)
        self.recogniser = nn.Linear(object_features, len(classes)) if classes else None

    @classmethod
    def plan(cls, *, object_features: int = 32, **_: Any) -> EncoderPlan:
        """Frames alone; labels are used in training only, to teach what the frames show."""
        return EncoderPlan(frozenset({"frames"}), {"vector": object_features})

    def forward(self, cues: CueBatch) -> Embedding:
        """Encode frames (B, N, 3, K, H, W)."""
        return Embedding(vector=torch.sigmoid(self.looks(cues)))

    def looks(self, cues: CueBatch) -> Tensor:
        """What the frames show (B, N, D), before the sigmoid.

        Raises:
            CueError: there are no frames.
        """
        frames = cues.get("frames")
        if frames is None:
            raise CueError("This model needs frames of every source; give frames, or a video with boxes.")
        if self.training:  # batch statistics per source slot, as published
            return torch.stack([self.look(frames[:, n]) for n in range(frames.shape[1])], dim=1)
        return rearrange(self.look(rearrange(frames, "b n ... -> (b n) ...")), "(b n) d -> b n d", b=len(frames))

    def look(self, frames: Tensor) -> Tensor:
        """(B, 3, K, H, W) -> pooled over frames and pixels (B, D), before the sigmoid."""
        maps = self.feature_map(frames)
        return maps.amax(dim=(2, 3, 4)) if self.pooling == "max" else maps.mean(dim=(2, 3, 4))

    def feature_map(self, frames: Tensor) -> Tensor:
        """(B, 3, K, H, W) -> (B, D, K, h, w)."""
        maps = self.fc(self.features(rearrange(frames, "b c k h w -> (b k) c h w")))
        return rearrange(maps, "(b k) d h w -> b d k h w", k=frames.shape[2])

    def recognition_loss(self, cues: CueBatch) -> Tensor:
        """Cross-entropy of the classes recognised from frames, over the sources whose label is taught."""
        label = cues.get("label")
        if self.recogniser is None or label is None:
            return torch.zeros((), device=self.fc.weight.device)
        return class_loss(self.recogniser(self.looks(cues)), torch.where(cues.has("label").to(label.device), label, -1))

    def prepare(
        self,
        cues: Sequence[Cue],
        *,
        video: VideoSource | None,
        time: float,
        rng: np.random.Generator | None = None,
    ) -> CueBatch:
        check_shown(cues, video, time)
        batch = CueBatch(
            {"frames": torch.from_numpy(np.stack([self.pictures(cue, video, time) for cue in cues]))[None]}
        )
        if self.taught and self.training:
            known = [self.taught.index(cue.label) if cue.label in self.taught else -1 for cue in cues]
            batch.values["label"] = torch.tensor([known])
        return batch

    def pictures(self, cue: Cue, video: VideoSource | None, time: float) -> np.ndarray:
        """What the network sees of a cue whose segment has its centre at ``time``: float32 (3, K, H, W).

        Raises:
            CueError: there are no pictures, or they cannot be read.
        """
        offsets = np.arange(self.frames) - self.frames // 2
        times = [time + float(o) / self.frame_rate for o in offsets]  # before the beginning there is the first
        return normalise([centre_view(view, self.image_size) for view in cue_views(cue, video, times)])

    def load_pretrained(self) -> None:
        """Load ImageNet's weights into the ResNet, if they are named.

        Raises:
            WeightsError: they cannot be had, or do not fit.
        """
        from avsep_zoo.weights.pretrained import load_resnet

        load_resnet(self.features, self.image_weights, frozen=False)
