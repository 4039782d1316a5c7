"""Which detected object a cue means: by its box, by what sounds, by its class, and what cannot be told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from avsep_zoo.cue import Cue
from avsep_zoo.cued_object import CuedObject, cued_object
from avsep_zoo.data.detections import Detections, Sounding
from avsep_zoo.errors import CueError

FOUND = Detections(
    frames=np.array([1, 1, 1, 2, 2]),
    classes=np.array([1, 2, 1, 2, 1]),
    scores=np.array([0.6, 0.9, 0.8, 0.7, 0.5]),
    boxes=np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10], [80, 0, 90, 10.0]]),
    times=np.array([0.5, 0.5, 0.5, 1.5, 1.5]),
    names=("Cow Bell", "dog"),
)
FEATURES = replace(FOUND, features=np.arange(5, dtype=np.float32)[:, None])
NOTHING = FOUND.take(np.zeros(0, np.int64))


def meant(cue: Cue, found: Detections | None = FOUND, time: float = 0.0) -> CuedObject:
    result = cued_object(cue, found, time)
    assert result is not None
    return result


def box(result: CuedObject) -> list[float]:
    return result.found.boxes[result.row].tolist()


@pytest.mark.parametrize(
    ("cue", "time", "left", "by_label"),
    [
        (Cue(label="dog"), 0.0, 20, True),
        (Cue(label="dog"), 9.0, 60, True),
        (Cue(label="cow-bell"), 0.0, 40, True),
        (Cue(label="cow_bell"), 1.4, 80, True),
        (Cue(name="it", detections=FOUND), 0.0, 20, False),
        (Cue(name="it", detections=FOUND), 2.0, 60, False),
        (Cue(label="dog", box=(1, 0, 10, 10)), 0.0, 1, False),
        (Cue(boxes=[[0.0, 20, 0, 30, 10], [2.0, 60, 0, 70, 10]]), 8.0, 60, False),
    ],
)
def test_what_a_cue_means(cue: Cue, time: float, left: float, by_label: bool) -> None:
    """The best of its class in the frame nearest in time, or what is in its box; with what is seen beside it."""
    result = meant(cue, time=time)
    assert (box(result)[0], result.by_label) == (left, by_label)
    assert len(result.found) == (3 if left < 60 else 2) and len(set(result.found.frames)) == 1


def test_a_class_is_looked_for_in_other_frames() -> None:
    """Where the nearest one does not show it."""
    found = FOUND.take(np.array([0, 1, 4]))
    assert box(meant(Cue(label="dog"), found, time=9.0))[0] == 20


def test_times_of_a_boxed_cue_are_those_of_the_detections() -> None:
    """A moving box is taken from where it is when the nearest frame with detections is seen."""
    cue = Cue(boxes=[[0.5, 0, 0, 10, 10], [4.0, 300, 0, 310, 10]])
    result = meant(cue, FOUND.take(np.arange(3)), time=4.0)
    assert (box(result), len(result.found)) == ([0, 0, 10, 10], 3)


def test_a_box_is_drawn_more_exactly_than_it_was_detected() -> None:
    """Unless features were taken of the detected one; the class of the cue is that of the object."""
    cue = Cue(label="dog", box=(0, 0, 10, 12))
    plain, deep = meant(cue), meant(cue, FEATURES)
    assert (box(plain), box(deep)) == ([0, 0, 10, 12], [0, 0, 10, 10])
    assert plain.found.classes[plain.row] == 2 and FOUND.classes[0] == 1 and FOUND.boxes[0, 3] == 10


def test_a_box_that_was_not_detected_is_added() -> None:
    """To what is seen at its time, or to nothing; its class may be unknown."""
    result = meant(Cue(label="dog", box=(5, 20, 9, 30)))
    assert (result.row, len(result.found), box(result)) == (3, 4, [5, 20, 9, 30])
    assert result.found.classes[3] == 2 and result.found.frames[3] == 1 and result.found.times is not None
    assert meant(Cue(label="cat", box=(5, 20, 9, 30))).found.classes[3] == -1
    for found in (None, NOTHING):
        alone = meant(Cue(box=(5, 20, 9, 30)), found)
        assert (alone.row, len(alone.found), box(alone)) == (0, 1, [5, 20, 9, 30])


def test_what_is_known_to_sound() -> None:
    """It comes before what was detected best, and the class of a cue chooses among several."""
    found = replace(FOUND, sounding=(Sounding(0, "bell"), Sounding(3, "Dog"), Sounding(4)))
    assert box(meant(Cue(name="it", detections=FOUND), found))[0] == 0
    for label, left in (("bell", 0), ("dog", 60)):
        result = meant(Cue(label=label), found)
        assert (box(result)[0], result.by_label) == (left, True)
    unnamed = replace(FOUND, names=(), sounding=(Sounding(4),))
    result = meant(Cue(label="bell"), unnamed)
    assert (box(result)[0], result.by_label) == (80, False)


def test_classes_that_cannot_be_compared() -> None:
    """Of detections without names the best one is meant, and the class did not tell it."""
    result = meant(Cue(label="dog"), replace(FOUND, names=()))
    assert (box(result)[0], result.by_label) == (20, False)


def test_boxes_without_area_are_nobody() -> None:
    flat = replace(FOUND, boxes=np.where(np.arange(5)[:, None] == 1, 0.0, FOUND.boxes))
    assert box(meant(Cue(name="it", detections=FOUND), flat))[0] == 40


@pytest.mark.parametrize("found", [None, NOTHING])
def test_without_an_object(found: Detections | None) -> None:
    assert cued_object(Cue(label="dog"), found, 0.0) is None


@pytest.mark.parametrize(
    ("cue", "change", "why"),
    [
        (Cue(label="cat"), {}, "no class 'cat', its classes are Cow Bell, dog; name one of them, or give a box"),
        (Cue(label="cat"), {"sounding": (Sounding(0, "bell"),)}, "no class 'cat', what sounds here is bell; name one"),
        (Cue(label="dog"), {"classes": np.ones(5)}, "No 'dog' was detected; give a box, or detections with a lower"),
    ],
)
def test_classes_that_are_not_there(cue: Cue, change: dict[str, Any], why: str) -> None:
    with pytest.raises(CueError, match=why):
        cued_object(cue, replace(FOUND, **change), 0.0)


@pytest.mark.parametrize("found", [FEATURES, FEATURES.take(np.zeros(0, np.int64))])
def test_features_of_a_box_that_was_not_detected(found: Detections) -> None:
    with pytest.raises(CueError, match=r"Nothing was detected in the box \[5\.0, 20\.0, 9\.0, 30\.0\] of 'dog'"):
        cued_object(Cue(label="dog", box=(5, 20, 9, 30)), found, 0.0)
