"""Names of official BiModalSep entries, what settings they tell, and what this project calls them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from avsep_bimodal_sep.clap_keys import clap_keys
from avsep_zoo.errors import WeightsError

__all__ = ["CLAP", "CONSTANTS", "OfficialSettings", "recognise", "target"]

CLAP = "net_clap.model.model."  # official entries of LAION-CLAP begin so
CONSTANTS = re.compile(r"(stft|istft)\.(conv_(?:real|imag)\.weight|ola_window)")

_TEXT = "encoder.clap."
_FIRST_DEEP = 5  # level with condition layers
_NORM = r"(?:weight|bias|running_mean|running_var|num_batches_tracked)"
_BOTH = r"(weight|bias)"
_UNET = re.compile(r"net_sound\.unet_block\.((?:submodule\.)*)(.+)")
_OTHERS = (
    (rf"net_sound\.bn0\.({_NORM})", r"separator.input_norm.\1"),
    (rf"net_clap\.fc\.{_BOTH}", r"conditioner.heads.head.fc.\1"),
    (r"net_synthesizer\.(scale|bias)", r"conditioner.heads.head.\1"),
)
_STAGES = (
    (r"(down|up)conv\.weight", r"\1|conv.weight"),
    (rf"(down|up)norm\.({_NORM})", r"\1|norm.\2"),
    (rf"(down|up)resblock\.res_layers\.(\d+)\.0\.{_BOTH}", r"\1|residual.convs.\2.\3"),
    (rf"(down|up)resblock\.res_layers\.(\d+)\.1\.({_NORM})", r"\1|residual.norms.\2.\3"),
)
_POINTWISE = (
    (rf"(norm[12])\.{_BOTH}", r"\1.\2"),
    (rf"attn\.proj\.{_BOTH}", r"proj.\1"),
    (rf"mlp\.fc1\.{_BOTH}", r"mlp.0.\1"),
    (rf"mlp\.fc2\.{_BOTH}", r"mlp.2.\1"),
)
_LAYERS = {
    "sa": ((rf"attn\.qkv\.{_BOTH}", r"qkv.\1"), *_POINTWISE),
    "ca": ((rf"attn\.(q|kv)\.{_BOTH}", r"\1.\2"), *_POINTWISE),
    "cat": ((rf"(conv1|conv2|lin)\.{_BOTH}", r"\1.\2"),),
}
_BLOCK = re.compile(r"ca_blocks\.(\d+)\.(.+)")
_SIGNS = {"sa_block.": "sca", "ca_block.": "sca", "attn.qkv.": "sa", "attn.q.": "ca", "attn.kv.": "ca", "lin.": "cat"}


@dataclass(frozen=True)
class OfficialSettings:
    """What the names of official entries tell of a network; heads of attention leave no trace in them.

    Args:
        levels: of the U-Net.
        res_layers: convolutions of a residual block.
        layer: condition layer, by its official name; ``identity`` has no entries.
        blocks: condition layers of a level.
    """

    levels: int
    res_layers: int
    layer: str
    blocks: int


def recognise(keys: Iterable[str]) -> OfficialSettings:
    """Tell the settings of an official network by the names of its entries.

    Raises:
        WeightsError: the entries are those of several kinds of condition layers.
    """
    levels = blocks = 1
    res_layers = 0
    layers: set[str] = set()
    for key in keys:
        if not (found := _UNET.fullmatch(key)):
            continue
        levels = max(levels, 1 + found[1].count("submodule."))
        if layer := re.match(r"(?:down|up)resblock\.res_layers\.(\d+)\.", found[2]):
            res_layers = max(res_layers, 1 + int(layer[1]))
        if block := _BLOCK.fullmatch(found[2]):
            blocks = max(blocks, 1 + int(block[1]))
            layers |= {kind for sign, kind in _SIGNS.items() if block[2].startswith(sign)}
    if len(layers) > 1:
        raise WeightsError(
            f"The checkpoint has condition layers of the kinds {', '.join(sorted(layers))}; give one of the official "
            "code, which has one kind."
        )
    return OfficialSettings(levels, res_layers, layers.pop() if layers else "identity", blocks)


def target(key: str, settings: OfficialSettings) -> str | None:
    """Name of the entry of a model that an official one becomes.

    None stands for what nothing depends on (constants of the short-time Fourier transform, the first norm of ``sca``
    layers) and for CLAP's sound tower, which no model has.

    Args:
        key: the official entry, without the ``module.`` of data-parallel training.
        settings: of the network that it is from.

    Raises:
        KeyError: the entry belongs to no known layout.
    """
    if CONSTANTS.fullmatch(key):
        return None
    if key.startswith(CLAP):
        try:
            names = clap_keys(key.removeprefix(CLAP))
        except WeightsError:
            raise KeyError(key) from None
        return _TEXT + names[0] if names and names[0].startswith("text_") else None
    if found := _UNET.fullmatch(key):
        return _level(key, 1 + found[1].count("submodule."), found[2], settings)
    if name := _renamed(key, _OTHERS):
        return name
    raise KeyError(key)


def _renamed(key: str, rules: Iterable[tuple[str, str]]) -> str | None:
    for pattern, name in rules:
        if match := re.fullmatch(pattern, key):
            return match.expand(name)
    return None


def _level(key: str, level: int, rest: str, settings: OfficialSettings) -> str | None:
    """Entries of one level of the U-Net, each of which holds the next one."""
    if block := _BLOCK.fullmatch(rest):
        return _condition(key, level, int(block[1]), block[2], settings)
    up = f"separator.up.{settings.levels - level}."
    if level == 1 and rest == "upconv.bias":
        return f"{up}conv.bias"
    outermost_norm = level == 1 and rest.startswith("upnorm.")
    if not outermost_norm and (name := _renamed(rest, _STAGES)):
        way, _, entry = name.partition("|")
        return (up if way == "up" else f"separator.down.{level - 1}.") + entry
    raise KeyError(key)


def _condition(key: str, level: int, block: int, rest: str, settings: OfficialSettings) -> str | None:
    """Entries of condition layer ``block``; a ``sca`` layer is two, and has a norm that is never applied."""
    kinds = {"sca": ("sa", "ca")}.get(settings.layer, (settings.layer,))
    number, kind = block * len(kinds), kinds[0]
    if settings.layer == "sca":
        if re.fullmatch(rf"norm1\.{_BOTH}", rest):
            return None
        start, _, rest = rest.partition("_block.")
        if start not in kinds:
            raise KeyError(key)
        number, kind = number + kinds.index(start), start
    name = _renamed(rest, _LAYERS.get(kind, ()))
    if name is None or level < _FIRST_DEEP:
        raise KeyError(key)
    site = "bottleneck" if level == settings.levels else f"deep{level}"
    return f"conditioner.layers.{site}.{number}.{name}"
