"""Captions of what the generator plays: an instrument by its names, in phrases and sentences; two of them in one.

They are drawn for a class, or for the two classes of a recording, by whoever trains on texts; clips have none on disk.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avsep_zoo.data.prompts import sound_prompt
from avsep_zoo.synth.instruments import INSTRUMENTS

__all__ = ["NAMES", "caption", "names", "words"]

NAMES: dict[str, tuple[str, ...]] = {
    "accordion": ("accordion", "squeezebox", "piano accordion"),
    "acoustic_guitar": ("acoustic guitar", "guitar", "folk guitar", "steel string guitar"),
    "banjo": ("banjo", "five string banjo"),
    "bass_clarinet": ("bass clarinet",),
    "bassoon": ("bassoon", "fagotto"),
    "cello": ("cello", "violoncello"),
    "clarinet": ("clarinet", "soprano clarinet"),
    "cor_anglais": ("cor anglais", "english horn"),
    "double_bass": ("double bass", "contrabass", "upright bass", "string bass", "bass fiddle"),
    "flute": ("flute", "concert flute", "transverse flute"),
    "french_horn": ("french horn", "horn"),
    "mandolin": ("mandolin", "mandolino"),
    "oboe": ("oboe", "hautboy"),
    "piano": ("piano", "grand piano", "pianoforte"),
    "saxophone": ("saxophone", "sax"),
    "trombone": ("trombone", "slide trombone"),
    "trumpet": ("trumpet",),
    "tuba": ("tuba", "bass tuba"),
    "violin": ("violin", "fiddle"),
    "xylophone": ("xylophone", "wooden xylophone"),
}
"""Names that each class goes by, the plainest one first."""

_PLAYED = {
    "bowed": ("is bowed", "is played with a bow"),
    "blown": ("is blown", "is being blown"),
    "plucked": ("is plucked", "is strummed", "is being picked"),
    "struck": ("is struck", "is being hit"),
    "free_reed": ("is squeezed", "is being pressed"),
}
_VERBS = ("plays", "is playing", "sounds", "is heard", "can be heard", "sings", "plays a melody", "plays some music")
_PHRASES = (
    "{name}", "{name} sound", "{name} music", "{name} playing", "the sound of {name}", "sound of {one}",
    "the sound of {one}", "a recording of {one}", "a melody on {one}", "the notes of {one}", "only {one}",
    "a solo on {one}", "someone plays {one}", "a person is playing {one}", "a musician playing {one}", "music of {one}",
)  # fmt: skip
_BETWEEN = (
    "{a} and {b}", "{a} with {b}", "{a} while {b}", "{a} as {b}", "{a} over {b}", "{a} and then {b}", "{a}, {b}",
)  # fmt: skip


def names(label: str) -> tuple[str, ...]:
    """What a class is called; one that the generator does not know goes by its label."""
    return NAMES.get(label, (label.replace("_", " "),))


def caption(labels: Sequence[str], rng: np.random.Generator) -> str:
    """Draw a text that names the classes of a recording: a phrase or sentence for each, and words between them."""
    if len(labels) > 1 and rng.random() < 0.2:
        return sound_prompt([_choice(names(label), rng) for label in labels])
    parts = [_phrase(label, rng) for label in labels]
    text = parts[0]
    for part in parts[1:]:
        text = _choice(_BETWEEN, rng).format(a=text, b=part)
    return text


def words() -> tuple[list[str], list[str]]:
    """Every word that :func:`caption` writes, in lower case: those that name instruments, and the others."""
    naming = {word for entry in NAMES.values() for name in entry for word in name.split()}
    texts = [*_PHRASES, *_BETWEEN, *_VERBS, *(how for several in _PLAYED.values() for how in several)]
    texts += ["the a an its", sound_prompt(["{name}", "{name}"])]
    other = {word for text in texts for word in text.lower().replace(",", " ").split() if "{" not in word}
    return sorted(naming), sorted(other - naming)


def _phrase(label: str, rng: np.random.Generator) -> str:
    name = _choice(names(label), rng)
    article = _choice(("the", "an" if name[0] in "aeiou" else "a"), rng)
    one = f"{article} {name}"
    kind = rng.random()
    if kind < 0.25:
        return one if kind < 0.15 else name
    if kind < 0.6:
        played = _PLAYED[INSTRUMENTS[label].excitation] if label in INSTRUMENTS else ()
        return f"{one} {_choice((*_VERBS, *played), rng)}"
    return _choice(_PHRASES, rng).format(name=name, one=one)


def _choice(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
