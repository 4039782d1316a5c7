"""Official AVSGS checkpoints (five files, one state dict each) in this project's names.

The files are ``unet``, ``graph_net``, ``map_net`` and ``rnn``, which separate, and ``classifier``, which only teaches;
``visual`` is a network on crops that the official code can build and its scripts do not use. The names of the graph
attention (``node_conv``) follow the version of torch-geometric a checkpoint was made with:

    <= 1.4     weight (transposed), att (first half att_dst, second half att_src)
    1.5        lin.weight, att_i (att_dst), att_j (att_src)
    1.6 - 1.7  lin_l.weight and lin_r.weight (one tensor, stored twice), att_l (att_src), att_r (att_dst)
    2.0 - 2.4  lin_src.weight and lin_dst.weight (one tensor, stored twice), att_src, att_dst
    >= 2.5     lin.weight, att_src, att_dst
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from avsep_zoo.errors import WeightsError
from avsep_zoo.weights.converter import Converter, Entries

__all__ = ["CONVERTER", "convert_official", "target"]

_SLOTS = {
    "unet": "separator.",
    "map_net": "encoder.map.",
    "visual": "encoder.",
    "graph_net": "conditioner.graph.",
    "rnn": "conditioner.rnn.",
    "classifier": "objective.classifier.",
}
_SAME = {
    "map_net": r"[02]\.(weight|bias)",
    "rnn": r"(weight|bias)_[ih]h_l\d",
    "graph_net": r"edge_conv[12]?\.nn\.[01]\.[02]\.\w+",
}  # entries that keep their names
_ATTENTION = {
    "weight": ("lin.weight",),
    "lin.weight": ("lin.weight",),
    "lin_l.weight": ("lin.weight",),
    "lin_r.weight": ("lin.weight",),
    "lin_src.weight": ("lin.weight",),
    "lin_dst.weight": ("lin.weight",),
    "att": ("att_dst", "att_src"),
    "att_i": ("att_dst",),
    "att_j": ("att_src",),
    "att_l": ("att_src",),
    "att_r": ("att_dst",),
    "att_src": ("att_src",),
    "att_dst": ("att_dst",),
    "bias": ("bias",),
}
_RESNET = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def target(part: str, key: str) -> tuple[str, ...]:
    """Names of the entries an official one becomes: one, or two for an attention vector that holds both.

    Entries of the model are ``separator.*``, ``encoder.*`` and ``conditioner.*``, those of the classifier
    ``objective.classifier.*``. Two official entries have the same name where a tensor is stored twice.

    Args:
        part: name of the official file: ``unet``, ``classifier``, ``graph_net``, ``map_net``, ``rnn`` or ``visual``.
        key: the official entry.

    Raises:
        KeyError: the entry belongs to no known layout.
    """
    names: tuple[str, ...] = ()
    if part == "unet" and (found := re.fullmatch(r"audionet_(up)?convlayer([1-9]\d?)\.([01])\.(\w+)", key)):
        side, module = "up" if found[1] else "down", "norm" if found[3] == "1" else "conv"
        names = (f"{side}.{int(found[2]) - 1}.{module}.{found[4]}",)
    elif part == "graph_net" and (found := re.fullmatch(r"node_conv\.([\w.]+)", key)):
        names = tuple(f"node_conv.{name}" for name in _ATTENTION.get(found[1], ()))
    elif part in ("classifier", "visual"):
        names = _image_network(key, reduced=part == "visual")
    elif part in _SAME and re.fullmatch(_SAME[part], key):
        names = (key,)
    if not names:
        raise KeyError(f"{part}.{key}")
    return tuple(_SLOTS[part] + name for name in names)


def convert_official(parts: Mapping[str, Mapping[str, Tensor]]) -> Entries:
    """Map official state dicts to the entries of a :class:`~avsep_zoo.model.SeparationModel` and its classifier.

    Args:
        parts: state dicts by the name of their file, see :func:`target`; or some of them, or some of their entries.

    Returns:
        The entries, and the official ones that are not used (``part.key``): those of tensors that are stored twice.

    Raises:
        KeyError: a part or an entry is unknown.
        WeightsError: an entry cannot be taken apart, or a tensor is stored twice with two values.
    """
    entries: dict[str, Tensor] = {}
    unused: list[str] = []
    for part, official in parts.items():
        origins: dict[str, str] = {}
        for key, value in official.items():
            found = _pieces(part, key, value)
            twice = {name: origins[name] for name in found if name in origins}
            for name, other in twice.items():
                if not _same(entries[name], found[name]):
                    raise WeightsError(
                        f"{part}.{other} and {part}.{key} differ, and official files hold one tensor under both names; "
                        "take the file as it was saved."
                    )
            if twice.keys() == found.keys():
                unused.append(f"{part}.{key}")
            entries |= {name: piece for name, piece in found.items() if name not in twice}
            origins |= dict.fromkeys(found.keys() - twice.keys(), key)
    return entries, unused


def _image_network(key: str, *, reduced: bool) -> tuple[str, ...]:
    if key == "conv1.weight":
        return ("features.conv1.weight",)
    if found := re.fullmatch(r"feature_extraction\.([014567])\.(.+)", key):
        return (f"features.{_RESNET[found[1]]}.{found[2]}",)
    if reduced and (found := re.fullmatch(r"conv1x1\.([01]\.\w+)", key)):
        return (f"reduce.{found[1]}",)
    return (key,) if re.fullmatch(r"fc\.(weight|bias)", key) else ()


def _pieces(part: str, key: str, value: Tensor) -> dict[str, Tensor]:
    """The entries an official one becomes."""
    names = target(part, key)
    transposed = (part, key) == ("graph_net", "node_conv.weight")
    if (len(names) > 1 and (value.ndim != 3 or value.shape[2] % len(names))) or (transposed and value.ndim != 2):
        raise WeightsError(
            f"The entry {part}.{key} has the shape {tuple(value.shape)}, which no official file has; take the file as "
            "it was saved."
        )
    if len(names) > 1:
        pieces = value.chunk(len(names), dim=2)
        return {name: piece.contiguous() for name, piece in zip(names, pieces, strict=True)}
    return {names[0]: value.mT.contiguous() if transposed else value}


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other or torch.equal(one, other)


CONVERTER = Converter(
    parts={
        "unet": r"audionet_(up)?convlayer",
        "graph_net": r"(node|edge)_conv[12]?\.",
        "map_net": r"[02]\.weight$",
        "rnn": r"weight_[ih]h_l0$",
        "classifier": r"conv1\.weight$|feature_extraction\.",
    },
    entries=convert_official,
    optional=frozenset({"classifier"}),
)
"""The files of a training run: ``unet_best.pth``, ``graph_net_best.pth``, ``map_net_best.pth``, ``rnn_best.pth`` and,
where it was kept, ``classifier_best.pth``; or those of a batch, ``unet_15000.pth``, ..."""
