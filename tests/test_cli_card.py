"""``avsep card``: check and table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from avsep_zoo.cli import app
from avsep_zoo.model import SeparationModel
from avsep_zoo.weights.card_table import BEGIN, END
from avsep_zoo.weights.cards import write_card


def avsep(*arguments: object) -> Result:
    """Run a command in this process."""
    settings = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, [str(a) for a in arguments], env=settings, prog_name="avsep")


@pytest.fixture
def cards(tmp_path: Path, tiny_model: SeparationModel) -> Path:
    """A folder with a card that is as it should be, one with problems, and something else."""
    licences = dict.fromkeys(("code", "weights", "training_data"), "MIT")
    front = {"license": "mit", "tags": ["sound-separation"]}
    write_card(tmp_path / "cards" / "good", tiny_model, front=front, manifest={"licences": licences})
    write_card(tmp_path / "cards" / "run", tiny_model)
    (tmp_path / "cards" / "audio").mkdir()
    return tmp_path / "cards"


def test_help_imports_no_torch() -> None:
    code = """
import sys
from typer.testing import CliRunner
from avsep_zoo.cli import app
for call in (["card", "--help"], ["card", "check", "--help"], ["card", "table", "--help"], ["card", "table"]):
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
assert "torch" not in sys.modules
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr


def test_check_of_a_card_without_problems(cards: Path) -> None:
    result = avsep("card", "check", cards / "good")
    assert (result.exit_code, result.stdout) == (0, f"{cards / 'good'}: no problems\n")


def test_check_of_a_folder_of_cards_shows_every_problem(cards: Path) -> None:
    result = avsep("card", "check", cards)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == f"{cards / 'good'}: no problems"
    assert lines[1] == f"{cards / 'run'}: 2 problems"
    assert len(lines) == 4 and all(line.startswith("- ") for line in lines[2:])


def test_check_as_json(cards: Path) -> None:
    result = avsep("card", "check", cards / "run", cards / "good", "--json")
    assert result.exit_code == 1
    run, good = json.loads(result.stdout)
    assert (run["folder"], len(run["problems"])) == (str(cards / "run"), 2)
    assert good == {"folder": str(cards / "good"), "problems": []}


def test_check_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    result = avsep("card", "check", tmp_path / "none")
    assert result.exit_code == 1 and "README.md' cannot be read" in result.stdout


def test_check_of_a_folder_without_cards_is_a_sentence(cards: Path) -> None:
    result = avsep("card", "check", cards / "audio")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"The folder {str(cards / 'audio')!r} holds no card; give a folder")


def test_table_is_printed_or_written(tmp_path: Path) -> None:
    table = avsep("card", "table").stdout
    assert table.startswith("| weights | method | cues |")
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n")
    assert avsep("card", "table", readme).stderr.endswith("README.md has the table now.\n")
    assert len(readme.read_text().splitlines()) == len(table.splitlines()) + 4
    assert avsep("card", "table", readme).stderr.endswith("README.md has it already.\n")


def test_table_without_a_place_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("no markers")
    result = avsep("card", "table", tmp_path / "README.md")
    assert result.exit_code == 1 and "has no place for the table" in result.stderr
