"""``avsep evaluate``: what it prints, what it writes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from typer.testing import CliRunner, Result

from avsep_zoo.cli import app
from avsep_zoo.evaluation.statistics import METRICS
from avsep_zoo.weights.cards import read_card

RATE = 8000


def avsep(*arguments: object, columns: int = 100) -> Result:
    """Run a command in this process."""
    settings = {"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, [str(a) for a in arguments], env=settings, prog_name="avsep")


def sentence(result: Result) -> str:
    """Return the one line on stderr of a command that ended with exit code 1."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four mixtures of noises, and the same ones under the name of a published list."""
    root = tmp_path / "noises"
    rng = np.random.default_rng(0)
    for label in ("violin", "flute", "drum"):
        (root / "audio" / label).mkdir(parents=True)
        soundfile.write(root / "audio" / label / "a.wav", rng.uniform(-0.5, 0.5, 9000), RATE)
    rows = "".join(f"/{label}/a.wav,/{label}/a.mp4,0\n" for label in ("violin", "flute", "drum"))
    pairs = "/violin/a.wav, /flute/a.wav\n/flute/a.wav, /drum/a.wav\n/drum/a.wav, /violin/a.wav\n" * 2
    for name in ("", "_other"):
        (root / f"test{name}.csv").write_text(rows)
        (root / f"testsep{name}.csv").write_text(pairs)
    return root


def test_one_model_is_a_row_per_list(card: Path, data: Path) -> None:
    result = avsep("evaluate", card, "--data", data, "--list", "testsep", "--list", "testsep_other", "--limit", 2)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == "Protocol own: 1.02 s at 8000 Hz; cues: frames, label; dB with 95 % intervals"
    assert lines[2] == "iquery.tiny"
    assert lines[3].split() == ["List", "Mixtures", "Improvement", "SDR", "SIR", "SAR", "SI-SDR", "Mixture"]
    assert lines[4].split()[:2] == ["testsep", "2"] and lines[5].split()[:2] == ["testsep_other", "2"]
    assert lines[4].split()[2:] == lines[5].split()[2:]


def test_several_models_are_one_table(card: Path, data: Path) -> None:
    result = avsep("evaluate", "mixture", card, "ideal_ratio_mask", "--data", data, "--limit", 3, "-v")
    assert result.exit_code == 0, result.output
    table = [line.split() for line in result.stdout.splitlines()]
    start = table.index(["Model", "Improvement", "SDR", "SIR", "SAR", "SI-SDR", "Against", "first"])
    assert [row[0] for row in table[start + 1 : start + 4]] == ["mixture", "iquery.tiny", "ideal_ratio_mask"]
    assert table[start + 1][1:4] == ["0.00", "±", "0.00"] and ">120" in table[start + 1]
    assert table[start + 3][-3].startswith("+")
    assert ["Class", "mixture", "iquery.tiny", "ideal_ratio_mask"] in table
    assert "testsep, lowest improvements of iquery.tiny" in result.stdout
    assert "lowest improvements of mixture" not in result.stdout


def test_a_narrow_terminal_cuts_nothing(card: Path, data: Path) -> None:
    call = ("evaluate", card, "ideal_ratio_mask", "--data", data, "--limit", 2, "--protocol", "iquery.music")
    wide, narrow = (avsep(*call, columns=columns) for columns in (100, 40))
    assert max(map(len, narrow.stdout.splitlines())) <= 40
    assert "\nideal_ratio_mask\n  Improvement " in narrow.stdout and "…" not in narrow.stdout
    numbers = [word for word in wide.stdout.split() if word[0].isdigit() and "." in word]
    assert all(number in narrow.stdout.split() for number in numbers)


def test_what_papers_report_stands_in_the_table(card: Path, data: Path) -> None:
    result = avsep("evaluate", card, "--data", data, "--limit", 2, "--protocol", "iquery.music")
    assert [line.split() for line in result.stdout.splitlines() if line.startswith("iQuery [1]")] == [
        ["iQuery", "[1]", "11.17", "15.84", "14.27"]
    ]
    assert "[1] reported, on the paper's data: table for MUSIC" in result.stdout
    assert "mean over batches of 64 mixtures" in " ".join(result.stdout.split())
    nothing = avsep("evaluate", "mixture", "--data", data, "--limit", 2, "--protocol", "davis.music")
    assert "No published number was found." in nothing.stdout


def test_json_is_the_document_without_its_items(card: Path, data: Path, tmp_path: Path) -> None:
    call = ("evaluate", card, "mixture", "--data", data, "--limit", 3)
    printed = json.loads(avsep(*call, "--json").stdout)
    assert printed["format"] == 1 and printed["protocol"]["name"] == "own"
    assert [(m["name"], m["kind"], m["use"], m["consistency"]) for m in printed["models"]] == [
        ("iquery.tiny", "model", ["frames", "label"], True),
        ("mixture", "baseline", [], False),
    ]
    assert printed["models"][0]["sha256"] == read_card(card).manifest["sha256"]
    entry = printed["models"][0]["lists"][0]
    assert (entry["name"], entry["mixtures"], "items" in entry) == ("testsep", 3, False)
    assert tuple(entry["mean"]) == METRICS
    written = avsep(*call, "-o", tmp_path / "out")
    assert written.stderr.splitlines()[-1] == f"Written to {tmp_path / 'out'}: results.json, report.html and sounds."
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert document["models"][0]["lists"][0]["mean"] == entry["mean"]
    assert len(document["models"][0]["lists"][0]["items"]) == 3


def test_consistency_is_the_protocols_unless_it_is_given(card: Path, data: Path) -> None:
    def used(*arguments: str) -> bool:
        document = avsep("evaluate", card, "--data", data, "--limit", 1, "--json", *arguments).stdout
        return bool(json.loads(document)["models"][0]["consistency"])

    assert used() and used("--protocol", "iquery.music", "--consistency")
    assert not used("--no-consistency") and not used("--protocol", "iquery.music")


def test_skipped_mixtures_are_told(card: Path, data: Path) -> None:
    (data / "audio/drum/a.wav").write_bytes(b"")
    result = avsep("evaluate", card, "--data", data)
    assert result.exit_code == 0
    assert "iquery.tiny, testsep: 4 skipped, the first is" in result.stdout
    assert " ".join(result.stdout.split()).count("drum/a.wav' cannot be read") == 1
    every = " ".join(avsep("evaluate", card, "--data", data, "-v").stdout.split())
    assert "4 skipped, they are" in every and every.count("drum/a.wav' cannot be read") == 4


def test_scores_are_written_into_the_card(card: Path, data: Path) -> None:
    before = read_card(card)
    result = avsep("evaluate", card, "mixture", "--data", data, "--use", "label", "--write-card")
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[-1] == f"Written to the card {card / 'README.md'}."
    after = read_card(card)
    assert after.text == before.text and after.manifest == before.manifest
    [model] = yaml.safe_load((card / "README.md").read_text().split("---")[1])["model-index"]
    [entry] = model["results"]
    assert entry["dataset"]["split"] == "testsep"
    assert entry["source"]["name"] == "measured here: avsep evaluate card mixture --data noises --use label"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--write-card", "--limit", "1"), "--write-card with --limit 1 would publish a part of the lists"),
        (("--protocol", "comon"), "There is no protocol 'comon'; did you mean 'common'."),
        (("--list", "nope"), "has no list 'nope' to make mixtures of; it has testsep, testsep_other"),
        (("--dataset", "nope"), "There is no reader 'nope'; known are"),
        (("--use", "text"), "The model iquery.tiny reads frames and label, not text; give it other cues."),
    ],
)
def test_what_cannot_be_evaluated_is_a_sentence(
    card: Path, data: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in sentence(avsep("evaluate", card, "--data", data, *arguments))


def test_unknown_models_and_data_are_sentences(card: Path, data: Path, tmp_path: Path) -> None:
    near = "There is no model or baseline 'ideal_ratio_msk'; did you mean 'ideal_ratio_mask'"
    assert sentence(avsep("evaluate", "ideal_ratio_msk", "--data", data)).startswith(near)
    assert sentence(avsep("evaluate", "iquery.musik", "--data", data)).startswith("iquery has no variant 'musik'")
    assert "cannot be read" in sentence(avsep("evaluate", tmp_path / "none", "--data", data))
    assert "does not exist" in sentence(avsep("evaluate", card, "--data", tmp_path / "none"))
    assert "needs a model with a card" in sentence(avsep("evaluate", "mixture", "--data", data, "--write-card"))
    for file in data.glob("audio/*/*.wav"):
        soundfile.write(file, np.zeros(9000), RATE)
    nothing = sentence(avsep("evaluate", card, "--data", data))
    assert nothing.startswith("None of the 6 mixtures of testsep can be scored with iquery.tiny; the first one: ")
    assert nothing.endswith("source 1 is silent")
