"""Registration; imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import avsep_zoo
from avsep_third import CARDS
from avsep_zoo import PartConfig, Recipe

if TYPE_CHECKING:
    from avsep_zoo.registry import Register

RECIPE = Recipe(
    name="third",
    summary="Somebody else's separator between parts of iQuery.",
    paper="none",
    cues="a label",
    encoder=PartConfig(
        "iquery.cues",
        {
            "classes": ["violin", "flute", "drum"],
            "width": 4,
            "object_features": 8,
            "frames": 2,
            "image_size": 32,
            "frozen": False,
            "optional": ["frames", "label"],
        },
    ),
    conditioner=PartConfig("iquery.queries", {"queries": 4, "heads": 2, "feedforward": 16, "decoder_layers": 2}),
    separator=PartConfig("third.unet", {"width": 4, "levels": 5, "mask_features": 4}),
    front_end=PartConfig(
        "stft",
        {"rate": 8000, "length": 8191, "n_fft": 254, "hop_length": 64, "warp_rows": 128, "align_corners": True},
    ),
    objective=PartConfig("iquery.masks", {"mixture": "sum"}),
    default_variant="tiny",
    weights="third.tiny",
)


@avsep_zoo.hookimpl
def avsep_register(register: Register) -> None:
    """Register the separator, the method and the folder of its weights cards."""
    register.separator("third.unet", "avsep_third.separator:SharpUNet", "U-Net with a learned sharpness")
    register.method(RECIPE)
    register.cards(CARDS)
