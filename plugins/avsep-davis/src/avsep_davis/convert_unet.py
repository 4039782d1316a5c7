"""Entries of DAVIS' official ``unet_*.pth`` (``net_unet.*``, ``time_mlp.*``) in the names of :class:`DavisUNet`.

The official attention over frames keeps the projections of its heads apart. Here they are rows of one: the queries of
all heads, then their keys, then their values; so are their slopes, gains and biases.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from avsep_davis.convert_frame import Target
from avsep_zoo.errors import WeightsError

__all__ = ["module_name", "target", "unet_entries"]

_HEADS, _FEATURES = 4, 512  # of the attention over frames
_LEVELS = {
    "downs": ((64, 256), (64, 128), (128, 64), (256, 32), (256, 16)),
    "ups": ((512, 16), (256, 32), (256, 64), (128, 128), (64, 256)),
}  # (channels, rows) of the attention over frames, level by level
_PLACES = {"0": "block", "1": "points", "2": "frames", "3": "resample"}
_MODULES = {
    "time_mlp": "time",
    "init_conv": "first",
    "mid_block1": "middle_in",
    "mid_attn": "middle_attention",
    "mid_block2": "middle_out",
    "final_res_block": "last_block",
    "final_conv": "last",
}
_WB = r"(weight|bias)"
_BLOCK = {
    rf"mlp\.1\.{_WB}": r"film.linear.\1",
    rf"block([12])\.proj\.{_WB}": r"conv\1.\2",
    rf"block([12])\.norm\.{_WB}": r"norm\1.\2",
    rf"res_conv\.{_WB}": r"shortcut.\1",
}
_NORM_AND_QKV = {r"fn\.norm\.g": "norm.gain", r"fn\.fn\.to_qkv\.weight": "qkv.weight"}
_ENTRIES: dict[str, dict[str, str]] = {
    "time": {rf"1\.{_WB}": r"mlp.0.\1", rf"3\.{_WB}": r"mlp.2.\1"},
    "first": {_WB: r"\1"},
    "last": {_WB: r"\1"},
    "middle_in": _BLOCK,
    "middle_out": _BLOCK,
    "last_block": _BLOCK,
    "block": _BLOCK,
    "points": _NORM_AND_QKV
    | {
        rf"fn\.fn\.to_out\.0\.{_WB}": r"out.\1",
        r"fn\.fn\.to_out\.1\.g": "out_norm.gain",
        rf"fn\.fn\.mlp\.1\.{_WB}": r"film.linear.\1",
    },
    "middle_attention": _NORM_AND_QKV
    | {rf"fn\.fn\.to_out\.{_WB}": r"out.\1", rf"fn\.fn\.mlp\.1\.{_WB}": r"film.linear.\1"},
    "frames": {
        rf"fn\.mlp\.1\.{_WB}": r"film.linear.\1",
        rf"fn\.attn_concat_proj\.0\.{_WB}": r"out.\1",
        r"fn\.attn_concat_proj\.1\.weight": "out_slope",
        r"fn\.attn_concat_proj\.2\.gamma": "out_gain",
        r"fn\.attn_concat_proj\.2\.beta": "out_bias",
        rf"fn\.attn_conv_[QKV]_[0-3]\.0\.{_WB}": r"project.\1",
        r"fn\.attn_conv_[QKV]_[0-3]\.1\.weight": "slope",
        r"fn\.attn_conv_[QKV]_[0-3]\.2\.gamma": "gain",
        r"fn\.attn_conv_[QKV]_[0-3]\.2\.beta": "bias",
    },
    "resample": {rf"1\.{_WB}": r"conv.\1"},
}
_LAST_RESAMPLE = {_WB: r"\1"}  # the deepest level down and the last level up keep their size


def unet_entries(official: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Map entries of a U-Net file to those of a :class:`~avsep_zoo.model.SeparationModel` (``separator.*``).

    Args:
        official: a U-Net file, or some of its entries, without the prefix of data-parallel training.

    Returns:
        The entries, and the official ones that are not used.

    Raises:
        KeyError: an entry belongs to no known layout, or a head of an attention over frames is missing.
        WeightsError: an entry does not have the published shape.
    """
    entries: dict[str, Tensor] = {}
    heads: dict[str, dict[int, Tensor]] = {}
    unused = []
    for key, value in official.items():
        found = target(key)
        if found is None:
            unused.append(key)
        elif found.rows is None:
            entries[found.name] = _shaped(key, value, found)
        else:
            _check_heads(key, official)
            heads.setdefault(found.name, {})[found.rows.start] = _shaped(key, value, found)
    joined = {name: torch.cat([rows for _, rows in sorted(parts.items())]) for name, parts in heads.items()}
    return entries | joined, unused


def module_name(key: str) -> str:
    """Return the name in :class:`DavisUNet` of the official module ``key``, e.g. ``net_unet.downs.0.2``.

    Raises:
        KeyError: the official network has no such module.
    """
    name, _, rest = _split(key)
    if rest:
        raise KeyError(key)
    return name


def target(key: str) -> Target | None:
    """Where the official entry ``key`` goes, or None where the published forward never uses it.

    Raises:
        KeyError: the entry belongs to no known layout.
    """
    if re.fullmatch(rf"time_mlp\.[13]\.{_WB}", key):
        return None
    module, kind, rest = _split(key)
    keeps_size = kind == "resample" and module.split(".")[1] == "4"
    for pattern, replacement in (_LAST_RESAMPLE if keeps_size else _ENTRIES[kind]).items():
        if match := re.fullmatch(pattern, rest):
            name = match.expand(replacement)
            if kind.startswith("middle") and name.startswith("film."):
                return None
            rows, shape = _layout(module, name, rest)
            return Target(f"separator.{module}.{name}", rows, shape)
    raise KeyError(key)


def _split(key: str) -> tuple[str, str, str]:
    """Module of DavisUNet, which kind of module it is, and what is left of the official name."""
    if match := re.fullmatch(r"net_unet\.(downs|ups)\.([0-4])\.([0-3])(?:\.(.+))?", key):
        stage, level, place, rest = match.groups()
        return f"{stage}.{level}.{_PLACES[place]}", _PLACES[place], rest or ""
    match = re.fullmatch(r"net_unet\.(\w+)(?:\.(.+))?", key)
    if match is None or match[1] not in _MODULES:
        raise KeyError(key)
    return _MODULES[match[1]], _MODULES[match[1]], match[2] or ""


def _layout(module: str, name: str, rest: str) -> tuple[slice | None, tuple[int, ...] | None]:
    """Rows of the entry ``name`` that the official one fills, and the shape it has there."""
    if name.endswith("norm.gain"):
        return None, (-1,)
    if not module.endswith(".frames"):
        return None, None
    stage, level, _ = module.split(".")
    channels, frequencies = _LEVELS[stage][int(level)]
    shape = (-1, frequencies) if name.endswith(("gain", "bias")) and "." not in name else None
    match = re.match(r"fn\.attn_conv_([QKV])_([0-3])\.", rest)
    if match is None:
        return None, shape
    kind, head = "QKV".index(match[1]), int(match[2])
    if name == "slope":
        start, size = _HEADS * kind, 1
    else:
        query = _FEATURES // frequencies
        start, size = _HEADS * query * kind, (query, query, channels // _HEADS)[kind]
    start += head * size
    return slice(start, start + size), shape


def _check_heads(key: str, official: Mapping[str, Tensor]) -> None:
    """All entries that become one with ``key`` are there."""
    before, _, after = re.split(r"(_[QKV]_[0-3]\.)", key, maxsplit=1)
    for kind in "QKV":
        for head in range(_HEADS):
            sibling = f"{before}_{kind}_{head}.{after}"
            if sibling not in official:
                raise KeyError(sibling)


def _shaped(key: str, value: Tensor, found: Target) -> Tensor:
    """The value in the shape it has here."""
    try:
        shaped = value if found.shape is None else value.reshape(found.shape)
    except RuntimeError:
        shaped = None
    rows = found.rows
    if (
        shaped is None
        or [size for size in value.shape if size > 1] != [size for size in shaped.shape if size > 1]
        or (rows is not None and len(shaped) != rows.stop - rows.start)
    ):
        raise WeightsError(
            f"The entry {key} has the shape {tuple(value.shape)}, which is not the published one; take the file as it "
            "was published."
        )
    return shaped
