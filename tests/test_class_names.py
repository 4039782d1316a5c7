"""Names of classes in cues."""

from __future__ import annotations

import pytest

from avsep_zoo.class_lists import SYNTHESISED
from avsep_zoo.class_names import class_position, labelled_class, plain_name
from avsep_zoo.cue import Cue
from avsep_zoo.errors import CueError
from avsep_zoo.synth import INSTRUMENTS

CLASSES = ("cello", "Acoustic_guitar", "French-Horn", "Geräusch")


@pytest.mark.parametrize(
    ("label", "position"), [("Cello", 0), (" acoustic-guitar ", 1), ("french horn", 2), ("geräusch", 3)]
)
def test_spelling_does_not_matter(label: str, position: int) -> None:
    assert class_position(label, CLASSES) == position
    assert labelled_class(Cue(label=label), CLASSES) == position


@pytest.mark.parametrize(("label", "hint"), [("celo", "did you mean 'cello'"), ("", "it knows cello, "), ("x", "it ")])
def test_an_unknown_class(label: str, hint: str) -> None:
    with pytest.raises(CueError, match=f"no class {label!r}; {hint}"):
        class_position(label, CLASSES)


def test_a_cue_without_a_label() -> None:
    with pytest.raises(CueError, match="'a cello' has no label and this model needs one; it knows cello, "):
        labelled_class(Cue(text="a cello"), CLASSES)


def test_blank_names() -> None:
    assert plain_name("  ") == ""


def test_the_synthesised_classes_are_the_generators() -> None:
    """What the bundled models know is what can be generated to train them."""
    assert sorted(INSTRUMENTS) == list(SYNTHESISED)
