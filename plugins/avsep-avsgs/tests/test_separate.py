"""Separation of a video by what is seen in it, what a user reads of it, and a whole run of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from PIL import Image
from typer.testing import CliRunner

import avsep_zoo
from avsep_zoo import SeparationModel, compose
from avsep_zoo.cli import app
from avsep_zoo.cue import Cue
from avsep_zoo.data.detections import Detections
from avsep_zoo.errors import CueError
from avsep_zoo.synth.files import write_mp4

FRONT_END = {
    "name": "stft", "rate": 8000, "length": 8191, "n_fft": 254, "hop_length": 128, "warp_rows": 64, "level": 1.0,
}  # fmt: skip
GRAPH = {"name": "avsgs.scene_graph", "hidden": 8, "heads": 2, "width": 8}
UNET = {"name": "avsgs.unet", "width": 4, "levels": 3}
CROPS = {"name": "avsgs.crops", "width": 2, "image_size": 32, "reduced": 3, "features": 8, "scene": False}


def picture() -> np.ndarray:
    """A red player on the left, a blue one on the right."""
    shown = np.zeros((48, 96, 3), np.uint8)
    shown[:, :48, 0], shown[:, 48:, 2] = 200, 200
    return shown


def seen(features: int = 0) -> Detections:
    return Detections(
        np.ones(2, np.int64),
        np.array([1, 2]),
        np.array([0.9, 0.8]),
        np.array([[0, 0, 48, 48], [48, 0, 96, 48.0]]),
        features=np.eye(2, features, dtype=np.float32) if features else None,
        times=np.full(2, 1.0),
        names=("cello", "tuba"),
    )


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds."""
    path = tmp_path_factory.mktemp("video") / "duet.mp4"
    sound = 0.1 * np.random.default_rng(0).standard_normal(3 * 44100).astype(np.float32)
    write_mp4(path, np.repeat(picture()[None], 24, axis=0), sound)
    return path


def crops() -> SeparationModel:
    return compose(encoder=CROPS, conditioner=GRAPH, separator=UNET, front_end=FRONT_END)


def features() -> SeparationModel:
    encoder = {"name": "avsgs.detections", "features": 6, "hidden": 5, "width": 8}
    return compose(encoder=encoder, conditioner=GRAPH, separator=UNET, front_end=FRONT_END)


LEFT = Cue(label="cello", box=(0, 0, 48, 48))
BOXED = Cue(label="cello", box=(0, 0, 48, 48), detections=seen())


@pytest.mark.parametrize(
    ("cues", "notes"),
    [
        ([LEFT], ["cello: by the video's frames in its box; not used: label."]),
        ([Cue(box=(48, 0, 96, 48), name="right")], ["right: by the video's frames in its box."]),
        ([Cue(label="cello")], ["cello: by the video's frames; not used: label."]),
        ([Cue(name="it", frames=picture())], ["it: by its own frames."]),
        ([Cue(label="tuba", detections=seen())], ["tuba: by detections and label and the video's frames."]),
        ([BOXED], ["cello: by detections and the video's frames in its box; not used: label."]),
        (
            [Cue(label="tuba", detections=seen()), Cue(frames=picture(), name="other")],
            ["tuba: by detections and label and the video's frames.", "other: by its own frames."],
        ),
    ],
)
def test_what_a_user_reads_where_pictures_are_looked_at(video: Path, cues: list[Cue], notes: list[str]) -> None:
    done = crops().separate(video, cues)
    assert done.notes == notes
    assert done.frames is not None and all(shown is not None for shown in done.frames)


def test_the_report_shows_the_object_that_was_found(video: Path) -> None:
    """A cue without a box: that of the detection, in the picture it was detected in."""
    done = crops().separate(video, [Cue(label=name, detections=seen()) for name in ("tuba", "cello")])
    assert done.boxes is not None
    assert [list(box) for box in done.boxes if box is not None] == [[48, 0, 96, 48], [0, 0, 48, 48]]
    given = features().separate(video, Cue(label="tuba", detections=seen(6)))
    assert given.boxes is not None and given.boxes[0] is not None and list(given.boxes[0]) == [48, 0, 96, 48]
    assert crops().separate(video, Cue(label="cello")).boxes == [None]


@pytest.mark.parametrize(
    ("cue", "note"),
    [
        (
            Cue(label="tuba", detections=seen(6)),
            "tuba: by detections and label; the video's pictures were not used.",
        ),
        (
            Cue(name="right", box=(48, 0, 96, 48), detections=seen(6)),
            "right: by detections in its box; the video's pictures were not used.",
        ),
    ],
)
def test_what_a_user_reads_where_features_are_given(video: Path, cue: Cue, note: str) -> None:
    assert features().separate(video, cue).notes == [note]
    waveform = 0.1 * np.random.default_rng(0).standard_normal(9000).astype(np.float32)
    assert features().separate(waveform, cue, rate=8000).notes == [f"{note.split(';')[0].rstrip('.')}."]


def test_a_cue_without_detections_is_one_sentence(video: Path) -> None:
    with pytest.raises(CueError, match="'cello' has no detections with features and this model needs them") as caught:
        features().separate(video, [Cue(label="cello"), Cue(label="tuba")])
    assert str(caught.value).count(". ") == 0 and str(caught.value).endswith(".")


def test_one_look_is_enough(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the middle of the video, for all segments of all batches; the stems are those of single segments."""
    model, times = crops(), []
    prepare = model.encoder.prepare

    def watched(cues: Any, *, video: Any, time: float) -> Any:
        times.append(time)
        return prepare(cues, video=video, time=time)

    monkeypatch.setattr(model.encoder, "prepare", watched)
    one = model.separate(video, [LEFT, Cue(box=(48, 0, 96, 48))], batch=1)
    two = model.separate(video, [LEFT, Cue(box=(48, 0, 96, 48))], batch=3)
    assert times == pytest.approx([1.5, 1.5], abs=0.1)
    for stem, same in zip(one.stems, two.stems, strict=True):
        np.testing.assert_allclose(stem.waveform, same.waveform, atol=1e-5)


def recording(root: Path, split: str, name: str, *classes: str) -> None:
    """A duet in the layout of MUSIC: pictures, boxes of both players and of a lamp; and both stems beside it."""
    place, rng = "+".join(classes), np.random.default_rng(len(name))
    frames = root / f"frames/{place}/{name}.mp4"
    frames.mkdir(parents=True)
    for number in (1, 2):
        Image.fromarray(picture()).save(frames / f"{number:06d}.jpg")
    names = ["cello", "tuba", "lamp"]
    boxes = [[0, 0, 48, 48], [48, 0, 96, 48], [20, 0, 60, 48]]
    rows = [
        [frame, names.index(kind) + 1, 1, *box]
        for frame in (1, 2)
        for kind, box in zip((*classes, "lamp"), boxes, strict=True)
    ]
    (root / f"detection_results/{place}").mkdir(parents=True, exist_ok=True)
    np.save(root / f"detection_results/{place}/{name}.mp4.npy", np.array(rows, np.float32))
    stems = [0.1 * rng.standard_normal(22050).astype(np.float32) for _ in classes]
    for folder, sound in zip((place, *classes), (sum(stems), *stems), strict=True):
        (root / "audio" / folder).mkdir(parents=True, exist_ok=True)
        soundfile.write(root / f"audio/{folder}/{name}.wav", sound, 11025)
        with (root / f"{split}.csv").open("a") as index:
            index.write(f"/{folder}/{name}.wav,/{place}/{name}.mp4,2\n")


def test_a_run_of_training(tmp_path: Path, video: Path) -> None:
    """The mini made small learns from ensembles; the run's card loads and separates."""
    data, run, plan = tmp_path / "data", tmp_path / "run", tmp_path / "plan.yaml"
    for split, name in (("train", "a"), ("train", "b"), ("val", "c")):
        recording(data, split, name, "cello", "tuba")
    (data / "synth.json").write_text(json.dumps({"classes": ["cello", "tuba", "lamp"]}))
    parts = {
        "encoder": CROPS | {"classes": ["cello", "tuba"], "drop_context": 0.4},
        "conditioner": GRAPH,
        "separator": UNET,
        "front_end": FRONT_END,
        "objective": {
            "name": "avsgs.co_separation", "mixture": "sum", "target_limit": 1.0, "classes": 2, "class_weight": 0.01,
            "classifier_width": 2, "recognition": 0.05, "recognised": [8, 8], "orthogonality": 0.01,
        },
    }  # fmt: skip
    training = {
        "steps": 3, "batch": 2, "workers": 0, "validation_mixtures": 2, "validate_every": 3, "warmup": 0,
        "augmentation": {"semitones": 1.0, "noise": 0.5},
    }  # fmt: skip
    plan.write_text(yaml.safe_dump({"method": "avsgs.mini", "parts": parts, "training": training}))
    told = CliRunner().invoke(app, ["train", "--config", str(plan), "--data", str(data), "-o", str(run)])
    assert told.exit_code == 0, told.output
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [record for record in records if "loss" in record]
    assert len(losses) == 3 and all(np.isfinite(record["loss"]) for record in losses)
    wanted = {"co_separation", "class", "recognition", "node_recognition", "orthogonality"}
    assert wanted <= set(losses[0])
    model = avsep_zoo.load(run)
    assert model.encoder.per_clip and model.classes == ("cello", "tuba")
    found = seen()
    done = model.separate(video, [Cue(label=name, detections=found) for name in ("cello", "tuba")])
    assert [stem.name for stem in done.stems] == ["cello", "tuba"]
    assert all(np.isfinite(stem.waveform).all() for stem in done.stems)
