"""Official DAVIS checkpoints (state dicts ``unet`` and ``frame``) in this project's names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from avsep_davis import convert_frame, convert_unet
from avsep_davis.convert_frame import Target
from avsep_zoo.errors import WeightsError

__all__ = ["convert_official", "load_official", "official_entries", "official_view", "target"]

_MAPS = {"unet": convert_unet.unet_entries, "frame": convert_frame.frame_entries}
_TARGETS = {"unet": convert_unet.target, "frame": convert_frame.target}
_SLOTS = {"unet": "separator.", "frame": "encoder."}
_AVERAGED = ("ema.ema_model.", "ema_model.", "ema.")
_TRAINED = ("ema.online_model.", "online_model.")
_COUNTERS = ("initted", "step", "n_averaged")


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


def official_entries(checkpoint: Mapping[str, Any], *, ema: bool = True) -> tuple[dict[str, Tensor], list[str]]:
    """Return the bare official state dict in ``checkpoint``, and what is left out of it.

    Official files hold one copy of the weights. Files of other trainers may hold a moving average beside it, in a
    wrapper (``{"model": ..., "ema": ...}``) or under a prefix (``ema_model.``, ``ema.ema_model.``); then the other
    copy, counters and optimisers are left out, as ``prefix.key``. The prefix ``module.`` of data-parallel training
    comes off.

    Args:
        checkpoint: what ``torch.load(..., weights_only=True)`` gives.
        ema: take the moving average where there is one; else, or if False, the weights as they were trained.

    Raises:
        WeightsError: there are no weights, or nothing but a moving average and ``ema`` is False, or an entry is not a
            tensor.
    """
    if not isinstance(checkpoint, Mapping):
        raise WeightsError(f"The checkpoint is of the type {type(checkpoint).__name__}; give a state dict of tensors.")
    flat: dict[str, Any] = {}
    for key, value in checkpoint.items():
        inner = {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {str(key): value}
        flat |= {k.removeprefix("module."): v for k, v in inner.items()}
    wrappers = tuple(f"{key}." for key in ("model", "state_dict") if isinstance(checkpoint.get(key), Mapping))
    averaged = _first(_AVERAGED, flat)
    trained = _first(_TRAINED + wrappers, flat)
    prefix = (averaged if ema else None) or trained or ""
    left_out = {k for k in flat if not k.startswith(prefix) or k.removeprefix(prefix) in _COUNTERS}
    if not prefix and averaged is not None:
        left_out |= {k for k in flat if k.startswith(f"{averaged.split('.')[0]}.")}
    kept = {k: v for k, v in flat.items() if k not in left_out}
    if not kept:
        raise WeightsError("The checkpoint has no weights of that kind; give a state dict, or another value of ema.")
    for key, value in kept.items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise WeightsError(
                f"The entry {key} of the checkpoint is of the type {kind}; give a state dict of tensors."
            )
    return {k.removeprefix(prefix).removeprefix("module."): v for k, v in kept.items()}, sorted(left_out)


def convert_official(
    parts: Mapping[str, Mapping[str, Any]], *, ema: bool = True
) -> tuple[dict[str, Tensor], list[str]]:
    """Map official state dicts to the entries of a :class:`~avsep_zoo.model.SeparationModel`.

    Args:
        parts: ``unet`` and ``frame``, or one of them, or some of their entries; see :func:`official_entries`.
        ema: take the moving average where there is one.

    Returns:
        The entries, and the official ones that are not used (``part.key``).

    Raises:
        KeyError: a part or an entry is unknown, or one of the entries that are joined is missing.
        WeightsError: an entry is not a tensor or does not have the published shape.
    """
    entries: dict[str, Tensor] = {}
    unused: list[str] = []
    for part, checkpoint in parts.items():
        convert = _MAPS[part]
        official, left_out = official_entries(checkpoint, ema=ema)
        try:
            found, idle = convert(official)
        except KeyError as error:
            raise KeyError(f"{part}.{error.args[0]}") from None
        entries |= found
        unused += [f"{part}.{key}" for key in (*left_out, *idle)]
    return entries, unused


def load_official(model: nn.Module, parts: Mapping[str, Mapping[str, Any]], *, ema: bool = True) -> list[str]:
    """Load official state dicts into the separator (``unet``) and encoder (``frame``) of ``model``.

    Returns:
        The official entries that are not used.

    Raises:
        KeyError: an entry belongs to no known layout.
        WeightsError: entries are missing, or the model has other ones or other shapes; nothing is loaded.
    """
    state, unused = convert_official(parts, ema=ema)
    slots = tuple(_SLOTS[part] for part in parts)
    wanted = {name: value for name, value in model.state_dict().items() if name.startswith(slots)}
    if lacking := wanted.keys() - state.keys():
        raise WeightsError(f"The checkpoint lacks {_few(lacking)}; take the variant the checkpoint was made with.")
    if extra := state.keys() - wanted.keys():
        raise WeightsError(f"The model has no place for {_few(extra)}; take the variant the checkpoint was made with.")
    if off := {name for name, value in wanted.items() if value.shape != state[name].shape}:
        raise WeightsError(
            f"The shapes of {_few(off)} are not the model's; take the variant the checkpoint was made with."
        )
    model.load_state_dict(model.state_dict() | state)
    return unused


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


def _first(prefixes: Sequence[str], names: Mapping[str, Any]) -> str | None:
    return next((prefix for prefix in prefixes if any(name.startswith(prefix) for name in names)), None)


def _few(names: Collection[str]) -> str:
    """Some names, for a message."""
    first = sorted(names)[:3]
    return ", ".join(first) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
