"""Separation of a video by what is seen in it: stems, cues of every kind, and what a user reads."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from typer.testing import CliRunner, Result

from avsep_zoo import SeparationModel
from avsep_zoo.cli import app
from avsep_zoo.cue import Cue
from avsep_zoo.data.detection_file import write_detections_file
from avsep_zoo.data.detections import Detections
from avsep_zoo.errors import CueError
from avsep_zoo.synth.files import write_mp4
from avsep_zoo.weights.cards import write_card

TinyModel = Callable[..., SeparationModel]

LEFT, RIGHT = (0, 0, 48, 48), (48, 0, 96, 48)
SEGMENT = {"length": 4095}


def picture() -> np.ndarray:
    """A red player on the left, a blue one with stripes on the right."""
    shown = np.zeros((48, 96, 3), np.uint8)
    shown[:, :48, 0], shown[::6, 48:, 2] = 200, 200
    return shown


def seen() -> Detections:
    return Detections(
        np.ones(2, np.int64),
        np.array([1, 2]),
        np.array([0.9, 0.8]),
        np.array([LEFT, RIGHT], np.float64),
        times=np.full(2, 1.0),
        names=("cello", "tuba"),
    )


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of noise."""
    path = tmp_path_factory.mktemp("video") / "duet.mp4"
    sound = 0.1 * np.random.default_rng(0).standard_normal(2 * 44100).astype(np.float32)
    write_mp4(path, np.repeat(picture()[None], 16, axis=0), sound)
    return path


@pytest.fixture
def card(tmp_path: Path, tiny_model: TinyModel) -> Path:
    return write_card(tmp_path / "card", tiny_model(front_end=SEGMENT)).folder


def both(**left: Any) -> list[Cue]:
    return [Cue(label="cello", box=LEFT, **left), Cue(name="right", box=RIGHT)]


def test_stems_of_a_video_add_up_to_it(video: Path, tiny_model: TinyModel) -> None:
    """At its rate and length; what is seen tells the stems apart."""
    done = tiny_model(front_end=SEGMENT).separate(video, both())
    assert [stem.name for stem in done.stems] == ["cello", "right"] and done.residual is not None
    assert done.rate == 44100 and done.mixture.shape[0] == 1 and done.seconds == pytest.approx(2, abs=0.1)
    np.testing.assert_allclose(sum(track.waveform for track in done.tracks), done.mixture, atol=1e-5)
    cello, right = (stem.waveform for stem in done.stems)
    assert np.abs(cello - right).max() > 1e-3 and np.abs(done.residual.waveform).max() > 0


@pytest.mark.parametrize(
    ("rate", "channels", "samples"), [(8000, 1, 4095), (11025, 2, 9000), (48000, 3, 31), (8000, 2, 1)]
)
def test_any_rate_channels_and_length(tiny_model: TinyModel, rate: int, channels: int, samples: int) -> None:
    mixture = 0.1 * np.random.default_rng(0).standard_normal((channels, samples)).astype(np.float32)
    cues = [Cue(frames=picture(), box=box, name=str(box[0])) for box in (LEFT, RIGHT)]
    done = tiny_model().separate(mixture, cues, rate=rate)
    assert done.mixture.shape == (channels, samples) and done.rate == rate
    np.testing.assert_allclose(sum(track.waveform for track in done.tracks), mixture, atol=1e-5)


def test_batches_of_segments_change_nothing(video: Path, tiny_model: TinyModel) -> None:
    """Each segment has its own picture."""
    model = tiny_model(front_end=SEGMENT)
    one, four = (model.separate(video, both(), batch=batch) for batch in (1, 4))
    for stem, same in zip(one.stems, four.stems, strict=True):
        np.testing.assert_allclose(stem.waveform, same.waveform, atol=1e-5)


@pytest.mark.parametrize(
    ("cues", "notes"),
    [
        ([Cue(label="cello", box=LEFT)], ["cello: by the video's frames in its box; not used: label."]),
        ([Cue(name="right", box=RIGHT)], ["right: by the video's frames in its box."]),
        ([Cue(label="cello")], ["cello: by the video's frames; not used: label."]),
        ([Cue(name="it", frames=picture())], ["it: by its own frames."]),
        ([Cue(label="tuba", detections=seen())], ["tuba: by detections and label and the video's frames."]),
        (
            [Cue(label="cello", box=LEFT, detections=seen())],
            ["cello: by detections and the video's frames in its box; not used: label."],
        ),
        (
            [Cue(label="tuba", detections=seen()), Cue(frames=picture(), name="other")],
            ["tuba: by detections and label and the video's frames.", "other: by its own frames."],
        ),
    ],
)
def test_what_a_user_reads(video: Path, tiny_model: TinyModel, cues: list[Cue], notes: list[str]) -> None:
    done = tiny_model(front_end=SEGMENT).separate(video, cues)
    assert done.notes == notes
    assert done.frames is not None and all(shown is not None for shown in done.frames)


def test_equal_cues_of_every_kind_give_equal_stems(video: Path, tmp_path: Path, tiny_model: TinyModel) -> None:
    """A box, a class among detections (given, in a file), and the pictures themselves."""
    write_detections_file(tmp_path / "seen.safetensors", seen())
    np.save(tmp_path / "seen.npy", np.array([[1, 2, 0.8, *RIGHT]]))
    cues = [
        Cue(box=RIGHT),
        Cue(label="tuba", detections=seen()),
        Cue(label="tuba", detections=tmp_path / "seen.safetensors"),
        Cue(label="tuba", detections=str(tmp_path / "seen.npy")),
        Cue(box=RIGHT, frames=video),
    ]
    model = tiny_model(front_end=SEGMENT)
    stems = [model.separate(video, [Cue(box=LEFT), cue]).stems[1].waveform for cue in cues]
    for stem in stems[1:]:
        np.testing.assert_allclose(stem, stems[0], atol=1e-4)
    other = model.separate(video, [Cue(box=RIGHT), Cue(box=LEFT)]).stems[1].waveform
    assert np.abs(other - stems[0]).max() > 3e-3


def test_the_report_shows_the_object_that_was_found(video: Path, tmp_path: Path, tiny_model: TinyModel) -> None:
    """A cue without a box: that of the detection; the page names the stems and what was used."""
    cues = [Cue(label=name, detections=seen()) for name in ("tuba", "cello")]
    done = tiny_model(front_end=SEGMENT).separate(video, cues)
    assert done.boxes is not None and [tuple(box or ()) for box in done.boxes] == [RIGHT, LEFT]
    page = done.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert done.notes[0] in html.unescape(page)


def test_two_cues_of_the_whole_picture(video: Path, tiny_model: TinyModel) -> None:
    with pytest.raises(CueError, match="'cello' has neither a box, frames nor an object that was detected") as caught:
        tiny_model(front_end=SEGMENT).separate(video, ["cello", "tuba"])
    assert str(caught.value).count(". ") == 0 and str(caught.value).endswith(".")


# on the command line


def avsep(*arguments: object) -> Result:
    settings = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, [str(a) for a in arguments], env=settings, prog_name="avsep")


def heard(folder: Path, *names: str) -> list[np.ndarray]:
    return [soundfile.read(folder / f"{name}.wav")[0] for name in names]


def test_boxes_on_the_command_line(video: Path, card: Path, tmp_path: Path, tiny_model: TinyModel) -> None:
    """The stems, and with the residual the recording; the report is written, too."""
    out = tmp_path / "stems"
    done = avsep(
        "separate", video, "--model", card, "-o", out, "--cue", "a@0,0,48,48", "--cue", "@48,0,96,48", "--json"
    )
    assert done.exit_code == 0, done.output
    written = {path.name for path in out.iterdir()}
    assert {"a.wav", "source-2.wav", "residual.wav", "separation.json", "report.html"} <= written
    assert json.loads(done.stdout)["notes"] == [
        "a: by the video's frames in its box; not used: label.",
        "source-2: by the video's frames in its box.",
    ]
    one, two, rest = heard(out, "a", "source-2", "residual")
    whole = tiny_model().separate(video, [Cue(box=LEFT)]).mixture[0]
    np.testing.assert_allclose(one + two + rest, whole, atol=1e-5)
    assert np.abs(one - two).max() > 1e-3
    more = ("--cue", "a@0,0,48,48", "--no-consistency")
    assert avsep("separate", video, "--model", card, "-o", tmp_path / "b", *more).exit_code == 0
    assert not (tmp_path / "b" / "residual.wav").exists()


@pytest.mark.parametrize("kind", ["safetensors", "npy"])
def test_detections_on_the_command_line(video: Path, card: Path, tmp_path: Path, kind: str) -> None:
    """Classes of a file choose what its boxes would; one without names leaves the choice to the box."""
    file = tmp_path / f"seen.{kind}"
    if kind == "npy":
        np.save(file, np.array([[1, 1, 0.9, *LEFT], [1, 2, 0.8, *RIGHT]]))
    else:
        write_detections_file(file, seen())
    boxed = ["--cue", "cello@0,0,48,48", "--cue", "tuba@48,0,96,48"]
    named = ["--cue", "cello", "--cue", "tuba"] if kind == "safetensors" else boxed
    for name, cues in (("named", named), ("boxed", boxed)):
        more = ("--detections", file) if name == "named" else ()
        done = avsep("separate", video, "--model", card, "-o", tmp_path / name, "--no-report", *cues, *more)
        assert done.exit_code == 0, done.output
    found = [heard(tmp_path / name, "cello", "tuba") for name in ("named", "boxed")]
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(
    ("cues", "code", "why"),
    [
        (["a@0,0,48"], 2, "give four numbers, as in violin@0,20,190,180"),
        (["a@48,0,0,48"], 2, "has no area; give x1 < x2 and y1 < y2"),
        ([" "], 2, "names nothing; give a class, a box, or both"),
        (["a@0,0,nan,48"], 2, "give 4 finite numbers"),
        (["a@100,0,120,48"], 1, "is outside the picture of"),
        (["a@0,0,48,48", "b@0,0,48,48"], 1, "The cues 'a' and 'b' mean the same object, the one in the box"),
        (["a", "b"], 1, "'a' has neither a box, frames nor an object that was detected"),
        (["a@0,0,48,48", "b"], 1, "'b' has neither a box, frames nor an object that was detected"),
        (["a@3.2,0,3.4,48"], 1, "has no pixel of a picture of 96 x 48"),
    ],
)
def test_mistakes_on_the_command_line(
    video: Path, card: Path, tmp_path: Path, cues: list[str], code: int, why: str
) -> None:
    """One sentence, and nothing is written."""
    options = [word for cue in cues for word in ("--cue", cue)]
    done = avsep("separate", video, "--model", card, "-o", tmp_path / "stems", *options)
    said = " ".join(done.stderr.replace("│", " ").split())
    assert done.exit_code == code and why in said and done.stdout == "", done.output
    assert not (tmp_path / "stems").exists()


def test_sound_without_pictures(card: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 8000), 8000)
    done = avsep("separate", tmp_path / "a.wav", "--model", card, "-o", tmp_path / "stems", "--cue", "cello")
    said = " ".join(done.stderr.split())
    assert done.exit_code == 1 and "'cello' has no frames and this model needs them; give frames, or a video" in said
    assert not (tmp_path / "stems").exists()


def test_pictures_of_a_sound_file(tmp_path: Path, tiny_model: TinyModel) -> None:
    """Sources of a recording without pictures, each shown by a file."""
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 8000), 8000)
    for name, (x1, y1, x2, y2) in (("left", LEFT), ("right", RIGHT)):
        Image.fromarray(picture()[y1:y2, x1:x2]).save(tmp_path / f"{name}.png")
    cues = [Cue(name=name, frames=tmp_path / f"{name}.png") for name in ("left", "right")]
    done = tiny_model().separate(str(tmp_path / "a.wav"), cues)
    assert done.notes == ["left: by its own frames.", "right: by its own frames."]
    np.testing.assert_allclose(sum(track.waveform for track in done.tracks), done.mixture, atol=1e-5)
