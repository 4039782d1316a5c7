"""Registration of IAL-CMS; imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import avsep_zoo
from avsep_zoo import PartConfig, Recipe
from avsep_zoo.class_lists import SYNTHESISED

if TYPE_CHECKING:
    from avsep_zoo.registry import Register


RECIPE = Recipe(
    name="ial_cms",
    summary="Cross-modal attention: where an object is seen and which sound is its own tell each other.",
    paper="Independency Adversarial Learning for Cross-Modal Sound Separation, AAAI 2024, doi 10.1609/aaai.v38i4.28140",
    cues="a box per source in the video, what a detector found in it, or pictures of the source",
    encoder=PartConfig("ial_cms.deeplab", {"image_size": 224}),
    conditioner=PartConfig("ial_cms.attention", {"width": 512, "hidden": 1024}),
    separator=PartConfig("ial_cms.unet", {"width": 64, "levels": 5}),
    front_end=PartConfig(
        "stft",
        {
            "rate": 11025, "length": 65535, "n_fft": 1022, "hop_length": 256, "warp_rows": 256, "pad_mode": "reflect",
            "align_corners": True, "log_offset": 1e-8,
        },
    ),
    objective=PartConfig("ial_cms.independency", {"independence": 0.0}),
    default_variant="supervised",
    variants={
        "unsupervised": {"objective": {"independence": 0.01, "model_every": 3}},
        "mini": {
            "encoder": {
                "width": 16, "pyramid": 32, "details": 16, "space": 64, "frozen": False, "image_size": 112,
                "antialias": True, "classes": list(SYNTHESISED),
            },
            "conditioner": {"width": 160, "hidden": 256, "equalised": True},
            "separator": {"width": 20},
            "front_end": {
                "n_fft": 2046, "hop_length": 512, "level": 1.0, "log_offset": 1.0, "pad_mode": "constant",
            },
            "objective": {
                "scaled": False, "correspondence_steps": [], "recognition": 10.0, "classes": len(SYNTHESISED),
                "recognised": 64, "critic_width": 8, "critic_gain": 30.0, "bank": 200, "independence_steps": [],
                "critic_learning_rate": 1e-3,
                "learning_rate": 1e-3, "encoder_learning_rate": 1e-3,
            },
        },
    },
    weights="ial_cms.mini",
    converter="avsep_ial_cms.convert:CONVERTER",
    training={
        "mini": {
            "steps": 2600, "batch": 12, "warmup": 100, "schedule": "cosine", "clip_norm": 1.0, "precision": "bf16",
            "ema": 0.99, "half": True, "validate_every": 250, "validation_mixtures": 64,
            "augmentation": {"semitones": 2.0, "gain": 6.0, "equaliser": 5.0, "room": 0.25, "noise": 0.3},
        },
        "supervised": {
            "steps": 100000, "batch": 8, "validate_every": 500, "validation_mixtures": 256,
            "augmentation": {"factor": 0.5},
        },
        "unsupervised": {
            "steps": 100000, "batch": 8, "members": 2, "validate_every": 500, "validation_mixtures": 256,
            "augmentation": {"factor": 0.5},
        },
    },
)  # fmt: skip

ADAPTERS = {
    "parity": ("front_end", "visual_net", "av_module", "unet"),
    "parity_method": ("method", "waveform"),
    "parity_critic": ("critic", "gan_losses", "losses"),
    "parity_train": ("train_step",),
    "parity_data": ("audio_segment", "detection_crop", "detection_cleanup", "test_pairs", "metrics"),
}


@avsep_zoo.hookimpl
def avsep_register(register: Register) -> None:
    """Register IAL-CMS' parts, recipe and parity adapters."""
    register.encoder(
        "ial_cms.deeplab",
        "avsep_ial_cms.encoder:DeepLabEncoder",
        "a map of what a box shows",
        small={"width": 2, "pyramid": 3, "details": 2, "space": 8, "frozen": False, "image_size": 32},
    )
    register.conditioner(
        "ial_cms.attention",
        "avsep_ial_cms.conditioner:CrossModalAttention",
        "cross-modal attention",
        small={"width": 6, "hidden": 8},
    )
    register.separator(
        "ial_cms.unet",
        "avsep_ial_cms.separator:ResidualUNet",
        "U-Net with a residual encoder",
        small={"width": 4, "levels": 5},
    )
    register.objective(
        "ial_cms.independency",
        "avsep_ial_cms.objective:IndependencyObjective",
        "independent sounds",
        small={"correspondence_steps": [], "critic_width": 2, "bank": 6, "learning_rate": 1e-3},
    )
    register.method(RECIPE)
    for module, adapters in ADAPTERS.items():
        for adapter in adapters:
            register.adapter("ial_cms", adapter, f"avsep_ial_cms.{module}:{adapter}")
