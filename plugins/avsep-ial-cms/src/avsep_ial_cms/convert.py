"""Official IAL-CMS checkpoints (one Lightning file: visual net, separator and critic) in this project's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from avsep_zoo.errors import WeightsError
from avsep_zoo.weights.converter import Converter, Entries

__all__ = ["CONVERTER", "CRITIC", "convert_official", "target"]

CRITIC = "objective.critic."  # entries of the critic begin so in converted state dicts

_WRAPPERS = ("module.", "net_wrapper.")
_ATTRIBUTE_DICTS = (
    "pytorch_lightning.utilities.parsing", "lightning.pytorch.utilities.parsing", "lightning_fabric.utilities.data",
    "lightning.fabric.utilities.data",
)  # fmt: skip
_LEVELS = 5
_DEEPEST = "unet_block." + "submodule." * _LEVELS
_PLACES = (
    ("av_separator.visualNet.", "encoder.network."),
    (f"av_separator.separator_w_v.{_DEEPEST}avmodule.", "conditioner."),
    ("av_separator.separator_w_v.", "separator."),
    ("critics.critics_model.", CRITIC),
)
_CONSTANTS = re.compile(
    r"av_separator\.separator_w_v\.stftMelModule\.stftLayer\.(kernel_(?:sin|cos)_inv|wsin|wcos|window_mask)"
)
_GATE = re.compile(r"conditioner\.gate\.[03]\.weight")  # 1x1 convolutions there, linear layers here
_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_BOTH = r"(weight|bias)"
_BLOCK = rf"(?:conv[12]\.weight|bn[12]\.{_NORM}|downsample\.0\.weight|downsample\.1\.{_NORM})"
_RULES: dict[str, tuple[tuple[str, str], ...]] = {
    "encoder.network.": (
        (r"basenet\.backbone\.layer1\.0\.weight", "features.conv1.weight"),
        (rf"basenet\.backbone\.layer1\.1\.{_NORM}", r"features.bn1.\1"),
        (rf"basenet\.backbone\.layer2\.1\.([01]\.{_BLOCK})", r"features.layer1.\1"),
        (rf"basenet\.backbone\.layer3\.([01]\.{_BLOCK})", r"features.layer2.\1"),
        (rf"basenet\.backbone\.layer4\.([01]\.{_BLOCK})", r"features.layer3.\1"),
        (rf"basenet\.backbone\.layer5\.([01]\.{_BLOCK})", r"features.layer4.\1"),
        *((rf"basenet\.aspp\.aspp{n + 1}\.model\.0\.weight", f"branches.{n}.conv.weight") for n in range(4)),
        *((rf"basenet\.aspp\.aspp{n + 1}\.model\.1\.{_NORM}", rf"branches.{n}.norm.\1") for n in range(4)),
        (r"basenet\.aspp\.global_avg_pool\.1\.weight", "overall.0.weight"),
        (rf"basenet\.aspp\.global_avg_pool\.2\.{_NORM}", r"overall.1.\1"),
        (r"basenet\.aspp\.conv1\.weight", "merge.0.weight"),
        (rf"basenet\.aspp\.bn1\.{_NORM}", r"merge.1.\1"),
        (rf"basenet\.reduce_block\.(0\.{_BOTH}|2\.{_NORM})", r"details.\1"),
        (rf"basenet\.decoder\.(0\.{_BOTH}|2\.{_NORM})", r"decoder.\1"),
        (rf"common_space_mlp\.([03]\.{_BOTH}|2\.{_NORM})", r"common.\1"),
    ),
    "conditioner.": (
        (rf"sep_mlp\.([03]\.{_BOTH}|[25]\.{_NORM})", r"separate.\1"),
        (rf"a_common_mlp\.([03]\.{_BOTH}|2\.{_NORM})", r"common.\1"),
        (rf"weight_mlp\.([03]\.{_BOTH}|2\.{_NORM})", r"gate.\1"),
        (r"sigmoid\.w", "slope"),
        (r"sigmoid\.b", "offset"),
    ),
    "separator.": (
        (rf"bn0\.{_NORM}", r"input_norm.\1"),
        (r"(scale|bias)", r"\1"),
        (rf"unet_block\.down\.(0\.weight|1\.{_NORM})", r"stem.\1"),
        (rf"unet_block\.up\.1\.{_BOTH}", r"mask_conv.\1"),
    ),
    CRITIC: (
        (r"g\.initial:\d+-\d+:conv\.weight_(orig|u|v)", r"convolutions.0.weight_\1"),
        (r"g\.pyramid([1-5]):\d+-\d+:conv\.weight_(orig|u|v)", r"convolutions.\1.weight_\2"),
        (r"h\.0\.(bias|weight_orig|weight_u|weight_v)", r"layers.0.\1"),
        (r"h\.2\.(bias|weight_orig|weight_u|weight_v)", r"layers.1.\1"),
        (r"w\.weight", "score.weight"),
        (r"b", "bias"),
    ),
}
_LEVEL = re.compile(rf"unet_block\.((?:submodule\.){{1,{_LEVELS - 1}}})(.+)")
_SPECTRAL = {"weight_orig": "weight", "weight_u": "left", "weight_v": "right"}


def target(key: str) -> str | None:
    """Name of the entry an official one becomes; None for constants of the short-time Fourier transform.

    Entries of the model are ``encoder.*``, ``conditioner.*`` and ``separator.*``, those of the critic
    ``objective.critic.*``.

    Args:
        key: the official entry, with or without ``net_wrapper.`` and ``module.`` in front.

    Raises:
        KeyError: the entry belongs to no known layout.
    """
    key = _bare(key)
    if _CONSTANTS.fullmatch(key):
        return None
    for place, prefix in _PLACES:
        if key.startswith(place):
            rest = key.removeprefix(place)
            if prefix == "separator." and (found := _LEVEL.fullmatch(rest)):
                return _level(key, found[1].count("submodule."), found[2])
            for pattern, name in _RULES[prefix]:
                if match := re.fullmatch(pattern, rest):
                    stem, _, entry = match.expand(name).rpartition(".")
                    return prefix + (f"{stem}." if stem else "") + _SPECTRAL.get(entry, entry)
    raise KeyError(key)


def convert_official(parts: Mapping[str, Mapping[str, Tensor]], *, n_fft: int = 1022) -> Entries:
    """Map an official state dict, or some of its entries, to the entries of a model and of its critic.

    Args:
        parts: the state dict, under any name; see :func:`target`.
        n_fft: of the model's front end, whose constants the file has to hold if it holds any.

    Returns:
        The entries, and the official ones that are not used: constants of the short-time Fourier transform.

    Raises:
        KeyError: an entry belongs to no known layout.
        WeightsError: an entry is there twice, or is a constant of another transform.
    """
    entries: dict[str, Tensor] = {}
    unused: list[str] = []
    origins: dict[str, str] = {}
    for state in parts.values():
        for key, value in state.items():
            bare = _bare(key)
            if bare in origins:
                raise WeightsError(
                    f"The checkpoint has {key} and {origins[bare]}, which mean the same; remove one of them."
                )
            origins[bare] = key
            name = target(bare)
            if name is None:
                _check_constant(bare, value, n_fft)
                unused.append(bare)
            else:
                entries[name] = value.squeeze(-1) if _GATE.fullmatch(name) else value
    return entries, unused


def _bare(key: str) -> str:
    """Without the names of what a network was wrapped in."""
    while key.startswith(_WRAPPERS):
        key = key.split(".", 1)[1]
    return key


def _level(key: str, level: int, rest: str) -> str:
    """Entries of the U-Net's levels 1 to 4, each of which holds the next one."""
    up = f"separator.up.{_LEVELS - 1 - level}"
    if found := re.fullmatch(rf"down\.([01]\.{_BLOCK})", rest):
        return f"separator.down.{level - 1}.{found[1]}"
    if rest == "up.1.weight":
        return f"{up}.conv.weight"
    if found := re.fullmatch(rf"up\.3\.{_NORM}", rest):
        return f"{up}.norm.{found[1]}"
    if found := re.fullmatch(rf"style_mlp_([wb])\.0\.{_BOTH}", rest):
        kind = {"w": "scale", "b": "offset"}[found[1]]
        return f"conditioner.style_{kind}.decoder{level + 1}.{found[2]}"
    raise KeyError(key)


def _check_constant(key: str, value: Tensor, n_fft: int) -> None:
    """Refuse constants of another transform than that with a periodic Hann window of ``n_fft`` samples."""
    name = key.rpartition(".")[2]
    window = torch.hann_window(n_fft, dtype=torch.float64)
    if name == "window_mask":
        right = window[None, :, None]
    else:
        inverse = name.startswith("kernel")
        steps = torch.arange(n_fft)
        rows = steps if inverse else steps[: n_fft // 2 + 1]
        angle = (rows[:, None] * steps % n_fft).double() * (2 * torch.pi / n_fft)
        wave = angle.sin() if "sin" in name else angle.cos()
        right = wave[:, None, :, None] if inverse else (wave * window)[:, None]
    if value.shape != right.shape or not torch.allclose(value.double(), right, rtol=0.0, atol=1e-3):
        raise WeightsError(
            f"The constant {key} is not that of a Fourier transform with a periodic Hann window of {n_fft} samples; "
            "take a checkpoint that was made with the published front end."
        )


CONVERTER = Converter(
    parts={"checkpoint": r"((net_wrapper|module)\.)*av_separator\."},
    entries=convert_official,
    allowed=(
        "argparse.Namespace",
        *(f"{module}.AttributeDict" for module in _ATTRIBUTE_DICTS),
        "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    ),
)
"""A Lightning checkpoint of a training run. Lightning keeps hyper-parameters in namespaces and dictionaries with
attributes, and before its version 1.5 the state of a callback under the callback's class."""
