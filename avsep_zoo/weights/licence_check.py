"""What is wrong with the blocks ``licences`` and ``source`` of a card."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from avsep_zoo.weights.licences import FIELDS, NOT_STATED, permits
from avsep_zoo.weights.shown import shown

__all__ = ["check_licences", "check_source"]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
_ENTRY = ("of", "licence", "terms", "commercial", "url")
_SOURCE = ("url", "licence", "files", "note")
_STATE = f"write an SPDX id, LicenseRef-NAME or {NOT_STATED}"


def check_licences(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Give what is wrong with the three licence fields of a manifest, a sentence each."""
    block = manifest.get("licences")
    if not isinstance(block, Mapping):
        yield f"avsep.licences is {shown(block)}; write {', '.join(FIELDS)}: an SPDX id, {NOT_STATED} or a list."
        return
    yield from _unknown(block, "avsep.licences", FIELDS)
    for field in FIELDS:
        value, where = block.get(field), f"avsep.licences.{field}"
        if isinstance(value, list) and value:
            for number, entry in enumerate(value, 1):
                yield from _check_entry(entry, f"Entry {number} of {where}")
        elif not _is_licence(value):
            yield f"{where} is {shown(value)}; {_STATE}, or a list of entries with of and licence."


def _check_entry(entry: Any, where: str) -> Iterator[str]:
    if not isinstance(entry, Mapping):
        yield f"{where} is {shown(entry)}; write of: WHAT, licence: ID."
        return
    yield from _unknown(entry, where, _ENTRY)
    licence, terms, commercial = entry.get("licence"), entry.get("terms"), entry.get("commercial")
    if not _is_text(entry.get("of")):
        yield f"{where} is of {shown(entry.get('of'))}; write what is licensed."
    if not _is_licence(licence):
        yield f"{where} has the licence {shown(licence)}; {_STATE}."
    if terms is not None and not _is_text(terms):
        yield f"{where} has the terms {shown(terms)}; write them in words, or leave them out."
    if commercial is not None and not isinstance(commercial, bool):
        yield f"{where} has commercial {shown(commercial)}; write true or false, or leave it out."
    elif commercial and not _is_text(terms) and not permits(str(licence)):
        yield f"{where} is commercial: true without terms; write the terms that permit it."
    if entry.get("url") is not None and not _is_address(entry["url"]):
        yield f"{where} has the url {shown(entry['url'])}; write an address with https://, or leave it out."


def check_source(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Give what is wrong with the block ``source`` of a manifest, which a card without weights needs."""
    block = manifest.get("source")
    if block is None:
        if manifest.get("sha256") is None:
            yield f"The card has neither weights nor avsep.source; write what is published: {', '.join(_SOURCE)}."
        return
    if not isinstance(block, Mapping):
        yield f"avsep.source is {shown(block)}; write {', '.join(_SOURCE)}."
        return
    yield from _unknown(block, "avsep.source", _SOURCE)
    if "url" not in block or not (block["url"] is None or _is_address(block["url"])):
        yield f"avsep.source.url is {shown(block.get('url'))}; write one with https://, or null where there is none."
    if not _is_licence(block.get("licence")):
        yield f"avsep.source.licence is {shown(block.get('licence'))}; {_STATE}, as the authors do."
    files = block.get("files")
    if files is not None and not (isinstance(files, list) and files and all(_is_text(name) for name in files)):
        yield f"avsep.source.files is {shown(files)}; write a list of the names of the files, or leave it out."
    if block.get("note") is not None and not _is_text(block["note"]):
        yield f"avsep.source.note is {shown(block['note'])}; write a sentence, or leave it out."


def _unknown(block: Mapping[str, Any], where: str, known: tuple[str, ...]) -> Iterator[str]:
    for key in block:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            yield f"{where} has the key {shown(key)}, which nothing reads; " + (
                f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."
            )


def _is_licence(value: Any) -> bool:
    return isinstance(value, str) and (value == NOT_STATED or _ID.fullmatch(value) is not None)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"https?://\S+", value) is not None
