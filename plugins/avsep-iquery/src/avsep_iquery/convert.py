"""Official iQuery checkpoints (state dicts ``sound``, ``frame``, ``maskformer``) in this project's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from avsep_zoo.weights.converter import Converter, Entries

__all__ = ["CONVERTER", "convert_official", "rename"]

_FRAME = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_MASKFORMER = {"query_embed": "query_embed", "upobj": "object_projection", "down": "motion_projection"}
_UNUSED_IN_MOTION_LAYER = ("self_attn", "multihead_attn", "norm1", "norm2")
_UNUSED_IN_OTHER_LAYERS = ("cross_attn_motion", "norm4")


def rename(part: str, key: str, *, motion: bool, levels: int = 7) -> str | None:
    """Return this project's name of an official entry, or None where the published forward never uses it.

    Args:
        part: ``sound``, ``frame`` or ``maskformer``.
        key: the official entry.
        motion: whether the predictor is the one with motion, whose first layer is the motion layer.
        levels: of the U-Net.

    Raises:
        KeyError: the entry belongs to no known layout.
    """
    if part == "sound" and (match := re.fullmatch(r"bn0\.(\w+)", key)):
        return f"separator.input_norm.{match[1]}"
    if part == "sound" and (match := re.fullmatch(r"(down|up)(conv|norm)(\d+)\.(\w+)", key)):
        index = int(match[3]) - 1 if match[1] == "down" else levels - int(match[3])
        return f"separator.{match[1]}.{index}.{match[2]}.{match[4]}"
    if part == "frame" and (match := re.fullmatch(r"fc\.(\w+)", key)):
        return f"encoder.fc.{match[1]}"
    if part == "frame" and (match := re.fullmatch(r"features\.([014567])\.(.+)", key)):
        return f"encoder.features.{_FRAME[match[1]]}.{match[2]}"
    if part == "maskformer" and (match := re.fullmatch(r"(query_embed|upobj|down)\.(\w+)", key)):
        return f"conditioner.{_MASKFORMER[match[1]]}.{match[2]}"
    if part == "maskformer" and (match := re.fullmatch(r"mask_embed\.layers\.(\d+)\.(\w+)", key)):
        return f"conditioner.mask_embed.{2 * int(match[1])}.{match[2]}"
    if part == "maskformer" and (match := re.fullmatch(r"transformer\.decoder\.norm\.(\w+)", key)):
        return f"conditioner.decoder_norm.{match[1]}"
    if part == "maskformer" and (
        match := re.fullmatch(r"transformer\.(encoder|decoder)\.layers\.(\d+)\.(\w+)\.(.+)", key)
    ):
        stack, layer, module, rest = match.groups()
        if stack == "decoder" and motion:
            unused = _UNUSED_IN_MOTION_LAYER if layer == "0" else _UNUSED_IN_OTHER_LAYERS
            if module in unused:
                return None
        module = {"multihead_attn": "cross_attn"}.get(module, module)
        module = f"feedforward.{module}" if module.startswith("linear") else module
        return f"conditioner.{stack}_layers.{layer}.{module}.{rest}"
    raise KeyError(f"{part}.{key}")


def convert_official(parts: Mapping[str, Mapping[str, Tensor]], *, levels: int = 7) -> Entries:
    """Map official state dicts to the entries of a :class:`~avsep_zoo.model.SeparationModel`.

    Args:
        parts: ``sound``, ``frame`` and ``maskformer``, or some of them.
        levels: of the U-Net.

    Returns:
        The entries, and the official ones that are not used (``part.key``).

    Raises:
        KeyError: an entry belongs to no known layout.
    """
    motion = "down.weight" in parts.get("maskformer", {})
    state: dict[str, Tensor] = {}
    unused: list[str] = []
    for part, entries in parts.items():
        for key, value in entries.items():
            name = rename(part, key, motion=motion, levels=levels)
            if name is None:
                unused.append(f"{part}.{key}")
            else:
                state[name] = value.squeeze(-1) if key in ("upobj.weight", "down.weight") else value
    return state, unused


CONVERTER = Converter(
    parts={
        "sound": r"bn0\.|downconv1\.",
        "frame": r"features\.0\.|fc\.weight$",
        "maskformer": r"query_embed\.|transformer\.",
    },
    entries=convert_official,
)
"""The three state dicts of a training run: ``sound_best.pth``, ``frame_best.pth``, ``maskformer_best.pth``."""
