"""The commands that look around: list, info, plugins, doctor."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
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


@pytest.fixture
def checkout(tmp_path: Path, tiny_model: SeparationModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with cards of iQuery: here, on the Hub, to convert, and damaged."""
    from avsep_zoo.weights.cards import pin_card, write_card

    data = [{"of": "notes", "licence": "LicenseRef-mine", "terms": "free for any use", "commercial": True}]
    source = {"url": "https://example.org", "licence": "not stated", "files": ["a.pth", "b.pth"]}
    cards = tmp_path / "checkout" / "weights_cards"
    for variant, licence in (("mini", "MIT"), ("music", "not stated"), ("music21", "CC-BY-NC-4.0"), ("ave", "MIT")):
        licences = {"code": "Apache-2.0", "weights": licence, "training_data": [*data, {"of": "x", "licence": "MIT"}]}
        manifest = {"licences": licences, "source": source}
        card = write_card(cards / f"iquery.{variant}", tiny_model, name=f"iquery.{variant}", manifest=manifest)
        readme = card.folder / "README.md"
        if variant == "music":
            readme.write_text(re.sub(r"(?m)^  (file|bytes|sha256): .*\n", "", readme.read_text()))
        if variant == "music21":
            pin_card(card, "org/name", "0" * 40)
        if variant != "mini":
            card.weights.unlink()
        if variant == "ave":
            readme.write_text("nothing")
    monkeypatch.setattr("avsep_zoo.plugins.checkout_root", lambda: tmp_path / "checkout")
    return tmp_path / "checkout"


def test_list_tells_of_every_variant() -> None:
    (method,) = [m for m in json.loads(avsep("list", "--json").stdout) if m["name"] == "iquery"]
    assert {v["name"] for v in method["variants"]} >= {"iquery.music", "iquery.mini"}
    assert (method["default_variant"], method["weights"]) == ("iquery.music", "iquery.mini")
    table = avsep("list").stdout
    assert re.search(r"iquery\.mini +here +Apache-2\.0 +--model iquery", table)


def test_list_tells_of_weights_to_convert_and_of_none(checkout: Path) -> None:
    (method,) = [m for m in json.loads(avsep("list", "--json").stdout) if m["name"] == "iquery"]
    variants = {variant.pop("name"): variant for variant in method["variants"]}
    assert variants["iquery.mini"] == {"weights": "here", "licence": "MIT", "commercial": True}
    assert variants["iquery.music"] == {"weights": "to convert", "licence": "not stated", "commercial": False}
    assert variants["iquery.music21"] == {"weights": "on the Hub", "licence": "CC-BY-NC-4.0", "commercial": False}
    assert variants["iquery.ave"] == {"weights": "damaged card", "licence": None, "commercial": False}
    assert variants["iquery.nomotion"] == {"weights": "none", "licence": None, "commercial": False}


def test_list_of_what_may_be_used_commercially(checkout: Path) -> None:
    (method,) = json.loads(avsep("list", "--commercial", "--json").stdout)
    assert method["name"] == "iquery" and [v["name"] for v in method["variants"]] == ["iquery.mini"]
    shown = avsep("list", "--commercial").stdout
    assert re.search(r"iquery\.mini +here +MIT", shown) and not re.search(r"(?m)^iquery\.music", shown)
    (checkout / "weights_cards" / "iquery.mini" / "README.md").unlink()
    assert "No weights here have licences that permit commercial use." in avsep("list", "--commercial").stdout


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


def test_info_shows_results_by_where_they_come_from(card: Path) -> None:
    measured = {"name": "measured here: avsep evaluate x", "url": "https://example.org"}
    reported = {"name": "reported by the paper: its table 2", "url": "https://example.org"}
    results = [
        {"dataset": {"name": "duets"}, "metrics": [{"type": "sdr", "name": "SDR", "value": 4.2}], "source": measured},
        {"dataset": {"name": "MUSIC"}, "metrics": [{"type": "sir", "value": 9}], "source": reported},
        {"dataset": {"name": "mine"}, "metrics": [{"type": "sar", "value": 7}]},
    ]
    front = {"license": "apache-2.0", "model-index": [{"name": "x", "results": results}]}
    add_front(card, front)
    text = avsep("info", f"{card}/").stdout
    assert re.search(r"Licence +apache-2\.0", text)
    assert re.search(r"^Measured here: avsep evaluate x\nduets +SDR 4\.2", text, re.MULTILINE)
    assert re.search(r"^Reported by the paper: its table 2\nMUSIC +sir 9", text, re.MULTILINE)
    assert re.search(r"^Other results\nmine +sar 7", text, re.MULTILINE)
    kinds = [result["kind"] for result in json.loads(avsep("info", f"{card}/", "--json").stdout)["weights"]["results"]]
    assert kinds == ["measured here", "reported by the paper", ""]


def add_front(card: Path, front: dict[str, Any]) -> None:
    readme = card / "README.md"
    readme.write_text(readme.read_text().replace("---\n", f"---\n{yaml.safe_dump(front)}", 1))


def test_info_of_results_of_another_form_is_a_sentence(card: Path) -> None:
    add_front(card, {"model-index": ["good"]})
    result = avsep("info", f"{card}/")
    assert result.exit_code == 1 and "has another form than the Hub's" in result.stderr


def test_info_of_weights_to_convert(checkout: Path) -> None:
    """Where they come from, how they are made, and every licence in a line of its own."""
    text = avsep("info", "iquery.music").stdout
    assert re.search(r"^State +to convert", text, re.MULTILINE)
    assert re.search(r"^How to get them +avsep convert iquery\.music --checkpoint", text, re.MULTILINE)
    assert re.search(r"^Licence of weights +not stated", text, re.MULTILINE)
    assert re.search(
        r"^Licence of training data +notes: LicenseRef-mine \(free for any use\) *\n +x: MIT", text, re.MULTILINE
    )
    assert re.search(r"^Commercial use +not permitted", text, re.MULTILINE)
    source = r"^Source +url: https://example\.org *\n +licence: not stated *\n +files: \[a\.pth, b"
    assert re.search(source, text, re.MULTILINE)
    about = json.loads(avsep("info", "iquery.music", "--json").stdout)["weights"]
    assert (about["state"], about["hub"], about["here"], about["commercial"]) == ("to convert", None, False, False)


def test_info_of_weights_on_the_hub(checkout: Path) -> None:
    text = avsep("info", "iquery.music21").stdout
    assert re.search(r"^State +on the Hub", text, re.MULTILINE)
    assert re.search(r"^File +\d\.\d MB", text, re.MULTILINE)
    assert re.search(rf"^Repository +org/name *\nRevision +{'0' * 40}", text, re.MULTILINE)


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


def test_doctor_looks_at_weights_wherever_they_are(checkout: Path) -> None:
    checks = {check["name"]: check for check in json.loads(avsep("doctor", "--json").stdout)}
    found = {name.split(".")[1]: check for name, check in checks.items() if name.startswith("weights iquery.")}
    assert {name: check["status"] for name, check in found.items()} == {
        "mini": "ok", "music": "ok", "music21": "ok", "ave": "fail",
    }  # fmt: skip
    assert found["music"]["found"] == "weights are yours to convert"
    assert found["music21"]["found"] == f"on the Hub, org/name@{'0' * 40}"
    (checkout / "weights_cards" / "iquery.mini" / "model.safetensors").unlink()
    (lost,) = [c for c in json.loads(avsep("doctor", "--json").stdout) if c["name"] == "weights iquery.mini"]
    assert (lost["status"], lost["found"]) == ("warn", "model.safetensors is not here")


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
