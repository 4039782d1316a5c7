"""Official DAVIS checkpoints (state dicts ``unet`` and ``frame``) in this project's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from avsep_davis import convert_frame, convert_unet
from avsep_davis.convert_frame import Target
from avsep_zoo.weights.converter import Converter, Entries

__all__ = ["CONVERTER", "convert_official", "official_view", "target"]

_MAPS = {"unet": convert_unet.unet_entries, "frame": convert_frame.frame_entries}
_TARGETS = {"unet": convert_unet.target, "frame": convert_frame.target}


def target(part: str, key: str) -> Target | None:
    """Where an official entry goes, or None where the published forward never uses it.

    Args:
        part: ``unet`` or ``frame``.
        key: the official entry.

    Raises:
        KeyError: the entry belongs to no known layout.
    """
    try:
        return _TARGETS[part](key)
    except KeyError:
        raise KeyError(f"{part}.{key}") from None


def convert_official(parts: Mapping[str, Mapping[str, Tensor]]) -> Entries:
    """Map official state dicts to the entries of a :class:`~avsep_zoo.model.SeparationModel`.

    Args:
        parts: ``unet`` and ``frame``, or one of them, or some of their entries.

    Returns:
        The entries, and the official ones that are not used (``part.key``).

    Raises:
        KeyError: an entry belongs to no known layout, or one of those that are joined is missing.
        WeightsError: an entry does not have the published shape.
    """
    entries: dict[str, Tensor] = {}
    unused: list[str] = []
    for part, official in parts.items():
        try:
            found, idle = _MAPS[part](official)
        except KeyError as error:
            raise KeyError(f"{part}.{error.args[0]}") from None
        entries |= found
        unused += [f"{part}.{key}" for key in idle]
    return entries, unused


def official_view(state: Mapping[str, Tensor], part: str, key: str, like: Sequence[int]) -> Tensor:
    """Read the official entry ``key`` back out of entries of a model, or of their gradients.

    Args:
        state: entries (or gradients) by name.
        part: ``unet`` or ``frame``.
        key: the official entry.
        like: its official shape.

    Raises:
        KeyError: the entry is unknown, unused or not in ``state``.
    """
    found = target(part, key)
    if found is None:
        raise KeyError(f"{part}.{key}")
    value = torch.cat([state[name] for name in found.names]) if found.names else state[found.name]
    value = value.mT if found.transposed else value
    return (value if found.rows is None else value[found.rows]).reshape(tuple(like))


CONVERTER = Converter(
    parts={
        "unet": r"net_unet\.",
        "frame": r"(temporal_)?transformer\.|model\.visual\.|features\.",
    },
    entries=convert_official,
)
"""The two bare state dicts of a training run: ``unet_best.pth``, ``frame_best.pth``."""
