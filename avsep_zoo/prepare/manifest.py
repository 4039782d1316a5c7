"""The records beside prepared clips: ``prepare.jsonl``, a line per finished clip, and the manifest ``prepare.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from avsep_zoo import __version__
from avsep_zoo.data.reader import PREPARED
from avsep_zoo.errors import DataError
from avsep_zoo.folder_lock import LOCK, folder_lock
from avsep_zoo.prepare.clip import Record
from avsep_zoo.replaced import remove, write_text

__all__ = ["Journal", "claimed", "ids_sha256", "versions", "write_manifest"]

_JOURNAL = "prepare.jsonl"


class Journal:
    """The finished clips of a prepared folder, by key; what a killed run was writing is dropped."""

    def __init__(self, out: Path) -> None:
        self._path = out / _JOURNAL
        self.records: dict[str, Record] = {}
        lines = self._path.read_bytes().split(b"\n") if self._path.exists() else [b""]
        for line in lines[:-1]:
            try:
                content = json.loads(line)
                record = Record(**content | {key: tuple(content[key]) for key in ("made", "notes")})
            except (ValueError, TypeError, LookupError):
                continue
            self.records[record.key] = record

    def add(self, record: Record) -> None:
        """Note a finished clip."""
        self.records[record.key] = record
        with self._path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(_line(record))

    def keep(self, keys: Iterable[str]) -> None:
        """Keep the records of ``keys`` only, in their order."""
        self.records = {key: self.records[key] for key in keys if key in self.records}
        write_text(self._path, "".join(map(_line, self.records.values())))


def _line(record: Record) -> str:
    return json.dumps(record.document()) + "\n"


@contextmanager
def claimed(out: Path, settings: Mapping[str, Any]) -> Iterator[Journal]:
    """Hold the folder ``out`` for one run: a new one, or one that was prepared with the same settings.

    Raises:
        DataError: it is something else, or another run has it.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; name a folder for the prepared data.")
    out.mkdir(parents=True, exist_ok=True)
    present = {path.name for path in out.iterdir()} - {LOCK}
    if present and PREPARED not in present:
        raise DataError(f"The folder {out} is not empty and holds no {PREPARED}; name an empty folder.")
    with folder_lock(out):
        journal = Journal(out)
        if journal.records:
            _compare(out, settings)
        elif present:
            remove(out / _JOURNAL)
        yield journal


def _compare(out: Path, settings: Mapping[str, Any]) -> None:
    try:
        found = json.loads((out / PREPARED).read_text(encoding="utf-8"))["settings"]
        changed = sorted(key for key in {*found, *settings} if found.get(key) != settings.get(key))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"The manifest {out / PREPARED} is damaged; name an empty folder.") from error
    if changed:
        raise DataError(
            f"The folder {out} was prepared with other settings ({', '.join(changed)}); name an empty folder or "
            f"repeat the settings in its {PREPARED}."
        )


def write_manifest(out: Path, content: Mapping[str, Any]) -> None:
    """Write ``prepare.json``."""
    write_text(out / PREPARED, json.dumps(content, indent=1) + "\n")


def ids_sha256(ids: Iterable[str]) -> str:
    """The sha256 of the sorted ids, a line each: names a split whatever its order."""
    text = "".join(f"{name}\n" for name in sorted(ids))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of this package and of those that are installed."""
    found = {"avsep-zoo": __version__}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
