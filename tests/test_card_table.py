"""The table of methods and weights in the README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from avsep_zoo.errors import WeightsError
from avsep_zoo.model import SeparationModel
from avsep_zoo.plugins import checkout_root
from avsep_zoo.weights.card_table import BEGIN, END, methods_table, write_table
from avsep_zoo.weights.cards import write_card

ROOT = checkout_root()
MEASURED = [
    {
        "dataset": {"type": "tones", "name": "tones", "split": split, "config": protocol},
        "metrics": [{"type": "sdr", "value": 9.0}, {"type": "sdr_improvement", "value": gain}],
        "source": {"name": f"{source}: avsep evaluate x", "url": "https://example.org"},
    }
    for split, protocol, gain, source in (
        ("testsep", "own", 7.46, "measured here"),
        ("hard", "common", 5, "measured here"),
        ("testsep", "iquery.music", 8.9, "reported by the paper"),
    )
]


@pytest.fixture
def checkout(tmp_path: Path, tiny_model: SeparationModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a card that is trained, one to convert, one of an unknown method, and a README."""
    front = {"model-index": [{"name": "iquery.mini", "results": MEASURED}]}
    data = [{"of": "a", "licence": "MIT"}, {"of": "b", "licence": "not stated"}, {"of": "c", "licence": "MIT"}]
    licences = {"code": "Apache-2.0", "weights": "CC-BY-NC-4.0", "training_data": data}
    for name in ("iquery.mini", "iquery.music", "mine.own"):
        write_card(
            tmp_path / "weights_cards" / name, tiny_model, name=name, front=front, manifest={"licences": licences}
        )
    readme = tmp_path / "weights_cards" / "iquery.music" / "README.md"
    readme.write_text(re.sub(r"(?m)^  (file|bytes|sha256): .*\n", "", readme.read_text()))
    (tmp_path / "README.md").write_text(f"Before\n\n{BEGIN}\n{END}\n\nAfter — ü\n", encoding="utf-8")
    monkeypatch.setattr("avsep_zoo.plugins.checkout_root", lambda: tmp_path)
    return tmp_path


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


@pytest.mark.skipif(ROOT is None, reason="the README is in a checkout only")
def test_the_readme_has_the_table_of_the_cards(tmp_path: Path) -> None:
    assert ROOT is not None
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = text.partition(BEGIN)[2].partition(END)[0].strip()
    stale = "the table in README.md is stale; run: uv run avsep card table README.md"
    assert found.splitlines() == methods_table().splitlines(), stale


def test_a_row_has_all_that_is_known_of_a_card(checkout: Path) -> None:
    head, line, mini, music = cells(methods_table())
    assert len(head) == len(line) == len(mini) == len(music) <= 6
    assert mini[0] == "[`iquery.mini`](weights_cards/iquery.mini/README.md)"
    assert mini[1].startswith("`iquery`: iQuery: Instruments as Queries") and mini[1].endswith(", CVPR 2023")
    assert mini[2].startswith("a class label and frames")
    assert re.fullmatch(r"\d+\.\d MB", mini[3])
    assert mini[4] == "Apache-2.0 / CC-BY-NC-4.0 / MIT, not stated"
    assert mini[5] == "5.0 hard (common), 7.5 testsep"


def test_a_card_to_convert_leads_to_its_steps(checkout: Path) -> None:
    """The method is named in its first row only."""
    music = cells(methods_table())[-1]
    assert music[:4] == [
        "[`iquery.music`](weights_cards/iquery.music/README.md)",
        "",
        "",
        "convert: [steps](weights_cards/iquery.music/README.md)",
    ]


def test_writing_changes_what_is_between_the_markers(checkout: Path) -> None:
    readme = checkout / "README.md"
    assert write_table(readme) is True
    text = readme.read_text(encoding="utf-8")
    assert text == f"Before\n\n{BEGIN}\n\n{methods_table()}\n{END}\n\nAfter — ü\n"
    assert write_table(readme) is False
    assert sorted(path.name for path in checkout.iterdir()) == ["README.md", "weights_cards"]


def test_line_ends_and_place_of_another_readme(checkout: Path) -> None:
    readme = checkout / "docs" / "methods.md"
    readme.parent.mkdir()
    readme.write_bytes(f"{BEGIN}\r\n{END}\r\n".encode())
    write_table(readme)
    lines = readme.read_bytes().split(b"\n")
    assert all(line.endswith(b"\r") for line in lines[:-1])
    assert b"(../weights_cards/iquery.mini/README.md)" in readme.read_bytes()


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}\n", f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n"])
def test_a_readme_without_a_place_for_it_stays_as_it_is(text: str, checkout: Path) -> None:
    readme = checkout / "README.md"
    readme.write_text(text)
    with pytest.raises(WeightsError, match="has no place for the table; write <!-- avsep card table -->"):
        write_table(readme)
    assert readme.read_text() == text


def test_a_readme_that_is_not_there(checkout: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot be read .*; give a README in UTF-8"):
        write_table(checkout / "none.md")


def test_a_damaged_card_is_named_and_nothing_written(checkout: Path) -> None:
    (checkout / "weights_cards" / "iquery.mini" / "README.md").write_text("nothing")
    before = (checkout / "README.md").read_bytes()
    with pytest.raises(WeightsError, match=r"iquery\.mini/README\.md' has no front matter"):
        write_table(checkout / "README.md")
    assert (checkout / "README.md").read_bytes() == before


def test_an_installed_package_has_no_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avsep_zoo.plugins.checkout_root", lambda: None)
    with pytest.raises(WeightsError, match="this is an installed package; clone it"):
        methods_table()


def test_no_text_of_a_card_breaks_the_table(checkout: Path) -> None:
    readme = checkout / "weights_cards" / "iquery.mini" / "README.md"
    readme.write_text(readme.read_text().replace("CC-BY-NC-4.0", '"a | b\\n| c"'))
    assert {len(re.split(r"(?<!\\)\|", line)) for line in methods_table().splitlines()} == {8}
