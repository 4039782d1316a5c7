"""Registration of BiModalSep; imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import avsep_zoo
from avsep_zoo import PartConfig, Recipe
from avsep_zoo.class_lists import SYNTHESISED

if TYPE_CHECKING:
    from avsep_zoo.registry import Register

NAMING = [
    "accordion", "acoustic", "anglais", "banjo", "bass", "bassoon", "cello", "clarinet", "concert", "contrabass", "cor",
    "double", "english", "fagotto", "fiddle", "five", "flute", "folk", "french", "grand", "guitar", "hautboy", "horn",
    "mandolin", "mandolino", "oboe", "piano", "pianoforte", "sax", "saxophone", "slide", "soprano", "squeezebox",
    "steel", "string", "transverse", "trombone", "trumpet", "tuba", "upright", "violin", "violoncello", "wooden",
    "xylophone",
]  # fmt: skip
OTHER = [
    "a", "an", "and", "as", "be", "being", "blown", "bow", "bowed", "can", "heard", "hit", "is", "its", "melody",
    "mixture", "music", "musician", "notes", "of", "on", "only", "over", "person", "picked", "played", "playing",
    "plays", "plucked", "pressed", "recording", "sings", "solo", "some", "someone", "sound", "sounds", "squeezed",
    "struck", "strummed", "the", "then", "while", "with",
]  # fmt: skip

# Two mixtures at a time, as on each of the eight GPUs of the published runs: so many are compared by the judge and
# normalised together. A tenth of the learning rate every 15 epochs, here in steps of 16 mixtures, for about as many
# clips as there are: 48,000 captions, 480 recordings of MUSIC counted 50 times, 180,000 of VGGSound. These end with the
# fourth such span, at a thousandth of the rate; published runs go on to 200 epochs.
_PUBLISHED = {
    "batch": 16, "accumulate": 8, "members": 2, "schedule": "step", "decay": 0.1, "validation_mixtures": 256,
    "augmentation": {"factor": 0.5},
}  # fmt: skip

RECIPE = Recipe(
    name="bimodal_sep",
    summary="Separation by text: a text names what is heard, and a judge of texts and sounds teaches without solos.",
    paper="Weakly-supervised Audio Separation via Bi-modal Semantic Similarity, ICLR 2024, arXiv 2404.01740",
    cues="a text, a label, or an example of the sound",
    encoder=PartConfig("bimodal_sep.clap_text"),
    conditioner=PartConfig("bimodal_sep.attention", {"layer": "sca", "heads": 8}),
    separator=PartConfig("bimodal_sep.unet", {"width": 64, "levels": 7, "mask_features": 32, "res_layers": 1}),
    front_end=PartConfig(
        "stft",
        {
            "rate": 16000, "length": 131070, "n_fft": 1022, "hop_length": 256, "warp_rows": 0, "pad_mode": "reflect",
        },
    ),
    objective=PartConfig("bimodal_sep.bimodal", {"judge": {}}),
    default_variant="audiocaps",
    variants={
        "music": {"objective": {"in_place": True}},
        "vggsound": {"objective": {"in_place": True}},
        "mini": {
            "encoder": {
                "name": "bimodal_sep.words", "naming": NAMING, "other": OTHER,
                "classes": list(SYNTHESISED), "examples": 0.15,
            },
            "conditioner": {"heads": 4},
            "separator": {"width": 16, "levels": 5, "mask_features": 16},
            "front_end": {
                "rate": 11025, "length": 49151, "n_fft": 2046, "hop_length": 768, "warp_rows": 256, "level": 1.0,
                "pad_mode": "constant",
            },
            "objective": {
                "mixture": "sum", "loss": "signal", "reconstruction": 1.0, "consistency": 0.0, "contrastive": 0.0,
                "soft": True, "judge": None, "alignment": 1.0, "together": True, "learning_rate": 1e-3,
                "weight_decay": 0.0,
            },
        },
    },
    weights="bimodal_sep.mini",
    converter="avsep_bimodal_sep.convert:CONVERTER",
    training={
        "mini": {
            "steps": 3600, "batch": 12, "members": 2, "solos": 0.75, "warmup": 100, "schedule": "cosine",
            "clip_norm": 1.0, "precision": "bf16",
            "ema": 0.99, "half": True, "validate_every": 250, "validation_mixtures": 64,
            "augmentation": {"semitones": 2.0, "gain": 6.0, "equaliser": 5.0, "room": 0.25, "noise": 0.3},
        },
        "audiocaps": {
            **_PUBLISHED, "members": 3, "steps": 180000, "milestones": [45000, 90000, 135000], "validate_every": 6000,
        },
        "music": {
            **_PUBLISHED, "steps": 90000, "milestones": [22500, 45000, 67500], "validate_every": 3000,
        },
        "vggsound": {
            **_PUBLISHED, "steps": 672000, "milestones": [168000, 336000, 504000], "validate_every": 22400,
        },
    },
)  # fmt: skip

ADAPTERS: dict[str, tuple[str, ...]] = {
    "parity": ("conditioning_block", "mask_head", "resblock", "unet"),
    "parity_clap": ("clap_audio", "clap_text", "resample"),
    "parity_data": ("caption_parser", "dataset", "label_prompts", "metrics"),
    "parity_method": ("front_end", "inverse", "method", "waveform"),
    "parity_train": ("losses", "objective"),
}


@avsep_zoo.hookimpl
def avsep_register(register: Register) -> None:
    """Register BiModalSep's parts, recipe and parity adapters."""
    register.encoder(
        "bimodal_sep.clap_text",
        "avsep_bimodal_sep.clap_text:ClapTextEncoder",
        "texts, by CLAP",
        small={
            "length": 12,
            "tower": {
                "vocab_size": 300, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
                "num_attention_heads": 2, "max_position_embeddings": 40, "projection_dim": 8,
            },
        },
    )  # fmt: skip
    register.encoder(
        "bimodal_sep.clap_audio",
        "avsep_bimodal_sep.clap_audio:ClapAudioEncoder",
        "examples, by CLAP",
        small={
            "tower": {
                "patch_embeds_hidden_size": 4, "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 2],
                "projection_dim": 8,
            },
        },
    )  # fmt: skip
    register.encoder(
        "bimodal_sep.words",
        "avsep_bimodal_sep.words:WordEncoder",
        "texts or examples, without a download",
        small={
            "naming": ["violin", "flute", "drum"], "other": ["the", "sound", "of"], "width": 8, "heads": 2,
            "rate": 8000, "ear": 2,
        },
    )  # fmt: skip
    register.conditioner(
        "bimodal_sep.attention",
        "avsep_bimodal_sep.conditioner:TextAttention",
        "attention to a text",
        small={"heads": 2},
    )
    register.separator(
        "bimodal_sep.unet",
        "avsep_bimodal_sep.separator:ConditionalUNet",
        "conditional residual U-Net",
        small={"width": 2, "levels": 5, "mask_features": 4},
    )
    register.objective(
        "bimodal_sep.bimodal",
        "avsep_bimodal_sep.objective:BiModalObjective",
        "texts judge sounds",
        small={"mixture": "sum", "consistency": 0.0, "contrastive": 0.0, "learning_rate": 1e-3},
    )
    register.method(RECIPE)
    for module, adapters in ADAPTERS.items():
        for adapter in adapters:
            register.adapter("bimodal_sep", adapter, f"avsep_bimodal_sep.{module}:{adapter}")
