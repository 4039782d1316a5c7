"""DAVIS' cue encoders: frames of a source, an image network, a temporal transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_davis.temporal import TemporalTransformer
from avsep_zoo.blocks.resnet import ResNet18Features
from avsep_zoo.contracts import CueBatch, CueEncoder, Embedding, EncoderPlan
from avsep_zoo.cue import Cue
from avsep_zoo.cue_views import cue_views
from avsep_zoo.errors import CueError
from avsep_zoo.pictures import centre_view, normalise

if TYPE_CHECKING:
    from avsep_zoo.media import VideoSource

__all__ = ["ResNetEncoder"]


class ResNetEncoder(CueEncoder):
    """ResNet-18 on each frame, then the temporal transformer.

    Gives ``tokens`` (one per frame) and their mean, ``vector``; the order of the frames does not matter.

    Args:
        width: channels of the first ResNet stage; features have 8 times as many.
        frames: number of frames K around the centre of the segment.
        frame_rate: frames per second they are taken at.
        image_size: pixels of the square input.
        first_frame: keep only the first frame (the published code).
        frozen: train no ResNet parameter (its batch-norm statistics still move, as published).
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
        first_frame: bool = True,
        frozen: bool = True,
        heads: int = 8,
        feedforward: int = 512,
        encoder_layers: int = 3,
        decoder_layers: int = 1,
        dropout: float = 0.1,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        plan = self.plan(width=width, classes=classes)
        self.reads, self.optional, self.gives = plan.reads, plan.optional, plan.gives
        self.frames, self.frame_rate, self.image_size = frames, frame_rate, image_size
        self.first_frame, self.taught = first_frame, tuple(classes)
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
    def plan(cls, *, width: int = 64, classes: Sequence[str] = (), **_: Any) -> EncoderPlan:
        """Frames, and in training labels, where classes are taught."""
        taught = frozenset({"label"} if classes else ())
        return EncoderPlan(frozenset({"frames"}) | taught, {"vector": 8 * width, "tokens": 8 * width}, taught)

    def forward(self, cues: CueBatch) -> Embedding:
        """Encode frames (B, N, 3, K, H, W)."""
        frames = cues.get("frames")
        if frames is None:
            raise CueError("This model needs frames of every source; give frames, or a video with boxes.")
        batch = len(frames)
        tokens = self.look(rearrange(frames, "b n c k h w -> (b n) c k h w"))
        tokens = rearrange(tokens, "(b n) k d -> b n k d", b=batch)
        return Embedding(vector=tokens.mean(dim=2), tokens=tokens)

    def look(self, frames: Tensor) -> Tensor:
        """(B, 3, K, H, W) -> (B, K, D)."""
        maps = self.features(rearrange(frames, "b c k h w -> (b k) c h w"))
        tokens = rearrange(maps.mean(dim=(2, 3)), "(b k) d -> b k d", b=len(frames))
        return self.temporal(tokens[:, :1] if self.first_frame else tokens)

    def recognition_loss(self, cues: CueBatch) -> Tensor:
        """Cross-entropy of the classes recognised from frames, over the sources whose label is taught."""
        label = cues.get("label")
        if self.recogniser is None or label is None:
            return torch.zeros((), device=next(self.parameters()).device)
        label = torch.where(cues.has("label").to(label.device), label, -1)
        logits = self.recogniser(self(cues).vector).float()
        loss = F.cross_entropy(logits.flatten(0, 1), label.flatten(), ignore_index=-1, reduction="sum")
        return loss / (label >= 0).sum().clamp_min(1)

    def prepare(self, cues: Sequence[Cue], *, video: VideoSource | None, time: float) -> CueBatch:
        offsets = np.arange(self.frames) - self.frames // 2
        times = [time + float(o) / self.frame_rate for o in offsets]
        pictures = [
            normalise([centre_view(view, self.image_size) for view in cue_views(cue, video, times)]) for cue in cues
        ]
        values: dict[str, Any] = {"frames": torch.from_numpy(np.stack(pictures))[None]}
        if self.taught and self.training:
            known = [self.taught.index(cue.label) if cue.label in self.taught else -1 for cue in cues]
            values["label"] = torch.tensor([known])
        return CueBatch(values)
