"""LAION-CLAP's entries under the names that transformers gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from avsep_zoo.errors import WeightsError

__all__ = ["clap_entries", "clap_keys"]

_BRANCHES = {"text_branch": "text_model", "audio_branch": "audio_model.audio_encoder"}
_LAYERS = (
    ("bn0.", "batch_norm."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".attn.proj.", ".attention.output.dense."),
    (".attn.", ".attention.self."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
)
_PROJECTION = re.compile(r"(text|audio)_projection\.([02])\.(weight|bias)")
_UNUSED = re.compile(
    r"audio_branch\.(spectrogram_extractor|logmel_extractor|tscam_conv|head)\..*|(text|audio)_transform\..*"
    r"|.*\.(attn_mask|relative_position_index)|text_branch\.embeddings\.(position_ids|token_type_ids)"
)


def clap_keys(name: str) -> tuple[str, ...]:
    """What ``transformers.ClapModel`` calls LAION-CLAP's entry ``name``.

    Source: the two implementations' layouts; :mod:`avsep_bimodal_sep.clap_towers` has the networks.

    Args:
        name: as ``text_branch.pooler.dense.weight``, without what a checkpoint puts before it.

    Returns:
        One name, three where the first axis is cut into as many parts (query, key, value), none for constants and
        entries that no embedding depends on.

    Raises:
        WeightsError: LAION-CLAP has no such entry.
    """
    if _UNUSED.fullmatch(name):
        return ()
    if name in ("logit_scale_a", "logit_scale_t"):
        return (name,)
    if match := _PROJECTION.fullmatch(name):
        return (f"{match[1]}_projection.linear{1 if match[2] == '0' else 2}.{match[3]}",)
    branch, _, rest = name.partition(".")
    if branch not in _BRANCHES or not rest:
        raise WeightsError(
            f"{name!r} is no entry of LAION-CLAP; give its weights, or those of transformers' ClapModel."
        )
    if branch == "audio_branch":
        for old, new in _LAYERS:
            rest = rest.replace(old, new)
    place = f"{_BRANCHES[branch]}.{rest}"
    if ".self.qkv." in place:
        return tuple(place.replace(".qkv.", f".{part}.") for part in ("query", "key", "value"))
    return (place,)


def clap_entries(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return LAION-CLAP's entries by transformers' names; constants and what nothing depends on are left out.

    Raises:
        WeightsError: one is none of LAION-CLAP's.
    """
    entries: dict[str, Tensor] = {}
    for name, value in state.items():
        names = clap_keys(name)
        if len(names) == 1:
            entries[names[0]] = value
        elif names:
            entries |= {part: rows.contiguous() for part, rows in zip(names, value.chunk(len(names)), strict=True)}
    return entries
