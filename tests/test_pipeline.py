"""The researcher's day on tiny data: synth, prepare, train in two processes, evaluate; killed and resumed each time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from avsep_zoo.recipe import PartConfig

RATE = 8000


def avsep(*arguments: str | Path, launch: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start the command line in a process group of its own."""
    command = [sys.executable, *launch, "-m", "avsep_zoo", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def done(process: subprocess.Popen[str]) -> str:
    """Wait for success and return what was printed."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def killed(process: subprocess.Popen[str], when: Callable[[], bool]) -> None:
    """Kill a process with all its children as soon as ``when`` holds; it must not have ended before."""
    end = time.monotonic() + 120
    while not when():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture(scope="module")
def solos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones of three instruments, each in a register of its own."""
    folder = tmp_path_factory.mktemp("pipeline") / "solos"
    rng = np.random.default_rng(0)
    time_axis = np.arange(3 * RATE) / RATE
    for name, low in (("violin", 900), ("flute", 1800), ("drum", 150)):
        (folder / name).mkdir(parents=True)
        for clip in ("train_0", "train_1", "val_0", "test_0"):
            wave = sum(np.sin(2 * np.pi * low * k * rng.uniform(0.95, 1.05) * time_axis) / k for k in (1, 2))
            soundfile.write(folder / name / f"{clip}.wav", 0.3 * wave, RATE)
    return folder


def test_synth_prepare_train_evaluate(solos: Path, tmp_path: Path, tiny_parts: dict[str, PartConfig]) -> None:
    raw, data, run, out = (tmp_path / name for name in ("raw", "data", "run", "out"))
    done(avsep("synth", raw, "--clips", "0", "--solos", solos))

    prepare = ("prepare", raw, data, "--dataset", "music", "--motion", "frame_difference")
    killed(avsep(*prepare), lambda: any(data.glob("audio/*/*.wav")))
    done(avsep(*prepare, "--workers", "2"))
    manifest = json.loads((data / "prepare.json").read_text())
    assert (manifest["found"], manifest["prepared"], manifest["missing"], manifest["broken"]) == (12, 12, [], [])
    assert not list(data.rglob("*.part"))

    config = tmp_path / "tiny.yaml"
    parts = {slot: part.to_dict() for slot, part in tiny_parts.items()}
    training = {"steps": 6, "batch": 4, "validate_every": 2, "validation_mixtures": 4, "workers": 0}
    config.write_text(yaml.safe_dump({"method": "iquery.mini", "parts": parts, "training": training}))
    train = ("train", "iquery.mini", "--config", config, "--data", data, "-o", run)
    two = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    killed(avsep(*train, launch=two), lambda: (run / "checkpoint.pt").exists())
    done(avsep(*train, launch=two))
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3, 4, 5, 6]

    evaluate = ("evaluate", run, "mixture", "ideal_ratio_mask", "--data", data, "-o", out)
    killed(avsep(*evaluate), lambda: any(out.glob("*/*.jsonl")))
    assert "results.json, report.html" in done(avsep(*evaluate, "--workers", "2"))
    scored, mixture, ideal = json.loads((out / "results.json").read_text())["models"]
    assert [model["lists"][0]["mixtures"] for model in (scored, mixture, ideal)] == [6, 6, 6]
    assert abs(mixture["lists"][0]["mean"]["sdr_improvement"]["mean"]) < 1e-9
    assert ideal["lists"][0]["mean"]["sdr"]["mean"] > 12
    assert (out / "report.html").stat().st_size > 10_000
