"""The commands that look around: list, info, plugins, doctor."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

from avsep_zoo.cli import app

if TYPE_CHECKING:
    from avsep_zoo.model import SeparationModel


def avsep(*arguments: object, columns: int = 100) -> Result:
    """Run a command in this process."""
    settings = {"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, [str(a) for a in arguments], env=settings, prog_name="avsep")


@pytest.fixture
def card(tmp_path: Path, tiny_model: SeparationModel) -> Path:
    """A card that says how its model was trained."""
    from avsep_zoo.weights.cards import write_card

    return write_card(tmp_path / "card", tiny_model, manifest={"training": {"steps": 0, "loss": float("nan")}}).folder


def test_list_tells_of_every_variant() -> None:
    (method,) = [m for m in json.loads(avsep("list", "--json").stdout) if m["name"] == "iquery"]
    assert {v["name"] for v in method["variants"]} >= {"iquery.music", "iquery.mini"}
    assert (method["default_variant"], method["weights"]) == ("iquery.music", "iquery.mini")
    table = avsep("list").stdout
    assert re.search(r"iquery\.mini +(here|none) +--model iquery", table)


def test_info_tells_of_a_variant() -> None:
    about = json.loads(avsep("info", "iquery.mini", "--json").stdout)
    assert about["parts"]["separator"] == {"name": "mask_unet", "width": 24, "levels": 6, "mask_features": 24}
    assert len(about["classes"]) == 20 and "flute" in about["classes"]
    text = avsep("info", "iquery.mini").stdout
    assert "CVPR 2023" in text and "mask_unet" in text and "20 classes" in text


def test_info_tells_of_a_card(card: Path) -> None:
    about = json.loads(avsep("info", f"{card}/", "--json").stdout)
    assert (about["method"], about["weights"]["here"]) == ("iquery", True)
    assert about["weights"]["bytes"] == (card / "model.safetensors").stat().st_size
    assert about["weights"]["training"]["loss"] is None  # JSON has no NaN
    text = " ".join(avsep("info", f"{card}/").stdout.split())
    assert about["weights"]["sha256"] in text and "Training steps=0, loss=nan" in text


def test_info_shows_licences_and_results(tmp_path: Path, card: Path) -> None:
    result = {"dataset": {"name": "duets"}, "metrics": [{"type": "sdr", "name": "SDR", "value": 4.2}]}
    front = {"license": "apache-2.0", "model-index": [{"name": "x", "results": [result]}]}
    readme = (card / "README.md").read_text(encoding="utf-8")
    added = json.dumps(front)[1:-1].replace(', "model', '\n"model')
    (tmp_path / "README.md").write_text(readme.replace("---\n", f"---\n{added}\n", 1), encoding="utf-8")
    text = avsep("info", f"{tmp_path}/").stdout
    assert re.search(r"Licence +apache-2\.0", text) and re.search(r"Result +duets: SDR 4\.2", text)
    assert re.search(r"File +not here", text)
    (tmp_path / "README.md").write_text(readme.replace("---\n", '---\n"model-index": [good]\n', 1))
    result = avsep("info", f"{tmp_path}/")
    assert result.exit_code == 1 and "has licences, results or training of another form" in result.stderr


def test_plugins_lists_what_they_registered() -> None:
    reports = {report["name"]: report for report in json.loads(avsep("plugins", "--json").stdout)}
    assert reports["core"]["status"] == reports["iquery"]["status"] == "ok"
    assert "method iquery" in reports["iquery"]["registered"]
    assert "separator mask_unet; driver diffusion, flow; " in avsep("plugins", columns=200).stdout
    table = avsep("plugins", "--verbose", columns=200).stdout
    assert re.search(r"^motion +video_net +core +torchvision video network", table, re.MULTILINE)


def test_doctor_looks_at_everything() -> None:
    result = avsep("doctor", "--json")
    checks: dict[str, Any] = {check["name"]: check for check in json.loads(result.stdout)}
    assert {"extra data", "extra detect", "extra train"} <= checks.keys()
    assert {"python", "torch", "cpu", "ffmpeg", "decoders", "plugin iquery", "fluidsynth"} <= checks.keys()
    assert any(name.startswith("weights ") for name in checks)
    assert [name for name, check in checks.items() if check["status"] == "fail"] == []
    assert all(bool(check["advice"]) == (check["status"] != "ok") for check in checks.values())
    assert result.exit_code == 0


def test_doctor_finds_damaged_weights(tmp_path: Path, card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout with one whole card, one whose weights are another file, and one that is no card."""
    for name, damage in (("a.whole", b""), ("b.changed", b"x")):
        folder = tmp_path / "weights_cards" / name
        folder.mkdir(parents=True)
        (folder / "README.md").write_bytes((card / "README.md").read_bytes())
        (folder / "model.safetensors").write_bytes((card / "model.safetensors").read_bytes() + damage)
    folder = tmp_path / "weights_cards" / "c.none"
    folder.mkdir()
    (folder / "README.md").write_text("nothing")
    monkeypatch.setattr("avsep_zoo.plugins.checkout_root", lambda: tmp_path)
    result = avsep("doctor")
    assert result.exit_code == 1
    found = dict(re.findall(r"^(\w+) +weights (\S+)", result.stdout, re.MULTILINE)[i][::-1] for i in range(3))
    assert found == {"a.whole": "ok", "b.changed": "fail", "c.none": "fail"}
