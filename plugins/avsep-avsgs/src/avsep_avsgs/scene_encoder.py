"""Cues as the nodes of a graph: the object that sounds, what is around it, in training more objects and the scene."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from avsep_avsgs.scene_graph import Nodes, test_nodes, training_nodes
from avsep_zoo.contracts import CueBatch, CueEncoder, Embedding
from avsep_zoo.cue import Cue
from avsep_zoo.cued_object import CuedObject, check_apart, cued_object, detections_of
from avsep_zoo.data.detections import Detections
from avsep_zoo.data.reader import Protocol
from avsep_zoo.errors import CueError

if TYPE_CHECKING:
    from avsep_zoo.media import VideoSource

__all__ = ["MISSING", "UNNAMED", "Look", "SceneEncoder"]

MISSING, UNNAMED = -1, -2


@dataclass(frozen=True, eq=False)
class Look:
    """The detections that a cue means something of, what becomes nodes, and whether its class told the object."""

    found: Detections
    nodes: Nodes
    by_label: bool = False


class SceneEncoder(CueEncoder):
    """Nodes of the graph of each recording as tokens; a subclass says what stands for a node.

    A cue is one recording. In use its nodes are the object that it means and the objects around it. In training they
    are up to ``objects`` of those that sound in it, what is around them, and with ``scene`` one for the whole scene;
    then the cues have ``objects`` (B, N, S), S being ``objects`` and one for the scene: the class of each sound
    counted from 1, 0 for the scene, -1 where there is none and -2 where its class is unknown; and ``node_classes``
    (B, N, K), that of each node, 0 for what is around objects.

    Source: Chatterjee et al., Visual Scene Graphs for Audio Source Separation, ICCV 2021, section 3.1.

    Args:
        objects: sounding objects of a training graph.
        scene: have a node for the scene in training graphs, and a sound of its own, the background.
        classes: class names, for the losses that go by them.
        drop_context: share of the surroundings that is left out in training, at random.
        protocol: ``paper`` keeps what published graphs have twice.
        nodes: most nodes of a graph; what is around an object is left out first.
    """

    per_clip = True
    shows: str  # the modality that nodes are prepared as

    def __init__(
        self,
        *,
        objects: int = 2,
        scene: bool = True,
        classes: Sequence[str] = (),
        drop_context: float = 0.0,
        protocol: Protocol = "default",
        nodes: int = 24,
    ) -> None:
        super().__init__()
        if objects < 1 or nodes < objects + 1 or not 0 <= drop_context <= 1:
            raise ValueError(
                f"There are {objects} objects among {nodes} nodes and {drop_context} of the surroundings is dropped; "
                "give at least one object, more nodes than objects, and a share."
            )
        if protocol not in ("default", "paper"):
            raise ValueError(f"The protocol is {protocol!r}; give default or paper.")
        self.objects, self.scene, self.classes = objects, scene, tuple(classes)
        self.drop_context, self.nodes = drop_context, nodes
        self.protocol: Protocol = protocol

    @abstractmethod
    def embed_nodes(self, nodes: Tensor) -> Tensor:
        """Nodes as they were prepared (M, ...) -> (M, D)."""

    @abstractmethod
    def _show(self, cue: Cue, look: Look | None, video: VideoSource | None, time: float) -> np.ndarray:
        """float32 (K, ...): what stands for each node; where there is no object for the pictures as a whole."""

    def forward(self, cues: CueBatch) -> Embedding:
        """Encode nodes (B, N, ..., K); the mask (B, N, K) is infinite where there is none."""
        shown = cues.get(self.shows)
        if shown is None:
            raise CueError("This model needs what was detected in each recording; give detections, boxes or frames.")
        mask = cues.get(f"{self.shows}_mask")
        nodes = rearrange(shown, "b n ... k -> b n k ...")
        present = torch.ones(nodes.shape[:3], dtype=torch.bool) if mask is None else ~torch.isinf(mask)
        embedded = self.embed_nodes(nodes[present.to(nodes.device)].contiguous())
        tokens = embedded.new_zeros(*nodes.shape[:3], embedded.shape[-1])
        tokens[present.to(nodes.device)] = embedded
        bias = torch.zeros(present.shape, device=tokens.device).masked_fill(~present.to(tokens.device), -torch.inf)
        return Embedding(tokens=tokens, tokens_bias=bias)

    def prepare(
        self,
        cues: Sequence[Cue],
        *,
        video: VideoSource | None,
        time: float,
        rng: np.random.Generator | None = None,
    ) -> CueBatch:
        rng = rng if self.training else None
        looks = [self._look(cue, time, rng) for cue in cues]
        if rng is None:
            objects = [None if look is None else CuedObject(look.found, look.nodes.objects[0]) for look in looks]
            check_apart(cues, objects, video if "frames" in self.reads else None)
        pairs = list(zip(cues, looks, strict=True))
        batch = CueBatch.stack([self._shown(*pair, video, time, taught=rng is not None) for pair in pairs])
        values = {name: rearrange(value, "n 1 ... -> 1 n ...") for name, value in batch.values.items()}
        used = [look is not None and cue.detections is not None for cue, look in pairs]
        named = [look is not None and look.by_label for look in looks]
        return CueBatch(values, {"detections": torch.tensor([used]), "label": torch.tensor([named])})

    def _look(self, cue: Cue, time: float, rng: np.random.Generator | None) -> Look | None:
        """What becomes nodes, with a generator those of a training graph; None: only the pictures as a whole can."""
        found = detections_of(cue)
        if rng is not None and found is not None and found.sounding:
            nodes = training_nodes(found, objects=self.objects, scene=self.scene, rng=rng, protocol=self.protocol)
            most = self.nodes - nodes.scene
            nodes = nodes.thinned(self.drop_context, most, rng)
            if len(nodes.rows) > most:  # published graphs may have an object in the context of another one, too
                nodes = replace(nodes, rows=np.array(list(dict.fromkeys(nodes.rows.tolist()))))
            return Look(found, nodes)
        meant = cued_object(cue, found, time)
        if meant is None:
            return None
        nodes = test_nodes(meant.found, meant.row)
        return Look(meant.found, replace(nodes, rows=nodes.rows[: self.nodes]), meant.by_label)

    def _shown(self, cue: Cue, look: Look | None, video: VideoSource | None, time: float, *, taught: bool) -> CueBatch:
        shown = self._show(cue, look, video, time)
        values: dict[str, Any] = {
            "detections": torch.tensor([[0 if look is None else len(look.found)]]),
            self.shows: torch.from_numpy(np.moveaxis(shown, 0, -1).copy())[None, None],
            f"{self.shows}_mask": torch.zeros(1, 1, len(shown)),
        }
        if taught:
            values["objects"] = torch.tensor([[self._sounds(cue, None if look is None else look.nodes)]])
            values["node_classes"] = torch.tensor([[self._node_classes(look, len(shown))]])
        else:
            values["object_box"] = torch.tensor([[_place(look, time)]], dtype=torch.float64)
        return CueBatch(values)

    def _node_classes(self, look: Look | None, shown: int) -> list[int]:
        """Class of each node, 0 for what is around objects; unknown where some of it has no pixel to be shown."""
        if look is None or len(look.nodes.rows) + look.nodes.scene != shown:
            return [UNNAMED] * shown
        known = dict(zip(look.nodes.objects, look.nodes.labels, strict=True))
        labels = [known.get(int(row), "") for row in look.nodes.rows]
        classes = [0 if name == "" else self._class(name) for name in labels]
        return [*classes, UNNAMED] if look.nodes.scene else classes

    def _class(self, label: str | None) -> int:
        return self.classes.index(label) + 1 if label in self.classes else UNNAMED

    def _sounds(self, cue: Cue, nodes: Nodes | None) -> list[int]:
        labels = (None,) if nodes is None else nodes.labels
        labels = (cue.label,) if labels == (None,) else labels
        known = [self._class(label) for label in labels]
        sounds = [*known, *[MISSING] * (self.objects - len(known))][: self.objects]
        return [*sounds, 0 if nodes is not None and nodes.scene else MISSING] if self.scene else sounds


def _place(look: Look | None, time: float) -> list[float]:
    """When an object was looked at and its box; NaN where the whole picture was."""
    if look is None:
        return [float("nan")] * 5
    row = look.nodes.objects[0]
    when = time if look.found.times is None else float(look.found.times[row])
    return [when, *look.found.boxes[row].tolist()]
