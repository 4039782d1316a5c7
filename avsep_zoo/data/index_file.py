"""Index files: rows of comma-separated lists, and the paths in them, which may not leave the data folder."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from avsep_zoo.errors import DataError
from avsep_zoo.replaced import write_text

__all__ = ["first_row", "frame_count", "inner_path", "is_text", "read_lines", "read_rows", "write_lines", "write_rows"]


def read_lines(file: Path) -> list[tuple[str, str]]:
    """Read every line that is not blank, with where it stands; BOM and CRLF are fine.

    Bytes that are not UTF-8 stay in as surrogates, which :func:`inner_path` refuses, so that one bad row does
    not cost the list.

    Raises:
        DataError: the list is missing or cannot be read.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(
            f"The list {str(file)!r} cannot be read ({error.strerror}); give a data folder with it."
        ) from error
    lines = io.StringIO(text, newline=None)
    return [(f"{file.name} row {n}", line.rstrip("\n")) for n, line in enumerate(lines, 1) if line.strip()]


def read_rows(file: Path, skip: Callable[[str, str], None]) -> list[tuple[str, list[str]]]:
    """Read the cells of every row as they stand, with where; a row with broken quotes is skipped with the reason.

    Raises:
        DataError: the list is missing or cannot be read.
    """
    rows = []
    for where, line in read_lines(file):
        try:
            rows.append((where, _cells(line)))
        except csv.Error as error:
            skip(where, f"the row is no comma-separated one ({error})")
    return rows


def first_row(file: Path) -> list[str]:
    """Cells of the first row of a list, stripped; nothing where it cannot be read."""
    try:
        with file.open("rb") as stream:
            text = stream.read(4096).decode("utf-8-sig", "replace")
        return next(([cell.strip() for cell in _cells(line)] for line in text.splitlines() if line.strip()), [])
    except (OSError, csv.Error):
        return []


def _cells(line: str) -> list[str]:
    return next(csv.reader([line], strict=True), [])


def inner_path(text: str, *, parts: int = 2) -> PurePosixPath:
    """Read a path of at least ``parts`` parts that stays inside the folder it is joined to.

    One leading slash, which official lists have, is dropped.

    Raises:
        DataError: it leads elsewhere, is too short, or has characters that no file name should have.
    """
    text = text.strip()
    inner = text.removeprefix("/")
    path = PurePosixPath(inner)
    if inner.startswith("/") or inner[1:2] == ":" or ".." in path.parts or "\\" in text:
        raise DataError(f"The path {text!r} leads out of the data folder; give one inside it.")
    if not is_text(text):
        raise DataError(f"The path {text!r} has control characters or is not UTF-8; rename the file.")
    if len(path.parts) < parts:
        raise DataError(f"The path {text!r} is too short; give {'/'.join(('class', 'name')[-parts:])}.")
    if len(text) > 60 and max(len(part.encode()) for part in path.parts) > 255:
        raise DataError(f"The path {text[:20]!r}... has a name of more than 255 bytes; rename the file.")
    return path


def is_text(text: str) -> bool:
    """Whether a text has neither control characters nor halves of characters (bytes that are not UTF-8)."""
    return text.isprintable() or not any(unicodedata.category(c) in ("Cc", "Cs") for c in text)


def frame_count(text: str) -> int:
    """Read a number of frames, 0 to 999,999,999.

    Raises:
        DataError: it is no such number.
    """
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise DataError(f"The frame count is {text[:20]!r}; give a whole number.")
    return int(text)


def write_rows(file: Path, rows: Iterable[Sequence[str]]) -> None:
    """Write a list under a temporary name, then rename it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(file, text.getvalue())


def write_lines(file: Path, lines: Iterable[str]) -> None:
    """Write one line each under a temporary name, then rename it."""
    write_text(file, "".join(f"{line}\n" for line in lines))
