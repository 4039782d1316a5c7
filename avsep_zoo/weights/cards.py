"""Weights cards: folders of ``README.md`` (its front matter is the only manifest) and ``model.safetensors``.

The block ``avsep`` of the front matter::

    avsep:
      format: 1
      name: iquery.mini             # <method>.<tag>
      parts: {encoder: {name: ..., ...}, conditioner: ..., separator: ..., front_end: ..., objective: ...}
      sample_rate: 11025
      classes: [...]
      file: model.safetensors       # these three, or none of them: then the weights are the user's to convert
      bytes: 7900000
      sha256: ...
      repo: org/name                # these two, or none of them: where the weights are on the Hugging Face Hub
      revision: ...                 # commit, 40 hexadecimal digits
      licences: {code: Apache-2.0, weights: ..., training_data: ...}
      source: {...}                 # what the method's authors publish
      training: {...}               # settings of the run that made them
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from avsep_zoo.errors import WeightsError
from avsep_zoo.replaced import replaced
from avsep_zoo.weights.front_matter import read_front_matter
from avsep_zoo.weights.pin import with_pin
from avsep_zoo.weights.shown import shown

if TYPE_CHECKING:
    from avsep_zoo.model import SeparationModel

__all__ = ["TOGETHER", "Card", "card_folder", "file_sha256", "pin_card", "read_card", "write_card"]

_FORMAT = 1
_FILE = "model.safetensors"
_SLOTS = {"encoder", "conditioner", "separator", "front_end"}
_REQUIRED: dict[str, Callable[[Any], Any]] = {
    "name": lambda v: isinstance(v, str) and re.fullmatch(r"[\w.-]+", v),
    "parts": lambda v: isinstance(v, dict) and set(v) >= _SLOTS,
    "sample_rate": lambda v: isinstance(v, int),
}
TOGETHER: tuple[dict[str, tuple[Callable[[Any], Any], str]], ...] = (
    {
        "file": (lambda v: isinstance(v, str) and re.fullmatch(r"\w[\w.-]*\.safetensors", v), "model.safetensors"),
        "bytes": (lambda v: type(v) is int and v > 0, "the size of the file in bytes"),
        "sha256": (lambda v: isinstance(v, str) and re.fullmatch("[0-9a-f]{64}", v), "its 64 hexadecimal digits"),
    },
    {
        "repo": (lambda v: isinstance(v, str) and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", v), "org/name of the Hub"),
        "revision": (
            lambda v: isinstance(v, str) and re.fullmatch("[0-9a-f]{40}", v),
            "the 40 hexadecimal digits of the commit",
        ),
    },
)
"""Keys that are there together or not at all, when they are right, and what to write otherwise."""


@dataclass(frozen=True)
class Card:
    """One card.

    Args:
        folder: where it lies.
        manifest: the ``avsep`` block of the front matter.
        front: the whole front matter.
        text: Markdown below the front matter.
        origin: ``org/name@commit`` of a card that was fetched from the Hub.
    """

    folder: Path
    manifest: Mapping[str, Any]
    front: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    origin: str | None = None

    @property
    def name(self) -> str:
        """``<method>.<tag>``."""
        return str(self.manifest["name"])

    @property
    def weights(self) -> Path:
        """Where the weights file lies if it travels with the card."""
        return self.folder / str(self.manifest.get("file") or _FILE)

    @property
    def sha256(self) -> str | None:
        """Hash of the weights, or None where there are none: the user has files of the method's authors to convert."""
        return self.manifest.get("sha256")

    @property
    def hub(self) -> str | None:
        """``org/name@commit`` where the weights are on the Hugging Face Hub, or None."""
        if self.origin is None and self.manifest.get("repo"):
            return f"{self.manifest['repo']}@{self.manifest['revision']}"
        return self.origin


def card_folder(name: str) -> Path | None:
    """Return the folder of a card that travels with the code, if there is one.

    It is ``weights_cards/<name>`` of the checkout this package lies in, or ``<name>`` in a folder that the plugin of
    the card's method registered (:meth:`avsep_zoo.registry.Register.cards`).
    """
    from avsep_zoo.plugins import checkout_root
    from avsep_zoo.registry import registry

    if not re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", name):
        return None
    root = checkout_root()
    if root and (root / "weights_cards" / name / "README.md").is_file():
        return root / "weights_cards" / name
    folders = [parent / name for parent in registry().card_folders(name.partition(".")[0])]
    return next((folder for folder in folders if (folder / "README.md").is_file()), None)


def read_card(folder: Path, *, origin: str | None = None) -> Card:
    """Read the card in ``folder``; ``origin`` is that of the :class:`Card`.

    Raises:
        WeightsError: there is no card, or its front matter is not what a card needs.
    """
    file = folder / "README.md"
    read = read_front_matter(folder)
    front = read.values
    if not isinstance(front, dict) or not isinstance(front.get("avsep"), dict):
        raise WeightsError(f"The card {str(file)!r} has no front matter with an 'avsep' block; it is no weights card.")
    manifest = front["avsep"]
    if manifest.get("format") != _FORMAT:
        raise WeightsError(
            f"The card {str(file)!r} has avsep.format {shown(manifest.get('format'))} and this version reads "
            f"{_FORMAT}; use the version of avsep-zoo it was written by."
        )
    needed = dict(_REQUIRED)
    for group in TOGETHER:
        if any(manifest.get(name) is not None for name in group):
            needed |= {name: valid for name, (valid, _) in group.items()}
    for name, valid in needed.items():
        if manifest.get(name) is None or not valid(manifest[name]):
            wrong = f"avsep.{name} {shown(manifest[name])}" if name in manifest else f"no avsep.{name}"
            raise WeightsError(f"The card {str(file)!r} has {wrong}; take the card as it was published.")
    return Card(folder, manifest, front, read.text, origin)


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
        "classes": list(model.classes or model.parts["encoder"].get("classes", ())),
        "file": _FILE,
        "bytes": part.stat().st_size,
        "sha256": file_sha256(part),
    }
    block = {**block, **{key: value for key, value in (manifest or {}).items() if key not in block}}
    tags = ["sound-separation", str(block["name"]).partition(".")[0]]
    head = {"library_name": "avsep-zoo", "pipeline_tag": "audio-to-audio", "tags": tags} | dict(front or {})
    head["avsep"] = block
    body = text if text is not None else f"# {block['name']}\n\nWritten by the trainer of avsep-zoo.\n"
    readme = folder / "README.md.part"
    readme.write_text(f"---\n{yaml.safe_dump(head, sort_keys=False, width=100)}---\n{body}", encoding="utf-8")
    part.replace(folder / _FILE)
    readme.replace(folder / "README.md")
    return read_card(folder)


def pin_card(card: Card, repo: str, revision: str) -> Card:
    """Write into a card where its weights are on the Hub; nothing else in its README changes.

    Args:
        card: of a folder, with weights.
        repo: ``org/name``.
        revision: commit, 40 hexadecimal digits.

    Raises:
        WeightsError: that is no commit of a repository, or the front matter has too unusual a form.
    """
    readme = card.folder / "README.md"
    pin = {"repo": repo, "revision": revision}
    wrong = [f"{name} {value!r}" for name, value in pin.items() if not TOGETHER[1][name][0](value)]
    if wrong:
        raise WeightsError(f"The card {card.name} cannot be pinned to the {wrong[0]}; give org/name and a full commit.")
    try:
        pinned = with_pin(readme.read_bytes().decode("utf-8"), pin)
    except ValueError as error:
        raise WeightsError(
            f"{str(readme)!r} cannot be pinned, as its block 'avsep' has an unusual form; write repo: {repo} and "
            f"revision: {revision} into it."
        ) from error
    with replaced(readme) as part:
        part.write_bytes(pinned.encode("utf-8"))
    return read_card(card.folder, origin=card.origin)


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
