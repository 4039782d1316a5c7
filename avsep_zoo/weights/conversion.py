"""From the files that a method's authors publish to a weights card."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from avsep_zoo import __version__
from avsep_zoo.compose import compose_recipe
from avsep_zoo.errors import CompositionError, WeightsError
from avsep_zoo.load import from_card
from avsep_zoo.recipe import Recipe
from avsep_zoo.registry import Entry, registry
from avsep_zoo.replaced import part_name, remove
from avsep_zoo.weights.cards import Card, card_folder, file_sha256, read_card, write_card
from avsep_zoo.weights.checkpoints import read_content, tensors_of
from avsep_zoo.weights.converter import Converter
from avsep_zoo.weights.self_check import SelfCheck, self_check

if TYPE_CHECKING:
    from torch import Tensor

    from avsep_zoo.model import SeparationModel

__all__ = ["Conversion", "SourceFile", "convert"]

_TEACHES = "objective."


@dataclass(frozen=True)
class SourceFile:
    """A file that was converted: its name, which part of the method it is, its size in bytes and its hash."""

    name: str
    part: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Conversion:
    """What came of it.

    Args:
        card: that was written.
        files: that were read.
        used: how many entries of the model they filled: all of them.
        unused: entries of the files that the model has no use for, as ``part.name``.
        check: how two sources of a made-up mixture came out.
    """

    card: Card
    files: tuple[SourceFile, ...]
    used: int
    unused: tuple[str, ...]
    check: SelfCheck


def convert(name: str, checkpoints: Sequence[Path], folder: Path, *, half: bool = False) -> Conversion:
    """Convert published files and write them as a card.

    Nothing is written unless every entry of the model is filled by a finite tensor of its shape, and the model
    separates a made-up mixture.

    Args:
        name: a method, where the files tell its variant, or ``<method>.<variant>``.
        checkpoints: the files, in any order; what they are is told by the names of their entries.
        folder: of the new card; a card without weights of the same name in it is replaced.
        half: store floating-point entries as float16.

    Raises:
        CompositionError: there is no such method or variant.
        WeightsError: a file cannot be read safely, is none of the method's, or does not fit; or the folder holds
            another card.
    """
    method, _, variant = name.partition(".")
    recipe = registry().method(method)
    if variant:
        recipe.parts(variant)
    converter = _converter(recipe)
    parts, files = _read(converter, recipe, checkpoints)
    entries, unused = _entries(converter, parts, method)
    variant = variant or _fitting(recipe, entries)
    _check_folder(folder, f"{method}.{variant}")
    model = compose_recipe(recipe.parts(variant), f"{method}.{variant}")
    _fill(model, entries)
    checked = self_check(model)
    card = _write(model, folder, files, unused, half=half)
    return Conversion(card, files, len(model.state_dict()), tuple(unused), checked)


def _converter(recipe: Recipe) -> Converter:
    entry = registry().get("method", recipe.name)
    if recipe.converter is None:
        raise WeightsError(f"{recipe.name} has no converter: nobody publishes files for it in another form.")
    found = Entry("converter", recipe.name, recipe.converter, "", entry.plugin).resolve()
    if not isinstance(found, Converter):
        raise WeightsError(
            f"The converter of {recipe.name}, {recipe.converter!r}, is of the type {type(found).__name__}; report it "
            f"to the author of the plugin {entry.plugin}."
        )
    return found


def _read(
    converter: Converter, recipe: Recipe, checkpoints: Sequence[Path]
) -> tuple[dict[str, dict[str, Tensor]], tuple[SourceFile, ...]]:
    """The state dicts of the files, by part."""
    parts: dict[str, dict[str, Tensor]] = {}
    files: list[SourceFile] = []
    for path in checkpoints:
        state = tensors_of(read_content(path, allowed=converter.allowed), path)
        found = [part for part, start in converter.parts.items() if any(re.match(start, name) for name in state)]
        if not found:
            raise WeightsError(
                f"{str(path)!r} holds nothing of {recipe.name}; its parts are {', '.join(converter.parts)}."
            )
        for part in found:
            if part in parts:
                other = next(file.name for file in files if part in file.part.split(", "))
                raise WeightsError(f"{other} and {path.name} both hold the part {part}; give one of them.")
            parts[part] = state
        files.append(SourceFile(path.name, ", ".join(found), path.stat().st_size, file_sha256(path)))
    if lacking := [part for part in converter.parts if part not in parts and part not in converter.optional]:
        given = ", ".join(f"{file.name} ({file.part})" for file in files) or "nothing"
        raise WeightsError(
            f"{recipe.name} needs the part {lacking[0]}, too, and the files are {given}; give every part by a "
            "--checkpoint of its own."
        )
    return parts, tuple(files)


def _entries(
    converter: Converter, parts: Mapping[str, Mapping[str, Tensor]], method: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Entries of the model; those that only teach are left out, and counted as unused."""
    try:
        entries, unused = converter.entries(parts)
    except KeyError as error:
        raise WeightsError(
            f"The entry {error.args[0]} is none of {method}'s, or one that belongs to it is missing; take the files as "
            "they were published."
        ) from error
    for name, value in entries.items():
        if not isinstance(value, torch.Tensor) or (value.is_floating_point() and not torch.isfinite(value).all()):
            raise WeightsError(
                f"The entry that becomes {name} holds numbers that are not finite; take another checkpoint of the run."
            )
    taught = [name for name in entries if name.startswith(_TEACHES)]
    return {k: v for k, v in entries.items() if not k.startswith(_TEACHES)}, [*unused, *taught]


def _fitting(recipe: Recipe, entries: Mapping[str, Tensor]) -> str:
    """The one variant that has just these entries in these shapes."""
    shapes = {name: tuple(value.shape) for name, value in entries.items()}
    fitting, hindered = [], ""
    for variant in recipe.variant_names:
        try:
            with torch.device("meta"):
                state = compose_recipe(recipe.parts(variant), recipe.name).state_dict()
        except CompositionError as error:  # a package that this variant needs is not here
            hindered = f" ({recipe.name}.{variant} was not tried: {str(error).rstrip('.')})"
            continue
        if {name: tuple(value.shape) for name, value in state.items()} == shapes:
            fitting.append(f"{recipe.name}.{variant}")
    if len(fitting) > 1:
        raise WeightsError(
            f"The files fit {' and '.join(fitting)} alike; say which of them they are, as 'avsep convert {fitting[0]}'."
        )
    if not fitting:
        known = ", ".join(f"{recipe.name}.{variant}" for variant in recipe.variant_names)
        raise WeightsError(f"The files fit none of {known}{hindered}; name the nearest one to see what differs.")
    return fitting[0].partition(".")[2]


def _fill(model: SeparationModel, entries: Mapping[str, Tensor]) -> None:
    """Load the entries, all or none."""
    wanted = model.state_dict()
    if lacking := wanted.keys() - entries.keys():
        raise WeightsError(f"The files lack {_few(lacking)} of {model.name}; give all of a run, or name their variant.")
    if extra := entries.keys() - wanted.keys():
        raise WeightsError(f"{model.name} has no place for {_few(extra)}; name the variant that the files are of.")
    off = sorted(name for name, value in wanted.items() if value.shape != entries[name].shape)
    if off:
        theirs, ours = tuple(entries[off[0]].shape), tuple(wanted[off[0]].shape)
        raise WeightsError(
            f"The shape of {off[0]}, the first of {len(off)} that differ, is {theirs} in the files and {ours} in "
            f"{model.name}; name the variant that they are of."
        )
    model.load_state_dict(entries)


def _check_folder(folder: Path, name: str) -> None:
    """A card with weights, or of something else, is not overwritten."""
    if not (folder / "README.md").exists():
        return
    card = read_card(folder)
    if card.name != name or card.sha256 is not None:
        raise WeightsError(f"{str(folder)!r} holds the card {card.name} already; name another folder, or remove it.")


def _write(
    model: SeparationModel, folder: Path, files: Sequence[SourceFile], unused: Sequence[str], *, half: bool
) -> Card:
    """Write the card beside its folder, load it, then put its two files into place, the README last."""
    known = card_folder(model.name)
    published = read_card(known) if known is not None else None
    stated: dict[str, Any] = dict(published.manifest) if published is not None else {}
    origin: dict[str, Any] = {"by": f"avsep-zoo {__version__}", "files": [vars(file) for file in files]}
    manifest: dict[str, Any] = {key: stated[key] for key in ("licences", "source") if key in stated}
    front = {} if published is None else {k: v for k, v in published.front.items() if k not in ("avsep", "model-index")}
    part = part_name(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove(part)
    try:
        manifest |= {"converted": {**origin, "unused": len(unused)}}
        write_card(part, model, half=half, manifest=manifest, front=front, text=_text(model.name, published, files))
        from_card(read_card(part))
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(part.iterdir(), key=lambda one: one.name == "README.md"):
            file.replace(folder / file.name)
    finally:
        remove(part)
    return read_card(folder)


def _text(name: str, published: Card | None, files: Sequence[SourceFile]) -> str:
    """What the card says below its front matter: which files it was made of, then what was known before.

    How to get the weights is left out of that.
    """
    rows = [f"| `{file.name}` | {file.part} | {file.bytes} | `{file.sha256}` |" for file in files]
    made = [f"# {name}", "", "Converted by `avsep convert` from these files:", ""]
    made += ["| file | part | bytes | sha256 |", "|---|---|---:|---|", *rows, ""]
    known = "" if published is None else re.sub(r"\A\s*# .*\n", "", published.text)
    known = re.sub(r"(?ms)^\*\*There are no weights here.*?\n\n", "", known)
    known = re.sub(r"(?ms)^## How to get the weights\n.*?(?=^## |\Z)", "", known)
    return "\n".join(made) + known


def _few(names: Collection[str]) -> str:
    first = sorted(names)[:3]
    return ", ".join(first) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
