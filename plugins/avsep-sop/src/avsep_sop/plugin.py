"""Registration of the Sound of Pixels; imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import avsep_zoo
from avsep_zoo import PartConfig, Recipe
from avsep_zoo.class_lists import SYNTHESISED

if TYPE_CHECKING:
    from avsep_zoo.registry import Register


RECIPE = Recipe(
    name="sound_of_pixels",
    summary="The sound of pixels: what is seen weighs the components that a U-Net finds in the sound.",
    paper="Zhao et al., The Sound of Pixels, ECCV 2018, arXiv 1804.03160",
    cues="a box per source in the video, or pictures of the source",
    encoder=PartConfig("frames", {"object_features": 32, "frames": 3, "frame_rate": 1.0}),
    conditioner=PartConfig("sound_of_pixels.synthesiser"),
    separator=PartConfig("mask_unet", {"width": 64, "levels": 7, "mask_features": 32}),
    front_end=PartConfig(
        "stft",
        {
            "rate": 11025, "length": 65535, "n_fft": 1022, "hop_length": 256, "warp_rows": 256, "align_corners": True,
        },
    ),
    objective=PartConfig("sound_of_pixels.masks"),
    default_variant="music",
    variants={
        "mini": {
            "encoder": {"object_features": 24, "width": 12, "image_size": 64, "classes": list(SYNTHESISED)},
            "separator": {"width": 24, "levels": 6, "mask_features": 24},
            "front_end": {"n_fft": 2046, "hop_length": 512, "level": 1.0},
            "objective": {"name": "masks", "mixture": "sum", "recognition": 0.05, "learning_rate": 7e-4},
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
    """Register the parts that the core has not, and the recipe."""
    register.conditioner(
        "sound_of_pixels.synthesiser", "avsep_sop.synthesiser:Synthesiser", "a vector weighs the components at the head"
    )
    register.objective(
        "sound_of_pixels.masks",
        "avsep_sop.objective:SoundOfPixelsObjective",
        "binary or ratio masks, by SGD",
        small={"learning_rate": 1e-2, "encoder_learning_rate": 1e-3},
    )
    register.method(RECIPE)
