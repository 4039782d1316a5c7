"""Everything that is wrong with a card, at once: ``avsep card check``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from avsep_zoo.errors import AvsepError, WeightsError
from avsep_zoo.weights.cards import TOGETHER, file_sha256, read_card
from avsep_zoo.weights.front_matter import read_front_matter
from avsep_zoo.weights.hub_metadata import check_metadata
from avsep_zoo.weights.licence_check import check_licences, check_source
from avsep_zoo.weights.shown import shown

__all__ = ["check"]

_CARDS = "weights_cards"
_KEYS = (
    "format", "name", "variant", "parts", "sample_rate", "classes", "file", "bytes", "sha256", "repo", "revision",
    "licences", "source", "started_from", "converted", "training",
)  # fmt: skip
_REQUIRED = ("encoder", "conditioner", "separator", "front_end")
_SLOTS = (*_REQUIRED, "driver", "objective")


def check(folder: Path) -> list[str]:
    """Return every problem of the card in a folder, a sentence each: what is wrong, with what value, what to write.

    Nothing is built but a front end and a driver; the weights are read for their hash where they lie beside the card.

    Args:
        folder: of the card.
    """
    try:
        read = read_front_matter(folder)
    except WeightsError as error:
        return [str(error)]
    front, problems = read.values, list(read.twice)
    manifest = front.get("avsep") if isinstance(front, dict) else None
    if not isinstance(manifest, dict):
        return [*problems, "The front matter has no block 'avsep'; write one as 'avsep info' shows it of other cards."]
    problems += check_metadata(front)
    problems += _check_manifest(manifest, folder)
    problems += _check_file(manifest, folder)
    problems += _check_parts(manifest)
    problems += check_licences(manifest)
    problems += check_source(manifest)
    problems += _check_text(read.text, manifest)
    if not problems:
        try:
            read_card(folder)
        except WeightsError as error:
            problems.append(str(error))
    return problems


def _check_manifest(manifest: Mapping[str, Any], folder: Path) -> Iterator[str]:
    for key in manifest:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            advice = f"did you mean {near[0]}" if near else f"known are {', '.join(_KEYS)}"
            yield f"The block avsep has the key {shown(key)}, which nothing reads; {advice}."
    if manifest.get("format") != 1:
        yield f"avsep.format is {shown(manifest.get('format'))}; write 1."
    name, place = manifest.get("name"), folder.resolve()
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", name):
        yield f"avsep.name is {shown(name)}; write METHOD.TAG in small letters, digits and _."
    elif place.parent.name == _CARDS and place.name != name:
        yield f"avsep.name is {name} and the folder {place.name!r}; a card in {_CARDS} has the name of its folder."
    for key in ("training", "converted", "started_from"):
        if key in manifest and not isinstance(manifest[key], Mapping):
            yield f"avsep.{key} is {shown(manifest[key])}; write a mapping, or leave it out."
    for group in TOGETHER:
        stated = [key for key in group if manifest.get(key) is not None]
        for key, (valid, advice) in group.items():
            value = manifest.get(key)
            if value is None and stated:
                yield f"avsep.{stated[0]} is there and avsep.{key} is not; write {advice}, or leave out both."
            elif value is not None and not valid(value):
                yield f"avsep.{key} is {shown(value)}; write {advice}."
    if manifest.get("repo") is not None and manifest.get("sha256") is None:
        yield f"avsep.repo is {shown(manifest['repo'])} and there is no avsep.sha256; publish weights, or leave it out."


def _check_file(manifest: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Compare the file beside the card with what the card says of it."""
    name, size, digest = (manifest.get(key) for key in TOGETHER[0])
    if not all(manifest.get(key) is not None and valid(manifest[key]) for key, (valid, _) in TOGETHER[0].items()):
        stray = sorted(path.name for path in folder.glob("*.safetensors"))
        if stray and digest is None:
            yield f"{stray[0]} lies beside the card and avsep.sha256 is not stated; write file, bytes and sha256 of it."
        return
    path = folder / str(name)
    if not path.is_file():
        if manifest.get("repo") is None:
            yield f"There is no {name} beside the card and no avsep.repo says where it is; put it there, or publish it."
        return
    if path.stat().st_size != size:
        yield f"{name} has {path.stat().st_size} bytes and avsep.bytes says {size}; write what the right file has."
    elif (found := file_sha256(path)) != digest:
        yield f"{name} has the sha256 {found} and avsep.sha256 says {digest}; write what the right file has."


def _check_parts(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Give what keeps the parts from being composed, or what the card says of them that is not so."""
    given, rate, classes = manifest.get("parts"), manifest.get("sample_rate"), manifest.get("classes", [])
    whole = type(rate) is int and rate > 0
    if not whole:
        yield f"avsep.sample_rate is {shown(rate)}; write the rate of the front end in Hz."
    named = isinstance(classes, list) and all(isinstance(one, str) and one for one in classes)
    named = named and len(set(classes)) == len(classes)
    if not named:
        yield f"avsep.classes is {shown(classes)}; write a list of different names, or []."
    if not isinstance(given, Mapping) or not set(_REQUIRED) <= set(given) <= set(_SLOTS):
        slots = ", ".join(map(str, given)) if isinstance(given, Mapping) else shown(given)
        yield f"avsep.parts has {slots or 'nothing'}; write {', '.join(_REQUIRED)}, perhaps driver, objective."
        return
    from avsep_zoo.recipe import PartConfig
    from avsep_zoo.registry import registry

    parts, problems = {}, []
    for slot, value in given.items():
        try:
            parts[slot] = PartConfig.parse(value)
            registry().get(slot, parts[slot].name)
        except AvsepError as error:
            plugin = "" if slot not in parts else " Install the plugin that it belongs to, or correct the name."
            problems.append(f"avsep.parts.{slot}: {error}{plugin}")
    yield from problems
    if problems:
        return
    from avsep_zoo.compose import check_parts

    try:
        front_end = check_parts(parts)
    except AvsepError as error:
        yield f"avsep.parts cannot be composed: {error}"
        return
    if whole and rate != front_end.rate:
        yield f"avsep.sample_rate is {rate} and the front end works at {front_end.rate} Hz; write {front_end.rate}."
    known = parts["encoder"].config.get("classes", [])
    if named and classes and list(known) != classes:
        yield f"avsep.classes has {len(classes)} names and the encoder others ({len(known)}); write the encoder's."


def _check_text(text: str, manifest: Mapping[str, Any]) -> Iterator[str]:
    if not text.strip():
        yield "There is no text below the front matter; say what the weights are, need and can do."
    command = f"avsep convert {manifest.get('name')}"
    if manifest.get("sha256") is None and not re.search(rf"{re.escape(command)}(?![\w.])", text):
        yield f"The card has no weights and its text no steps to make them; write '{command} --checkpoint ...' into it."
