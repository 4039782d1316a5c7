"""The pin in a card's README: the entries ``repo`` and ``revision`` of its block ``avsep``, and nothing around them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

__all__ = ["with_pin"]

_HEAD = re.compile(r"\A---\r?\n(.*?\n)---\r?\n", re.DOTALL)
_NAMES = ("repo", "revision")
_MISFITS = (LookupError, TypeError, ValueError, AttributeError, yaml.YAMLError)


def with_pin(text: str, pin: Mapping[str, str]) -> str:
    """Return the README of a card with another pin; comments, order, quotes and line ends stay as they are.

    Args:
        text: README of a card that has weights.
        pin: ``repo`` and ``revision``; empty takes them out.

    Raises:
        ValueError: its front matter has a form that cannot be changed entry by entry.
    """
    match = _HEAD.match(text)
    if match is None:
        raise ValueError("There is no front matter.")
    try:
        changed = match[1]
        for start, end, new in sorted(_edits(match[1], pin), reverse=True):
            changed = changed[:start] + new + changed[end:]
        before, after = yaml.safe_load(match[1]), yaml.safe_load(changed)
        wanted = {**_without(before["avsep"]), **pin}
        got = {**_without(after["avsep"]), **{name: after["avsep"][name] for name in _NAMES if name in after["avsep"]}}
    except _MISFITS as error:
        raise ValueError("The front matter cannot be changed entry by entry.") from error
    if not changed.endswith("\n") or repr({**before, "avsep": wanted}) != repr({**after, "avsep": got}):  # NaN is NaN
        raise ValueError("The front matter cannot be changed entry by entry.")
    return f"{text[: match.start(1)]}{changed}{text[match.end(1) :]}"


def _edits(head: str, pin: Mapping[str, str]) -> list[tuple[int, int, str]]:
    """Where the text of ``head`` changes: start, end, and what comes there."""
    root: Any = yaml.compose(head, Loader=yaml.SafeLoader)
    front = {key.value: value for key, value in root.value}
    entries = {key.value: (key, value) for key, value in front["avsep"].value}
    values = {name: yaml.safe_dump(value).split("\n")[0] for name, value in pin.items()}
    edits = []
    for name in _NAMES:
        if name not in entries:
            continue
        start, end = entries[name][1].start_mark.index, entries[name][1].end_mark.index
        if name in values:
            edits.append((start, end, values[name] if start < end else f" {values[name]}"))
        else:
            edits.append((*_lines(head, *entries[name]), ""))
    added = [name for name in values if name not in entries]
    if added:
        start, end = _lines(head, *entries["sha256"])
        margin = head[start : entries["sha256"][0].start_mark.index]
        line_end = "\r\n" if head[:end].endswith("\r\n") else "\n"
        edits.append((end, end, "".join(f"{margin}{name}: {values[name]}{line_end}" for name in added)))
    return edits


def _lines(head: str, key: Any, value: Any) -> tuple[int, int]:
    """The lines of an entry: from the beginning of its first to the end of its last."""
    return head.rfind("\n", 0, key.start_mark.index) + 1, head.index("\n", value.end_mark.index) + 1


def _without(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in manifest.items() if name not in _NAMES}
