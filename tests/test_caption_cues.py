"""From texts to cues: phrases, what is left out, and texts that say nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import avsep_zoo
from avsep_zoo import cues_of_caption
from avsep_zoo.errors import CueError


def said(text: str) -> list[tuple[str | None, bool]]:
    """Text and negation of the cues."""
    return [(cue.text, cue.negated) for cue in cues_of_caption(text)]


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("a dog barks while a man speaks", ["A dog barks", "A man speaks"]),
        ("A DOG BARKS AND A MAN SPEAKS.", ["A dog barks", "A man speaks"]),
        (" a violin  plays,\na flute sings,", ["A violin plays", "A flute sings"]),
        ("a dog barks and a dog barks", ["A dog barks"]),
        ("a dog barks, A DOG BARKS, a bell rings", ["A dog barks", "A bell rings"]),
        ("Then a dog barks then a cat meows", ["A dog barks", "A cat meows"]),
        ("ein Mädchen singt, 犬が吠える", ["Ein mädchen singt", "犬が吠える"]),
    ],
)
def test_phrases_of_a_caption_are_sources(text: str, phrases: list[str]) -> None:
    """Whatever the case, blanks and punctuation; what is said twice is one."""
    assert said(text) == [(phrase, False) for phrase in phrases]


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("everything but the violin", "the violin"),
        ("Everything But The Violin.", "The Violin"),
        ("everything, but not the dog!", "the dog"),
        ("everything except the drums and the bass", "the drums and the bass"),
        ("everything except for the drums", "the drums"),
        ("all but the violin, the flute and the drum", "the violin, the flute and the drum"),
        ("all the instruments except violin", "violin"),
        ("anything but the drums", "the drums"),
        ("without the drums", "the drums"),
        ("without the drums, without the bass", "the drums, the bass"),
        ("no drums and no bass", "drums and bass"),
        ("  NO\tdrums ,", "drums"),
        ("remove the drums", "the drums"),
        ("not the violin", "the violin"),
        ("but not the violin", "the violin"),
    ],
)
def test_a_negative_text_is_one_cue_of_all_it_leaves_out(text: str, without: str) -> None:
    """The recording without all of it, not once without each."""
    assert said(text) == [(without, True)]
    assert cues_of_caption(text)[0].title == f"everything but {without}"


@pytest.mark.parametrize(
    "text",
    [
        "a notebook falls",
        "notes of a piano",
        "nothing rattles",
        "no-one speaks",
        "No one speaks",
        "not far away a dog barks",
        "northern winds howl",
        "all the dogs bark",
        "everything rattles",
        "a door without a handle creaks",
        "an allbut snores",
        "removed tiles scrape",
    ],
)
def test_other_words_negate_nothing(text: str) -> None:
    """Only whole words at the beginning do."""
    assert said(text) == [(text.capitalize(), False)]


def test_a_negative_phrase_of_a_caption_is_a_cue_of_its_own() -> None:
    assert said("a man speaks, but not the dog") == [("A man speaks", False), ("the dog", True)]
    assert said("a man speaks, no dog, no dog") == [("A man speaks", False), ("dog", True)]


def test_words_with_then_inside_stay_whole() -> None:
    assert said("an authentic guitar then the strengthening wind") == [
        ("An authentic guitar", False),
        ("The strengthening wind", False),
    ]


@pytest.mark.parametrize("text", ["", " \n", "...", ", ,", "then", None, 3])
def test_a_text_that_names_nothing(text: str) -> None:
    with pytest.raises(CueError, match="a violin plays while a flute sings") as caught:
        cues_of_caption(text)
    assert str(caught.value).endswith(".") and ". " not in str(caught.value).replace("'...'", "")


@pytest.mark.parametrize("text", ["no", "No.", "everything but", "everything except for ,", "a man speaks, without"])
def test_a_text_that_leaves_out_nothing(text: str) -> None:
    with pytest.raises(CueError, match="does not say what to leave out; name it, as in 'everything but the violin'"):
        cues_of_caption(text)


def test_no_torch_is_needed() -> None:
    """In a process of its own, by the package's name for it."""
    code = "import sys, avsep_zoo; avsep_zoo.cues_of_caption('a dog barks'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0
    assert "cues_of_caption" in avsep_zoo.__all__
