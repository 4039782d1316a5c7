"""Files in the authors' layout become a card whose model gives the official numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import avsep_zoo
from avsep_iquery.parity import separated
from avsep_zoo.errors import WeightsError
from avsep_zoo.parity.case import Case, load_case
from avsep_zoo.parity.compare import compare
from avsep_zoo.weights.conversion import convert

CASES = Path(__file__).parents[3] / "tests" / "parity" / "iquery"
PARTS = ("sound", "frame", "maskformer")


def official_files(folder: Path, case: Case, *, prefix: str = "") -> list[Path]:
    """The three files of a training run, filled by the recipe of the golden case."""
    folder.mkdir()
    for part, state in case.state_dicts.items():
        torch.save({f"{prefix}{key}": value for key, value in state.items()}, folder / f"{part}_best.pth")
    torch.save({"train": {"epoch": [1], "err": [0.5]}, "val": {"sdr": [1.0]}}, folder / "history_latest.pth")
    return [folder / f"{part}_best.pth" for part in PARTS]


def golden(name: str) -> Case:
    case = load_case(CASES / f"{name}.json")
    assert case is not None
    return case


@pytest.mark.filterwarnings("ignore::avsep_zoo.errors.LicenceWarning")
@pytest.mark.parametrize(
    ("name", "variant", "prefix"), [("e2e_music", "music", "module."), ("e2e_nomotion", "nomotion", "")]
)
def test_converted_files_give_the_official_numbers(name: str, variant: str, prefix: str, tmp_path: Path) -> None:
    """The variant is told by the files; every output of the whole method is within its tolerance."""
    case = golden(name)
    done = convert("iquery", official_files(tmp_path / "run", case, prefix=prefix), tmp_path / "card")
    assert done.card.name == f"iquery.{variant}"
    assert [file.part for file in done.files] == list(PARTS)
    assert len(done.unused) + done.used == sum(len(state) for state in case.state_dicts.values())
    errors = compare(case, separated(avsep_zoo.load(tmp_path / "card"), case))
    assert errors and all(error.passed for error in errors), [e for e in errors if not e.passed]


def test_what_is_no_part_of_a_run(tmp_path: Path) -> None:
    """A part that is missing, one that is there twice, and a file of something else are named."""
    files = official_files(tmp_path / "run", golden("e2e_nomotion"))
    with pytest.raises(WeightsError, match=r"needs the part maskformer, too, .*sound_best.pth \(sound\), frame_best"):
        convert("iquery", files[:2], tmp_path / "card")
    with pytest.raises(WeightsError, match=r"sound_best.pth and sound_best.pth both hold the part sound"):
        convert("iquery", [files[0], *files], tmp_path / "card")
    with pytest.raises(WeightsError, match=r"history_latest.pth' holds no state_dict"):
        convert("iquery", [*files, tmp_path / "run" / "history_latest.pth"], tmp_path / "card")
    with pytest.raises(WeightsError, match=r"files lack conditioner\..* of iquery.music; give all of a run"):
        convert("iquery.music", files, tmp_path / "card")
    assert not (tmp_path / "card").exists()
