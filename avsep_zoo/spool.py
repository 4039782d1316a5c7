"""Arrays that may grow beyond the memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

import numpy as np

from avsep_zoo.errors import MediaError

__all__ = ["Spool"]


class Spool:
    """An array (rows, columns) that grows by columns: in memory while it is small, then in a temporary file.

    Args:
        rows: number of rows.
        in_memory: bytes it may grow to before it moves to the file.
        dtype: of the array.
    """

    def __init__(self, rows: int, in_memory: int, dtype: type[np.floating[Any]] = np.float32) -> None:
        self.rows, self.columns, self.in_memory, self.dtype = rows, 0, in_memory, np.dtype(dtype)
        self.file = tempfile.SpooledTemporaryFile(max_size=in_memory)  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # what could not be written is given up
            self.file.close()

    def write(self, block: np.ndarray) -> None:
        """Append (rows, n).

        Raises:
            MediaError: there is no room for temporary files.
        """
        with _room_for_files():
            self.file.write(np.ascontiguousarray(block.T, dtype=self.dtype).tobytes())
        self.columns += block.shape[1]

    def read(self) -> np.ndarray:
        """The whole array; what lies in a file becomes a memory map that outlives the closed file."""
        with _room_for_files():
            self.file.seek(0)  # writes what is buffered
        if self.columns * self.rows * self.dtype.itemsize > self.in_memory:
            flat: np.ndarray = np.memmap(self.file, self.dtype, mode="c")
        else:
            flat = np.empty(self.columns * self.rows, self.dtype)
            self.file.readinto(flat.data)
        return flat.reshape(-1, self.rows).T


@contextmanager
def _room_for_files() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MediaError(
            f"The results do not fit into {tempfile.gettempdir()} ({error.strerror}); make room there, or "
            "set TMPDIR to another folder."
        ) from error
