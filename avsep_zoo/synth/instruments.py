"""The table of instrument classes: General MIDI programs, ranges, ways of playing, and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["INSTRUMENTS", "Instrument", "Voice", "playable"]


@dataclass(frozen=True)
class Voice:
    """One sampled General MIDI program and the MIDI notes it is asked to play (inclusive)."""

    program: int  # 0..127, counted from 0 as in the MIDI message
    low: int
    high: int


@dataclass(frozen=True)
class Instrument:
    """One class: how it sounds, how it may be played and what its picture is.

    ``emoji`` is a character of the colour font ("" where the font has no such instrument) and ``drawing`` the
    name of a vector drawing; a class with both is shown as either.
    """

    name: str
    voices: tuple[Voice, ...]  # empty: known from recordings only
    excitation: Literal["bowed", "blown", "plucked", "struck", "free_reed"]
    chords: bool = False  # plays several notes at a time as a matter of course
    glides: bool = False  # portamento is idiomatic
    emoji: str = ""
    drawing: str = ""

    @property
    def sustained(self) -> bool:
        """Whether a note keeps its level until it is released."""
        return self.excitation in ("bowed", "blown", "free_reed")


_TABLE = (
    Instrument("accordion", (Voice(21, 53, 93), Voice(23, 53, 93)), "free_reed", chords=True, emoji="🪗"),
    Instrument("acoustic_guitar", (Voice(24, 40, 83), Voice(25, 40, 83)), "plucked", chords=True, drawing="guitar"),
    Instrument("banjo", (Voice(105, 48, 86),), "plucked", chords=True, emoji="🪕"),
    Instrument("bass_clarinet", (), "blown", drawing="bass_clarinet"),
    Instrument("bassoon", (Voice(70, 34, 74),), "blown", drawing="bassoon"),
    Instrument("cello", (Voice(42, 36, 79),), "bowed", glides=True, drawing="cello"),
    Instrument("clarinet", (Voice(71, 50, 91),), "blown", drawing="clarinet"),
    Instrument("cor_anglais", (Voice(69, 52, 81),), "blown", drawing="cor_anglais"),
    Instrument("double_bass", (Voice(43, 28, 60), Voice(32, 28, 62)), "bowed", glides=True, drawing="double_bass"),
    Instrument("flute", (Voice(73, 60, 96),), "blown", emoji="🪈", drawing="flute"),
    Instrument("french_horn", (Voice(60, 36, 77),), "blown", drawing="french_horn"),
    Instrument("mandolin", (), "plucked", drawing="mandolin"),
    Instrument("oboe", (Voice(68, 58, 91),), "blown", drawing="oboe"),
    Instrument(
        "piano",
        (Voice(0, 26, 102), Voice(1, 26, 102), Voice(2, 28, 98), Voice(3, 28, 98)),
        "struck",
        chords=True,
        emoji="🎹",
    ),
    Instrument(
        "saxophone",
        (Voice(64, 56, 87), Voice(65, 49, 80), Voice(66, 44, 75), Voice(67, 37, 68)),
        "blown",
        glides=True,
        emoji="🎷",
    ),
    Instrument("trombone", (Voice(57, 40, 74),), "blown", glides=True, drawing="trombone"),
    Instrument("trumpet", (Voice(56, 54, 86), Voice(56, 54, 86), Voice(59, 54, 84)), "blown", emoji="🎺"),
    Instrument("tuba", (Voice(58, 28, 62),), "blown", drawing="tuba"),
    Instrument("violin", (Voice(40, 55, 100),), "bowed", glides=True, emoji="🎻"),
    Instrument("xylophone", (Voice(13, 65, 108),), "struck", drawing="xylophone"),
)

INSTRUMENTS: dict[str, Instrument] = {instrument.name: instrument for instrument in _TABLE}
"""Every class by name, in alphabetical order; the position is the class index of the data set."""


def playable() -> list[str]:
    """Names of the classes a General MIDI soundfont can play (the others are known from recordings only)."""
    return [name for name, instrument in INSTRUMENTS.items() if instrument.voices]
