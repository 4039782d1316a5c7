"""Preparing after a kill: the same bytes as without, nothing half-written taken for whole, other settings refused."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from avsep_zoo.data.reader import open_data
from avsep_zoo.errors import DataError
from avsep_zoo.prepare import MotionChoice, Settings, prepare_dataset
from avsep_zoo.prepare.pool import run_all
from avsep_zoo.replaced import part_name
from avsep_zoo.synth.files import write_mp4

CLIPS = 12


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips long enough that a run can be killed between them; tests only read them."""
    root = tmp_path_factory.mktemp("raw")
    draw = np.random.default_rng(0)
    for number in range(CLIPS):
        video = np.repeat(draw.integers(0, 256, (16, 6, 8, 3), np.uint8), 16, axis=1).repeat(16, axis=2)
        path = root / f"class{number % 2}" / f"{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_mp4(path, video, draw.uniform(-0.5, 0.5, 2 * 44100).astype(np.float32))
    (root / "class0" / "torn.mp4").write_bytes(path.read_bytes()[:500])
    return root


def prepare(raw: Path, out: Path, **changes: Any) -> dict[str, Any]:
    settings = Settings(**{"dataset": "folder", "rate": 8000, "fps": 8.0, **changes})
    reader = open_data(raw, "folder", frame_rate=settings.fps)
    settings = Settings(**{**vars(settings), "motion": changes.get("motion", MotionChoice("frame_difference"))})
    manifest: dict[str, Any] = json.loads(prepare_dataset(reader, out, settings).read_text())
    return manifest


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy made without interruption; tests only read it."""
    out = tmp_path_factory.mktemp("whole") / "copy"
    assert prepare(raw, out)["prepared"] == CLIPS
    return out


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of the finished copy, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def command(raw: Path, out: Path, *more: str) -> list[str]:
    start = [sys.executable, "-m", "avsep_zoo", "prepare", str(raw), str(out), "--dataset", "folder"]
    return [*start, "--rate", "8000", "--fps", "8", "--motion", "frame_difference", *more]


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="asks the system for the children of a process")
def test_killed_and_resumed_gives_the_same_bytes(raw: Path, whole: Path, tmp_path: Path) -> None:
    """SIGKILL after some clips: the workers end too, and the same command makes what an uninterrupted run does."""
    out = tmp_path / "copy"
    journal = out / "prepare.jsonl"
    process = subprocess.Popen(command(raw, out, "--workers", "2"), stdout=subprocess.DEVNULL)
    while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    workers = children(process.pid)
    assert workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert json.loads((out / "prepare.json").read_text())["complete"] is False
    for _ in range(200):
        if not any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers):
            break
        time.sleep(0.05)
    else:
        pytest.fail("a worker outlived its parent")
    resumed = subprocess.run(command(raw, out, "--workers", "2", "--json"), capture_output=True, text=True, check=True)
    assert json.loads(resumed.stdout)["prepared"] == CLIPS
    assert contents(out) == contents(whole)


def test_finished_clips_are_not_done_again(raw: Path, copy: Path) -> None:
    """A run over a finished copy touches no clip."""
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*.wav")}
    prepare(raw, copy)
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*.wav")} == before


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_half_written_files_are_not_taken_for_whole(raw: Path, whole: Path, copy: Path, kept: int) -> None:
    """Whatever stood in the folder of a clip that is not noted as finished is made anew, torn notes are dropped."""
    lines = (copy / "prepare.jsonl").read_bytes().splitlines(keepends=True)
    (copy / "prepare.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][:20])
    for line in lines[kept:]:
        sound = copy / json.loads(line)["key"]
        sound.write_bytes(sound.read_bytes()[:100])
        (copy / "frames" / sound.relative_to(copy / "audio").with_suffix(".mp4") / "000001.jpg").unlink()
        part_name(sound).write_bytes(b"half")
        half = part_name(copy / "frames" / sound.relative_to(copy / "audio").with_suffix(".mp4"))
        half.mkdir()
        (half / "000001.jpg").write_bytes(b"half")
    prepare(raw, copy)
    assert contents(copy) == contents(whole)


def test_leftovers_of_a_clip_that_is_gone_are_removed(raw: Path, copy: Path, tmp_path: Path) -> None:
    """What a killed run left of a clip whose video has vanished since does not stay."""
    fewer = tmp_path / "fewer"
    shutil.copytree(raw, fewer)
    lines = (copy / "prepare.jsonl").read_bytes().splitlines(keepends=True)
    sound = copy / json.loads(lines[0])["key"]
    (copy / "prepare.jsonl").write_bytes(b"".join(lines[1:]))
    part_name(sound).write_bytes(b"half")
    (fewer / sound.relative_to(copy / "audio").with_suffix(".mp4")).write_bytes(b"no video any more")
    manifest = prepare(fewer, copy)
    assert manifest["prepared"] == CLIPS - 1 and len(manifest["broken"]) == 2
    assert not sound.exists() and not list(copy.rglob(".*.part"))


@pytest.mark.parametrize("kind", ["audio", "frames", "motion_features"])
def test_a_deleted_file_is_made_again(raw: Path, whole: Path, copy: Path, kind: str) -> None:
    """A finished clip that lost a file is made again."""
    victim = next(path for path in sorted((copy / kind / "class0").iterdir()))
    shutil.rmtree(victim) if victim.is_dir() else victim.unlink()
    prepare(raw, copy)
    assert contents(copy) == contents(whole)


def test_a_repaired_video_is_added(raw: Path, copy: Path, tmp_path: Path) -> None:
    """Broken clips are tried again by the next run."""
    better = tmp_path / "better"
    shutil.copytree(raw, better)
    shutil.copy(better / "class0" / "0.mp4", better / "class0" / "torn.mp4")
    manifest = prepare(better, copy)
    assert manifest["prepared"] == CLIPS + 1 and not manifest["broken"]


@pytest.mark.parametrize(
    "changes, names",
    [({"rate": 16000}, "rate"), ({"fps": 4.0, "rate": 9000}, "fps, rate"), ({"motion": None}, "motion")],
)
def test_other_settings_are_refused_by_name(raw: Path, copy: Path, changes: dict[str, Any], names: str) -> None:
    """A copy is never half of one kind and half of another."""
    before = contents(copy)
    with pytest.raises(DataError, match=rf"prepared with other settings \({names}\)"):
        prepare(raw, copy, **changes)
    assert contents(copy) == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"settings": 1}', b"\xff"])
def test_a_damaged_manifest_is_refused(raw: Path, copy: Path, content: bytes) -> None:
    """Without knowing its settings nobody goes on with a copy."""
    (copy / "prepare.json").write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        prepare(raw, copy)


def test_folders_of_others_are_not_written_to(raw: Path, tmp_path: Path) -> None:
    """A folder with other files, a file, and the raw data itself are refused."""
    (tmp_path / "notes.txt").touch()
    for out, why in ((tmp_path, "holds no"), (tmp_path / "notes.txt", "is a file"), (raw, "raw data")):
        with pytest.raises(DataError, match=why):
            prepare(raw, out)
    with pytest.raises(DataError, match="raw data"):
        prepare(raw, raw.parent)


def test_two_runs_do_not_write_to_one_folder(raw: Path, tmp_path: Path) -> None:
    """The second run says so and ends."""
    (tmp_path / "copy").mkdir()
    with FileLock(tmp_path / "copy" / ".lock"), pytest.raises(DataError, match="Another process writes"):
        prepare(raw, tmp_path / "copy")


def test_a_dying_process_costs_its_job_only() -> None:
    """A job that crashes its process gives None, all others their results."""
    jobs: list[Any] = [b"a", b"b", 0, b"c", b"d", b"e"]  # reading memory at address 0 ends a process
    results = dict(run_all(ctypes.string_at, jobs, 2))
    assert results == {b"a": b"a", b"b": b"b", 0: None, b"c": b"c", b"d": b"d", b"e": b"e"}


def test_results_stay_with_their_jobs() -> None:
    """Every job comes back once, with its own result."""
    assert sorted(run_all(partial(add, 1), range(7), 2)) == [(n, n + 1) for n in range(7)]
    assert list(run_all(partial(add, 1), range(3), 1)) == [(0, 1), (1, 2), (2, 3)]


def test_an_error_in_a_worker_reaches_the_caller() -> None:
    """What a job raises ends the run; nothing hangs."""
    with pytest.raises(FileNotFoundError):
        list(run_all(os.stat, ["/", "/no/such/file", "/"], 2))
