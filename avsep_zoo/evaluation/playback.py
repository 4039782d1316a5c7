"""Sounds of an evaluation for a page: short FLAC files inside it, which every browser plays."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from avsep_zoo.errors import DataError
from avsep_zoo.page import data_uri

__all__ = ["playable"]

MOST_BYTES = 200_000  # of one sound; longer ones are cut
SECONDS = 60  # read at most


def playable(folder: Path, clip: Mapping[str, Any]) -> dict[str, Any]:
    """Read and encode the sounds of one mixture.

    Args:
        folder: where the files lie.
        clip: ``mixture``, the name of a file relative to ``folder``, and ``sources`` and ``estimates``, lists of
            such names.

    Returns:
        The same keys; each sound is a dict with ``uri``, ``seconds`` and ``cut`` (whether only its beginning is
        there), or with ``problem``, a sentence on why it cannot be played. ``gain_db`` is how much all of them
        were turned down alike so that none clips.

    Raises:
        DataError: a name leads out of the folder.
        ValueError: there is not one estimate per source.
    """
    if len(clip["sources"]) != len(clip["estimates"]):
        raise ValueError(f"{len(clip['sources'])} sources and {len(clip['estimates'])} estimates")
    names = [clip["mixture"], *clip["sources"], *clip["estimates"]]
    sounds = [_read(_inside(folder, name), name) for name in names]
    peak = max([1.0, *(float(np.abs(s[0]).max()) for s in sounds if not isinstance(s, str))])
    encoded = [{"problem": s} if isinstance(s, str) else _encode(s[0] / peak, s[1]) for s in sounds]
    split = 1 + len(clip["sources"])
    return {
        "mixture": encoded[0],
        "sources": encoded[1:split],
        "estimates": encoded[split:],
        "gain_db": -20 * math.log10(peak),
    }


def _inside(folder: Path, name: Any) -> Path:
    try:
        path = (folder / name).resolve()
        inside = path.is_relative_to(folder.resolve())
    except (TypeError, ValueError, OSError, RuntimeError):  # no name at all, a zero byte, a loop of links
        inside = False
    if not inside:
        raise DataError(f"The results name the sound {name!r}, which is not in {str(folder)!r}; evaluate again.")
    return path


def _read(path: Path, name: str) -> tuple[np.ndarray, int] | str:
    """The sound (samples, channels) and its rate, or why there is none."""
    if not path.is_file():
        return f"The file {name} is missing."
    try:
        with soundfile.SoundFile(path) as file:
            sound, rate = file.read(SECONDS * file.samplerate, dtype="float32", always_2d=True), file.samplerate
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        return f"The file {name} cannot be read ({error})."
    if len(sound) == 0:
        return f"The file {name} holds no sound."
    if sound.shape[1] > 2:
        sound = sound.mean(axis=1, keepdims=True)
    return np.nan_to_num(sound, posinf=0.0, neginf=0.0), rate


def _encode(sound: np.ndarray, rate: int) -> dict[str, Any]:
    content, samples = _flac(sound, rate), len(sound)
    while len(content) > MOST_BYTES and samples > 1:
        samples = max(1, min(samples - 1, int(0.98 * samples * MOST_BYTES / len(content))))
        content = _flac(sound[:samples], rate)
    cut = samples < len(sound)
    return {"uri": data_uri("audio/flac", content), "seconds": samples / rate, "cut": cut}


def _flac(sound: np.ndarray, rate: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()
