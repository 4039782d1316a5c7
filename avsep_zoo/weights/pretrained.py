"""Published weights that a network starts from: fetched, checked, loaded strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from avsep_zoo.errors import WeightsError
from avsep_zoo.weights.checkpoints import read_settings, read_tensors
from avsep_zoo.weights.hub_files import fetch

__all__ = ["load_entries", "load_into", "load_resnet"]


def load_into(
    network: nn.Module,
    weights: str | Path,
    *,
    title: str,
    unused: tuple[str, ...] = (),
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Load published weights into a network; nothing is loaded unless all of them fit.

    Args:
        network: in place; counters of batches may be missing in the weights.
        weights: a file, a folder, or ``org/name@commit`` on the Hugging Face Hub.
        title: of the network, in errors.
        unused: what the names of entries begin or end with that the network has no use for.
        settings: that the ``config.json`` beside the weights must not contradict, at its top or in its
            ``vision_config``.

    Raises:
        WeightsError: the weights cannot be had, or are those of another network.
    """
    files = fetch(weights)
    given = read_settings(
        files.path, {"vision_config": dict, **{name: type(v) for name, v in (settings or {}).items()}}
    )
    given |= given.pop("vision_config", {})
    for name, value in (settings or {}).items():
        if given.get(name, value) != value:
            raise WeightsError(
                f"The {title} in {files.source} has {name} {given[name]!r} and this one {value!r}; give the weights of "
                "the same network."
            )
    entries = {k: v for k, v in read_tensors(files.path).items() if not (k.startswith(unused) or k.endswith(unused))}
    load_entries(network, entries, title=title, source=files.source)


def load_entries(network: nn.Module, entries: Mapping[str, Tensor], *, title: str, source: str) -> None:
    """Load entries into a network; nothing is loaded unless all of them fit.

    Args:
        network: in place; counters of batches may be missing among the entries.
        entries: by their names in the network.
        title, source: of the network and of the entries, in errors.

    Raises:
        WeightsError: they are those of another network.
    """
    wanted = network.state_dict()
    entries = {k: v for k, v in wanted.items() if k.endswith("num_batches_tracked")} | dict(entries)
    misfits = sorted(wanted.keys() ^ entries.keys()) or [k for k in wanted if wanted[k].shape != entries[k].shape]
    if misfits:
        raise WeightsError(
            f"The weights {source} do not fit this {title}: {len(misfits)} entries are missing, unknown or of "
            f"another shape, the first is {misfits[0]!r}; give those of the same network."
        )
    network.load_state_dict(entries)


def load_resnet(network: nn.Module, weights: str | None, *, frozen: bool) -> None:
    """Load ImageNet's weights into a ResNet-18 without its classifier.

    Args:
        network: in place.
        weights: torchvision's ``resnet18-f37072fd.pth`` or any file with its entries, or ``org/name@commit``; None
            loads nothing.
        frozen: it is not trained, and needs them.

    Raises:
        WeightsError: it is frozen and they are not named, they cannot be had, or they do not fit.
    """
    if weights is not None:
        load_into(network, weights, title="ResNet-18", unused=("fc.",))
    elif frozen:
        raise WeightsError(
            "The frozen ResNet-18 has to start from ImageNet's weights; name torchvision's resnet18-f37072fd.pth "
            "by the encoder's setting image_weights."
        )
