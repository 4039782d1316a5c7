"""Measured numbers in a card's front matter: as the Hub reads them, and nothing else in the file changes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from avsep_zoo.errors import WeightsError
from avsep_zoo.evaluation.model_index import HOMEPAGE, write_results
from avsep_zoo.weights.cards import read_card

COMMAND = 'avsep evaluate iquery.tiny --data "my data"'
NAME = "iquery.tiny"


def results(
    card: Path, *lists: str, protocol: str = "common", data: str = "data/Duets", **more: float
) -> dict[str, Any]:
    """A results document of the card's weights; every mean is 1.234 dB where ``more`` has no other."""
    means = dict.fromkeys(("sdr", "sir", "sar", "si_sdr", "mixture_sdr", "sdr_improvement"), 1.234) | more
    entry = {
        "mixtures": 7,
        "mean": {metric: {"mean": value, "low": 0.0, "high": 2.0} for metric, value in means.items()},
        "items": [{"sdr": [1.0, 2.0]}],
    }
    model = {
        "name": NAME,
        "kind": "model",
        "sha256": read_card(card).manifest["sha256"],
        "use": ["label"],
        "consistency": True,
        "lists": [{"name": name, **entry} for name in lists or ("testsep",)],
    }
    baseline = {**model, "name": "mixture", "kind": "baseline", "sha256": None}
    settings = {"name": protocol, "summary": "as all", "rate": 8000, "seconds": 1.02, "source": "a test"}
    return {"format": 1, "protocol": settings, "data": data, "created": "2025", "models": [baseline, model]}


def entries(card: Path) -> list[dict[str, Any]]:
    index = read_card(card).front["model-index"]
    assert [model["name"] for model in index] == [NAME]
    return list(index[0]["results"])


def put(card: Path, head: str, text: str = "# Title\n") -> None:
    """Write a README with ``head`` before the avsep block of the card."""
    manifest = yaml.safe_dump({"avsep": dict(read_card(card).manifest)}, sort_keys=False)
    (card / "README.md").write_bytes(f"---\n{head}{manifest}---\n{text}".encode())


def test_an_entry_as_the_hub_has_it(card: Path) -> None:
    write_results(card, results(card), COMMAND)
    (entry,) = entries(card)
    assert entry == {
        "task": {"type": "audio-to-audio", "name": "separation of two sources"},
        "dataset": {
            "type": "duets",
            "name": "Duets, testsep, protocol common",
            "config": "common",
            "split": "testsep",
            "args": {"rate": 8000, "seconds": 1.02, "cues": ["label"], "consistency": True, "mixtures": 7},
        },
        "metrics": [
            {"type": "sdr", "name": "SDR", "value": 1.23},
            {"type": "sir", "name": "SIR", "value": 1.23},
            {"type": "sar", "name": "SAR", "value": 1.23},
            {"type": "si_sdr", "name": "SI-SDR", "value": 1.23},
            {"type": "sdr_improvement", "name": "SDR improvement", "value": 1.23},
        ],
        "source": {"name": f"measured here: {COMMAND}", "url": "https://github.com/avsep-zoo/avsep-zoo"},
    }


def test_the_hub_reads_it(card: Path) -> None:
    """Its own reader, which tells two protocols on one list apart and writes back what it read."""
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

    write_results(card, results(card, "testsep", "testsep_timbre"), COMMAND)
    write_results(card, results(card, protocol="published"), COMMAND)
    data = ModelCard.load(card / "README.md").data
    assert data.model_name == NAME and len(data.eval_results or []) == 15
    name, found = model_index_to_eval_results(read_card(card).front["model-index"])
    again = eval_results_to_model_index(name, found)[0]["results"]
    assert [entry["dataset"] for entry in again] == [entry["dataset"] for entry in entries(card)]


BY_HAND = """\
model-index:
- name: iquery.tiny
  results:
  - task: {type: audio-to-audio}
    dataset: {type: duets, name: by hand, split: testsep}
    metrics: [{type: sdr, value: 9.99}]
    source: {name: measured once}
  - task: {type: audio-to-audio}
    dataset: {type: duets, name: by hand, split: val}
    metrics: [{type: sdr, value: 8.88}]
    source: {name: measured once}
"""


def test_what_was_written_by_hand_without_a_protocol(card: Path) -> None:
    """It makes room where the list was measured; elsewhere it stays, with the address that the Hub wants."""
    from huggingface_hub import ModelCard

    put(card, BY_HAND)
    write_results(card, results(card), COMMAND)
    write_results(card, results(card), COMMAND)
    found = [(e["dataset"]["split"], e["dataset"].get("config"), e["metrics"][0]["value"]) for e in entries(card)]
    assert found == [("testsep", "common", 1.23), ("val", None, 8.88)]
    assert entries(card)[1]["source"] == {"name": "measured once", "url": HOMEPAGE}
    assert len(ModelCard.load(card / "README.md").data.eval_results or []) == 6


def test_only_the_same_data_list_and_protocol_is_replaced(card: Path) -> None:
    """In its place; the order of the others stays."""
    write_results(card, results(card, "a", "b", "c"), COMMAND)
    write_results(card, results(card, "b", protocol="published", sdr=2.0), COMMAND)
    write_results(card, results(card, "b", data="other", sdr=3.0), COMMAND)
    write_results(card, results(card, "b", "d", sdr=4.0), "again")
    found = [(e["dataset"]["type"], e["dataset"]["config"], e["dataset"]["split"]) for e in entries(card)]
    assert found == [
        ("duets", "common", "a"),
        ("duets", "common", "b"),
        ("duets", "common", "c"),
        ("duets", "published", "b"),
        ("other", "common", "b"),
        ("duets", "common", "d"),
    ]
    assert [e["metrics"][0]["value"] for e in entries(card)] == [1.23, 4.0, 1.23, 2.0, 3.0, 4.0]
    assert entries(card)[1]["source"]["name"] == "measured here: again"


def test_the_rest_stays_byte_for_byte(card: Path) -> None:
    """Comments, quotes, order, odd spacing, a figure of somebody else, a text with rules, no new files."""
    head = (
        "# first\nlicense:   'apache-2.0'  # why\ntags: [a,  b]\n"
        f"model-index:\n- name: {NAME}\n  results:\n"
        "  - task: {type: audio-to-audio}\n    dataset: {type: x, name: X}\n    metrics: [{type: sdr, value: 9.0}]\n\n"
        '# about the title\n"title": >-\n  two\n  lines\nloss: .nan\ndate: 2025-01-02\n'
    )
    text = "# Ümlaut \n\n---\nmodel-index: not this\n---\n\ttab and no line end"
    put(card, head, text)
    before = (card / "README.md").read_bytes()
    write_results(card, results(card), COMMAND)
    after = (card / "README.md").read_bytes()
    start, stop = head.index("model-index"), head.index("\n# about the title")
    front = len("---\n")
    assert after.startswith(before[: front + start]) and after.endswith(before[front + stop :])
    assert [e["dataset"]["type"] for e in entries(card)] == ["x", "duets"]
    assert entries(card)[0]["metrics"] == [{"type": "sdr", "value": 9.0}]
    assert sorted(p.name for p in card.iterdir()) == ["README.md", "model.safetensors"]


def test_writing_twice_is_writing_once(card: Path) -> None:
    write_results(card, results(card), COMMAND)
    once = (card / "README.md").read_bytes()
    write_results(card / "README.md", results(card), COMMAND)
    assert (card / "README.md").read_bytes() == once


def test_other_line_ends_stay(card: Path) -> None:
    readme = card / "README.md"
    readme.write_bytes(readme.read_bytes().replace(b"\n", b"\r\n"))
    before = readme.read_bytes()
    write_results(card, results(card), COMMAND)
    write_results(card, results(card), COMMAND)
    after = readme.read_bytes()
    assert after.count(b"\r\n") == after.count(b"\n") > before.count(b"\n")
    assert entries(card)[0]["source"]["name"].endswith(COMMAND)


def test_a_score_that_is_missing_is_not_written(card: Path) -> None:
    """A list without any score has no entry."""
    write_results(card, results(card, sdr=math.nan, si_sdr=math.inf), COMMAND)
    assert [m["type"] for m in entries(card)[0]["metrics"]] == ["sir", "sar", "sdr_improvement"]
    nothing = results(card, "empty")
    nothing["models"][1]["lists"][0]["mean"] = {"sdr": {"mean": None, "low": None, "high": None}}
    write_results(card, nothing, COMMAND)
    assert [e["dataset"]["split"] for e in entries(card)] == ["testsep"]


def test_the_weights_tell_which_model_it_is(card: Path) -> None:
    """Not the name, which may be that of a folder."""
    document = results(card, sdr=7.0)
    other = {**results(card, sdr=9.0)["models"][1], "sha256": "0" * 64}
    document["models"][1]["name"] = "runs/first"
    write_results(card, document | {"models": [other, *document["models"]]}, COMMAND)
    assert [e["metrics"][0]["value"] for e in entries(card)] == [7.0]


def test_no_path_of_this_machine_is_written(card: Path) -> None:
    write_results(card, results(card, data="/home/somebody/Müsik 21/"), "avsep evaluate")
    dataset = entries(card)[0]["dataset"]
    assert dataset["name"].startswith("Müsik 21, ") and dataset["type"] == "m-sik-21"
    assert "somebody" not in (card / "README.md").read_text(encoding="utf-8")


def test_results_of_other_weights_are_refused(card: Path) -> None:
    before = (card / "README.md").read_bytes()
    document = results(card)
    document["models"][1]["sha256"] = "0" * 64
    with pytest.raises(WeightsError, match=r"are of iquery.tiny \(000000000000\) and the card iquery.tiny has weights"):
        write_results(card, document, COMMAND)
    document["models"].pop()
    with pytest.raises(WeightsError, match=r"are of no model and the card iquery.tiny"):
        write_results(card, document, COMMAND)
    assert (card / "README.md").read_bytes() == before


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("model-index: [good]\n", "another form"),
        ("model-index: 3\n", "another form"),
        ("model-index:\n- name: iquery.tiny\n", "another form"),
        ("model-index:\n- {name: iquery.tiny, results: [{dataset: x}]}\n", "another form"),
        ("model-index: []\nmodel-index: []\n", "cannot be replaced alone"),
        ("model-index:\n- {name: &n iquery.tiny, results: []}\ntitle: *n\n", "cannot be replaced alone"),
    ],
)
def test_a_front_matter_that_cannot_be_edited_stays(head: str, message: str, card: Path) -> None:
    put(card, head)
    before = (card / "README.md").read_bytes()
    with pytest.raises(WeightsError, match=message):
        write_results(card, results(card), COMMAND)
    assert (card / "README.md").read_bytes() == before
    assert sorted(p.name for p in card.iterdir()) == ["README.md", "model.safetensors"]


def test_a_front_matter_in_braces_is_refused(card: Path) -> None:
    manifest = yaml.safe_dump({"avsep": dict(read_card(card).manifest)}, default_flow_style=True)
    (card / "README.md").write_text(f"---\n{manifest}---\n", encoding="utf-8")
    with pytest.raises(WeightsError, match="one key per line"):
        write_results(card, results(card), COMMAND)


def test_an_empty_model_index_is_filled(card: Path) -> None:
    put(card, "model-index:\n")
    write_results(card, results(card), COMMAND)
    assert len(entries(card)) == 1
