"""Every problem of a card at once; and the cards of this checkout have none."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import avsep_zoo
from avsep_zoo.evaluation.published import PUBLISHED
from avsep_zoo.model import SeparationModel
from avsep_zoo.plugins import checkout_root
from avsep_zoo.recipe import PartConfig
from avsep_zoo.weights.card_check import check
from avsep_zoo.weights.card_results import REPORTED, read_results
from avsep_zoo.weights.cards import read_card, write_card

ROOT = checkout_root()
BUNDLED = sorted(file.parent for file in ROOT.glob("weights_cards/*/README.md")) if ROOT else []
LICENCES = {
    "code": "Apache-2.0",
    "weights": "MIT",
    "training_data": [{"of": "tones", "licence": "LicenseRef-mine", "terms": "free for any use", "commercial": True}],
}
SOURCE = {"url": None, "licence": "not stated", "files": ["a.pth"], "note": "never opened"}
RESULT = {
    "task": {"type": "audio-to-audio"},
    "dataset": {"type": "tones", "name": "tones"},
    "metrics": [{"type": "sdr", "name": "SDR", "value": 4.2}],
    "source": {"name": "measured here: avsep evaluate x", "url": "https://example.org"},
}
BOMB = "---\na0: &a0 [x]\n" + "".join(f"a{k + 1}: &a{k + 1} [*a{k}, *a{k}]\n" for k in range(40)) + "---\n"
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def whole(tmp_path: Path, tiny_model: SeparationModel) -> Path:
    """A card that has everything."""
    front = {
        "license": "mit",
        "tags": ["sound-separation"],
        "model-index": [{"name": "iquery.tiny", "results": [RESULT]}],
    }
    manifest = {"licences": LICENCES, "source": SOURCE, "training": {"steps": 1}}
    return write_card(tmp_path / "card", tiny_model, manifest=manifest, front=front).folder


def edit(folder: Path, change: Change) -> None:
    """Change the front matter of a card."""
    _, head, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    front = yaml.safe_load(head)
    change(front)
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(front)}---\n{text}", encoding="utf-8")


def to_convert(front: dict[str, Any]) -> None:
    """Make it a card whose weights are the user's to convert."""
    for key in ("file", "bytes", "sha256"):
        del front["avsep"][key]
    front.pop("model-index")


def test_a_whole_card_has_no_problem(whole: Path) -> None:
    assert check(whole) == []


@pytest.mark.parametrize("folder", BUNDLED, ids=lambda folder: folder.name)
def test_cards_of_this_checkout(folder: Path) -> None:
    assert check(folder) == []


@pytest.mark.parametrize("folder", BUNDLED, ids=lambda folder: folder.name)
def test_cards_to_convert_have_the_parts_and_classes_of_their_variant(folder: Path) -> None:
    """And the numbers that they repeat are those the evaluation knows of."""
    card = read_card(folder)
    for result in read_results(card):
        if result.kind == REPORTED:
            known = [row for rows in PUBLISHED.values() for row in rows if row.source in result.source]
            assert {(one.type, one.value) for one in result.metrics} <= {(row.metric, row.value) for row in known}
    if card.sha256 is None:
        method, _, variant = card.name.partition(".")
        parts = avsep_zoo.methods()[method].parts(variant)
        assert {slot: PartConfig.parse(part) for slot, part in card.manifest["parts"].items()} == parts
        assert card.manifest["classes"] == list(parts["encoder"].config.get("classes", []))


CHANGES: dict[str, tuple[Change, str]] = {
    "no library": (lambda f: f.pop("library_name"), "library_name is None; write library_name: avsep-zoo"),
    "task": (lambda f: f.update(pipeline_tag="text"), "pipeline_tag is 'text'; write pipeline_tag: audio-to-audio"),
    "no tags": (lambda f: f.pop("tags"), r"tags is None; write a list of texts, as in tags: \[sound-separation"),
    "British": (lambda f: f.update(licence="mit"), "has the key 'licence', which the Hub does not know; write license"),
    "no licence": (
        lambda f: f.pop("license"),
        "license is None, which is no licence id of the Hub; write license: mit",
    ),
    "SPDX": (lambda f: f.update(license="MIT"), "license is 'MIT', which is no .* write license: mit"),
    "nameless": (
        lambda f: (f.update(license="other"), f["avsep"]["licences"].update(weights="LicenseRef-mine")),
        "license is other and license_name None; write one in small",
    ),
    "named": (lambda f: f.update(license_name="x"), "license is mit and license_name 'x'; leave license_name out"),
    "two licences": (
        lambda f: f.update(license="isc"),
        "license is isc and avsep.licences.weights MIT; .*license: mit",
    ),
    "unstated": (
        lambda f: (f.update(license="other", license_name="x"), f["avsep"]["licences"].update(weights="not stated")),
        "The weights' licence is not stated and license_name 'x'; write license_name: not-stated",
    ),
    "typo": (lambda f: f["avsep"].update(sorce={}), "has the key 'sorce', which nothing reads; did you mean source"),
    "format": (lambda f: f["avsep"].update(format=2), "avsep.format is 2; write 1"),
    "name": (
        lambda f: (f["avsep"].update(name="../x"), f.pop("model-index")),
        "avsep.name is '../x'; write METHOD.TAG",
    ),
    "training": (lambda f: f["avsep"].update(training=3), "avsep.training is 3; write a mapping"),
    "half": (lambda f: f["avsep"].pop("bytes"), "avsep.file is there and avsep.bytes is not; write the size"),
    "bytes": (lambda f: f["avsep"].update(bytes=True), "avsep.bytes is True; write the size of the file"),
    "other size": (lambda f: f["avsep"].update(bytes=3), r"model.safetensors has \d+ bytes and avsep.bytes says 3"),
    "other hash": (lambda f: f["avsep"].update(sha256="0" * 64), "has the sha256 [0-9a-f]{64} and avsep.sha256 says 0"),
    "path": (lambda f: f["avsep"].update(file="../a.safetensors"), "avsep.file is '../a.safetensors'; write model"),
    "no file": (lambda f: f["avsep"].update(file="b.safetensors"), "There is no b.safetensors beside .* publish it"),
    "revision": (
        lambda f: f["avsep"].update(repo="a/b", revision="main"),
        "avsep.revision is 'main'; write the 40 hex",
    ),
    "no revision": (lambda f: f["avsep"].update(repo="a/b"), "avsep.repo is there and avsep.revision is not"),
    "rate": (
        lambda f: f["avsep"].update(sample_rate="8k"),
        "avsep.sample_rate is '8k'; write the rate of the front end",
    ),
    "other rate": (
        lambda f: f["avsep"].update(sample_rate=44100),
        "is 44100 and the front end works at 8000 Hz; write 8000",
    ),
    "classes": (
        lambda f: f["avsep"].update(classes=["a", "a"]),
        r"avsep.classes is \['a', 'a'\]; write a list of diff",
    ),
    "other classes": (
        lambda f: f["avsep"].update(classes=["a"]),
        "has 1 names and the encoder others .3.; write the enc",
    ),
    "slots": (
        lambda f: f["avsep"]["parts"].pop("encoder"),
        "avsep.parts has conditioner, .*; write encoder, conditioner",
    ),
    "no parts": (lambda f: f["avsep"].update(parts=7), "avsep.parts has 7; write encoder"),
    "part": (lambda f: f["avsep"]["parts"].update(encoder=[]), r"avsep.parts.encoder: A part is given as \[\]; give"),
    "plugin": (
        lambda f: f["avsep"]["parts"]["encoder"].update(name="mine.cues"),
        "avsep.parts.encoder: There is no encoder 'mine.cues'; .* Install the plugin that it belongs to",
    ),
    "setting": (lambda f: f["avsep"]["parts"]["separator"].update(widht=3), "no setting 'widht'; did you mean 'width'"),
    "misfit": (
        lambda f: f["avsep"]["parts"].update(conditioner={"name": "ial_cms.attention"}),
        "avsep.parts cannot be composed: The conditioner 'ial_cms.attention' wants map",
    ),
    "no licences": (lambda f: f["avsep"].pop("licences"), "avsep.licences is None; write code, weights, training_data"),
    "field": (lambda f: f["avsep"]["licences"].pop("code"), "avsep.licences.code is None; write an SPDX id"),
    "more": (
        lambda f: f["avsep"]["licences"].update(wieghts=""),
        "the key 'wieghts', which nothing reads; did you mean w",
    ),
    "words": (
        lambda f: f["avsep"]["licences"].update(code="free (as in beer)"),
        "licences.code is 'free .* write an SPDX",
    ),
    "empty": (lambda f: f["avsep"]["licences"].update(training_data=[]), r"training_data is \[\]; write an SPDX id"),
    "of nothing": (lambda f: f["avsep"]["licences"].update(code=[{"licence": "MIT"}]), "Entry 1 of .*code is of None"),
    "no terms": (
        lambda f: f["avsep"]["licences"]["training_data"][0].pop("terms"),
        "Entry 1 of avsep.licences.training_data is commercial: true without terms; write the terms",
    ),
    "entry": (
        lambda f: f["avsep"]["licences"].update(code=["MIT"]),
        "Entry 1 of avsep.licences.code is 'MIT'; write of",
    ),
    "source": (lambda f: f["avsep"].update(source=[]), r"avsep.source is \[\]; write url, licence, files, note"),
    "address": (
        lambda f: f["avsep"]["source"].update(url="lab server"),
        "avsep.source.url is 'lab server'; write one with https",
    ),
    "files": (lambda f: f["avsep"]["source"].update(files="a.pth"), "avsep.source.files is 'a.pth'; write a list"),
    "index": (lambda f: f.update({"model-index": [3]}), r"model-index is \[3\]; write a list of one entry"),
    "of another": (
        lambda f: f["model-index"][0].update(name="x"),
        "has the name 'x' and the card 'iquery.tiny'; write the",
    ),
    "NaN": (
        lambda f: result(f)["metrics"][0].update(value=float("nan")),
        "Result 1 .* has sdr nan; write a finite number",
    ),
    "number": (
        lambda f: result(f)["metrics"][0].update(value="4.2"),
        "Result 1 .* has sdr '4.2'; write a finite number",
    ),
    "metrics": (lambda f: result(f).pop("metrics"), "Result 1 of the model-index has the metrics None; write a list"),
    "data set": (lambda f: result(f)["dataset"].pop("name"), "Result 1 of the model-index has no dataset.name, a text"),
    "origin": (
        lambda f: result(f)["source"].update(name="trust me"),
        "has the source 'trust me'; write 'measured here: C",
    ),
    "no command": (
        lambda f: result(f)["source"].update(name="measured here:"),
        "has the source 'measured here:'; write",
    ),
}


def result(front: dict[str, Any]) -> dict[str, Any]:
    """The first result of a card."""
    first: dict[str, Any] = front["model-index"][0]["results"][0]
    return first


@pytest.mark.parametrize(("change", "text"), CHANGES.values(), ids=CHANGES.keys())
def test_one_thing_wrong_is_one_sentence(change: Change, text: str, whole: Path) -> None:
    edit(whole, change)
    (problem,) = check(whole)
    assert re.search(text, problem) and problem.endswith((".", "?"))


def test_all_problems_come_at_once(whole: Path) -> None:
    def change(front: dict[str, Any]) -> None:
        front.update(tags=[], license="MIT")
        front["avsep"].update(format=None, sample_rate=1.5)
        front["avsep"]["licences"]["code"] = None

    edit(whole, change)
    assert len(check(whole)) == 5


def test_nothing_can_break_it(whole: Path) -> None:
    """Whatever stands in place of a value, there is a list of sentences."""
    front = yaml.safe_load((whole / "README.md").read_text().split("---\n")[1])
    places = [(front, key) for key in front] + [(front["avsep"], key) for key in front["avsep"]]
    places += [(front["avsep"]["parts"], key) for key in front["avsep"]["parts"]]
    junk: list[Any] = [-1.5, "x" * 300, [[]], {1: {2: 3}}]
    for block, key in places:
        for value in junk:
            kept, block[key] = block[key], value
            (whole / "README.md").write_text(f"---\n{yaml.safe_dump(front)}---\ntext\n")
            assert all(isinstance(problem, str) for problem in check(whole))
            block[key] = kept


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "README.md' has no front matter; a weights card has YAML between two lines"),
        (b"\xef\xbb\xbf---\navsep: {}\n---\n", "README.md' has no front matter"),
        (b"\xff\xfe", "README.md' cannot be read .*; give the folder of a weights card, in UTF-8"),
        (b"---\na: [1\n---\n", "The front matter of .* is no YAML"),
        (b"---\na: !!python/object:os.system {}\n---\n", "The front matter of .* is no YAML"),
        (b"---\n" + b"[" * 1200 + b"\n---\n", "The front matter of .* is no YAML"),
        (
            b"---\na: &a [x, x]\nb: &b [*a, *a]\navsep: &c {name: *b, parts: *c}\n---\n",
            "The anchors in the front matter",
        ),
        (BOMB.encode(), "The anchors in the front matter of .* unfold to far too many values"),
        (b"---\n- avsep\n---\n", "The front matter has no block 'avsep'"),
        (b"---\navsep: 3\n---\n", "The front matter has no block 'avsep'"),
    ],
)
def test_readmes_that_are_no_cards(content: bytes, text: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(content)
    (problem,) = check(tmp_path)
    assert re.search(text, problem)


def test_a_folder_without_a_readme(tmp_path: Path) -> None:
    assert "README.md' cannot be read" in check(tmp_path / "none")[0]


def test_keys_that_are_there_twice(whole: Path) -> None:
    """YAML would take the last one and say nothing."""
    readme = whole / "README.md"
    readme.write_text(readme.read_text().replace("  format: 1\n", "  format: 1\n  name: iquery.tiny\n", 1))
    (problem,) = check(whole)
    assert re.fullmatch(r"The key 'name' of line \d+ is in line \d+ already; keep one of them\.", problem)


def test_line_ends_of_another_system(whole: Path) -> None:
    readme = whole / "README.md"
    readme.write_bytes(readme.read_bytes().replace(b"\n", b"\r\n"))
    assert check(whole) == []


def test_the_name_is_that_of_a_folder_below_weights_cards_only(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "weights_cards" / "iquery.other")
    (problem,) = check(tmp_path / "weights_cards" / "iquery.other")
    assert problem.startswith("avsep.name is iquery.tiny and the folder 'iquery.other'")


def test_a_card_without_text(whole: Path) -> None:
    readme = whole / "README.md"
    readme.write_text(f"---\n{readme.read_text().split('---')[1]}---\n\n")
    (problem,) = check(whole)
    assert problem.startswith("There is no text below the front matter")


def test_a_pinned_card_needs_no_file_beside_it(whole: Path) -> None:
    edit(whole, lambda f: f["avsep"].update(repo="org/name", revision="0" * 40))
    (whole / "model.safetensors").unlink()
    assert check(whole) == []


def test_a_card_to_convert_says_how(whole: Path) -> None:
    edit(whole, to_convert)
    (whole / "model.safetensors").unlink()
    (problem,) = check(whole)
    assert problem.endswith("write 'avsep convert iquery.tiny --checkpoint ...' into it.")
    with (whole / "README.md").open("a") as readme:
        readme.write("avsep convert iquery.tiny --checkpoint a.pth -o card\n")
    assert check(whole) == []


def test_a_card_to_convert_has_no_measured_results_but_a_source(whole: Path) -> None:
    def change(front: dict[str, Any]) -> None:
        index = front["model-index"]
        to_convert(front)
        front["model-index"] = index
        front["avsep"].update(source=None, repo="org/name", revision="0" * 40)

    edit(whole, change)
    (whole / "model.safetensors").unlink()
    with (whole / "README.md").open("a") as readme:
        readme.write("avsep convert iquery.tiny --checkpoint a.pth -o card\n")
    problems = " ".join(check(whole))
    assert "was measured here and the card has no weights" in problems
    assert "has neither weights nor avsep.source" in problems
    assert "avsep.repo is 'org/name' and there is no avsep.sha256" in problems


def test_weights_that_no_card_vouches_for(whole: Path) -> None:
    edit(whole, to_convert)
    assert "model.safetensors lies beside the card and avsep.sha256 is not stated" in " ".join(check(whole))


def test_a_card_of_a_run_lacks_what_only_the_user_knows(card: Path) -> None:
    """What the trainer writes has no licences."""
    problems = check(card)
    assert [problem.split(" ")[0] for problem in problems] == ["license", "avsep.licences"]
