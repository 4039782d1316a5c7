"""The weights file of a card: beside it, in a cache, in a mirror or on the Hugging Face Hub; and its check."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from avsep_zoo.errors import WeightsError
from avsep_zoo.weights.cards import Card, file_sha256, read_card

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

__all__ = ["MIRROR", "FoundWeights", "find_weights", "read_weights", "remote_card", "weights_file", "weights_state"]

MIRROR = "AVSEP_ZOO_MIRROR"
"""The environment variable that names a mirror."""


class FoundWeights(NamedTuple):
    """A checked weights file, and where it came from: beside its card, a cache, a mirror or the Hub."""

    path: Path
    source: Literal["here", "cache", "mirror", "Hub"]


def weights_file(card: Card, *, mirror: str | None = None) -> Path:
    """Return the weights file of a card, whose content has the size and the sha256 that the card says.

    It is looked for beside the card, among what came from a mirror before, and in the Hub's cache, in all of which
    nothing is asked of a network. Then it is fetched: from the mirror, if one is named, or else from the Hub.

    Args:
        card: that describes the file.
        mirror: a folder or an ``https://`` address that has ``<name of the card>/<file>``; default: that of the
            environment variable ``AVSEP_ZOO_MIRROR``.

    Raises:
        WeightsError: the file cannot be had, or is not the one the card describes.
    """
    return find_weights(card, mirror=mirror).path


def find_weights(card: Card, *, mirror: str | None = None) -> FoundWeights:
    """Do what :func:`weights_file` does, and tell where the file came from."""
    if card.sha256 is None:
        raise WeightsError(
            f"Nobody publishes weights {card.name} that may be passed on; convert the files of the method's authors "
            f"with 'avsep convert {card.name} --checkpoint FILE... -o FOLDER' and load FOLDER (steps: "
            f"{str(card.folder / 'README.md')!r})."
        )
    if _is_beside(card):
        return FoundWeights(_checked(card, card.weights, lambda: "fetch it again"), "here")
    from avsep_zoo.weights.hub_errors import hub_errors

    mirror = mirror or os.environ.get(MIRROR)
    with hub_errors(card.hub or card.name, otherwise="take the card together with its weights", what=card.name):
        from huggingface_hub import constants

        from avsep_zoo.weights import hub_files
        from avsep_zoo.weights import mirror as mirrors

        kept, cached = mirrors.kept_file(card), _cached(card)
        if kept.is_file():
            return FoundWeights(_checked(card, kept, lambda: _removed(kept)), "cache")
        if cached is not None:
            return FoundWeights(_checked_in_cache(card, cached), "cache")
        if mirror:
            _needs_space(card, kept.parent)
            kept = mirrors.fetch(card, mirror)
            return FoundWeights(_checked(card, kept, lambda: _removed(kept)), "mirror")
        if (hub := card.hub) is not None:
            _needs_space(card, Path(constants.HF_HUB_CACHE))
            name, _, commit = hub.partition("@")
            path = hub_files.download(name, commit, card.weights.name, size=card.manifest["bytes"])
            return FoundWeights(_checked_in_cache(card, path), "Hub")
    raise WeightsError(
        f"The card {card.name} has no {card.weights.name} in {str(card.folder)!r} and names no place on the Hub; fetch "
        f"or convert it, or name a mirror that has it with {MIRROR}."
    )


def weights_state(card: Card) -> Literal["here", "cached", "on the Hub", "to convert", "missing"]:
    """Say where the weights of a card are, without asking any network or checking their content.

    They are ``"missing"`` where the card has a hash, but neither a file beside it nor a place on the Hub.
    """
    if card.sha256 is None:
        return "to convert"
    if _is_beside(card):
        return "here"
    try:
        from avsep_zoo.weights.mirror import kept_file

        if kept_file(card).is_file() or _cached(card) is not None:
            return "cached"
    except ModuleNotFoundError:  # no client, no cache
        pass
    return "missing" if card.hub is None else "on the Hub"


def remote_card(spec: str) -> Card:
    """Fetch the card of a model on the Hub, or take it from the cache.

    Args:
        spec: ``org/name@commit``, with all 40 hexadecimal digits of the commit.

    Raises:
        WeightsError: no commit is named (the sentence says which one to name, where the Hub can be reached), it cannot
            be fetched, or holds no card.
    """
    from avsep_zoo.weights.hub_files import fetch_file, pinned

    name, commit = pinned(spec, prefix="hf://")
    return read_card(fetch_file(name, commit, "README.md").parent, origin=f"{name}@{commit}")


def read_weights(card: Card) -> dict[str, Tensor]:
    """Read a card's weights.

    Raises:
        WeightsError: they cannot be had, are not those the card describes, or are no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = weights_file(card)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"{str(path)!r} is no safetensors file ({error}); fetch it again.") from error


def _is_beside(card: Card) -> bool:
    """Whether the file travels with the card; that of a card from the Hub is in the cache."""
    return card.origin is None and card.weights.is_file()


def _cached(card: Card) -> Path | None:
    """The file in the Hub's cache."""
    from avsep_zoo.weights.hub_files import snapshot_file

    if (hub := card.hub) is None:
        return None
    name, _, commit = hub.partition("@")
    file = snapshot_file(name, commit, card.weights.name)
    return file if file.is_file() else None


def _checked_in_cache(card: Card, path: Path) -> Path:
    from avsep_zoo.weights.hub_files import forget

    return _checked(card, path, lambda: forget(path))


def _checked(card: Card, path: Path, remedy: Callable[[], str]) -> Path:
    """Return a file that is the one the card describes; ``remedy`` does what another one calls for, and says it."""
    expected = card.manifest["bytes"]
    try:
        size = path.stat().st_size
        digest = file_sha256(path) if size == expected else ""
    except OSError as error:
        raise WeightsError(f"{str(path)!r} cannot be read ({error.strerror}); check its permissions.") from error
    if size != expected:
        raise WeightsError(f"{str(path)!r} has {size} bytes and its card says {expected}; {remedy()}.")
    if digest != card.sha256:
        raise WeightsError(
            f"{str(path)!r} has sha256 {digest[:12]}… and its card says otherwise; do not use it, {remedy()}."
        )
    return path


def _removed(path: Path) -> str:
    path.unlink(missing_ok=True)
    return "it was removed from the cache, so try again"


def _needs_space(card: Card, folder: Path) -> None:
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    needed, free = int(card.manifest["bytes"]), shutil.disk_usage(there).free
    if free < needed:
        raise WeightsError(
            f"The weights {card.name} have {needed / 1e6:,.1f} MB and {str(there)!r} has {free / 1e6:,.1f} MB left; "
            "free some, or set HF_HOME to a folder on a larger disk."
        )
