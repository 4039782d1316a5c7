"""``avsep pull``: what is fetched, told, and done when one name fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner, Result

import avsep_zoo
from avsep_zoo.cli import app
from avsep_zoo.testing.loopback_hub import LoopbackHub
from avsep_zoo.weights.cards import Card
from avsep_zoo.weights.download import weights_file


def pull(*arguments: object) -> Result:
    """Run the command in this process, not on a terminal."""
    settings = {"COLUMNS": "300", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, ["pull", *(str(a) for a in arguments)], env=settings, prog_name="avsep")


def test_a_card_is_fetched(hub: LoopbackHub, card_on_hub: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the Hub, then from the cache; from then on, it loads without a network."""
    for source in ("Hub", "cache"):
        done = pull(card_on_hub.folder)
        assert done.exit_code == 0 and "%" not in done.stderr
        head, row = done.stdout.splitlines()
        assert head.split() == ["Name", "File", "MB", "From"]
        size = f"{card_on_hub.manifest['bytes'] / 1e6:.1f}"
        assert row.split() == ["iquery.tiny", str(weights_file(card_on_hub)), size, source]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert avsep_zoo.load(card_on_hub.folder).name == "iquery.tiny"


def test_an_address(hub: LoopbackHub, card_on_hub: Card) -> None:
    """Card and weights of a commit."""
    (commit,) = hub.repos["someone/tiny"].commits
    done = pull(f"hf://someone/tiny@{commit}", "--json")
    (one,) = json.loads(done.stdout)["pulled"]
    assert (one["name"], one["sha256"], one["from"]) == ("iquery.tiny", card_on_hub.sha256, "Hub")
    assert Path(one["file"]).stat().st_size == one["bytes"] == card_on_hub.manifest["bytes"]


def test_a_mirror(hub: LoopbackHub, card_on_hub: Card, tmp_path: Path) -> None:
    """Instead of the Hub."""
    (files,) = hub.repos["someone/tiny"].commits.values()
    (tmp_path / "mirror" / "iquery.tiny").mkdir(parents=True)
    (tmp_path / "mirror" / "iquery.tiny" / "model.safetensors").write_bytes(files["model.safetensors"])
    done = pull(card_on_hub.folder, "--mirror", tmp_path / "mirror", "--json")
    assert [one["from"] for one in json.loads(done.stdout)["pulled"]] == ["mirror"] and hub.requests == []
    assert pull(card_on_hub.folder, "--mirror", tmp_path / "nothing").exit_code == 0


def test_one_that_fails(hub: LoopbackHub, card: Path, tmp_path: Path) -> None:
    """The others are fetched all the same; each failure is one line, and the exit code tells."""
    done = pull("nothing", card, tmp_path, card)
    assert done.exit_code == 1
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["Name", "iquery.tiny"]
    first, second = done.stderr.splitlines()
    assert first.startswith("nothing: There is no method 'nothing'") and second.startswith(f"{tmp_path}: The card ")


def test_failures_as_json(hub: LoopbackHub) -> None:
    done = pull("nothing", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["pulled"] == []
    assert json.loads(done.stdout)["failed"][0]["name"] == "nothing"


def test_weights_that_do_not_fit(hub: LoopbackHub, card_on_hub: Card) -> None:
    """A model that does not load is found now, not when there is no network."""
    readme = card_on_hub.folder / "README.md"
    readme.write_text(readme.read_text().replace("levels: 5", "levels: 6"))
    done = pull(card_on_hub.folder)
    assert done.exit_code == 1 and "The weights of iquery.tiny do not fit its parts" in done.stderr


def test_what_the_encoder_needs(hub: LoopbackHub, card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fetches what it would fetch when the first cue comes."""
    from avsep_iquery.encoder import IQueryEncoder

    asked: list[Any] = []
    monkeypatch.setattr(IQueryEncoder, "fetch", lambda encoder: asked.append(encoder))
    assert pull(card).exit_code == 0 and len(asked) == 1


def test_bundled_names() -> None:
    """Methods and variants, once each."""
    done = pull("iquery", "iquery.mini", "iquery", "--json")
    assert [(one["name"], one["from"]) for one in json.loads(done.stdout)["pulled"]] == [("iquery.mini", "here")] * 2


def test_a_pipe_gets_only_json(hub: LoopbackHub, card_on_hub: Card) -> None:
    """In a process of its own, where the client may show its bars."""
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"}
    command = [sys.executable, "-m", "avsep_zoo", "pull", str(card_on_hub.folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0 and json.loads(done.stdout)["failed"] == []
    assert "%" not in done.stderr
