"""Rendering a score with a sampled soundfont through libfluidsynth, without an audio device."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from avsep_zoo.errors import DataError
from avsep_zoo.synth.score import Note, Score

__all__ = [
    "FLUID_R3",
    "LICENCES",
    "RATE",
    "TIM_GM",
    "check_soundfont",
    "find_soundfont",
    "fluidsynth_version",
    "render_score",
]

RATE = 44100
"""Samples per second of every rendered sound."""

_TICK = 256  # samples between two looks at the score: 5.8 ms
_BEND_RANGE = 12  # semitones either way
_FOLDERS = (Path("/usr/share/sounds/sf2"), Path("/usr/share/soundfonts"), Path("/usr/local/share/soundfonts"))

FLUID_R3 = "FluidR3_GM.sf2"
TIM_GM = "TimGM6mb.sf2"
LICENCES = {
    FLUID_R3: "MIT (Frank Wen; package fluid-soundfont-gm)",
    TIM_GM: "GPL-2 (Tim Brechbill; package timgm6mb-soundfont)",
    "MuseScore_General_Full.sf2": "MIT (S. Christian Collins; package musescore-general-soundfont-lossless)",
}
"""Licences of the known soundfonts by file name, with author and Debian package."""

_PACKAGES = {FLUID_R3: "fluid-soundfont-gm", TIM_GM: "timgm6mb-soundfont"}


def find_soundfont(name: str) -> Path:
    """Path of one of the two standard soundfonts; DataError naming its Debian package if it is missing."""
    for folder in _FOLDERS:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"soundfont {name} is not installed: run `apt-get install {_PACKAGES[name]}` or name a .sf2 file")


def check_soundfont(path: Path) -> None:
    """DataError unless the file is there and begins as a SoundFont 2 file does."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise DataError(f"soundfont {path} cannot be read ({error.strerror}): name a .sf2 file") from error
    if head[:4] != b"RIFF" or head[8:] != b"sfbk":
        raise DataError(f"soundfont {path} is no SoundFont 2 file: name a .sf2 file")


@functools.cache
def _fluidsynth() -> ModuleType:
    """The pyfluidsynth module; DataError where the module or the library behind it is missing."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it prints where it found its library when CI is set
            import fluidsynth
    except ModuleNotFoundError as error:
        raise DataError("soundfonts need the module pyfluidsynth: run: pip install pyfluidsynth") from error
    except (ImportError, OSError, AttributeError) as error:
        raise DataError("soundfonts need the FluidSynth library: run `apt-get install libfluidsynth3`") from error
    return fluidsynth


@functools.cache
def _write_float() -> Any:
    """``fluid_synth_write_float``: pyfluidsynth itself offers only dithered 16-bit samples."""
    fs = _fluidsynth()
    c_int, c_void_p = ctypes.c_int, ctypes.c_void_p
    return fs.cfunc(
        "fluid_synth_write_float", c_int,
        ("synth", c_void_p, 1), ("len", c_int, 1),
        ("lout", c_void_p, 1), ("loff", c_int, 1), ("lincr", c_int, 1),
        ("rout", c_void_p, 1), ("roff", c_int, 1), ("rincr", c_int, 1),
    )  # fmt: skip


def fluidsynth_version() -> str:
    """Version of the FluidSynth library in use, e.g. ``2.3.1``."""
    fs = _fluidsynth()
    numbers = [ctypes.c_int() for _ in range(3)]
    fs.cfunc("fluid_version", None, *((f"n{i}", ctypes.c_void_p, 1) for i in range(3)))(
        *(ctypes.addressof(number) for number in numbers)
    )
    return ".".join(str(number.value) for number in numbers)


@functools.cache
def _keep_loaded(path: Path) -> Any:
    """A silent synthesiser that keeps the samples of a soundfont in memory for the life of the process."""
    return _open(path, chorus=False)


def _open(path: Path, chorus: bool) -> tuple[Any, int]:
    """A fresh synthesiser, so that no state leaks from clip to clip, and the number of its soundfont."""
    synth = _fluidsynth().Synth(
        gain=0.5, samplerate=float(RATE), channels=16,
        **{"synth.reverb.active": 0, "synth.chorus.active": int(chorus), "synth.cpu-cores": 1},
    )  # fmt: skip
    number = synth.sfload(str(path))
    if number < 0:
        synth.delete()
        raise DataError(f"soundfont {path} cannot be loaded: name a readable .sf2 file")
    return synth, number


def _expression(score: Score, times: np.ndarray) -> np.ndarray:
    if not score.swells:
        return np.full(times.shape, 127)
    at, level = zip(*score.swells, strict=True)
    return np.round(127 * np.interp(times, at, level)).astype(int)


def _bends(score: Score, times: np.ndarray) -> np.ndarray:
    """Pitch-wheel value (-8192..8191) at every tick: tuning, vibrato of long notes, and slides into notes."""
    cents = np.full(times.shape, score.tuning)
    for note in score.notes:
        since = times - note.start
        during = (since >= 0) & (since < note.duration)
        if note.glide:
            width = min(0.16, note.duration / 2)
            cents += note.glide * np.clip(1 - since / width, 0, 1) * during
        if score.vibrato is not None and note.duration > score.vibrato.delay + 0.15:
            ramp = np.clip((since - score.vibrato.delay) / 0.25, 0, 1) * during
            cents += score.vibrato.depth * ramp * np.sin(2 * np.pi * score.vibrato.rate * since)
    return np.clip(np.round(cents / (100 * _BEND_RANGE) * 8192), -8192, 8191).astype(int)


def _events(notes: tuple[Note, ...]) -> dict[int, list[tuple[int, int]]]:
    """tick -> (pitch, velocity) in order, velocity 0 = release; releases of a tick come first."""
    listed = []
    for note in notes:
        on = round(note.start * RATE / _TICK)
        off = max(on + 1, round((note.start + note.duration) * RATE / _TICK))
        listed += [(on, 1, note.pitch, note.velocity), (off, 0, note.pitch, 0)]
    events: dict[int, list[tuple[int, int]]] = {}
    for tick, _, pitch, velocity in sorted(listed):
        events.setdefault(tick, []).append((pitch, velocity))
    return events


def render_score(score: Score, soundfont: Path, seconds: float, *, chorus: bool = False) -> np.ndarray:
    """The sound of a score: float32 [samples] mono at 44.1 kHz, not normalised.

    DataError for a soundfont that cannot be loaded or lacks the program.
    """
    _keep_loaded(soundfont)
    synth, number = _open(soundfont, chorus)
    ticks = -(-round(seconds * RATE) // _TICK)
    times = np.arange(ticks) * (_TICK / RATE)
    bends, levels = _bends(score, times), _expression(score, times)
    events = _events(score.notes)
    out = np.zeros((2, ticks * _TICK), np.float32)
    left, right = (channel.ctypes.data for channel in out)
    write = _write_float()
    try:
        if synth.program_select(0, number, 0, score.voice.program) != 0:
            raise DataError(f"soundfont {soundfont} has no program {score.voice.program} in bank 0: use a GM soundfont")
        for controller, value in ((101, 0), (100, 0), (6, _BEND_RANGE), (38, 0)):
            synth.cc(0, controller, value)
        bend = level = None
        for tick in range(ticks):
            if bends[tick] != bend:
                bend = bends[tick]
                synth.pitch_bend(0, int(bend))
            if levels[tick] != level:
                level = levels[tick]
                synth.cc(0, 11, int(level))
            for pitch, velocity in events.get(tick, ()):
                synth.noteon(0, pitch, velocity) if velocity else synth.noteoff(0, pitch)
            write(synth.synth, _TICK, left, tick * _TICK, 1, right, tick * _TICK, 1)
    finally:
        synth.delete()
    return out.mean(axis=0)[: round(seconds * RATE)]
