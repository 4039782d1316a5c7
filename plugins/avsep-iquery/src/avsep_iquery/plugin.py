"""Registration of iQuery; imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import avsep_zoo
from avsep_iquery import classes
from avsep_zoo import PartConfig, Recipe
from avsep_zoo.class_lists import MUSIC, SYNTHESISED

if TYPE_CHECKING:
    from avsep_zoo.registry import Register

MUSIC_AUDIO = {"rate": 11025, "length": 65535, "n_fft": 1022, "hop_length": 256, "warp_rows": 256}

RECIPE = Recipe(
    name="iquery",
    summary="Instruments as queries: one learned query per class, told by the picture which sound to take.",
    paper="Chen et al., iQuery: Instruments as Queries for Audio-Visual Sound Separation, CVPR 2023, arXiv 2212.03814",
    cues="a class label and frames with a box per source; with motion features in the variants music and music21; "
    "iquery.mini needs only one of label and frames",
    encoder=PartConfig(
        "iquery.cues",
        {"classes": list(MUSIC), "frames": 3, "frame_rate": 1.0, "motion": 1024, "motion_padding": "added"},
    ),
    conditioner=PartConfig("iquery.queries", {"queries": 12}),
    separator=PartConfig("mask_unet", {"width": 64, "levels": 7, "mask_features": 32}),
    front_end=PartConfig("stft", MUSIC_AUDIO),
    objective=PartConfig("iquery.masks", {"mixture": "mean"}),
    default_variant="music",
    variants={
        "music21": {"encoder": {"classes": list(classes.MUSIC21)}, "conditioner": {"queries": 22}},
        "ave": {
            "encoder": {
                "classes": list(classes.AVE), "spare_queries": 2, "motion": 0, "frames": 6, "frame_rate": 25.0,
            },
            "conditioner": {"queries": 30},
            "front_end": {"rate": 22050, "length": 47087, "hop_length": 184},
            "objective": {"mixture": "sum"},
        },
        "nomotion": {"encoder": {"motion": 0}},
        "mini": {
            "encoder": {
                "classes": list(SYNTHESISED), "motion": 0, "motion_padding": "masked", "width": 12, "image_size": 64,
                "frozen": False, "optional": ["frames", "label"],
            },
            "conditioner": {
                "queries": 21, "heads": 4, "feedforward": 256, "encoder_layers": 0, "decoder_layers": 2,
            },
            "separator": {"width": 24, "levels": 6, "mask_features": 24},
            "front_end": {"n_fft": 2046, "hop_length": 512, "align_corners": True, "level": 1.0},
            "objective": {"mixture": "sum", "recognition": 0.05, "learning_rate": 7e-4},
        },
    },
    weights="iquery.mini",
    add_classes="avsep_iquery.expand:add_classes",
    converter="avsep_iquery.convert:CONVERTER",
    training={
        "mini": {
            "steps": 3150, "batch": 12, "warmup": 100, "schedule": "cosine", "clip_norm": 1.0, "precision": "bf16",
            "half": True,
            "validate_every": 250, "validation_mixtures": 96,
            "augmentation": {
                "semitones": 2.0, "gain": 6.0, "equaliser": 5.0, "room": 0.25, "noise": 0.3, "silence": 0.02,
                "drop_frames": 0.5, "drop_label": 0.3,
            },
        },
        "official": {"steps": 28300, "batch": 64, "validate_every": 283, "validation_mixtures": 256},
    },
)  # fmt: skip

ADAPTERS = (
    "front_end", "warp", "inverse", "unet", "frames_net", "predictor", "losses", "method", "waveform", "train_step",
)  # fmt: skip
DATA_ADAPTERS = ("audio_segment", "detection_crop", "motion_collate", "i3d", "metrics")


@avsep_zoo.hookimpl
def avsep_register(register: Register) -> None:
    """Register iQuery's parts, recipe and parity adapters."""
    register.encoder(
        "iquery.cues",
        "avsep_iquery.encoder:IQueryEncoder",
        "cropped frames, class and motion",
        small={
            "classes": ["violin", "flute", "drum"], "width": 4, "object_features": 8, "frames": 2, "image_size": 32,
            "frozen": False,
        },
    )  # fmt: skip
    register.conditioner(
        "iquery.queries",
        "avsep_iquery.conditioner:QueryConditioner",
        "class queries read the audio",
        small={"queries": 4, "heads": 2, "feedforward": 16, "decoder_layers": 2},
    )
    register.objective(
        "iquery.masks",
        "avsep_iquery.objective:IQueryObjective",
        "weighted mask distance",
        small={"mixture": "sum", "learning_rate": 1e-3},
    )
    register.method(RECIPE)
    for adapter in ADAPTERS:
        register.adapter("iquery", adapter, f"avsep_iquery.parity:{adapter}")
    for adapter in DATA_ADAPTERS:
        register.adapter("iquery", adapter, f"avsep_iquery.parity_data:{adapter}")
    register.adapter("iquery", "predictor_motion", "avsep_iquery.parity:predictor")
