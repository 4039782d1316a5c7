"""The pin of a card: what it changes in a README, what it leaves, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from avsep_zoo.errors import WeightsError
from avsep_zoo.weights.cards import card_folder, pin_card, read_card
from avsep_zoo.weights.pin import with_pin

REPO = "someone/tiny-card"
FIRST, SECOND = "0123456789abcdef0123456789abcdef01234567", "fedcba9876543210fedcba9876543210fedcba98"
PARTS = "{encoder: {name: a}, conditioner: {name: b}, separator: {name: c}, front_end: {name: d}}"
SHA = "ab" * 32
BLOCK = f"""avsep:
  format: 1
  name: iquery.tiny
  parts: {PARTS}
  sample_rate: 8000
  file: model.safetensors
  bytes: 12
  sha256: {SHA}
  licences:
    code: Apache-2.0
"""


def write(folder: Path, front: str, text: str = "# A title\n") -> Path:
    """Write a README and return its path."""
    readme = folder / "README.md"
    readme.write_bytes(f"---\n{front}---\n{text}".encode())
    return readme


def test_a_pin_is_two_lines_after_the_hash(card: Path) -> None:
    readme = card / "README.md"
    before = readme.read_text()
    pinned = pin_card(read_card(card), REPO, FIRST)
    sha256 = f"  sha256: {pinned.sha256}\n"
    assert readme.read_text() == before.replace(sha256, f"{sha256}  repo: {REPO}\n  revision: {FIRST}\n")
    assert pinned.hub == f"{REPO}@{FIRST}"
    assert pinned == read_card(card)
    assert sorted(p.name for p in card.iterdir()) == ["README.md", "model.safetensors"]


def test_a_card_is_pinned_again(card: Path) -> None:
    """The second pin takes the place of the first, and without a pin the text is the first one."""
    readme = card / "README.md"
    before = readme.read_text()
    once = pin_card(read_card(card), REPO, FIRST)
    text = readme.read_text()
    twice = pin_card(once, "Other.Org/x_1", SECOND)
    assert twice.hub == f"Other.Org/x_1@{SECOND}"
    assert readme.read_text() == text.replace(REPO, "Other.Org/x_1").replace(FIRST, SECOND)
    assert with_pin(readme.read_text(), {}) == before


def test_every_bundled_card_can_be_pinned() -> None:
    """And unpinned, to the byte."""
    folder = card_folder("iquery.mini")
    assert folder is not None
    for readme in sorted(folder.parent.glob("*.mini/README.md")):
        text = with_pin(readme.read_bytes().decode(), {})
        pinned = with_pin(text, {"repo": REPO, "revision": FIRST})
        assert len(pinned.splitlines()) == len(text.splitlines()) + 2
        assert with_pin(pinned, {}) == text


def test_line_ends_of_another_system(card: Path) -> None:
    readme = card / "README.md"
    before = readme.read_bytes().replace(b"\n", b"\r\n")
    readme.write_bytes(before)
    pin_card(read_card(card), REPO, FIRST)
    after = readme.read_bytes()
    assert after.count(b"\n") == after.count(b"\r\n") == before.count(b"\n") + 2
    assert with_pin(after.decode(), {}).encode() == before


def test_everything_else_stays(tmp_path: Path) -> None:
    """Comments, quotes, order, entries of other blocks, and a text that speaks of the same words."""
    front = (
        "# a comment\nrepo: not ours  # at the top\ndescription: |\n  avsep:\n    repo: in a text\n"
        + BLOCK.replace(f"sha256: {SHA}", f"sha256: '{SHA}'  # of the weights").replace("avsep:", "avsep:  # ours")
        + "# a comment at the margin\n  # and a deeper one\n  source: {repo: theirs, revision: old, url: null}\n"
        "tags: [a, 'b']\n"
    )
    text = "\navsep:\n  repo: example/of-a-card\n---\navsep:\n  revision: x\n---\r\nno line end: é"
    readme = write(tmp_path, front, text)
    before = readme.read_bytes()
    pin_card(read_card(tmp_path), REPO, FIRST)
    line = f"  sha256: '{SHA}'  # of the weights\n".encode()
    assert readme.read_bytes() == before.replace(line, line + f"  repo: {REPO}\n  revision: {FIRST}\n".encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (f"  repo: a/b  # where\n  revision: {SECOND}\n", f"  repo: {REPO}  # where\n  revision: {FIRST}\n"),
        (f"  revision: '{SECOND}'\n  repo: \"a/b\"\n", f"  revision: {FIRST}\n  repo: {REPO}\n"),
        (f"  'repo': a/b\n  revision:\n    {SECOND}\n", f"  'repo': {REPO}\n  revision:\n    {FIRST}\n"),
        ("  repo:\n  revision: null\n", f"  repo: {REPO}\n  revision: {FIRST}\n"),
        ("  repo: ~  # to come\n", f"  repo: {REPO}  # to come\n"),
    ],
    ids=["comment", "quoted", "two lines", "null", "half"],
)
def test_forms_of_an_old_pin(old: str, new: str, tmp_path: Path) -> None:
    """It is replaced where it stands, here after everything else in the block."""
    readme = write(tmp_path, BLOCK + old + "tags: []\n")
    card = read_card(tmp_path)
    assert pin_card(card, REPO, FIRST).hub == f"{REPO}@{FIRST}"
    text = readme.read_text()
    added = "" if "revision" in old else f"  revision: {FIRST}\n"
    assert text == f"---\n{BLOCK}{new}tags: []\n---\n# A title\n".replace(f"{SHA}\n", f"{SHA}\n{added}")
    assert yaml.safe_load(with_pin(text, {}).split("---\n")[1]) == yaml.safe_load(BLOCK + "tags: []\n")


@pytest.mark.parametrize(
    "front",
    [
        BLOCK.replace("\n  ", "\n      "),
        BLOCK.replace("avsep:", '"avsep":'),
        BLOCK.replace("  licences:\n    code: Apache-2.0\n", "") + "\n\n",
        BLOCK + "  training: {validation_sdr: .nan, date: 2024-02-29}\n",
        BLOCK.replace("  format", "\n  # first\n\n  format"),
        "title: avsep\nother: {avsep: {repo: a/b}}\n" + BLOCK,
    ],
    ids=["deep", "quoted", "last", "NaN", "empty lines", "another block"],
)
def test_unusual_front_matter(front: str, tmp_path: Path) -> None:
    """It can be written, and taken out again to the byte."""
    readme = write(tmp_path, front)
    before = readme.read_text()
    card = pin_card(read_card(tmp_path), REPO, FIRST)
    assert card.hub == f"{REPO}@{FIRST}"
    text = readme.read_text()
    ours = [line for line in text.splitlines(keepends=True) if REPO in line or FIRST in line]
    assert [line.strip() for line in ours] == [f"repo: {REPO}", f"revision: {FIRST}"]
    assert text.replace("".join(ours), "") == before
    assert with_pin(text, {}) == before


@pytest.mark.parametrize(
    "front",
    [
        f"avsep: {{format: 1, name: iquery.tiny, parts: {PARTS}, sample_rate: 8, bytes: 1, file: m.safetensors,\n"
        f"  sha256: {SHA}}}\n",
        f"base: &base\n  format: 1\n  sha256: {SHA}\n{BLOCK.replace(f'  sha256: {SHA}', '  <<: *base')}",
        f"{BLOCK}  repo: &where a/b\n  revision: {SECOND}\nmirror: *where\n",
        f"{BLOCK}  repo: a/b\n  revision: >-\n    {SECOND}\n",
        BLOCK.replace("avsep:", "avsep: &block") + "again: *block\n",
        BLOCK.replace(f"  sha256: {SHA}\n", "").replace("  file: model.safetensors\n  bytes: 12\n", ""),
    ],
    ids=["flow", "merged", "anchor", "folded", "alias", "no weights"],
)
def test_what_cannot_be_changed_stays(front: str, tmp_path: Path) -> None:
    """One sentence says what to write by hand; the README is untouched."""
    readme = write(tmp_path, front)
    before = readme.read_bytes()
    with pytest.raises(WeightsError, match=f"cannot be pinned, .* write repo: {REPO} and revision: {FIRST} into it"):
        pin_card(read_card(tmp_path), REPO, FIRST)
    assert readme.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.parametrize(
    ("repo", "revision", "text"),
    [
        ("tiny-card", FIRST, "the repo 'tiny-card'"),
        ("../x", FIRST, r"the repo '\.\./x'"),
        ("a/b\nname: evil", FIRST, "the repo "),
        (REPO, "main", "the revision 'main'"),
        (REPO, FIRST[:-1], "the revision "),
        (REPO, FIRST.upper(), "the revision "),
    ],
)
def test_places_that_are_none(repo: str, revision: str, text: str, card: Path) -> None:
    before = (card / "README.md").read_bytes()
    with pytest.raises(WeightsError, match=f"cannot be pinned to {text}.*give org/name and a full commit"):
        pin_card(read_card(card), repo, revision)
    assert (card / "README.md").read_bytes() == before


def test_a_commit_of_digits_stays_a_text(card: Path) -> None:
    """YAML would read forty digits as a number."""
    assert pin_card(read_card(card), REPO, "1" * 40).hub == f"{REPO}@{'1' * 40}"


@pytest.mark.parametrize("text", ["", "# A title\n", "---\navsep: [1]\n---\n", "---\n[1]\n---\n", "---\n{a: [\n---\n"])
def test_texts_that_are_no_cards(text: str) -> None:
    with pytest.raises(ValueError, match=r"no front matter|cannot be changed"):
        with_pin(text, {"repo": REPO, "revision": FIRST})
