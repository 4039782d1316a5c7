"""``avsep prepare`` as it is called, with detections of a tiny detector, from a folder and from the Hub's cache."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save
from typer.testing import CliRunner

from avsep_zoo.cli import app
from avsep_zoo.data.detections import read_detections
from avsep_zoo.data.reader import open_data
from avsep_zoo.synth.files import write_mp4

torchvision: Any = pytest.importorskip("torchvision")

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
MOBILENET = "fasterrcnn_mobilenet_v3_large_fpn"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two noisy videos of two seconds in class folders."""
    root = tmp_path_factory.mktemp("raw")
    draw = np.random.default_rng(0)
    for label in ("cello", "tuba"):
        (root / label).mkdir()
        sound = draw.uniform(-0.5, 0.5, 2 * 44100).astype(np.float32)
        write_mp4(root / label / "a.mp4", draw.integers(0, 256, (16, 64, 96, 3), np.uint8), sound)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Faster R-CNN of two classes in the Hub's layout."""
    folder = tmp_path_factory.mktemp("weights") / "net"
    folder.mkdir()
    torch.manual_seed(0)
    model = torchvision.models.get_model(MOBILENET, weights=None, weights_backbone=None, num_classes=3)
    (folder / "model.safetensors").write_bytes(save(model.state_dict()))
    (folder / "config.json").write_text(json.dumps({"labels": ["cello", "tuba"], "min_size": 64, "max_size": 128}))
    return folder


def call(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["prepare", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def prepare(raw: Path, out: Path, weights: object, *more: object) -> tuple[int, str, str]:
    detector = ("--detector", "faster_rcnn", "--detector-weights", weights, "--min-score", 0.3)
    return call(raw, out, "--dataset", "folder", "--workers", 1, *detector, *more)


def test_detections_of_the_stored_frames(raw: Path, weights: Path, tmp_path: Path) -> None:
    """Rows are frame, class, score, box in pixels of the stored frames, where the reader finds them."""
    code, shown, _ = prepare(raw, tmp_path / "copy", weights, "--json")
    assert code == 0
    summary = json.loads(shown)
    clips = [clip for split in summary["splits"] for clip in open_data(tmp_path / "copy", "music").clips(split)]
    assert len(clips) == 2
    for clip in clips:
        assert clip.detections is not None
        stored = np.load(clip.detections, allow_pickle=False)
        assert stored.dtype == np.float32 and stored.shape[1] == 7 and len(stored)
        assert set(stored[:, 0]) == {1, 2} and set(stored[:, 1]) <= {1, 2} and (stored[:, 2] >= 0.3).all()
        assert (stored[:, 3:] >= 0).all() and (stored[:, 5] <= 96).all() and (stored[:, 6] <= 64).all()
        boxes = read_detections(clip.detections).best(1.0)
        assert boxes is not None and list(boxes[:, 0]) == [0.5, 1.5]


def test_the_manifest_names_the_weights(raw: Path, weights: Path, tmp_path: Path) -> None:
    """Which detector saw the frames is known by the hash of its weights."""
    assert prepare(raw, tmp_path / "copy", weights)[0] == 0
    detector = json.loads((tmp_path / "copy" / "prepare.json").read_text())["settings"]["detector"]
    sha256 = hashlib.sha256((weights / "model.safetensors").read_bytes()).hexdigest()
    assert detector["weights"]["sha256"]["model.safetensors"] == sha256
    assert (detector["name"], detector["min_score"], detector["weights"]["revision"]) == ("faster_rcnn", 0.3, None)


@pytest.mark.parametrize(
    "labels, wanted", [((), ["cello", "tuba"]), (("--labels", "__background__,violin,flute"), ["violin", "flute"])]
)
def test_the_manifest_names_the_classes(
    raw: Path, weights: Path, tmp_path: Path, labels: tuple[str, ...], wanted: list[str]
) -> None:
    """Class c is labels[c - 1], from the weights' own list as from the user's; the same command goes on with it."""
    for _ in range(2):
        code, shown, error = prepare(raw, tmp_path / "copy", weights, "--json", *labels)
        assert code == 0, error
    assert json.loads(shown)["settings"]["detector"]["labels"] == wanted


def test_other_weights_are_other_settings(raw: Path, weights: Path, tmp_path: Path) -> None:
    """A copy is not continued with another detector."""
    assert prepare(raw, tmp_path / "copy", weights)[0] == 0
    code, _, error = prepare(raw, tmp_path / "copy", weights, "--labels", "violin,flute")
    assert code == 1 and "other settings (detector)" in error


def test_weights_from_the_hubs_cache(raw: Path, weights: Path, tmp_path: Path) -> None:
    """A pinned model gives the same detections as its folder does in two processes; the manifest has its commit."""
    storage = Path(constants.HF_HUB_CACHE) / "models--someone--finder"
    for name in ("blobs", f"snapshots/{COMMIT}"):
        (storage / name).mkdir(parents=True)
    for file in weights.iterdir():
        content = file.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        blob = git if file.suffix == ".json" else hashlib.sha256(content).hexdigest()
        (storage / "blobs" / blob).write_bytes(content)
        (storage / "snapshots" / COMMIT / file.name).symlink_to(f"../../blobs/{blob}")
    assert prepare(raw, tmp_path / "hub", f"someone/finder@{COMMIT}")[0] == 0
    assert prepare(raw, tmp_path / "own", weights, "--workers", 2)[0] == 0
    manifest = json.loads((tmp_path / "hub" / "prepare.json").read_text())
    assert manifest["settings"]["detector"]["weights"]["revision"] == COMMIT
    found = sorted(path.relative_to(tmp_path / "hub") for path in tmp_path.glob("hub/detection_results/*/*.npy"))
    assert len(found) == 2
    assert all((tmp_path / "hub" / name).read_bytes() == (tmp_path / "own" / name).read_bytes() for name in found)


def test_the_table_and_the_manifest_are_shown(raw: Path, tmp_path: Path) -> None:
    """Without --json: a line per list, what is left out, and where the manifest is."""
    (raw / "tuba" / "torn.mp4").write_bytes(b"torn")
    try:
        code, shown, _ = call(raw, tmp_path / "copy", "--dataset", "folder", "--workers", 1)
    finally:
        (raw / "tuba" / "torn.mp4").unlink()
    assert code == 0
    assert re.search(r"^list +listed +prepared *$", shown, re.MULTILINE)
    assert re.search(r"^train +\d +\d *$", shown, re.MULTILINE)
    assert "Left out: tuba/torn (tuba/torn.mp4" in shown
    assert shown.rstrip().endswith(f"Manifest: {tmp_path / 'copy' / 'prepare.json'}")


def test_nothing_usable_ends_with_1(tmp_path: Path) -> None:
    """One sentence on stderr and exit code 1 when nothing was made."""
    (tmp_path / "raw" / "cello").mkdir(parents=True)
    (tmp_path / "raw" / "cello" / "a.mp4").write_bytes(b"torn")
    code, shown, error = call(tmp_path / "raw", tmp_path / "copy", "--dataset", "folder")
    assert code == 1 and not shown
    assert error.startswith("None of the 1 clips can be prepared") and error.count("\n") == 1


@pytest.mark.parametrize(
    "more, why",
    [
        (["--labels", "cello"], "without --detector"),
        (["--motion-weights", "x"], "without --motion"),
        (["--detector", "yolo"], "no detector 'yolo'"),
        (["--motion", "flow"], "no motion network 'flow'"),
        (["--detector", "faster_rcnn", "--labels", " , "], "is empty"),
        (["--detector", "faster_rcnn", "--labels", "a,b,a"], "has 'a' twice"),
        (["--detector", "zero_shot", "--detector-weights", "google/owlv2"], "40 hexadecimal digits"),
        (["--detector", "zero_shot"], "--detector-weights"),
        (["--rate", "1"], "rate is 1"),
        (["--fps", "-1"], "frame rate is -1"),
    ],
)
def test_wrong_options_end_with_a_sentence(raw: Path, tmp_path: Path, more: list[str], why: str) -> None:
    """Options that cannot be used are named before any clip is made."""
    code, _, error = call(raw, tmp_path / "copy", "--dataset", "folder", "--workers", 1, *more)
    assert code == 1 and why in error and error.count("\n") == 1
    assert not list(tmp_path.rglob("*.wav"))


def test_labels_from_a_file(raw: Path, weights: Path, tmp_path: Path) -> None:
    """A file has a label per line, which may hold commas."""
    (tmp_path / "labels.txt").write_text("\ufeffviolin, fiddle\r\n\r\nflute\r\n", encoding="utf-8")
    assert prepare(raw, tmp_path / "copy", weights, "--labels", tmp_path / "labels.txt")[0] == 0
    settings = json.loads((tmp_path / "copy" / "prepare.json").read_text())["settings"]
    assert settings["detector"]["labels"] == ["violin, fiddle", "flute"]
