"""The commands of the README's guide to fine-tuning, run as they stand on tiny recordings with fewer steps."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avsep_zoo.weights.cards import card_folder, read_card

README = Path(__file__).parents[1] / "README.md"
RATE = 11025

pytestmark = pytest.mark.skipif(card_folder("iquery.mini") is None, reason="the weights iquery.mini are not here")


def _guide() -> str:
    (commands,) = re.findall(r"```sh guide\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    shorter, changes = re.subn(r"--steps \d+", "--steps 1 --batch 2 --set validation_mixtures=2", commands)
    assert changes == 1, "the guide has one training run"
    return str(shorter)


def _recordings(folder: Path) -> None:
    """Sixteen decaying tones of each of three instruments, and a duet of the two new ones."""
    rng = np.random.default_rng(0)
    time = np.arange(2 * RATE) / RATE
    for name, pitch in (("theremin", 500), ("kalimba", 1200), ("violin", 800)):
        (folder / "mine" / name).mkdir(parents=True)
        for take in range(16):
            tone = 2 * np.pi * pitch * rng.uniform(0.8, 1.2) * time
            wave = 0.2 * sum(np.sin(k * tone) / k for k in (1, 2, 3)) * np.exp(-time)
            soundfile.write(folder / "mine" / name / f"take {take:02d}.wav", wave, RATE)
    duet = sum(soundfile.read(folder / "mine" / name / "take 00.wav")[0] for name in ("theremin", "kalimba"))
    soundfile.write(folder / "duet.wav", duet, RATE)


def test_guide_runs_as_it_stands(tmp_path: Path) -> None:
    """Every command of the guide succeeds in a folder with recordings, and leaves what it promises."""
    _recordings(tmp_path)
    uv = f'uv() {{ shift; [ "$1" = avsep ] || return 9; shift; "{sys.executable}" -m avsep_zoo "$@"; }}; set -e\n'
    ran = subprocess.run(["bash", "-c", uv + _guide()], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert {"theremin", "kalimba"} <= set(read_card(tmp_path / "runs/mine").manifest["classes"])
    results = json.loads((tmp_path / "scores/results.json").read_text())
    assert [model["kind"] for model in results["models"]] == ["model", "baseline", "baseline"]
    assert {path.name for path in (tmp_path / "stems").glob("*.wav")} == {"theremin.wav", "kalimba.wav", "residual.wav"}
