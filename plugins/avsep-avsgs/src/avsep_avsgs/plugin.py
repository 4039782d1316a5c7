"""Registration of AVSGS; imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import avsep_zoo
from avsep_zoo import PartConfig, Recipe
from avsep_zoo.class_lists import SYNTHESISED

if TYPE_CHECKING:
    from avsep_zoo.registry import Register

ASIW = [
    "baby", "bell", "bird", "camera", "clock", "dog", "toilet/drain", "horse", "person", "sheep/goat/chicken",
    "telephone", "train", "vehicle", "water",
]  # fmt: skip

RECIPE = Recipe(
    name="avsgs",
    summary="Scene graphs: what is seen around an object tells, together with it, which sound to take out.",
    paper="Chatterjee et al., Visual Scene Graphs for Audio Source Separation, ICCV 2021, arXiv 2109.11955",
    cues="what a detector found in the pictures, with its features, and which object is meant: by its box or class; "
    "avsgs.mini looks at the pictures itself and needs a box, detections or pictures of the source",
    encoder=PartConfig("avsgs.detections", {"features": 2048, "hidden": 1024, "width": 512, "classes": ASIW}),
    conditioner=PartConfig("avsgs.scene_graph", {"hidden": 256, "heads": 4, "width": 512}),
    separator=PartConfig("avsgs.unet", {"width": 64, "levels": 7}),
    front_end=PartConfig(
        "stft",
        {
            "rate": 11025, "length": 65535, "n_fft": 1022, "hop_length": 256, "warp_rows": 256, "pad_mode": "reflect",
            "log_offset": 0.0,
        },
    ),
    objective=PartConfig("avsgs.co_separation", {"mixture": "mean", "classes": len(ASIW)}),
    default_variant="asiw",
    variants={
        "layers5": {"separator": {"levels": 5}},
        "crops": {"encoder": {"name": "avsgs.crops", "classes": ASIW}},
        "mini": {
            "encoder": {
                "name": "avsgs.crops", "width": 16, "image_size": 64, "reduced": 32, "features": 128,
                "classes": list(SYNTHESISED), "drop_context": 0.4, "scene": False,
            },
            "conditioner": {"hidden": 64, "width": 64},
            "separator": {"width": 20, "levels": 6},
            "front_end": {
                "n_fft": 2046, "hop_length": 512, "align_corners": True, "level": 1.0, "log_offset": 1.0,
                "pad_mode": "constant",
            },
            "objective": {
                "mixture": "sum", "target_limit": 1.0, "classes": len(SYNTHESISED), "class_weight": 0.0,
                "recognition": 0.1, "recognised": [128, 64], "orthogonality": 0.01,
                "learning_rate": 1e-3, "weight_decay": 0.0,
            },
        },
    },
    weights="avsgs.mini",
    converter="avsep_avsgs.convert:CONVERTER",
    training={
        "mini": {
            "steps": 3000, "batch": 12, "warmup": 100, "schedule": "cosine", "clip_norm": 1.0, "precision": "bf16",
            "ema": 0.99, "half": True, "validate_every": 250, "validation_mixtures": 96,
            "augmentation": {"semitones": 2.0, "gain": 6.0, "equaliser": 5.0, "room": 0.25, "noise": 0.3},
        },
        "asiw": {
            "steps": 50000, "batch": 25, "schedule": "step", "milestones": [15000, 30000], "decay": 0.1,
            "validate_every": 400, "validation_mixtures": 500, "augmentation": {"factor": 0.5},
        },
    },
)  # fmt: skip

ADAPTERS = {
    "parity": ("visual_net", "map_net", "classifier", "graph_net", "gru_unroll", "unet", "losses"),
    "parity_method": ("method_train", "train_step", "method_test"),
    "parity_data": ("front_end", "dataset", "metrics"),
    "parity_sound": ("waveform",),
}


@avsep_zoo.hookimpl
def avsep_register(register: Register) -> None:
    """Register AVSGS' parts, recipe and parity adapters."""
    register.encoder(
        "avsgs.detections",
        "avsep_avsgs.encoder:DetectionsEncoder",
        "features of detected objects",
        small={"features": 6, "hidden": 5, "width": 8},
    )
    register.encoder(
        "avsgs.crops",
        "avsep_avsgs.encoder:CropsEncoder",
        "pictures of detected objects, by ResNet-18",
        small={"width": 2, "image_size": 32, "reduced": 3, "features": 8},
    )
    register.conditioner(
        "avsgs.scene_graph",
        "avsep_avsgs.conditioner:SceneGraph",
        "a graph of objects, unrolled",
        small={"width": 8, "hidden": 8, "heads": 2},
    )
    register.conditioner(
        "avsgs.unroll",
        "avsep_avsgs.conditioner:SourceUnroll",
        "a vector, unrolled sound by sound",
        small={"width": 8},
    )
    register.separator(
        "avsgs.unet",
        "avsep_avsgs.separator:CoSeparationUNet",
        "U-Net of co-separation, sigmoid masks",
        small={"width": 4, "levels": 5},
    )
    register.objective(
        "avsgs.co_separation",
        "avsep_avsgs.objective:CoSeparationObjective",
        "sums of masks, classes",
        small={"mixture": "sum", "target_limit": 1.0, "class_weight": 0.0, "learning_rate": 1e-3},
    )
    register.method(RECIPE)
    for module, adapters in ADAPTERS.items():
        for adapter in adapters:
            register.adapter("avsgs", adapter, f"avsep_avsgs.{module}:{adapter}")
