"""Segments of sound for training and test items: only what is needed is decoded, or what published loaders did."""

from __future__ import annotations

import errno
import functools
import math
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from avsep_zoo.data.clip import Clip
from avsep_zoo.errors import DataError, MediaError
from avsep_zoo.media import open_audio, read_excerpt, resample
from avsep_zoo.media.audio import is_short_riff

__all__ = ["clip_seconds", "published_segment", "read_segment", "seconds"]

# What libsndfile seeks in to the sample; everything else goes through FFmpeg.
_SOUND_FILES = frozenset({".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".w64", ".wav"})
_FILES_KNOWN = 2**18  # files whose headers a process remembers


@dataclass(frozen=True)
class _Header:
    """Samples and rate in Hz of a file, and whether its samples are 16-bit integers."""

    samples: int
    rate: int
    integers: bool


def read_segment(
    path: Path, rate: int, length: int, start: float, speed: float = 1.0, *, end: float | None = None
) -> np.ndarray:
    """Read float32 mono (length,) at ``rate``, silent outside the sound; only the part that is needed is decoded.

    Args:
        path: a sound file, or a video whose sound it is.
        rate: in Hz.
        length: samples.
        start: where to begin, in seconds of the file; below 0 the segment begins with silence.
        speed: how much faster it is played.
        end: where the sound ends, in seconds of the file; None is where the file does.

    Raises:
        DataError: the file cannot be read, is empty or cut off, or holds NaN or infinity.
    """
    before = min(length, round(-start * rate / speed)) if start < 0 else 0
    start = max(0.0, start)
    wanted = (length - before) / rate * speed
    if end is not None:
        wanted = min(wanted, max(0.0, end - start))
    sound, own_rate = _decode(path, start, wanted)
    if own_rate * speed != rate and len(sound):
        sound = soxr.resample(sound, own_rate * speed, rate, quality="MQ")
    if not np.isfinite(sound).all():
        raise DataError(f"The sound {str(path)!r} holds NaN or infinity; check it or remove its row.")
    sound = sound[: length - before]
    return np.pad(sound, (before, length - before - len(sound)))


def published_segment(
    path: Path, *, rate: int, length: int, centre: float, assume_rate: bool = True, repeat: bool = True
) -> np.ndarray:
    """Read float32 mono (length,) around ``centre`` seconds by the rules of published loaders.

    Outside of the sound the segment is silent, and so is the last sample of a segment of odd length. It is clipped to
    [-1, 1]. A path that ends in ``silent`` is silence. The defaults are the rules of iQuery and DAVIS.

    Source: Chen et al., iQuery, CVPR 2023; Huang et al., DAVIS, ACCV 2024; Mahmud et al., BiModalSep, ICLR 2024, which
    has a resampler of its own; IAL-CMS, AAAI 2024.

    Args:
        path: a sound file, or a video whose sound it is.
        rate: in Hz, of the model.
        length: samples.
        centre: seconds, at the rate that is assumed.
        assume_rate: a slower file is not resampled but taken as if it were at ``rate``.
        repeat: a sound shorter than a segment is repeated: before a fast file is resampled where the rate of slow ones
            is assumed, otherwise after.

    Raises:
        DataError: the file cannot be read, is empty, or ends before the segment begins.
    """
    segment = np.zeros(length, dtype=np.float32)
    if str(path).endswith("silent"):
        return segment
    sound, own_rate = _read_whole(path)
    if assume_rate and repeat:
        sound = _repeated(sound, own_rate * (length / rate))
    if own_rate > rate or not assume_rate:
        sound = resample(sound[None], own_rate, rate)[0]
    if repeat and not assume_rate:
        sound = _repeated(sound, length)
    middle, half = int(centre * rate), length // 2
    start, end = max(0, middle - half), min(len(sound), middle + half)
    if start > len(sound):
        raise DataError(
            f"The sound {str(path)!r} ends at {len(sound) / rate:.2f} s, before its segment around "
            f"{centre:.2f} s begins; check the frame count in its list."
        )
    segment[half - (middle - start) : half + (end - middle)] = sound[start:end]
    return segment.clip(-1.0, 1.0)


def _repeated(sound: np.ndarray, samples: float) -> np.ndarray:
    return np.tile(sound, int(samples / len(sound)) + 1) if len(sound) < samples else sound


def seconds(path: Path, slowest: int = 1) -> float:
    """Duration of a sound file, remembered as long as the file stays as it is.

    Args:
        path: a sound file, or a video whose sound it is.
        slowest: rate in Hz that a file with a lower one is taken to have (:func:`published_segment`).

    Raises:
        DataError: the file cannot be read, is empty, or is shorter than its header says.
    """
    header = _header(path)
    return header.samples / max(header.rate, slowest)


def clip_seconds(clip: Clip, slowest: int = 1) -> float:
    """Duration of a clip within its file, by :func:`seconds`.

    Raises:
        DataError: as :func:`seconds`, and where the file ends before the clip begins.
    """
    left = seconds(clip.audio, slowest) - clip.start
    if left <= 0:
        raise DataError(
            f"The sound {str(clip.audio)!r} ends at {left + clip.start:.2f} s, before clip {clip.id!r} begins at "
            f"{clip.start:.2f} s; remove its row."
        )
    return left if clip.duration is None else min(left, clip.duration)


def _header(path: Path) -> _Header:
    with _reading(path):
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe or device would be read for ever
            raise OSError(errno.EINVAL, "it is no file")
        return _read_header(path, found.st_mtime_ns, found.st_size)


@functools.lru_cache(_FILES_KNOWN)
def _read_header(path: Path, changed: int, size: int) -> _Header:
    """Read the header of a file as it was at a time and with a size in bytes."""
    if path.suffix.lower() in _SOUND_FILES:
        with soundfile.SoundFile(path) as file:
            header = _Header(file.frames, file.samplerate, file.subtype == "PCM_16")
    else:
        source = open_audio(path)
        duration = source.duration
        if duration is None:
            duration = sum(block.shape[1] for block in source.blocks(source.rate)) / source.rate
        header = _Header(round(duration * source.rate), source.rate, False)
    if header.samples == 0:
        raise DataError(f"The sound {str(path)!r} is empty; remove its row.")
    if is_short_riff(path):
        raise DataError(f"The sound {str(path)!r} is shorter than its header says; replace it or remove its row.")
    return header


def _decode(path: Path, start: float, wanted: float) -> tuple[np.ndarray, int]:
    """Mono float32 (n,) from ``start`` on, as many samples as ``wanted`` seconds need, and the rate in Hz."""
    header = _header(path)
    with _reading(path):
        if path.suffix.lower() not in _SOUND_FILES:
            if start >= header.samples / header.rate:
                return np.zeros(0, np.float32), header.rate
            sound, own_rate = read_excerpt(path, start, wanted + 1 / header.rate)
            return sound.mean(axis=0), own_rate
        with soundfile.SoundFile(path) as file:
            place = file.seek(min(int(start * file.samplerate), file.frames))
            count = math.ceil(wanted * file.samplerate) + 1
            if header.integers:  # libsndfile converts them slowly, to the same floats
                rows = file.read(count, dtype="int16", always_2d=True) * np.float32(2**-15)
            else:
                rows = file.read(count, dtype="float32", always_2d=True)
            if len(rows) < min(count, header.samples - place):
                raise DataError(f"The sound {str(path)!r} is cut off; replace it or remove its row.")
            return (rows[:, 0] if rows.shape[1] == 1 else rows.mean(axis=1)), file.samplerate


def _read_whole(path: Path) -> tuple[np.ndarray, int]:
    header = _header(path)
    with _reading(path):
        if path.suffix.lower() in _SOUND_FILES:
            sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
            return sound.mean(axis=1), rate
        channels, rate = read_excerpt(path, 0.0, header.samples / header.rate)
        return channels.mean(axis=0), rate


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, soundfile.SoundFileError, MediaError) as error:
        why = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise DataError(f"The sound {str(path)!r} cannot be read ({why}); check it or remove its row.") from error
