"""Recorded solos as a sound source: listed from DIR/<class>/*, given a split, read, note onsets found."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import soxr

from avsep_zoo.errors import DataError, MediaError

__all__ = ["Solo", "find_onsets", "list_solos", "read_solo"]

_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff", ".opus"})
_CLASS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Solo:
    """One recording: its class (folder name), its split, the name its clip gets, and where it lies."""

    class_name: str
    split: Literal["train", "val", "test"]
    id: str
    path: Path


def _split(class_name: str, stem: str) -> Literal["train", "val", "test"]:
    """The split the file name begins with (``train_`` ...), else one drawn from the name: 80/10/10 %."""
    splits: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")
    for split in splits:
        if stem.startswith(f"{split}_"):
            return split
    place = int.from_bytes(sha256(f"{class_name}/{stem}".encode()).digest()[:4]) % 10
    return "val" if place == 0 else "test" if place == 1 else "train"


def list_solos(root: Path) -> list[Solo]:
    """Every sound file of ``root/<class>/`` in order of class and name.

    Folder names become class names, so they must be letters, digits, ``_`` and ``-``; DataError otherwise and
    where nothing is found. A clip id is ``solo_`` and the file name with every other character as ``_``.
    """
    if not root.is_dir():
        raise DataError(f"solos folder {root} does not exist: name a folder that holds <class>/<recording> files")
    solos = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if folder.name.startswith("."):
            continue
        if not _CLASS.fullmatch(folder.name):
            raise DataError(f"solos folder name {folder.name!r} cannot be a class: use letters, digits, _ and - only")
        taken: set[str] = set()
        for path in sorted(folder.iterdir()):
            if not path.is_file() or path.suffix.lower() not in _SUFFIXES:
                continue
            name = re.sub(r"[^A-Za-z0-9_-]+", "_", path.stem)[:80] or "_"
            while name in taken:
                name += "_"
            taken.add(name)
            solos.append(Solo(folder.name, _split(folder.name, path.stem), f"solo_{name}", path))
    if not solos:
        raise DataError(f"solos folder {root} holds no sound file: expected <class>/<recording>.wav, .flac or .ogg")
    return solos


def read_solo(path: Path, seconds: float, rate: int) -> np.ndarray:
    """The loudest ``seconds`` of a recording, repeated if shorter: float32 [samples] mono at ``rate``.

    MediaError for a file that cannot be decoded, is silent, or holds values that are no numbers.
    """
    try:
        sound, own_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise MediaError(f"recording {path} cannot be decoded: {error}") from error
    mono = sound.mean(axis=1)
    if not np.all(np.isfinite(mono)) or not np.any(np.abs(mono) > 1e-4):
        raise MediaError(f"recording {path} is empty, silent or damaged: replace or remove it")
    if own_rate != rate:
        mono = soxr.resample(mono, own_rate, rate)
    length = round(seconds * rate)
    if len(mono) < length:
        return np.resize(mono, length).astype(np.float32)
    energy = np.concatenate(([0.0], np.cumsum(mono.astype(np.float64) ** 2)))
    starts = np.arange(0, len(mono) - length + 1, rate // 2)
    start = int(starts[np.argmax(np.round(energy[starts + length] - energy[starts], 6))])
    return mono[start : start + length].astype(np.float32)


def find_onsets(sound: np.ndarray, rate: int) -> list[tuple[float, float]]:
    """Note onsets as (seconds, strength 0..1), from the spectral flux of log magnitudes.

    A peak counts where it exceeds the mean of half a second around it, at most one in 80 ms (Bello et al.,
    2005, "A tutorial on onset detection in music signals", section III).
    """
    hop, size = rate // 100, 2048 * rate // 44100
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(sound, (size // 2, size // 2)), size)[::hop]
    magnitude = np.abs(np.fft.rfft(frames * np.hanning(size), axis=1))
    level = np.log1p(100 * magnitude / max(float(magnitude.max()), 1e-9))
    flux = np.maximum(np.diff(level, axis=0, prepend=level[:1] * 0), 0).sum(axis=1)
    local = np.convolve(flux, np.ones(51) / 51, "same")
    excess = flux - 1.3 * local - 0.02 * float(flux.max())
    onsets: list[tuple[float, float]] = []
    for i in np.flatnonzero(excess > 0):
        if flux[i] < flux[max(0, i - 4) : i + 5].max():
            continue
        if onsets and i * hop / rate - onsets[-1][0] < 0.08:
            continue
        onsets.append((i * hop / rate, float(flux[i] / flux.max())))
    return onsets
