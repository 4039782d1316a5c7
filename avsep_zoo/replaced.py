"""Files and folders that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["part_name", "remove", "replaced", "write_text"]


def part_name(path: Path) -> Path:
    """The temporary name of a path: always the same, so that what a killed run left is found; never too long."""
    digest = hashlib.sha256(path.name.encode("utf-8", "surrogateescape")).hexdigest()
    return path.with_name(f".{digest[:16]}.part")


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give a temporary name for a file or folder; it takes the place of ``path`` if the block succeeds."""
    part = part_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(part)
    try:
        yield part
        if part.is_dir():
            remove(path)
        part.replace(path)
    finally:
        remove(part)


def remove(path: Path) -> None:
    """Remove a file or folder that may not be there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    with replaced(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
