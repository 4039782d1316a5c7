"""The sound of a clip: cut out of a file, mono, at another rate, as a 16-bit WAV file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from avsep_zoo.errors import DataError, MediaError
from avsep_zoo.media import AudioSource, open_audio, read_excerpt
from avsep_zoo.replaced import replaced

__all__ = ["write_sound"]


def write_sound(
    source: Path, target: Path, *, rate: int, start: float = 0.0, duration: float | None = None
) -> tuple[int, list[str]]:
    """Write ``duration`` seconds from ``start`` (all there is by default); only these are decoded.

    Channels are averaged, what lies beyond full scale is clipped. Memory does not grow with the length of the source.

    Returns:
        The number of samples at ``rate``, and what the decoder warned of.

    Raises:
        MediaError: the source cannot be decoded or has no sound there.
        DataError: the target cannot be written.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        own_rate, blocks = _mono(source, start, duration)
        stream = soxr.ResampleStream(own_rate, rate, 1, dtype="float32", quality="HQ")
        with replaced(target) as part:
            try:
                with soundfile.SoundFile(part, "w", rate, 1, subtype="PCM_16", format="WAV") as wav:
                    for block in blocks:
                        wav.write(np.clip(block if own_rate == rate else stream.resample_chunk(block), -1, 1))
                    if own_rate != rate:
                        wav.write(np.clip(stream.resample_chunk(np.zeros(0, np.float32), last=True), -1, 1))
                    samples: int = wav.frames
            except (soundfile.SoundFileError, AssertionError) as error:
                raise DataError(f"{target} cannot be written ({error}); is the disk full?") from error
            if samples == 0:
                raise MediaError(f"{source} has no sound from {start:g} s on, or too little for {rate} Hz.")
    return samples, sorted({str(warning.message) for warning in caught if warning.category is UserWarning})


def _mono(source: Path, start: float, duration: float | None) -> tuple[int, Iterator[np.ndarray]]:
    """Return the rate in Hz, and the samples (n,) in blocks; of a part only what it needs is decoded."""
    if duration is None:
        sound = open_audio(source)
        return sound.rate, (block.mean(axis=0) for block in _from(sound, start))
    piece, rate = read_excerpt(source, start, duration)  # (channels, n)
    if piece.shape[1] == 0:
        raise MediaError(f"{source} has no sound after {start:g} s, where the clip begins.")
    return rate, iter([piece.mean(axis=0)])


def _from(sound: AudioSource, start: float) -> Iterator[np.ndarray]:
    """Yield blocks (channels, n) from ``start`` seconds on."""
    before = round(start * sound.rate)
    for block in sound.blocks(sound.rate):
        if before < block.shape[1]:
            yield block[:, before:]
        before = max(0, before - block.shape[1])
