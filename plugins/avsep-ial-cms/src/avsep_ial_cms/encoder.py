"""IAL-CMS' cue encoder: a detected object in one picture becomes a map.

Source: Independency Adversarial Learning for Cross-Modal Sound Separation, AAAI 2024, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from avsep_ial_cms.deeplab import DeepLab
from avsep_ial_cms.views import object_view, seen_region
from avsep_zoo.contracts import CueBatch, CueEncoder, Embedding, EncoderPlan
from avsep_zoo.cue import Cue
from avsep_zoo.cue_views import cue_pictures
from avsep_zoo.cued_object import check_apart, cued_object, detections_of
from avsep_zoo.errors import CueError

if TYPE_CHECKING:
    from avsep_zoo.media import VideoSource

__all__ = ["DeepLabEncoder"]


class DeepLabEncoder(CueEncoder):
    """What a box shows, in one picture per segment, as a map of unit vectors (:class:`~avsep_ial_cms.deeplab.DeepLab`).

    Conditioners that want a vector get the largest values of the map.

    A cue means what lies in its box, or one of the objects that were detected in its pictures
    (:func:`avsep_zoo.cued_object.cued_object`); without both, its pictures as a whole. The picture is the one nearest
    to the middle of the segment, or of the detection.

    Cues hold ``frames`` (B, N, 3, h, w), and in training ``label`` (B, N), the position of the class in ``classes``,
    -1 where it is unknown. ``map_region`` (B, N, 5) says what the map shows, ``object_box`` (B, N, 5) the box.

    Args:
        width, pyramid, dilations, details, space, frozen: as :class:`~avsep_ial_cms.deeplab.DeepLab`.
        image_size: pixels of the side of a view; a multiple of 16.
        antialias: filter boxes that are made smaller; the published code did not.
        image_weights: what a training run starts the ResNet from (:meth:`load_pretrained`): torchvision's
            ``resnet18-f37072fd.pth`` or any file with its entries, or ``org/name@commit``; needed where it is frozen.
        classes: class names, for the losses that go by them; nothing else does.
    """

    frames = 1

    def __init__(
        self,
        *,
        width: int = 64,
        pyramid: int = 256,
        dilations: Sequence[int] = (1, 3, 6, 9),
        details: int = 48,
        space: int = 512,
        frozen: bool = True,
        image_size: int = 224,
        antialias: bool = False,
        image_weights: str | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if image_size < 16 or image_size % 16:
            raise ValueError(f"image_size is {image_size}; give a multiple of 16.")
        plan = self.plan(space=space)
        self.reads, self.optional, self.gives = plan.reads, plan.optional, plan.gives
        self.image_size, self.antialias, self.image_weights = image_size, antialias, image_weights
        self.frozen, self.classes = frozen, tuple(classes)
        self.network = DeepLab(
            width=width, pyramid=pyramid, dilations=dilations, details=details, space=space, frozen=frozen
        )

    @classmethod
    def plan(cls, *, space: int = 512, **_: Any) -> EncoderPlan:
        """Pictures, and where objects are in them."""
        gives = {"map": space, "vector": space}
        return EncoderPlan(frozenset({"frames", "detections"}), gives, frozenset({"detections"}))

    def forward(self, cues: CueBatch) -> Embedding:
        frames = cues.get("frames")
        if frames is None:
            raise CueError("This model needs to see every source; give frames, or a video with boxes.")
        maps: Tensor = self.network(rearrange(frames, "b n ... -> (b n) ..."))
        maps = rearrange(maps, "(b n) ... -> b n ...", b=len(frames))
        return Embedding(vector=maps.amax(dim=(3, 4)), map=maps)

    def prepare(
        self,
        cues: Sequence[Cue],
        *,
        video: VideoSource | None,
        time: float,
        rng: np.random.Generator | None = None,
    ) -> CueBatch:
        rng = rng if self.training else None
        objects = [cued_object(cue, detections_of(cue), time) for cue in cues]
        if rng is None:
            check_apart(cues, objects, video)
        shown, places, regions = [], [], []
        for cue, meant in zip(cues, objects, strict=True):
            moment = time if meant is None else meant.time(time)
            picture = cue_pictures(cue, video, [moment])[0]
            box = None if meant is None else meant.box
            shown.append(object_view(picture, box, self.image_size, antialias=self.antialias, rng=rng))
            height, width = picture.shape[:2]
            places.append([moment, *([float("nan")] * 4 if box is None else box)])
            regions.append([moment, *seen_region(box, self.image_size, width=width, height=height)])
        values: dict[str, Any] = {"frames": torch.stack(shown)[None]}
        if rng is None:
            values["object_box"] = torch.tensor([places], dtype=torch.float64)
            values["map_region"] = torch.tensor([regions], dtype=torch.float64)
        elif self.classes:
            known = [self.classes.index(cue.label) if cue.label in self.classes else -1 for cue in cues]
            values["label"] = torch.tensor([known])
        used = [meant is not None and cue.detections is not None for cue, meant in zip(cues, objects, strict=True)]
        named = [meant is not None and meant.by_label for meant in objects]
        present = {"detections": torch.tensor([used])} | ({"label": torch.tensor([named])} if rng is None else {})
        return CueBatch(values, present)

    def load_pretrained(self) -> None:
        """Load ImageNet's weights into the ResNet, if it is frozen or they are named.

        Raises:
            WeightsError: it is frozen and they are not named, they cannot be had, or they do not fit.
        """
        from avsep_zoo.weights.pretrained import load_resnet

        load_resnet(self.network.features, self.image_weights, frozen=self.frozen)
