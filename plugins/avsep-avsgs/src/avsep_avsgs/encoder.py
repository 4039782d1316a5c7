"""What stands for a node of a scene graph: the features of a detector, or what its boxes show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from avsep_avsgs.scene_encoder import Look, SceneEncoder
from avsep_zoo.blocks.resnet import ResNet18Features
from avsep_zoo.contracts import EncoderPlan
from avsep_zoo.cue import Cue
from avsep_zoo.cue_views import cue_pictures
from avsep_zoo.data.reader import Protocol
from avsep_zoo.errors import CueError
from avsep_zoo.pictures import crop, normalise

if TYPE_CHECKING:
    from avsep_zoo.media import VideoSource

__all__ = ["CropsEncoder", "DetectionsEncoder"]


class DetectionsEncoder(SceneEncoder):
    """Features of a detector, mapped by two linear layers.

    Source: Chatterjee et al., ICCV 2021, section 3.1.

    Cues hold ``detections`` (B, N, features, K).

    Args:
        features: width of the detector's features.
        hidden, width: of the map's layers.
        objects, scene, classes, drop_context, protocol, nodes: as :class:`~avsep_avsgs.scene_encoder.SceneEncoder`.
    """

    shows = "detections"

    def __init__(
        self,
        *,
        features: int = 2048,
        hidden: int = 1024,
        width: int = 512,
        objects: int = 2,
        scene: bool = True,
        classes: Sequence[str] = (),
        drop_context: float = 0.0,
        protocol: Protocol = "default",
        nodes: int = 64,
    ) -> None:
        super().__init__(
            objects=objects, scene=scene, classes=classes, drop_context=drop_context, protocol=protocol, nodes=nodes
        )
        plan = self.plan(width=width)
        self.reads, self.optional, self.gives = plan.reads, plan.optional, plan.gives
        self.features = features
        self.map = nn.Sequential(nn.Linear(features, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, width))

    @classmethod
    def plan(cls, *, width: int = 512, **_: Any) -> EncoderPlan:
        """Detections with features; one token per node."""
        return EncoderPlan(frozenset({"detections"}), {"tokens": width})

    def embed_nodes(self, nodes: Tensor) -> Tensor:
        return self.map(nodes)

    def _show(self, cue: Cue, look: Look | None, video: VideoSource | None, time: float) -> np.ndarray:
        if look is None and cue.detections is not None:
            raise CueError(f"Nothing was detected in the pictures of {cue.title!r}; give other detections.")
        if look is None or look.found.features is None:
            raise CueError(
                f"The cue {cue.title!r} has no detections with features and this model needs them; give "
                "Cue(detections=...) with features, or take a model that looks at the pictures itself."
            )
        found, nodes = look.found, look.nodes
        features = look.found.features
        if features.shape[1] != self.features:
            raise CueError(
                f"The detections of {cue.title!r} have {features.shape[1]} features and this model reads "
                f"{self.features}; take the detector it was trained with."
            )
        rows = features[nodes.rows]
        if nodes.scene:
            scene = features[0] if found.scene is None else found.scene
            rows = np.concatenate((rows, scene[None]))
        return rows.astype(np.float32)


class CropsEncoder(SceneEncoder):
    """ResNet-18 on what the boxes show; the scene is the picture as a whole.

    Source: the visual network of Gao and Grauman, Co-Separating Sounds of Visual Objects, ICCV 2019, which the code of
    AVSGS has, too.

    Cues hold ``frames`` (B, N, 3, h, w, K), and how many boxes were detected, ``detections`` (B, N).

    Args:
        width: channels of the first ResNet stage.
        image_size: pixels of the square that boxes are stretched to; a multiple of 32.
        reduced: channels that reach the last layer.
        features: width of a node.
        objects, scene, classes, drop_context, protocol, nodes: as :class:`~avsep_avsgs.scene_encoder.SceneEncoder`.
    """

    frames = 1
    shows = "frames"

    def __init__(
        self,
        *,
        width: int = 64,
        image_size: int = 224,
        reduced: int = 128,
        features: int = 512,
        objects: int = 2,
        scene: bool = True,
        classes: Sequence[str] = (),
        drop_context: float = 0.0,
        protocol: Protocol = "default",
        nodes: int = 24,
    ) -> None:
        super().__init__(
            objects=objects, scene=scene, classes=classes, drop_context=drop_context, protocol=protocol, nodes=nodes
        )
        if image_size < 32 or image_size % 32:
            raise ValueError(f"image_size is {image_size}; give a multiple of 32.")
        plan = self.plan(features=features)
        self.reads, self.optional, self.gives = plan.reads, plan.optional, plan.gives
        self.image_size = image_size
        self.features = ResNet18Features(width=width)
        conv = nn.Conv2d(self.features.channels, reduced, 1)
        norm = nn.BatchNorm2d(reduced)
        nn.init.normal_(conv.weight, 0.0, 0.02)
        nn.init.normal_(norm.weight, 1.0, 0.02)
        self.reduce = nn.Sequential(conv, norm, nn.ReLU())
        self.fc = nn.Linear(reduced * (image_size // 32) ** 2, features)

    @classmethod
    def plan(cls, *, features: int = 512, **_: Any) -> EncoderPlan:
        """Pictures, and where objects are in them, without which the whole picture counts."""
        return EncoderPlan(frozenset({"frames", "detections"}), {"tokens": features}, frozenset({"detections"}))

    def embed_nodes(self, nodes: Tensor) -> Tensor:
        return self.fc(self.reduce(self.features(nodes)).flatten(1))

    def _show(self, cue: Cue, look: Look | None, video: VideoSource | None, time: float) -> np.ndarray:
        moment = time
        if look is not None and look.found.times is not None:
            moment = float(look.found.times[look.nodes.objects[0]])
        picture = cue_pictures(cue, video, [moment])[0]
        boxes = [] if look is None else _boxes_in(picture, look, cue.title)
        if look is None or look.nodes.scene:
            boxes.append(None)
        size = (self.image_size, self.image_size)
        return normalise([crop(picture, box).resize(size) for box in boxes]).swapaxes(0, 1)


def _boxes_in(picture: np.ndarray, look: Look, title: str) -> list[list[float] | None]:
    """Boxes of the nodes; a part of the surroundings that has no pixel of the picture is left out."""
    boxes: list[list[float] | None] = []
    for row in look.nodes.rows:
        box = look.found.boxes[row].tolist()
        if _is_inside(box, picture):
            boxes.append(box)
        elif row in look.nodes.objects:
            raise CueError(
                f"The box {box} of {title!r} has no pixel of its picture of {picture.shape[1]} x {picture.shape[0]}; "
                "give x1, y1, x2, y2 in its pixels."
            )
    return boxes


def _is_inside(box: Sequence[float], picture: np.ndarray) -> bool:
    """Whether a box has a pixel of a picture (H, W, 3), its corners rounded as :func:`crop` rounds them."""
    x1, y1, x2, y2 = np.round(box).clip(0, (*picture.shape[1::-1], *picture.shape[1::-1]))
    return bool(x1 < x2 and y1 < y2)
