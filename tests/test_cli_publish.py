"""``avsep publish``: what it prints, and that its errors are one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from avsep_zoo.cli import app
from avsep_zoo.testing.loopback_hub import LoopbackHub
from avsep_zoo.weights.cards import read_card

REPO = "someone/tiny-card"


def avsep(*arguments: object, token: str | None = "hf_secret") -> Result:
    """Run a command in this process, logged in to the Hub."""
    settings = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "HF_TOKEN": token}
    return CliRunner().invoke(app, [str(a) for a in arguments], env=settings, prog_name="avsep")


def test_where_it_is_and_how_to_load_it(hub: LoopbackHub, ready: Path) -> None:
    """Address and two ways; the same for a card that was there already."""
    hub.token = "hf_secret"
    for done in ("published", "there already, nothing was uploaded"):
        result = avsep("publish", ready, "--repo", REPO)
        assert result.exit_code == 0, result.output
        commit = hub.repos[REPO].branches["main"]
        assert result.stdout.splitlines() == [
            f"iquery.tiny is {done}:",
            f"  {hub.url}/{REPO}/tree/{commit}",
            f"The card in {ready} is pinned to it. Load either:",
            f"  avsep_zoo.load('hf://{REPO}@{commit}')",
            f"  avsep_zoo.load('{ready}')",
        ]
        assert result.stderr == ""
        assert read_card(ready).hub == f"{REPO}@{commit}"


def test_json_of_a_private_one(hub: LoopbackHub, ready: Path) -> None:
    result = avsep("publish", ready, "--repo", REPO, "--private", "--message", "First", "--json")
    assert result.exit_code == 0, result.output
    commit = hub.repos[REPO].branches["main"]
    assert json.loads(result.stdout) == {
        "name": "iquery.tiny",
        "repo": REPO,
        "revision": commit,
        "address": f"{hub.url}/{REPO}/tree/{commit}",
        "private": True,
        "uploaded": True,
        "load": [f"hf://{REPO}@{commit}", str(ready)],
    }


def test_a_private_one_says_so(hub: LoopbackHub, ready: Path) -> None:
    result = avsep("publish", ready, "--repo", REPO, "--private")
    assert "iquery.tiny is published; private: only its owners can load it, logged in:" in result.stdout.splitlines()


@pytest.mark.parametrize("case", ["no card", "no login", "bad name", "refused"])
def test_errors_are_one_sentence(case: str, hub: LoopbackHub, ready: Path, tmp_path: Path) -> None:
    folder, repo = ready, REPO
    token: str | None = "hf_secret"
    if case == "no card":
        folder, text = tmp_path / "none", "give the folder of a weights card"
    elif case == "no login":
        token, text = None, "run 'hf auth login'"
    elif case == "bad name":
        repo, text = "tiny", "'tiny' is no name of a model on the Hub; write org/name."
    else:
        hub.card_errors, text = ["no"], "The Hub refuses the front matter of the card: no; change it."
    result = avsep("publish", folder, "--repo", repo, token=token)
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert text in line
    assert hub.repos == {}
