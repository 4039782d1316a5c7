"""Registration of the class-conditioned U-Net; imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import avsep_zoo
from avsep_zoo import PartConfig, Recipe
from avsep_zoo.class_lists import MUSIC, SYNTHESISED

if TYPE_CHECKING:
    from avsep_zoo.registry import Register


RECIPE = Recipe(
    name="film_unet",
    summary="A baseline without pictures: the class of a source scales and shifts the channels of a U-Net.",
    paper="after Meseguer-Brocal and Peeters, Conditioned-U-Net, ISMIR 2019, arXiv 1907.01277, with FiLM of Perez et "
    "al., AAAI 2018, arXiv 1709.07871",
    cues="a class label per source",
    encoder=PartConfig("film_unet.classes", {"classes": list(MUSIC)}),
    conditioner=PartConfig("film"),
    separator=PartConfig("mask_unet", {"width": 64, "levels": 7, "mask_features": 32}),
    front_end=PartConfig(
        "stft",
        {
            "rate": 11025, "length": 65535, "n_fft": 1022, "hop_length": 256, "warp_rows": 256, "align_corners": True,
        },
    ),
    objective=PartConfig("masks", {"mixture": "sum"}),
    default_variant="music",
    variants={
        "mini": {
            "encoder": {"classes": list(SYNTHESISED)},
            "separator": {"width": 24, "levels": 6, "mask_features": 24},
            "front_end": {"n_fft": 2046, "hop_length": 512, "level": 1.0},
            "objective": {"learning_rate": 7e-4},
        },
    },
    training={
        "mini": {
            "steps": 3150, "batch": 12, "warmup": 100, "schedule": "cosine", "clip_norm": 1.0, "precision": "bf16",
            "half": True, "validate_every": 250, "validation_mixtures": 96,
            "augmentation": {
                "semitones": 2.0, "gain": 6.0, "equaliser": 5.0, "room": 0.25, "noise": 0.3, "silence": 0.02,
            },
        },
    },
)  # fmt: skip


@avsep_zoo.hookimpl
def avsep_register(register: Register) -> None:
    """Register the encoder, which the core has not, and the recipe."""
    register.encoder(
        "film_unet.classes",
        "avsep_film.encoder:ClassEncoder",
        "a learned vector per class",
        small={"classes": ["violin", "flute", "drum"], "width": 8},
    )
    register.method(RECIPE)
