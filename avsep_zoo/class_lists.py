"""Class lists that several methods share; the position of a class is its number."""

from __future__ import annotations

__all__ = ["MUSIC", "SYNTHESISED"]

MUSIC = (
    "accordion", "acoustic_guitar", "cello", "clarinet", "erhu", "flute", "saxophone", "trumpet", "tuba", "violin",
    "xylophone",
)  # fmt: skip
"""The solo instruments of the data set MUSIC (Zhao et al., The Sound of Pixels, ECCV 2018)."""

SYNTHESISED = (
    "accordion", "acoustic_guitar", "banjo", "bass_clarinet", "bassoon", "cello", "clarinet", "cor_anglais",
    "double_bass", "flute", "french_horn", "mandolin", "oboe", "piano", "saxophone", "trombone", "trumpet", "tuba",
    "violin", "xylophone",
)  # fmt: skip
"""The instruments that ``avsep synth`` plays, which the bundled models know."""
