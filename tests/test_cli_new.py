"""``avsep new``: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from avsep_zoo.cli import app

ROOT = Path(__file__).resolve().parents[1]


def new(*arguments: object) -> Result:
    """Run ``avsep new`` in this process."""
    settings = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, ["new", *(str(a) for a in arguments)], env=settings, prog_name="avsep")


def sentence(*arguments: object) -> str:
    """Return the one line that ``avsep new`` refuses with."""
    result = new(*arguments)
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    (line,) = result.stderr.splitlines()
    return line


def test_what_is_written_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder called after the package, each of its files by name, and what to do next."""
    monkeypatch.chdir(tmp_path)
    result = new("toy-method")
    assert (result.exit_code, result.stderr) == (0, "")
    first, *listed = result.stdout.splitlines()
    assert first == "avsep-toy-method is in avsep-toy-method:"
    folder = tmp_path / "avsep-toy-method"
    written = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert sorted(line.strip() for line in listed[:-4]) == written
    parts = [f"src/avsep_toy_method/{n}.py" for n in ("plugin", "encoder", "conditioner", "separator", "objective")]
    assert {*parts, "pyproject.toml", "README.md", ".gitignore", "tests/test_toy_method.py"} <= set(written)
    assert "src/avsep_toy_method/cards/TEMPLATE.md" in written
    assert "Install it: python -m pip install --no-deps -e avsep-toy-method" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["avsep-toy-method"]


def test_json_and_a_folder_of_ones_own(tmp_path: Path) -> None:
    """-o is the folder itself, below folders that need not be there."""
    folder = tmp_path / "mine" / "here"
    result = new("toy_method", "-o", folder, "--json")
    said = json.loads(result.stdout)
    assert (said["method"], said["package"], said["folder"]) == ("toy_method", "avsep_toy_method", str(folder))
    assert all((folder / path).is_file() for path in said["files"])


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "link to nothing"])
def test_what_is_there_stays(kind: str, tmp_path: Path) -> None:
    """Whatever has the name of the folder is left as it is."""
    there = tmp_path / "there"
    if kind == "file":
        there.write_text("mine")
    elif kind == "link to nothing":
        there.symlink_to(tmp_path / "nothing")
    else:
        there.mkdir()
    if kind == "folder":
        (there / "README.md").write_text("mine")
    before = [(path, path.is_file() and path.read_text()) for path in sorted(tmp_path.rglob("*"))]
    line = sentence("toy-method", "-o", there)
    assert (
        line
        == f"There is {str(there)!r} already, and nothing in it is changed; name another folder with -o, or move it."
    )
    assert [(path, path.is_file() and path.read_text()) for path in sorted(tmp_path.rglob("*"))] == before


def test_a_folder_below_a_file(tmp_path: Path) -> None:
    """It cannot be made, and the file stays."""
    (tmp_path / "file").write_text("mine")
    assert "cannot be used" in sentence("toy-method", "-o", tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "mine"


def test_all_or_nothing(tmp_path: Path) -> None:
    """A disk that takes the first files and not the next ones is left as it was."""
    ran = subprocess.run(
        [sys.executable, "-m", "avsep_zoo", "new", "toy-method", "-o", tmp_path / "new"],
        cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500)),  # bytes per file
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert len(ran.stderr.splitlines()) == 1 and "too large" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_bad_name_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence says what to type instead."""
    monkeypatch.chdir(tmp_path)
    assert sentence("../MyMethod").endswith("avsep new my-method.")
    assert list(tmp_path.iterdir()) == []
