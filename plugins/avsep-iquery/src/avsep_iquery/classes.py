"""Class lists of the official configurations; the position of a class is the row of its query."""

from __future__ import annotations

from avsep_zoo.class_lists import MUSIC

__all__ = ["AVE", "MUSIC21"]

MUSIC21 = (
    *MUSIC,
    "bagpipe", "banjo", "bassoon", "congas", "drum", "electric_bass", "guzheng", "piano", "pipa", "ukulele",
)  # fmt: skip

AVE = (
    "Accordion", "Acoustic_guitar", "Aircraft", "Baby", "Banjo", "Bark", "Bus", "Cat", "Chainsaw", "Church_bell",
    "Clock", "Female", "Flute", "Food", "Goat", "Helicopter", "Horse", "Male", "Mandolin", "Motorcycle", "Race_car",
    "Rodent", "Shofar", "Toilet", "Train", "Truck", "Ukulele", "Violin",
)  # fmt: skip
