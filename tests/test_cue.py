"""Cues: what counts as given, boxes over time, and the mistakes a user can make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avsep_zoo import Cue
from avsep_zoo.data.detections import Detections
from avsep_zoo.errors import CueError

PICTURE = np.zeros((4, 6, 3), np.uint8)
SEEN = Detections(np.ones(2), np.ones(2), np.ones(2), np.ones((2, 4)))
TRACK = np.array([[0.0, 1, 2, 11, 12], [1.0, 5, 6, 15, 16], [4.0, 9, 9, 19, 29]])


@pytest.mark.parametrize(
    ("given", "modalities"),
    [
        ({"label": "violin"}, {"label"}),
        ({"text": "a dog", "name": "dog"}, {"text"}),
        ({"text": "a dog", "negated": True}, {"text"}),
        ({"frames": PICTURE}, {"frames"}),
        ({"frames": "clip.mp4", "box": (1, 2, 3, 4)}, {"frames", "box"}),
        ({"boxes": TRACK}, {"box"}),
        ({"box": [0, 0, 2.5, 2], "boxes": TRACK.tolist()}, {"box"}),
        ({"audio": np.zeros(8), "audio_rate": 8000}, {"audio"}),
        ({"audio": Path("a.wav"), "motion": "m.npy"}, {"audio", "motion"}),
        ({"detections": "seen.safetensors"}, {"detections"}),
        ({"detections": SEEN, "box": (0, 0, 1, 1)}, {"detections", "box"}),
    ],
)
def test_modalities(given: dict[str, Any], modalities: set[str]) -> None:
    assert Cue(**given).modalities == modalities


@pytest.mark.parametrize(
    ("given", "title"),
    [
        ({"name": "left", "label": "violin", "text": "a violin"}, "left"),
        ({"label": "violin", "text": "a violin"}, "violin"),
        ({"text": "a violin"}, "a violin"),
        ({"frames": PICTURE, "box": (0, 0, 1, 1)}, "source by box"),
        ({"text": "the violin", "negated": True}, "everything but the violin"),
        ({"label": "violin", "text": "a violin", "negated": True}, "everything but violin"),
        ({"name": "rest", "label": "violin", "negated": True}, "rest"),
        ({"box": (0, 0, 1, 1), "negated": True}, "everything but source by box"),
    ],
)
def test_title(given: dict[str, Any], title: str) -> None:
    assert Cue(**given).title == title


@pytest.mark.parametrize("given", [{}, {"name": "left"}, {"audio_rate": 8000}, {"negated": True}])
def test_empty(given: dict[str, Any]) -> None:
    with pytest.raises(CueError, match="The cue is empty; give at least one of label, text"):
        Cue(**given)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"box": (1, 2, 3)}, r"box has shape \(1, 3\); give 4 finite numbers"),
        ({"box": (0, 0, float("nan"), 5)}, "give 4 finite numbers"),
        ({"box": (5, 0, 5, 9)}, r"box \[5.0, 0.0, 5.0, 9.0\] has no area; give x1 < x2"),
        ({"box": "left"}, "box is .*'left'.* and no numbers"),
        ({"boxes": TRACK[:, 1:]}, r"boxes has shape \(3, 4\); give 5 finite numbers"),
        ({"boxes": np.zeros((0, 5))}, r"boxes has shape \(0, 5\)"),
        ({"boxes": TRACK[0]}, r"boxes has shape \(5,\)"),
        ({"boxes": [*TRACK.tolist(), [6.0, 8, 8, 1, 9]]}, r"boxes \[8.0, 8.0, 1.0, 9.0\] has no area"),
        ({"boxes": [[1, 2], [3]]}, "boxes is .* and no numbers"),
        ({"audio": np.zeros(8)}, "audio without its rate; give audio_rate in Hz"),
        ({"detections": np.zeros((2, 7))}, "detections is ndarray; give avsep_zoo.data.detections.Detections, or the"),
        ({"detections": [[1, 2]]}, "detections is list; give"),
        ({"negated": "no"}, "negated is 'no'; give True for everything but the source, or False"),
        ({"negated": None}, "negated is None; give True"),
    ],
)
def test_what_is_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(CueError, match=text):
        Cue(label="violin", **given)


def test_box_at() -> None:
    """The nearest row in time; a fixed box at any time; None without either."""
    track = Cue(boxes=TRACK)
    assert track.box_at(-3.0) == (1, 2, 11, 12)
    assert track.box_at(0.6) == (5, 6, 15, 16)
    assert track.box_at(99.0) == (9, 9, 19, 29)
    assert Cue(label="violin", box=(1, 2, 3, 4)).box_at(7.0) == (1.0, 2.0, 3.0, 4.0)
    assert Cue(label="violin").box_at(0.0) is None


def test_describe_is_plain_json() -> None:
    """Texts as they are, files by their names, arrays by their shapes."""
    cue = Cue(
        label="violin",
        frames=PICTURE,
        box=np.array([1, 2, 3, 4], np.int64),
        motion=Path("secret/place/motion.npy"),
        audio="secret/place/example.wav",
        detections=SEEN,
        name="left",
    )
    described = json.loads(json.dumps(cue.describe()))
    assert described == {
        "label": "violin",
        "frames": "array (4, 6, 3)",
        "box": [1.0, 2.0, 3.0, 4.0],
        "motion": "motion.npy",
        "audio": "example.wav",
        "detections": "2 boxes",
        "name": "left",
    }
    assert Cue(detections=Path("secret/seen.npy")).describe() == {"detections": "seen.npy"}
    assert Cue(text="a dog", negated=True).describe() == {"text": "a dog", "negated": True}


def test_cues_do_not_change() -> None:
    with pytest.raises(AttributeError):
        Cue(label="violin").label = "flute"  # type: ignore[misc]
