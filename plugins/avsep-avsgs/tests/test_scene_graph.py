"""Which boxes become nodes: overlaps, the context of an object, graphs to train on and to separate with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from avsep_avsgs import scene_graph
from avsep_avsgs.scene_graph import Nodes, context_rows, training_nodes
from avsep_zoo.boxes import overlaps
from avsep_zoo.data.detections import Detections, Sounding
from avsep_zoo.errors import DataError

DOG, CAT, MAT = 1, 2, 3


def found(*rows: tuple[int, int, float, tuple[float, ...]], sounding: tuple[Sounding, ...] = ()) -> Detections:
    """Rows of frame, class, score and box."""
    frames, classes, scores, boxes = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Detections(
        np.array(frames, dtype=np.int64),
        np.array(classes, dtype=np.int64),
        np.array(scores, dtype=np.float64),
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        sounding=sounding,
    )


def scene(*sounding: Sounding) -> Detections:
    """A dog (row 1) and a cat (row 3) side by side on a mat (row 2) they both touch, but not each other."""
    return found(
        (0, MAT, 0.9, (50, 50, 60, 60)),
        (0, DOG, 0.9, (0, 0, 10, 10)),
        (0, MAT, 0.8, (5, 0, 25, 10)),
        (0, CAT, 0.9, (20, 0, 30, 10)),
        (1, DOG, 0.7, (20, 0, 30, 10)),
        sounding=sounding,
    )


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_overlaps() -> None:
    """Intersection over union; corners the wrong way round, and boxes without area, overlap with nothing."""
    box = np.array([0.0, 0.0, 10.0, 10.0])
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [0, 5, 5, 15], [10, 0, 20, 10], [10, 10, 0, 0], [3, 3, 3, 3]])
    np.testing.assert_allclose(overlaps(box, boxes), [1, 1 / 3, 25 / 125, 0, 0, 0])
    assert overlaps(np.zeros(4), np.zeros((1, 4))).tolist() == [0]
    assert overlaps(box, np.zeros((0, 4))).shape == (0,)


def test_overlap_counts_pixels_of_a_grid() -> None:
    """Boxes with whole corners, against sets of the cells they cover."""
    draw = rng()
    for _ in range(20):
        corners = np.sort(draw.integers(0, 12, (2, 2, 2)), axis=1)  # box, corner, axis
        cells = [{(x, y) for x in range(a[0], b[0]) for y in range(a[1], b[1])} for a, b in corners]
        wanted = len(cells[0] & cells[1]) / max(1, len(cells[0] | cells[1]))
        box, other = corners.reshape(2, 4).astype(float)
        assert overlaps(box, other[None])[0] == pytest.approx(wanted)


def test_the_context_is_what_the_object_touches() -> None:
    assert context_rows(scene(), 1).tolist() == [2]
    assert context_rows(scene(), 3).tolist() == [2]
    assert context_rows(scene(), 0).tolist() == []
    context = context_rows(scene(), 2)
    assert (context.tolist(), context.dtype) == ([1, 3], np.dtype("int64"))


@pytest.mark.parametrize(
    ("changed", "context"),
    [
        ({"frames": 1}, []),
        ({"classes": DOG}, []),
        ({"scores": 0.4}, []),
        ({"scores": 0.41}, [1]),
        ({"scores": float("nan")}, []),
    ],
)
def test_context_is_sure_of_another_class_and_in_the_same_frame(changed: dict[str, float], context: list[int]) -> None:
    """The score has to be above the threshold, not at it."""
    boxes = found((0, DOG, 0.1, (0, 0, 10, 10)), (0, CAT, 0.9, (0, 0, 10, 10)))
    for name, value in changed.items():
        getattr(boxes, name)[1] = value
    assert context_rows(boxes, 0).tolist() == context


def test_thresholds_of_the_context() -> None:
    """Both are exclusive, and both can be set."""
    boxes = found((0, DOG, 0.9, (0, 0, 10, 10)), (0, CAT, 0.5, (5, 0, 10, 10)))  # half
    assert context_rows(boxes, 0, min_overlap=0.5).tolist() == []
    assert context_rows(boxes, 0, min_overlap=0.49).tolist() == [1]
    assert context_rows(boxes, 0, min_score=0.5).tolist() == []
    assert context_rows(boxes, 0, min_score=0.0).tolist() == [1]
    drawn = training_nodes(
        replace(boxes, sounding=(Sounding(0),)), objects=1, scene=False, rng=rng(), min_score=0.5, min_overlap=0.0
    )
    assert drawn.rows.tolist() == [0]
    assert scene_graph.test_nodes(boxes, 0, min_overlap=0.5).rows.tolist() == [0]


def test_a_training_graph() -> None:
    """Context before its object, and the scene last; a box that two objects touch is one node, or two as published."""
    both = scene(Sounding(3, "cat"), Sounding(1, "dog"))
    nodes = training_nodes(both, objects=2, scene=True, rng=rng())
    assert (nodes.rows.tolist(), nodes.scene, nodes.labels, nodes.objects) == ([2, 3, 1], True, ("cat", "dog"), (3, 1))
    assert nodes.rows.dtype == np.int64
    published = training_nodes(both, objects=2, scene=True, rng=rng(), protocol="paper")
    assert (published.rows.tolist(), published.labels) == ([2, 3, 2, 1], ("cat", "dog"))
    first = training_nodes(both, objects=1, scene=False, rng=rng(), protocol="paper")
    assert (first.rows.tolist(), first.scene, first.labels) == ([2, 3], False, ("cat",))


def test_an_object_in_another_ones_context() -> None:
    """Is one node, or two as published; so is a box that has two labels."""
    boxes = found((0, DOG, 0.9, (0, 0, 10, 10)), (0, CAT, 0.9, (0, 0, 10, 9)))
    boxes = replace(boxes, sounding=(Sounding(0, "dog"), Sounding(1, "cat"), Sounding(1, "kitten")))
    assert training_nodes(boxes, objects=3, scene=False, rng=rng()).rows.tolist() == [1, 0]
    published = training_nodes(boxes, objects=3, scene=False, rng=rng(), protocol="paper")
    assert published.rows.tolist() == [1, 0, 0, 1, 0, 1]


def test_each_object_of_a_class_is_drawn_equally_often() -> None:
    """Classes keep the order they are listed in, whichever object stands for them."""
    listed = tuple(Sounding(row, label) for row, label in ((4, "dog"), (3, "cat"), (1, "dog"), (0, "mat")))
    draws = [training_nodes(scene(*listed), objects=2, scene=True, rng=rng(seed)) for seed in range(60)]
    assert {nodes.labels for nodes in draws} == {("dog", "cat")}
    assert {nodes.objects for nodes in draws} == {(4, 3), (1, 3)}
    assert 20 <= sum(nodes.objects == (4, 3) for nodes in draws) <= 40
    again = training_nodes(scene(*listed), objects=2, scene=True, rng=rng(7))
    assert (again.objects, again.rows.tolist()) == (draws[7].objects, draws[7].rows.tolist())


def test_objects_of_unknown_class_are_not_taken_for_one() -> None:
    nodes = training_nodes(scene(Sounding(1), Sounding(3), Sounding(4)), objects=2, scene=True, rng=rng())
    assert (nodes.objects, nodes.labels) == ((1, 3), (None, None))


def test_nothing_sounds() -> None:
    """Then the scene is all there is to train on, and there is nothing to separate."""
    nodes = training_nodes(scene(), objects=2, scene=True, rng=rng())
    assert (nodes.rows.shape, nodes.scene, nodes.labels) == ((0,), True, ())
    with pytest.raises(DataError, match="Which of the 5 detected boxes sounds is not known; give the row"):
        scene_graph.test_nodes(scene())


def test_a_graph_to_separate_with() -> None:
    """The object comes first, then its context; there is no scene."""
    listed = scene(Sounding(3, "cat"), Sounding(1, "dog"))
    nodes = scene_graph.test_nodes(listed)
    assert (nodes.rows.tolist(), nodes.scene, nodes.labels, nodes.objects) == ([3, 2], False, ("cat",), (3,))
    assert nodes.rows.dtype == np.int64
    assert scene_graph.test_nodes(listed, 1).labels == ("dog",)
    other = scene_graph.test_nodes(listed, 4)
    assert (other.rows.tolist(), other.labels) == ([4], (None,))


@pytest.mark.parametrize("row", [-1, 5, 10**9])
def test_rows_that_are_not_there(row: int) -> None:
    """Also below 0, which would count from the end."""
    with pytest.raises(DataError, match=rf"Row {row} is not among the 5 detected boxes"):
        scene_graph.test_nodes(scene(), row)
    with pytest.raises(DataError, match=rf"Row {row} is not among"):
        training_nodes(scene(Sounding(row, "dog")), objects=2, scene=True, rng=rng())
    with pytest.raises(DataError, match="Row 0 is not among the 0 detected boxes"):
        context_rows(found(), 0)


def test_context_is_left_out_and_objects_stay() -> None:
    """A share of it at random, and the last of it where there is too much."""
    nodes = Nodes(np.array([5, 0, 6, 7, 1, 8]), True, ("cat", "dog"), (0, 1))
    assert nodes.thinned(1.0, 10, rng()).rows.tolist() == [0, 1]
    assert nodes.thinned(0.0, 6, rng()).rows.tolist() == nodes.rows.tolist()
    fewer = nodes.thinned(0.0, 4, rng())
    assert (fewer.rows.tolist(), fewer.scene, fewer.labels) == ([5, 0, 6, 1], True, ("cat", "dog"))
    sizes = {len(nodes.thinned(0.5, 10, rng(seed)).rows) for seed in range(50)}
    assert sizes == {2, 3, 4, 5, 6}
