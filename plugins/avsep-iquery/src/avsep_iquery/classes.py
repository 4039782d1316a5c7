"""Class lists of the official configurations; the position of a class is the row of its query."""

from __future__ import annotations

__all__ = ["AVE", "MINI", "MUSIC", "MUSIC21"]

MUSIC = (
    "accordion", "acoustic_guitar", "cello", "clarinet", "erhu", "flute", "saxophone", "trumpet", "tuba", "violin",
    "xylophone",
)  # fmt: skip

MUSIC21 = (
    *MUSIC,
    "bagpipe", "banjo", "bassoon", "congas", "drum", "electric_bass", "guzheng", "piano", "pipa", "ukulele",
)  # fmt: skip

AVE = (
    "Accordion", "Acoustic_guitar", "Aircraft", "Baby", "Banjo", "Bark", "Bus", "Cat", "Chainsaw", "Church_bell",
    "Clock", "Female", "Flute", "Food", "Goat", "Helicopter", "Horse", "Male", "Mandolin", "Motorcycle", "Race_car",
    "Rodent", "Shofar", "Toilet", "Train", "Truck", "Ukulele", "Violin",
)  # fmt: skip

MINI = (
    "accordion", "acoustic_guitar", "banjo", "bass_clarinet", "bassoon", "cello", "clarinet", "cor_anglais",
    "double_bass", "flute", "french_horn", "mandolin", "oboe", "piano", "saxophone", "trombone", "trumpet", "tuba",
    "violin", "xylophone",
)  # fmt: skip
