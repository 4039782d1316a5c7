"""The two towers of CLAP, out of transformers' classes, with the sizes of LAION's HTSAT-base and RoBERTa.

Source: Wu et al., Large-Scale Contrastive Language-Audio Pretraining with Feature Fusion and Keyword-to-Caption
Augmentation, ICASSP 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import nn

from avsep_zoo.errors import CompositionError

__all__ = ["SOUND_TOWER", "TEXT_TOWER", "sound_sizes", "sound_tower", "text_sizes", "text_tower"]

TEXT_TOWER: Mapping[str, int] = MappingProxyType(
    {
        "vocab_size": 50265,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 514,
        "projection_dim": 512,
    }
)
SOUND_TOWER: Mapping[str, Any] = MappingProxyType(
    {
        "patch_embeds_hidden_size": 128,
        "depths": (2, 2, 12, 2),
        "num_attention_heads": (4, 8, 16, 32),
        "projection_dim": 512,
    }
)
_POSITIONS = ("position_ids", "token_type_ids")  # of the text tower's embeddings: constants


def text_sizes(tower: Mapping[str, int] | None) -> dict[str, int]:
    """Sizes of a text tower, by transformers' names; those of RoBERTa-base where ``tower`` does not say.

    Raises:
        ValueError: one is unknown, or no whole number above 0.
    """
    return _sizes(TEXT_TOWER, tower)


def sound_sizes(tower: Mapping[str, Any] | None) -> dict[str, Any]:
    """Sizes of a sound tower, by transformers' names; those of HTSAT-base where ``tower`` does not say.

    Raises:
        ValueError: one is unknown, or no whole number above 0, or the depths and the heads are of different stages.
    """
    sizes = _sizes(SOUND_TOWER, tower)
    stages = [len(sizes[name]) for name in ("depths", "num_attention_heads")]
    if stages[0] != stages[1] or not 1 <= stages[0] <= 4:
        raise ValueError(f"The tower has depths of {stages[0]} stages and heads of {stages[1]}; give 1 to 4 of both.")
    return sizes


def text_tower(sizes: Mapping[str, int]) -> nn.Module:
    """RoBERTa with a pooler and a projection, with random weights, frozen and in eval mode.

    Layer norms have an epsilon of 1e-5, as LAION-CLAP has; transformers' own default for CLAP is 1e-12. Dropout never
    acts.
    """
    transformers = _transformers("bimodal_sep.clap_text")
    config = transformers.ClapTextConfig(**sizes, layer_norm_eps=1e-5)
    tower: nn.Module = transformers.ClapTextModelWithProjection(config)
    embeddings = tower.get_submodule("text_model.embeddings")
    for name in _POSITIONS:
        embeddings.register_buffer(name, embeddings.get_buffer(name), persistent=False)
    return tower.requires_grad_(False).eval()


def sound_tower(sizes: Mapping[str, Any]) -> nn.Module:
    """HTSAT, a Swin transformer on log-mel spectrograms, with a projection; random weights, frozen, in eval mode."""
    transformers = _transformers("bimodal_sep.clap_audio")
    width = sizes["patch_embeds_hidden_size"] * 2 ** (len(sizes["depths"]) - 1)
    lists = {name: list(value) if isinstance(value, Sequence) else value for name, value in sizes.items()}
    config = transformers.ClapAudioConfig(**lists, hidden_size=width)
    tower: nn.Module = transformers.ClapAudioModelWithProjection(config)
    for module in tower.modules():
        if "relative_position_index" in module._buffers:
            index = module.get_buffer("relative_position_index")
            module.register_buffer("relative_position_index", index, persistent=False)
    return tower.requires_grad_(False).eval()


def _sizes(published: Mapping[str, Any], changed: Mapping[str, Any] | None) -> dict[str, Any]:
    sizes = {**published, **(changed or {})}
    if unknown := sorted(set(sizes) - set(published)):
        raise ValueError(f"The tower has no size {unknown[0]!r}; it has {', '.join(published)}.")
    for name, value in sizes.items():
        several = isinstance(published[name], Sequence)
        numbers = value if several and isinstance(value, Sequence) else [value]
        if several != isinstance(value, Sequence) or not all(isinstance(n, int) and n > 0 for n in numbers):
            kind = "whole numbers above 0, one per stage" if several else "a whole number above 0"
            raise ValueError(f"The tower's {name} is {value!r}; give {kind}.")
    return sizes


def _transformers(part: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise CompositionError(
            f"{part} needs transformers; install it: pip install transformers tokenizers."
        ) from error
    return transformers
