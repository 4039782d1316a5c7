"""Sound out: 32-bit float WAV files that are either whole or not there."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import soundfile

from avsep_zoo.errors import MediaError

__all__ = ["WavWriter", "whole_file", "write_wav"]

RIFF_BYTES = 2**32 - 2**16  # sound that fits a RIFF file beside its header
BLOCK = 65536  # samples


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary name in the folder of ``path``; rename it to ``path`` on success, remove it otherwise.

    Raises:
        MediaError: the folder does not exist, or ``path`` is a directory.
    """
    target = Path(path)
    if target.is_dir():
        raise MediaError(f"{path} is a directory; give the name of a file.")
    if not target.parent.is_dir():
        raise MediaError(f"The folder {target.parent} does not exist; create it first.")
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


class WavWriter:
    """Writes a 32-bit float WAV file block by block, as a context manager.

    The file gets its name when the context ends without an exception, and is removed otherwise. A file that
    grows beyond 4 GB becomes RF64 (EBU Tech 3306).

    Args:
        path: name of the file; its folder exists.
        rate: sample rate in Hz.
        channels: number of channels.

    Raises:
        MediaError: the file cannot be written.
    """

    def __init__(self, path: str | Path, rate: int, channels: int) -> None:
        self.path = Path(path)
        self.rate = rate
        self.channels = channels
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._part = stack.enter_context(whole_file(self.path))
            self._file = self._create(self._part, "WAV")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._file.close()
        finally:
            self._stack.__exit__(*error)  # type: ignore[arg-type]

    def write(self, block: np.ndarray) -> None:
        """Append (channels, n) samples.

        Raises:
            MediaError: the file cannot be written, e.g. the disk is full.
        """
        if block.ndim != 2 or block.shape[0] != self.channels:
            raise ValueError(f"The block has shape {block.shape}; give ({self.channels}, n).")
        size = (self._file.frames + block.shape[1]) * self.channels * 4
        if size > RIFF_BYTES and self._file.format == "WAV":
            self._to_rf64()
        self._append(block.T)

    def _append(self, rows: np.ndarray) -> None:
        for start in range(0, len(rows), BLOCK):
            piece = np.ascontiguousarray(rows[start : start + BLOCK], dtype=np.float32)
            before = self._file.frames
            try:
                self._file.write(piece)
            except (soundfile.SoundFileError, AssertionError, OSError) as error:
                raise MediaError(f"{self.path} could not be written ({error}); is the disk full?") from error
            if self._file.frames - before != len(piece):
                raise MediaError(f"{self.path} could not be written; is the disk full?")

    def _create(self, path: Path, format: str) -> soundfile.SoundFile:
        try:
            return soundfile.SoundFile(path, "w", self.rate, self.channels, subtype="FLOAT", format=format)
        except (soundfile.SoundFileError, TypeError, OSError) as error:
            raise MediaError(
                f"{self.path} cannot be written with {self.channels} channels at {self.rate} Hz ({error}); "
                "choose another place or format."
            ) from error

    def _to_rf64(self) -> None:
        self._file.close()
        begun = self._part.with_suffix(".riff")
        self._part.rename(begun)
        try:
            self._file = self._create(self._part, "RF64")
            with soundfile.SoundFile(begun) as riff:
                for rows in riff.blocks(BLOCK, dtype="float32", always_2d=True):
                    self._append(rows)
        finally:
            begun.unlink()


def write_wav(path: str | Path, waveform: np.ndarray, rate: int) -> None:
    """Write (channels, samples) as a 32-bit float WAV file, whole or not at all.

    Raises:
        MediaError: the file cannot be written.
    """
    with WavWriter(path, rate, waveform.shape[0]) as wav:
        wav.write(waveform)
