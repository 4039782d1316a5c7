"""One writer per folder: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from avsep_zoo.errors import DataError

__all__ = ["LOCK", "folder_lock"]

LOCK = ".lock"
"""Name of the file that is locked; it stays behind, empty."""


@contextmanager
def folder_lock(folder: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Keep every other process that asks for ``folder`` out; where the file system has no locks, nothing is kept out.

    Args:
        folder: an existing folder.
        patience: seconds to wait for another process to end.

    Raises:
        DataError: another process has it.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=patience)
    except Timeout as error:
        raise DataError(
            f"Another process writes into {str(folder)!r} now; wait for it, or name another folder."
        ) from error
    except NotImplementedError:
        pass
    try:
        yield
    finally:
        lock.release()
