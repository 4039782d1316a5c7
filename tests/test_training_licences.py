"""What weights may be used for goes with them into the runs that start from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from avsep_zoo.cli import app
from avsep_zoo.model import SeparationModel
from avsep_zoo.weights.cards import read_card, write_card
from avsep_zoo.weights.licences import commercial, entries, notice

SMALL = ("batch=2", "steps=1", "validate_every=1", "validation_mixtures=2", "workers=0", "augmentation=null")


def train(start: Path, data: Path, run: Path) -> None:
    """Train a step from a card."""
    sets = [word for setting in SMALL for word in ("--set", setting)]
    result = CliRunner().invoke(app, ["train", "--from", str(start), "--data", str(data), "-o", str(run), *sets])
    assert result.exit_code == 0, result.output


@pytest.mark.filterwarnings("ignore::avsep_zoo.errors.LicenceWarning")
def test_a_run_from_non_commercial_weights_stays_non_commercial(
    tiny_model: SeparationModel, tones: Path, tmp_path: Path
) -> None:
    """And so does the next one, in the card of the best step as in that of the last."""
    stated = {"code": "Apache-2.0", "weights": "CC-BY-NC-4.0", "training_data": [{"of": "solos", "licence": "MIT"}]}
    write_card(tmp_path / "start", tiny_model, manifest={"licences": stated})
    train(tmp_path / "start", tones, tmp_path / "first")
    train(tmp_path / "first" / "last", tones, tmp_path / "second")
    for folder in ("first", "first/last", "second", "second/last"):
        card = read_card(tmp_path / folder)
        assert not commercial(card) and "weights (CC-BY-NC-4.0)" in str(notice(card))
        assert [f"{entry.of}: {entry.licence}" for entry in entries(card.manifest) if entry.of] == [
            "solos: MIT",
            f"{tones.name}: not stated",
        ]


def test_a_run_from_weights_of_the_users_own_has_no_licences(
    tiny_model: SeparationModel, tones: Path, tmp_path: Path
) -> None:
    write_card(tmp_path / "start", tiny_model)
    train(tmp_path / "start", tones, tmp_path / "run")
    card = read_card(tmp_path / "run")
    assert "licences" not in card.manifest and notice(card) is None
