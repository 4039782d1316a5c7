"""Registration of DAVIS and DAVIS-Flow; imports no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import avsep_zoo
from avsep_zoo import PartConfig, Recipe
from avsep_zoo.class_lists import SYNTHESISED

if TYPE_CHECKING:
    from avsep_zoo.registry import Register

MUSIC_AUDIO = {
    "rate": 11025, "length": 65535, "n_fft": 1022, "hop_length": 256, "warp_rows": 256, "align_corners": True,
    "log_scale": 0.15,
}  # fmt: skip
AVE_AUDIO = {"rate": 11000, "length": 110000, "warp_frames": 256}
MINI: dict[str, Any] = {
    "encoder": {
        "name": "davis.resnet", "width": 12, "frames": 3, "frame_rate": 1.0, "image_size": 64, "first_frame": False,
        "frozen": False, "heads": 4, "feedforward": 192, "encoder_layers": 1, "dropout": 0.0,
        "classes": list(SYNTHESISED),
    },
    "separator": {
        "width": 24, "multipliers": [1, 2, 4, 4], "rows": 128, "head_channels": 8, "time_features": 128, "patch": 2,
        "gated": True,
    },
    "front_end": {
        "n_fft": 2046, "hop_length": 512, "warp_rows": 128, "log_scale": 0.13, "level": 10.0,
    },
    "driver": {"full_level": False, "predicts": "clean", "time_power": 3.0},
    "objective": {
        "mixture": "sum", "scale": 1.0, "weighting": "log", "recognition": 0.05, "learning_rate": 1e-3,
    },
}  # fmt: skip

ENCODER = PartConfig("davis.clip", {"frames": 11, "frame_rate": 0.5, "statistics": "imagenet", "vary": True})
AVE_ENCODER: dict[str, Any] = {"frame_rate": 1.0, "statistics": "clip", "vary": False}
RESNET: dict[str, Any] = {"encoder": {"name": "davis.resnet", "frames": 11, "frame_rate": 0.5, "vary": True}}
SEPARATOR = PartConfig("davis.unet", {"width": 64, "multipliers": [1, 2, 4, 4, 8], "rows": 256})
MUSIC_TRAINING = {
    "steps": 116800, "batch": 8, "clip_norm": 5.0, "schedule": "step", "milestones": [29200, 58400, 87600],
    "decay": 0.5, "validate_every": 292, "validation_mixtures": 250, "frame_stride": 2,
}  # fmt: skip

MINI_TRAINING = {
    "steps": 2000, "batch": 12, "warmup": 100, "schedule": "cosine", "clip_norm": 1.0, "precision": "bf16",
    "ema": 0.99, "half": True, "validate_every": 200, "validation_mixtures": 48,
    "augmentation": {"semitones": 2.0, "gain": 6.0, "equaliser": 5.0, "room": 0.25, "noise": 0.3},
}  # fmt: skip
AVE_TRAINING = {
    **MUSIC_TRAINING, "steps": 834400, "milestones": [208600, 417200, 625800], "validate_every": 2086,
    "frame_stride": 1,
}  # fmt: skip

DAVIS = Recipe(
    name="davis",
    summary="Diffusion: the spectrogram of what is seen is generated out of noise, given the mixture.",
    paper="Huang et al., High-Quality Visually-Guided Sound Separation from Diverse Categories, ACCV 2024, "
    "arXiv 2308.00122",
    cues="frames of each source: its own pictures, or the video with a box",
    encoder=ENCODER,
    conditioner=PartConfig("tiled_concat"),
    separator=SEPARATOR,
    driver=PartConfig("diffusion", {"steps": 15, "solver": "ddim"}),
    front_end=PartConfig("stft", MUSIC_AUDIO),
    objective=PartConfig("generative", {"mixture": "mean"}),
    default_variant="music",
    variants={
        "ave": {"encoder": AVE_ENCODER, "front_end": AVE_AUDIO, "driver": {"lowest": -1.0, "silence": None}},
        "mini": {**MINI, "driver": {**MINI["driver"], "steps": 4, "solver": "dpm++"}},
        "resnet18": RESNET,
    },
    weights="davis.mini",
    converter="avsep_davis.convert:CONVERTER",
    training={"mini": MINI_TRAINING, "music": MUSIC_TRAINING, "ave": AVE_TRAINING},
)
DAVIS_FLOW = replace(
    DAVIS,
    name="davis_flow",
    summary="Flow matching: the spectrogram of what is seen is generated out of noise in a few steps.",
    paper="Huang et al., High-quality sound separation across diverse categories via visually-guided generative "
    "modeling, International Journal of Computer Vision 134 (2026), arXiv 2509.22063",
    driver=PartConfig("flow", {"steps": 2, "solver": "euler"}),
    variants={"ave": {"encoder": AVE_ENCODER, "front_end": AVE_AUDIO}, "mini": MINI, "resnet18": RESNET},
    weights="davis_flow.mini",
)

ADAPTERS = {
    "parity": ("time_embedding", "resnet_block", "resample", "attention", "time_attention", "unet"),
    "parity_frames": (
        "temporal_transformer", "clip_image", "frames_net", "frames_net_resnet18", "frames_preprocess",
    ),
    "parity_driver": (
        "schedule", "diffusion_formulas", "ddim", "flow_sampler", "ddpm_loss", "flow_loss", "objective",
    ),
    "parity_sound": ("front_end", "waveform", "audio_segment", "data_index"),
}  # fmt: skip


@avsep_zoo.hookimpl
def avsep_register(register: Register) -> None:
    """Register DAVIS' parts, recipes and parity adapters."""
    register.encoder(
        "davis.clip",
        "avsep_davis.clip:ClipEncoder",
        "CLIP's image tower and a temporal transformer",
        small={
            "frames": 2, "heads": 2, "feedforward": 16, "encoder_layers": 1,
            "tower": {
                "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
                "image_size": 32, "patch_size": 16, "projection_dim": 8,
            },
        },
    )  # fmt: skip
    register.encoder(
        "davis.resnet",
        "avsep_davis.encoder:ResNetEncoder",
        "ResNet-18 and a temporal transformer",
        small={
            "width": 2, "frames": 2, "image_size": 32, "heads": 2, "feedforward": 16, "encoder_layers": 1,
            "first_frame": False, "frozen": False,
        },
    )  # fmt: skip
    register.separator(
        "davis.unet",
        "avsep_davis.separator:DavisUNet",
        "denoising U-Net with time attention",
        small={
            "width": 8, "multipliers": [1, 2], "rows": 128, "groups": 4, "heads": 2, "head_channels": 4,
            "time_heads": 2, "time_features": 16, "patch": 8,
        },
    )  # fmt: skip
    register.method(DAVIS)
    register.method(DAVIS_FLOW)
    for module, adapters in ADAPTERS.items():
        for adapter in adapters:
            register.adapter("davis", adapter, f"avsep_davis.{module}:{adapter}")
