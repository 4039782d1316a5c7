"""Finding the lists of a data set by the names that they are published with."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from avsep_zoo.data.index_file import first_row

__all__ = ["IndexList", "Rows", "find_lists", "first_rows", "lists_mixtures", "tested_list"]

_CLIPS = re.compile(r"(train|val|test|seen_heard_test|duets)(?!.*_ids$)")
_MIXTURES = re.compile(r"testsep|test_sep_?[0-9]*$|.*_[2-9]mix$")
_OF_MIXTURES = re.compile(r"(?<=^test)sep|_sep_?[0-9]*$|_[2-9]mix$")

Rows = list[tuple[str, list[str]]]
"""Where each row stands, and its cells."""


@dataclass(frozen=True)
class IndexList:
    """A list: the file it stands in, or would, below the data folder; and how it is made if there is no file."""

    file: Path
    make: Callable[[], Rows] | None = None


def find_lists(root: Path, endings: Sequence[str] = ()) -> dict[str, IndexList]:
    """Find the lists of a data folder or its folder ``annotations`` by split.

    ``trainmusic.csv`` is the split ``train`` where ``music`` is among the ``endings``, unless an earlier ending,
    or none, has that split already.
    """
    stems: dict[str, Path] = {}
    for folder in (Path(), Path("annotations")):
        for file in sorted((root / folder).glob("*.csv")):
            if _CLIPS.match(file.stem):
                stems.setdefault(file.stem, folder / file.name)
    found: dict[str, IndexList] = {}
    for ending in ("", *endings):
        for stem, path in stems.items():
            if stem.endswith(ending) and (ending or not any(stem.endswith(e) for e in endings)):
                short = stem.removesuffix(ending)
                found[stem if short in found else short] = IndexList(path)
    return found


def first_rows(root: Path, endings: Sequence[str] = ()) -> list[list[str]]:
    """First row of every list of clips that :func:`find_lists` finds."""
    lists = find_lists(root, endings)
    return [first_row(root / entry.file) for name, entry in lists.items() if not lists_mixtures(name)]


def lists_mixtures(name: str) -> bool:
    """Whether a list called so is one of mixtures: ``testsep``, ``test_sep_2``, ``test_2mix`` and their like."""
    return _MIXTURES.match(name) is not None


def tested_list(name: str) -> str:
    """Return the name of the list of clips that a list of mixtures is made of: ``testsep`` -> ``test``."""
    return _OF_MIXTURES.sub("", name)
