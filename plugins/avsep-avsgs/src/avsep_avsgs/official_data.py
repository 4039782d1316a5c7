"""What is published about training samples: segments of sound, their mixture, and graphs as flat lists of nodes.

A sample is a few recordings whose sounds are mixed. Source: Chatterjee et al., "Visual Scene Graphs for Audio Source
Separation", ICCV 2021, and the code that goes with it; where the paper leaves something open, the rules here are those
of the code, odd ones included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avsep_avsgs.scene_graph import Nodes
from avsep_zoo.data.detections import Detections
from avsep_zoo.errors import DataError

__all__ = ["FlatGraphs", "collate_graphs", "sample_graphs", "sample_mixture", "training_segment"]


@dataclass(frozen=True, eq=False)
class FlatGraphs:
    """The graphs of several recordings in one list of nodes, and the sounds to separate in one list of rows.

    The rows of a recording are its objects, as many as a recording can have, and then the background if graphs have a
    scene. For each object that is missing there is a row that counts for nothing, and a node of zeros that is in no
    graph.

    Args:
        nodes: float32 (M, D).
        graph: int64 (M,): the graph of each node, from 1; 0 for nodes of zeros.
        edges: int64 (2, E): from, to. Complete graphs with loops, the first end slowest.
        labels: int64 (R,): class of each row from 1, 0 for the background and for objects that are missing.
        counts: float32 (R,): 0 where an object is missing, otherwise 1 (also for the background).
        recordings: int64 (R,): the recording of each row, from 0.
    """

    nodes: np.ndarray
    graph: np.ndarray
    edges: np.ndarray
    labels: np.ndarray
    counts: np.ndarray
    recordings: np.ndarray


def training_segment(sound: np.ndarray, length: int, rng: np.random.Generator, *, augment: bool = True) -> np.ndarray:
    """Draw float32 (length,) from a mono sound (samples,), which is repeated where it is too short.

    Args:
        sound: float, in [-1, 1].
        length: samples.
        rng: draws the start and the factor.
        augment: change the level by a factor from 0.5 to 1.5, and clip to [-1, 1].

    Raises:
        DataError: the sound is empty.
    """
    if len(sound) == 0:
        raise DataError("The sound is empty and no segment can be drawn from it; remove its recording.")
    if len(sound) < length:
        sound = np.tile(sound, length // len(sound) + 1)
    start = int(rng.integers(len(sound) - length + 1))
    segment = sound[start : start + length].astype(np.float32)
    return (segment * np.float32(rng.uniform(0.5, 1.5))).clip(-1.0, 1.0) if augment else segment


def sample_mixture(segments: Sequence[np.ndarray]) -> np.ndarray:
    """The mixture (length,) of the sounds of a sample: their mean; for the losses the sounds keep their full level."""
    return np.stack(segments).sum(axis=0) / np.float32(len(segments))


def sample_graphs(
    recordings: Sequence[tuple[Detections, Nodes]], *, objects: int, classes: Sequence[str]
) -> FlatGraphs:
    """Return the training graphs of one sample.

    Args:
        recordings: detections with features, and which of them are nodes
            (:func:`avsep_avsgs.scene_graph.training_nodes`).
        objects: how many objects a recording can have.
        classes: names of the classes, class 1 first.

    Raises:
        DataError: detections have no features, or no scene where it is a node, or a class has no number.
    """
    nodes: list[np.ndarray] = []
    graph: list[int] = []
    edges = [np.zeros((2, 0), dtype=np.int64)]
    labels: list[int] = []
    for number, (found, chosen) in enumerate(recordings, 1):
        missing = objects - len(chosen.labels)
        rows = _features(found, chosen)  # (K, D), the scene last
        last = len(rows) - chosen.scene
        member = [number] * last + [0] * missing + [number] * chosen.scene
        real = len(graph) + np.flatnonzero(member)
        edges.append(np.stack([np.repeat(real, len(real)), np.tile(real, len(real))]))
        nodes += [rows[:last], np.zeros((missing, rows.shape[1]), dtype=np.float32), rows[last:]]
        graph += member
        labels += [_number(label, classes) for label in chosen.labels] + [-1] * missing + [0] * chosen.scene
    each = len(labels) // max(1, len(recordings))
    return FlatGraphs(
        np.concatenate(nodes),
        np.array(graph, dtype=np.int64),
        np.concatenate(edges, axis=1),
        np.maximum(labels, 0).astype(np.int64),
        (np.array(labels) >= 0).astype(np.float32),
        np.repeat(np.arange(len(recordings)), each),
    )


def collate_graphs(samples: Sequence[FlatGraphs]) -> FlatGraphs:
    """Join the graphs of several samples into a batch.

    As published, the nodes of a sample are counted by its last edge. Without scenes, a sample that ends with nodes of
    zeros leaves the edges behind it at the wrong nodes.
    """
    ends = [0, *np.cumsum([sample.edges.max(initial=-1) + 1 for sample in samples])]
    graphs = [0, *np.cumsum([sample.graph.max(initial=0) for sample in samples])]
    recordings = [0, *np.cumsum([sample.recordings.max(initial=-1) + 1 for sample in samples])]
    return FlatGraphs(
        np.concatenate([sample.nodes for sample in samples]),
        np.concatenate([np.where(one.graph > 0, one.graph + g, 0) for one, g in zip(samples, graphs, strict=False)]),
        np.concatenate([one.edges + end for one, end in zip(samples, ends, strict=False)], axis=1),
        np.concatenate([sample.labels for sample in samples]),
        np.concatenate([sample.counts for sample in samples]),
        np.concatenate([one.recordings + r for one, r in zip(samples, recordings, strict=False)]),
    )


def _features(found: Detections, chosen: Nodes) -> np.ndarray:
    if found.features is None:
        raise DataError("The detections have no features and the nodes of a graph are made of them; give ones that do.")
    rows = found.features[chosen.rows]
    if not chosen.scene:
        return rows
    if found.scene is None:
        raise DataError("The detections have no feature of the scene; give ones that do, or leave the scene out.")
    return np.concatenate([rows, found.scene[None]])


def _number(label: str | None, classes: Sequence[str]) -> int:
    if label is None or label not in classes:
        raise DataError(f"The class {label!r} has no number; give one of {', '.join(classes)}.")
    return list(classes).index(label) + 1
