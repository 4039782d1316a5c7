"""Published training samples: segments of sound, mixtures, and graphs as flat lists."""

from __future__ import annotations

import numpy as np
import pytest

from avsep_avsgs.official_data import FlatGraphs, collate_graphs, sample_graphs, sample_mixture, training_segment
from avsep_avsgs.scene_graph import Nodes
from avsep_zoo.data.detections import Detections
from avsep_zoo.errors import DataError

CLASSES = ("bell", "dog", "train")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def found(boxes: int = 4, *, first: float = 1.0, scene: bool = True, features: bool = True) -> Detections:
    """Boxes with the features (first + row, 0), and -1, -1 for the scene."""
    rows = np.zeros((boxes, 2), dtype=np.float32)
    rows[:, 0] = first + np.arange(boxes)
    zeros = np.zeros(boxes, dtype=np.int64)
    return Detections(
        zeros,
        zeros,
        np.ones(boxes),
        np.zeros((boxes, 4)),
        rows if features else None,
        np.full(2, -1, dtype=np.float32) if scene else None,
    )


def nodes(*rows: int, labels: tuple[str | None, ...], scene: bool = True) -> Nodes:
    return Nodes(np.array(rows, dtype=np.int64), scene, labels)


def two_videos(*, scene: bool = True) -> FlatGraphs:
    """Two objects with a context in the first one; one object, and one missing, in the second."""
    one = found(), nodes(2, 0, 1, labels=("dog", "bell"), scene=scene)
    two = found(first=10.0), nodes(3, labels=("train",), scene=scene)
    return sample_graphs([one, two], objects=2, classes=CLASSES)


def test_a_segment_of_a_long_sound() -> None:
    """Every start is possible, the last one too."""
    sound = np.arange(7, dtype=np.float32) / 10
    starts = {float(training_segment(sound, 5, rng(seed), augment=False)[0]) for seed in range(40)}
    assert starts == {0.0, np.float32(0.1), np.float32(0.2)}
    segment = training_segment(sound, 5, rng(), augment=False)
    np.testing.assert_allclose(np.diff(segment), 0.1, atol=1e-6)
    assert segment.dtype == np.float32
    np.testing.assert_array_equal(training_segment(sound, 7, rng(), augment=False), sound)


def test_a_short_sound_is_repeated() -> None:
    """Once more than it fits, so that the segment may begin anywhere in the rest."""
    sound = np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32)
    segments = {tuple(np.round(training_segment(sound, 6, rng(s), augment=False) * 10).astype(int)) for s in range(40)}
    assert segments == {(1, 2, 3, 4, 1, 2), (2, 3, 4, 1, 2, 3), (3, 4, 1, 2, 3, 4)}
    np.testing.assert_array_equal(training_segment(sound[:1], 5, rng(), augment=False), sound[[0, 0, 0, 0, 0]])


def test_the_level_is_changed_and_clipped() -> None:
    """By a factor from 0.5 to 1.5."""
    quiet, loud = np.full(4, 0.1, dtype=np.float32), np.array([0.9, -0.9, 0.9, -0.9], dtype=np.float32)
    levels = [float(training_segment(quiet, 4, rng(seed))[0]) for seed in range(100)]
    assert 0.05 <= min(levels) < 0.06 and 0.14 < max(levels) < 0.15
    peaks = [np.abs(training_segment(loud, 4, rng(seed))) for seed in range(100)]
    assert max(float(peak.max()) for peak in peaks) == 1.0
    assert training_segment(loud.astype(np.float64), 4, rng()).dtype == np.float32


def test_no_segment_of_nothing() -> None:
    with pytest.raises(DataError, match="The sound is empty and no segment can be drawn"):
        training_segment(np.zeros(0, dtype=np.float32), 4, rng())


def test_the_mixture_is_the_mean() -> None:
    sounds = [np.full(3, level, dtype=np.float32) for level in (0.1, 0.4, 1.0)]
    mixture = sample_mixture(sounds)
    np.testing.assert_allclose(mixture, 0.5, atol=1e-6)
    assert mixture.dtype == np.float32


def test_nodes_of_a_sample() -> None:
    """Those of a recording, zeros for objects that are missing, the scene; rows follow the same order."""
    sample = two_videos()
    np.testing.assert_array_equal(sample.nodes[:, 0], [3, 1, 2, -1, 13, 0, -1])
    assert sample.graph.tolist() == [1, 1, 1, 1, 2, 0, 2]
    assert sample.labels.tolist() == [2, 1, 0, 3, 0, 0]
    assert sample.counts.tolist() == [1, 1, 1, 1, 0, 1]
    assert sample.recordings.tolist() == [0, 0, 0, 1, 1, 1]
    assert (sample.nodes.dtype, sample.labels.dtype) == (np.dtype("float32"), np.dtype("int64"))


def test_graphs_are_complete() -> None:
    """With loops, over the nodes of a recording without zeros; the first end is the slow one."""
    edges = two_videos().edges
    assert edges.T.tolist() == [[u, v] for group in ((0, 1, 2, 3), (4, 6)) for u in group for v in group]


def test_without_scenes() -> None:
    """There is no row for the background either."""
    sample = two_videos(scene=False)
    np.testing.assert_array_equal(sample.nodes[:, 0], [3, 1, 2, 13, 0])
    assert sample.labels.tolist() == [2, 1, 3, 0]
    assert sample.counts.tolist() == [1, 1, 1, 0]
    assert sample.graph.tolist() == [1, 1, 1, 2, 0]
    assert sample.edges.max() == 3


def test_a_batch_counts_on() -> None:
    """Nodes, graphs and recordings; nodes of zeros stay in no graph."""
    one, two = two_videos(), two_videos()
    batch = collate_graphs([one, two])
    assert batch.graph.tolist() == [1, 1, 1, 1, 2, 0, 2, 3, 3, 3, 3, 4, 0, 4]
    np.testing.assert_array_equal(batch.edges, np.concatenate([one.edges, two.edges + 7], axis=1))
    np.testing.assert_array_equal(batch.nodes, np.concatenate([one.nodes, two.nodes]))
    assert batch.recordings.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert batch.labels.tolist() == one.labels.tolist() * 2
    assert batch.counts.tolist() == one.counts.tolist() * 2
    for node, graph in zip(batch.edges[0], batch.graph[batch.edges[1]], strict=True):
        assert batch.graph[node] == graph != 0


def test_nodes_are_counted_by_the_last_edge() -> None:
    """As published: without scenes, zeros at the end of a sample are not counted."""
    one, two = two_videos(scene=False), two_videos(scene=False)
    batch = collate_graphs([one, two])
    assert len(one.nodes) == 5
    np.testing.assert_array_equal(batch.edges[:, one.edges.shape[1] :], two.edges + 4)


def test_recordings_without_any_object() -> None:
    """Have the scene, or nothing at all."""
    alone = sample_graphs([(found(), nodes(labels=()))], objects=2, classes=CLASSES)
    assert (alone.graph.tolist(), alone.counts.tolist()) == ([0, 0, 1], [0, 0, 1])
    assert alone.edges.tolist() == [[2], [2]]
    empty = sample_graphs([(found(), nodes(labels=(), scene=False))], objects=1, classes=CLASSES)
    assert (empty.graph.tolist(), empty.edges.shape) == ([0], (2, 0))
    assert collate_graphs([empty, alone]).edges.tolist() == [[2], [2]]


@pytest.mark.parametrize(
    ("detections", "label", "why"),
    [
        (found(features=False), "dog", "have no features"),
        (found(scene=False), "dog", "have no feature of the scene"),
        (found(), "cat", "The class 'cat' has no number; give one of bell, dog, train"),
        (found(), None, "The class None has no number"),
    ],
)
def test_what_a_sample_needs(detections: Detections, label: str | None, why: str) -> None:
    with pytest.raises(DataError, match=why):
        sample_graphs([(detections, nodes(0, labels=(label,)))], objects=2, classes=CLASSES)
