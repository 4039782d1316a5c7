"""The weights file of a card: beside it, in a cache, in a mirror or on the Hugging Face Hub; and its check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from avsep_zoo.errors import WeightsError
from avsep_zoo.weights.cards import Card, file_sha256

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["read_weights", "weights_file"]


def weights_file(card: Card) -> Path:
    """Return the weights file of a card, whose content has the size and the sha256 that the card says.

    Raises:
        WeightsError: the file cannot be had, or is not the one the card describes.
    """
    if card.sha256 is None:
        raise WeightsError(
            f"Nobody publishes weights {card.name} that may be passed on; convert the files of the method's authors "
            f"with 'avsep convert {card.name} --checkpoint FILE... -o FOLDER' and load FOLDER (steps: "
            f"{str(card.folder / 'README.md')!r})."
        )
    path = card.weights
    if not path.is_file():
        raise WeightsError(
            f"The card {card.name} has no {path.name} in {str(card.folder)!r}; fetch or convert it first."
        )
    size, expected = path.stat().st_size, card.manifest["bytes"]
    if size != expected:
        raise WeightsError(f"{str(path)!r} has {size} bytes and its card says {expected}; fetch it again.")
    digest = file_sha256(path)
    if digest != card.sha256:
        raise WeightsError(
            f"{str(path)!r} has sha256 {digest[:12]}… and its card says otherwise; do not use it, fetch it again."
        )
    return path


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
