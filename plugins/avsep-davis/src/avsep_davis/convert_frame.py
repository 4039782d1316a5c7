"""Entries of DAVIS' official ``frame_*.pth`` in the names of :class:`ClipEncoder` and :class:`ResNetEncoder`.

With CLIP these are ``model.*`` (the whole of OpenAI's CLIP, of which only the image tower is used) and
``temporal_transformer.*``; with ResNet-18 ``features.*`` and ``transformer.*``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from avsep_zoo.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Target", "frame_entries", "target"]

_WB = r"(weight|bias)"
_TEXT_TOWER = (
    r"model\.(transformer\..+|token_embedding\.weight|positional_embedding|ln_final\.(weight|bias)|text_projection"
    r"|logit_scale)"
)
_IMAGE_TOWER = {
    r"class_embedding": "vision_model.embeddings.class_embedding",
    r"positional_embedding": "vision_model.embeddings.position_embedding.weight",
    r"conv1\.weight": "vision_model.embeddings.patch_embedding.weight",
    rf"ln_pre\.{_WB}": r"vision_model.pre_layrnorm.\1",
    rf"ln_post\.{_WB}": r"vision_model.post_layernorm.\1",
    r"proj": "visual_projection.weight",
}
_BLOCK = {
    rf"attn\.in_proj_{_WB}": r"self_attn.?_proj.\1",
    rf"attn\.out_proj\.{_WB}": r"self_attn.out_proj.\1",
    rf"ln_([12])\.{_WB}": r"layer_norm\1.\2",
    rf"mlp\.c_fc\.{_WB}": r"mlp.fc1.\1",
    rf"mlp\.c_proj\.{_WB}": r"mlp.fc2.\1",
}  # "?" stands for q, k and v
_FEATURES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


@dataclass(frozen=True)
class Target:
    """Where an official entry goes.

    Args:
        name: entry of a :class:`~avsep_zoo.model.SeparationModel`; where there are several, the first of them.
        rows: of that entry's first axis, where the official entry is only a part of it.
        shape: what the official value is reshaped to.
        names: entries that the official one is split into: equal parts of its first axis, in this order.
        transposed: the entry is the transpose of the official matrix.
    """

    name: str
    rows: slice | None = None
    shape: tuple[int, ...] | None = None
    names: tuple[str, ...] = ()
    transposed: bool = False


def target(key: str) -> Target | None:
    """Where the entry ``key`` of a frame file goes, or None where the published forward never uses it.

    Raises:
        KeyError: the entry belongs to no known layout.
    """
    if re.fullmatch(_TEXT_TOWER, key):
        return None
    if key.startswith("model.visual."):
        return _image_tower(key)
    part, _, rest = key.partition(".")
    if part in ("temporal_transformer", "transformer") and rest:
        return Target(f"encoder.temporal.transformer.{rest}")
    number, _, inner = rest.partition(".")
    if part == "features" and number in _FEATURES and inner:
        return Target(f"encoder.features.{_FEATURES[number]}.{inner}")
    raise KeyError(key)


def frame_entries(official: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Map entries of a frame file to those of a :class:`~avsep_zoo.model.SeparationModel` (``encoder.*``).

    Unlike those of the U-Net, an entry can become several (``Target.names``): the input projection of a CLIP
    attention is that of its queries, its keys and its values. The projection of the image tower is transposed.

    Args:
        official: a frame file, or some of its entries, without the prefix of data-parallel training.

    Returns:
        The entries, and the official ones that are not used.

    Raises:
        KeyError: an entry belongs to no known layout.
        WeightsError: an entry cannot be split or transposed as it has to be.
    """
    entries: dict[str, Tensor] = {}
    unused = []
    for key, value in official.items():
        found = target(key)
        if found is None:
            unused.append(key)
            continue
        parts = len(found.names)
        if (parts and (not value.ndim or len(value) % parts)) or (found.transposed and value.ndim != 2):
            raise WeightsError(
                f"The entry {key} has the shape {tuple(value.shape)}, which is not the published one; take the file "
                "as it was published."
            )
        if parts:
            entries |= {name: part.clone() for name, part in zip(found.names, value.chunk(parts), strict=True)}
        else:
            entries[found.name] = value.mT.contiguous() if found.transposed else value
    return entries, unused


def _image_tower(key: str) -> Target:
    rest, prefix, table = key.removeprefix("model.visual."), "encoder.clip.", _IMAGE_TOWER
    if block := re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", rest):
        rest, prefix, table = block[2], f"{prefix}vision_model.encoder.layers.{block[1]}.", _BLOCK
    for pattern, replacement in table.items():
        if match := re.fullmatch(pattern, rest):
            name = prefix + match.expand(replacement)
            names = tuple(name.replace("?", part) for part in "qkv") if "?" in name else ()
            return Target(names[0] if names else name, names=names, transposed=rest == "proj")
    raise KeyError(key)
