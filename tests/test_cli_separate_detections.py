"""``avsep detect``, and ``avsep separate`` with detections: from its file, or by a detector that looks at once."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.numpy import load_file
from safetensors.torch import save
from typer.testing import CliRunner, Result

from avsep_zoo.cli import app
from avsep_zoo.cli.cue_detections import Surroundings, check_classes
from avsep_zoo.compose import compose_recipe
from avsep_zoo.cue import Cue
from avsep_zoo.data.detection_file import read_detections_file, write_detections_file
from avsep_zoo.data.detections import Detections
from avsep_zoo.errors import CueError
from avsep_zoo.recipe import PartConfig
from avsep_zoo.synth.files import write_mp4
from avsep_zoo.weights.cards import write_card

torchvision: Any = pytest.importorskip("torchvision")

MOBILENET = "fasterrcnn_mobilenet_v3_large_fpn"
CLASSES = ["cello", "tuba"]


def avsep(*arguments: object) -> Result:
    settings = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, [str(a) for a in arguments], env=settings, prog_name="avsep")


def sentence(result: Result, code: int = 1) -> str:
    """What an error says."""
    assert result.exit_code == code and result.stdout == "", result.output
    return " ".join(result.stderr.replace("│", " ").split())


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of noise."""
    draw = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("media") / "noise [1].mp4"
    sound = draw.uniform(-0.5, 0.5, 2 * 44100).astype(np.float32)
    write_mp4(file, draw.integers(0, 256, (16, 64, 96, 3), np.uint8), sound)
    return file


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Faster R-CNN of two classes in the Hub's layout."""
    folder = tmp_path_factory.mktemp("weights") / "net"
    folder.mkdir()
    torch.manual_seed(0)
    model = torchvision.models.get_model(MOBILENET, weights=None, weights_backbone=None, num_classes=3)
    (folder / "model.safetensors").write_bytes(save(model.state_dict()))
    (folder / "config.json").write_text(json.dumps({"labels": CLASSES, "min_size": 64, "max_size": 128}))
    return folder


def graph_card(folder: Path, encoder: PartConfig) -> Path:
    """A small untrained AVSGS with an encoder."""
    torch.manual_seed(0)
    front_end = {"rate": 8000, "length": 8191, "n_fft": 254, "hop_length": 64, "warp_rows": 64}
    parts = {
        "encoder": encoder,
        "conditioner": PartConfig("avsgs.scene_graph", {"hidden": 8, "width": 16, "heads": 2}),
        "separator": PartConfig("avsgs.unet", {"width": 4, "levels": 5}),
        "front_end": PartConfig("stft", front_end),
    }
    model = compose_recipe(parts, "avsgs.tiny")
    for weight in model.parameters():  # an untrained one hardly hears what the cue is
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, 0.0, 0.2)
    return write_card(folder, model).folder


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads 1024 features of detected boxes."""
    settings = {"features": 1024, "hidden": 8, "width": 16, "classes": CLASSES}
    return graph_card(tmp_path_factory.mktemp("cards") / "features", PartConfig("avsgs.detections", settings))


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that looks into detected boxes itself."""
    settings = {"width": 4, "image_size": 32, "reduced": 4, "features": 16, "classes": CLASSES}
    return graph_card(tmp_path_factory.mktemp("cards") / "crops", PartConfig("avsgs.crops", settings))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cello on the left and a tuba on the right in both seconds, with features."""
    file = tmp_path_factory.mktemp("seen") / "seen.safetensors"
    boxes = np.array([[0, 0, 40, 60], [50, 0, 90, 60]] * 2, np.float64)
    features = np.random.default_rng(0).random((4, 1024)).astype(np.float32)
    frames, scores = np.array([1, 1, 2, 2]), np.array([0.9, 0.8, 0.7, 0.6])
    classes, times = np.array([1, 2, 1, 2]), np.array([0.5, 0.5, 1.5, 1.5])
    found = Detections(frames, classes, scores, boxes, features, times=times, names=("cello", "tuba", "violin"))
    write_detections_file(file, found)
    return file


# detect


def looking(video: Path, weights: Path, *more: object) -> Result:
    return avsep("detect", video, "--detector", "faster_rcnn", "--detector-weights", weights, *more)


def test_detect_writes_what_the_detector_finds(video: Path, weights: Path, tmp_path: Path) -> None:
    """The file has the boxes of two frames with features and names; the summary counts them."""
    out = tmp_path / "new" / "a.safetensors"
    result = looking(video, weights, "--min-score", 0.2, "-o", out, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    found = read_detections_file(out)
    assert found.names == ("cello", "tuba") and set(found.frames) == {1, 2} and (found.scores >= 0.2).all()
    assert found.features is not None and found.features.shape == (len(found), 1024) and found.scene is not None
    assert (document["boxes"], document["frames"], document["features"]) == (len(found), 2, 1024)
    for number, name in enumerate(CLASSES, 1):
        mine = found.classes == number
        if mine.any():
            entry = document["classes"][name]
            assert entry["boxes"] == mine.sum() and entry["best"] == pytest.approx(found.scores[mine].max())
    assert sum(entry["boxes"] for entry in document["classes"].values()) == len(found) > 0


def test_detect_prints_a_table(video: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the video's name, in the current folder: boxes by class; options say which frames and what is kept."""
    monkeypatch.chdir(tmp_path)
    result = looking(video, weights, "--min-score", 0.1, "--fps", 4, "--end", 1, "--most", 3, "--no-features")
    assert result.exit_code == 0, result.output
    assert re.search(r"^12 boxes in 4 frames of ", result.stdout)
    assert re.search(r"^class +boxes +frames +best score *$", result.stdout, re.MULTILINE)
    assert result.stdout.rstrip().endswith("Detections: noise [1]-detections.safetensors")
    assert set(load_file("noise [1]-detections.safetensors")) == {"frames", "classes", "scores", "boxes", "times"}


def test_detect_replaces_a_file_only_when_told(video: Path, weights: Path, tmp_path: Path) -> None:
    """An earlier file stays unless --overwrite is given."""
    out = tmp_path / "a.safetensors"
    out.write_bytes(b"earlier")
    assert "is there already" in sentence(looking(video, weights, "-o", out))
    assert out.read_bytes() == b"earlier"
    assert looking(video, weights, "-o", out, "--overwrite", "--end", 0.5).exit_code == 0
    assert read_detections_file(out).names == ("cello", "tuba")


@pytest.mark.parametrize(
    "more, why",
    [
        (["-o", "a.npy"], "end it with .safetensors"),
        (["--labels", "cello"], "2 classes and the background, and 1 labels"),
        (["--labels", "a,a"], "has 'a' twice"),
        (["--start", 5], "nothing from 5 s on"),
        (["--start", 1, "--end", 1], "the end after the start"),
    ],
)
def test_detect_refuses_options_that_mean_nothing(
    video: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[object], why: str
) -> None:
    """One sentence, and no file."""
    monkeypatch.chdir(tmp_path)
    assert why in sentence(looking(video, weights, *more))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["detect", "separate"])
def test_sound_has_nothing_to_see(tmp_path: Path, weights: Path, graphs: Path, command: str) -> None:
    """A detector is not asked about a file without pictures."""
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 8000)
    detector = ("--detector", "faster_rcnn", "--detector-weights", weights)
    more = ("--cue", "cello", "--model", graphs) if command == "separate" else ()
    assert "a.wav has no pictures" in sentence(avsep(command, tmp_path / "a.wav", *detector, *more))


# separate


def stems(video: Path, model: Path, out: Path, *more: object) -> Result:
    return avsep("separate", video, "--model", model, "-o", out, "--no-report", *more)


def test_separate_by_a_file_of_detections(video: Path, graphs: Path, seen: Path, tmp_path: Path) -> None:
    """Classes choose their objects; each class has a mask of its own, and the notes tell what it was by."""
    cues = ("--cue", "cello", "--cue", "tuba", "--detections", seen, "--json")
    result = stems(video, graphs, tmp_path / "stems", *cues)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    document = json.loads(result.stdout)
    assert [note.split(":")[1].split(";")[0] for note in document["notes"]] == [" by detections and label"] * 2
    cello, tuba = (soundfile.read(stem["file"])[0] for stem in document["stems"])
    assert np.abs(cello - tuba).max() > 1e-4


def test_detections_are_enough_for_a_sound_file(graphs: Path, seen: Path, tmp_path: Path) -> None:
    """A model that goes by features needs no picture of its own."""
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 8000), 8000)
    result = stems(tmp_path / "a.wav", graphs, tmp_path / "stems", "--cue", "tuba", "--detections", seen)
    assert result.exit_code == 0, result.output


def test_separate_with_a_detector_is_separate_with_its_file(
    video: Path, weights: Path, graphs: Path, tmp_path: Path
) -> None:
    """Looking at once gives the stems that the file of 'avsep detect' gives."""
    cue = read_found(video, weights, tmp_path)
    detector = ("--detector", "faster_rcnn", "--detector-weights", weights, "--min-score", 0.2)
    for name, more in (("now", detector), ("file", ("--detections", tmp_path / "found.safetensors"))):
        result = stems(video, graphs, tmp_path / name, "--cue", cue, *more)
        assert result.exit_code == 0, result.output
    now, file = (soundfile.read(tmp_path / name / f"{cue}.wav")[0] for name in ("now", "file"))
    np.testing.assert_array_equal(now, file)


def read_found(video: Path, weights: Path, folder: Path) -> str:
    """Detect with features into a file and return a class that was found."""
    assert looking(video, weights, "--min-score", 0.2, "-o", folder / "found.safetensors").exit_code == 0
    found = read_detections_file(folder / "found.safetensors")
    return found.names[found.classes[0] - 1]


def test_a_box_needs_no_detection_of_its_class(video: Path, weights: Path, crops: Path, tmp_path: Path) -> None:
    """A model that looks itself takes a class that the detector doesn't know, where its box is given."""
    detector = ("--detector", "faster_rcnn", "--detector-weights", weights, "--min-score", 0.2)
    result = stems(video, crops, tmp_path / "stems", "--cue", "oboe@0,0,40,60", *detector, "--json")
    assert result.exit_code == 0, result.output
    assert "oboe: by" in json.loads(result.stdout)["notes"][0]


@pytest.mark.parametrize("cue", ["violin", "oboe"])
def test_a_class_that_was_not_detected_is_refused(
    video: Path, graphs: Path, seen: Path, tmp_path: Path, cue: str
) -> None:
    """Known to the detector or not: the sentence counts what is there, and nothing is written."""
    said = sentence(stems(video, graphs, tmp_path / "stems", "--cue", "cello", "--cue", cue, "--detections", seen))
    assert said.startswith(f"No '{cue}' is among the detections in {seen}, which are 2 cello, 2 tuba; name one")
    assert not (tmp_path / "stems").exists()


def test_classes_without_names_are_left_to_the_model(seen: Path) -> None:
    """A file that names no classes refuses none here; one without any box does."""
    found = read_detections_file(seen)
    nameless = Detections(found.frames, found.classes, found.scores, found.boxes)
    check_classes([Cue(label="oboe")], nameless, "x")
    with pytest.raises(CueError, match="which are none"):
        check_classes([Cue(label="cello")], found.take(np.zeros(0, np.int64)), "x")


def test_a_model_that_reads_no_detections_says_so(
    video: Path, weights: Path, seen: Path, card: Path, tmp_path: Path
) -> None:
    """A file is noted as not used, and classes are the model's own."""
    more = ("--cue", "violin", "--cue", "drum", "--detections", seen, "--json")
    result = stems(video, card, tmp_path / "stems", *more)
    assert result.exit_code == 0, result.output
    for note in json.loads(result.stdout)["notes"]:
        assert re.search(r"not used: .*\bdetections\b", note)


def test_a_detector_that_is_no_use_does_not_look(video: Path, card: Path, tmp_path: Path) -> None:
    """Its weights are not even opened where the model reads no detections; the notes say that it was not used."""
    detector = ("--detector", "faster_rcnn", "--detector-weights", tmp_path / "missing")
    result = stems(video, card, tmp_path / "stems", "--cue", "violin", *detector, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["notes"][-1] == "iquery.tiny reads no detections; not used: --detector."
    written = json.loads((tmp_path / "stems" / "separation.json").read_text(encoding="utf-8"))
    assert "not used: --detector" in written["notes"][-1]


@pytest.mark.parametrize(
    "more, code, why",
    [
        (["--detections", "gone.safetensors"], 1, "gone.safetensors"),
        (["--detector", "yolo"], 1, "There is no detector 'yolo'"),
        (["--detector-weights", "x"], 2, "without --detector"),
        (["--min-score", 0.5], 2, "without --detector"),
        (["--context-label", "stage"], 2, "without --detector"),
        (["--detector", "faster_rcnn", "--detections", "a.npy"], 2, "together with --detections"),
        (["--detector", "faster_rcnn", "--context-label", "stage"], 2, "finds the classes of its weights"),
    ],
)
def test_options_that_do_not_go_together(
    video: Path, graphs: Path, tmp_path: Path, more: list[object], code: int, why: str
) -> None:
    """They are named before anything is done."""
    assert why in sentence(stems(video, graphs, tmp_path / "stems", "--cue", "cello", *more), code)
    assert not (tmp_path / "stems").exists()


def test_an_open_detector_looks_for_cues_and_context(video: Path) -> None:
    """Each label once, those of the cues first; cues that are boxes only give nothing to look for."""
    cues = [Cue(label="cello"), Cue(box=(0, 0, 9, 9)), Cue(label="tuba"), Cue(label="cello", name="2")]
    asked = Surroundings(video, detector="zero_shot", context=("person", "tuba"))
    assert asked.looked_for(cues) == ("cello", "tuba", "person")
    with pytest.raises(CueError, match="nothing to look for"):
        Surroundings(video, detector="zero_shot").looked_for(cues[1:2])
