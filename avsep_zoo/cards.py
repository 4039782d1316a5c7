"""Weights cards: folders of ``README.md`` (its front matter is the only manifest) and ``model.safetensors``.

The block ``avsep`` of the front matter::

    avsep:
      format: 1
      name: iquery.mini             # <method>.<tag>
      parts: {encoder: {name: ..., ...}, conditioner: ..., separator: ..., front_end: ..., objective: ...}
      sample_rate: 11025
      classes: [...]
      file: model.safetensors
      bytes: 7900000
      sha256: ...
      licences: {code: Apache-2.0, weights: ..., training_data: ...}
      training: {...}               # settings of the run that made them
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from avsep_zoo.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

    from avsep_zoo.model import SeparationModel

__all__ = ["Card", "card_folder", "file_sha256", "read_card", "read_weights", "write_card"]

_FRONT = re.compile(r"\A---\n(.*?)\n---\n(.*)\Z", re.DOTALL)
_FORMAT = 1
_FILE = "model.safetensors"
_SLOTS = {"encoder", "conditioner", "separator", "front_end"}
_REQUIRED = {
    "name": lambda v: isinstance(v, str),
    "parts": lambda v: isinstance(v, dict) and set(v) >= _SLOTS,
    "sample_rate": lambda v: isinstance(v, int),
    "file": lambda v: isinstance(v, str) and re.fullmatch(r"\w[\w.-]*\.safetensors", v),
    "bytes": lambda v: isinstance(v, int),
    "sha256": lambda v: isinstance(v, str) and re.fullmatch(r"[0-9a-f]{64}", v),
}


@dataclass(frozen=True)
class Card:
    """One card.

    Args:
        folder: where it lies.
        manifest: the ``avsep`` block of the front matter.
        front: the whole front matter.
        text: Markdown below the front matter.
    """

    folder: Path
    manifest: Mapping[str, Any]
    front: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""

    @property
    def name(self) -> str:
        """``<method>.<tag>``."""
        return str(self.manifest["name"])

    @property
    def weights(self) -> Path:
        """The weights file beside the card."""
        return self.folder / str(self.manifest["file"])


def card_folder(name: str) -> Path | None:
    """Return ``weights_cards/<name>`` of the checkout this package lies in, if it exists."""
    from avsep_zoo.plugins import checkout_root

    root = checkout_root()
    folder = root / "weights_cards" / name if root and re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", name) else None
    return folder if folder and (folder / "README.md").is_file() else None


def read_card(folder: Path) -> Card:
    """Read the card in ``folder``.

    Raises:
        WeightsError: there is no card, or its front matter is not what a card needs.
    """
    file = folder / "README.md"
    try:
        match = _FRONT.match(file.read_text(encoding="utf-8"))
        front = yaml.safe_load(match.group(1)) if match else None
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise WeightsError(
            f"The card {str(file)!r} cannot be read ({why}); give the folder of a weights card."
        ) from error
    if match is None or not isinstance(front, dict) or not isinstance(front.get("avsep"), dict):
        raise WeightsError(f"The card {str(file)!r} has no front matter with an 'avsep' block; it is no weights card.")
    manifest = front["avsep"]
    if manifest.get("format") != _FORMAT:
        raise WeightsError(
            f"The card {str(file)!r} has avsep.format {manifest.get('format')!r} and this version reads "
            f"{_FORMAT}; use the version of avsep-zoo it was written by."
        )
    for name, valid in _REQUIRED.items():
        if name not in manifest or not valid(manifest[name]):
            wrong = f"avsep.{name} {manifest[name]!r}" if name in manifest else f"no avsep.{name}"
            raise WeightsError(f"The card {str(file)!r} has {wrong}; take the card as it was published.")
    return Card(folder, manifest, front, match.group(2))


def read_weights(card: Card) -> dict[str, Tensor]:
    """Read a card's weights after checking their size and sha256.

    Raises:
        WeightsError: the file is missing or is not the one the card describes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = card.weights
    if not path.is_file():
        raise WeightsError(
            f"The card {card.name} has no {path.name} in {str(card.folder)!r}; fetch or convert it first."
        )
    size, expected = path.stat().st_size, card.manifest["bytes"]
    if size != expected:
        raise WeightsError(f"{str(path)!r} has {size} bytes and its card says {expected}; fetch it again.")
    digest = file_sha256(path)
    if digest != card.manifest["sha256"]:
        raise WeightsError(
            f"{str(path)!r} has sha256 {digest[:12]}… and its card says otherwise; do not use it, fetch it again."
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"{str(path)!r} is no safetensors file ({error}); fetch it again.") from error


def write_card(
    folder: Path,
    model: SeparationModel,
    *,
    name: str | None = None,
    half: bool = False,
    manifest: Mapping[str, Any] | None = None,
    front: Mapping[str, Any] | None = None,
    text: str | None = None,
) -> Card:
    """Write ``model`` as a card: weights first, then the README that vouches for them.

    Args:
        folder: made if needed.
        model: composed from registered parts.
        name: ``<method>.<tag>``; defaults to the model's name.
        half: store floating-point entries as float16.
        manifest: further entries of the ``avsep`` block: licences, training, results.
        front: further front matter: license, tags.
        text: Markdown below the front matter.

    Raises:
        WeightsError: a part is not a registered one, or a weight is not finite, or does not fit float16.
    """
    import torch
    from safetensors.torch import save

    nameless = sorted((_SLOTS | ({"driver"} if model.driver is not None else set())) - set(model.parts))
    if nameless:
        raise WeightsError(
            f"The {nameless[0].replace('_', ' ')} of {model.name} was given as a module; compose it from its "
            "registered name, so that the card can say how to build it."
        )
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for key, value in model.state_dict().items():
        stored = value.detach().cpu().to(torch.float16 if half and value.is_floating_point() else value.dtype)
        if stored.is_floating_point() and not torch.isfinite(stored).all():
            raise WeightsError(
                f"The weight {key!r} has values that are not finite as {stored.dtype}; do not publish it."
            )
        tensors[key] = stored.clone(memory_format=torch.contiguous_format)
    part = folder / f"{_FILE}.part"
    part.write_bytes(save(tensors, metadata={"format": "pt"}))
    block = {
        "format": _FORMAT,
        "name": name or model.name,
        "parts": model.parts,
        "sample_rate": model.rate,
        "classes": list(model.classes),
        "file": _FILE,
        "bytes": part.stat().st_size,
        "sha256": file_sha256(part),
    }
    block = {**block, **{key: value for key, value in (manifest or {}).items() if key not in block}}
    head = {"library_name": "avsep-zoo", "pipeline_tag": "audio-to-audio", **(front or {}), "avsep": block}
    body = text if text is not None else f"# {block['name']}\n\nWritten by the trainer of avsep-zoo.\n"
    readme = folder / "README.md.part"
    readme.write_text(f"---\n{yaml.safe_dump(head, sort_keys=False, width=100)}---\n{body}", encoding="utf-8")
    part.replace(folder / _FILE)
    readme.replace(folder / "README.md")
    return read_card(folder)


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
