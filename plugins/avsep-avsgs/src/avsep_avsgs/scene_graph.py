"""Which boxes become the nodes of a scene graph: objects that sound, and what they overlap with (their context).

Source: Chatterjee et al., "Visual Scene Graphs for Audio Source Separation", ICCV 2021. All nodes of a recording are
joined to each other (:func:`avsep_avsgs.graph.complete_graphs`), so a graph is no more than a list of rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from avsep_zoo.boxes import overlaps
from avsep_zoo.data.detections import Detections, Sounding
from avsep_zoo.errors import DataError

__all__ = ["Nodes", "context_rows", "test_nodes", "training_nodes"]


@dataclass(frozen=True, eq=False)
class Nodes:
    """The nodes of one graph, in order.

    Args:
        rows: int64 (K,): the boxes that are nodes, as rows of the detections. In a training graph the context of an
            object goes before it, in a test graph after it.
        scene: whether one more node, which is no box but the whole picture, comes last.
        labels: class of each object whose sound is asked for, in the order of the sources that the graph is unrolled
            to; None where it is unknown. The scene is no object and the last of the sources, as the background.
        objects: their rows.
    """

    rows: np.ndarray
    scene: bool
    labels: tuple[str | None, ...]
    objects: tuple[int, ...] = ()

    def thinned(self, share: float, most: int, rng: np.random.Generator) -> Nodes:
        """Leave a share of the context out, at random, and what is more than ``most`` boxes; objects stay."""
        dropped = rng.random(len(self.rows)) < share
        kept = np.isin(self.rows, self.objects) | ~dropped
        for place in np.flatnonzero(kept & ~np.isin(self.rows, self.objects))[::-1]:
            if kept.sum() <= most:
                break
            kept[place] = False
        return replace(self, rows=self.rows[kept])


def context_rows(found: Detections, row: int, *, min_score: float = 0.4, min_overlap: float = 0.1) -> np.ndarray:
    """Return the context of an object, int64 (C,) in the order of the detector.

    They are the boxes of the same frame that are of another class, are sure (score above ``min_score``) and touch the
    object (intersection over union above ``min_overlap``).

    Raises:
        DataError: there is no such row.
    """
    _check(found, row)
    candidates = found.scores > min_score
    candidates &= (found.frames == found.frames[row]) & (found.classes != found.classes[row])
    rows = np.flatnonzero(candidates)
    boxes = found.boxes.astype(np.float64)
    return rows[overlaps(boxes[row], boxes[rows]) > min_overlap]


def training_nodes(
    found: Detections,
    *,
    objects: int,
    scene: bool,
    rng: np.random.Generator,
    protocol: Literal["default", "paper"] = "default",
    min_score: float = 0.4,
    min_overlap: float = 0.1,
) -> Nodes:
    """Return the graph of several objects that sound: the context of each before it, and the scene last.

    Args:
        found: with what is known to sound.
        objects: how many are kept at most, each of another class, in the order the classes are listed in. Which object
            stands for a class is drawn; objects of unknown class are each taken for one of their own.
        scene: whether to add the scene.
        rng: draws the objects.
        protocol: ``paper`` repeats a box that two objects are in touch with, and an object in another one's context,
            as published; otherwise each box is one node.
        min_score: of a context (:func:`context_rows`).
        min_overlap: of a context with its object.

    Raises:
        DataError: an object that sounds is not among the boxes.
    """
    kept = [group[int(rng.integers(len(group)))] for group in _by_class(found.sounding)[:objects]]
    parts: list[int] = []
    for one in kept:
        parts += [*context_rows(found, one.row, min_score=min_score, min_overlap=min_overlap).tolist(), one.row]
    if protocol == "default":
        parts = list(dict.fromkeys(parts))
    labels, rows = tuple(one.label for one in kept), tuple(one.row for one in kept)
    return Nodes(np.array(parts, dtype=np.int64), scene, labels, rows)


def test_nodes(found: Detections, row: int | None = None, *, min_score: float = 0.4, min_overlap: float = 0.1) -> Nodes:
    """Return the graph of one object to separate: the object and then its context; there is no scene, as published.

    Args:
        found: what was detected.
        row: of the object; None is the first one that is known to sound.
        min_score: of a context (:func:`context_rows`).
        min_overlap: of a context with its object.

    Raises:
        DataError: there is no such row, or nothing is known to sound and no row is given.
    """
    if row is None:
        if not found.sounding:
            raise DataError(f"Which of the {len(found)} detected boxes sounds is not known; give the row of one.")
        row = found.sounding[0].row
    context = context_rows(found, row, min_score=min_score, min_overlap=min_overlap)
    label = next((one.label for one in found.sounding if one.row == row), None)
    return Nodes(np.concatenate(([row], context)).astype(np.int64), False, (label,), (row,))


def _by_class(sounding: tuple[Sounding, ...]) -> list[list[Sounding]]:
    """What sounds, by class, in the order the classes are listed in."""
    groups: dict[str | int, list[Sounding]] = {}
    for number, one in enumerate(sounding):
        groups.setdefault(number if one.label is None else one.label, []).append(one)
    return list(groups.values())


def _check(found: Detections, row: int) -> None:
    if not 0 <= row < len(found):
        raise DataError(f"Row {row} is not among the {len(found)} detected boxes; give the row of one of them.")
