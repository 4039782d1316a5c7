"""One clip from its recipe: its sound, how it is played, and the picture that moves with it."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from avsep_zoo.errors import DataError
from avsep_zoo.synth.files import write_clip
from avsep_zoo.synth.instruments import INSTRUMENTS
from avsep_zoo.synth.room import record, set_peak
from avsep_zoo.synth.scene import FPS, Actor, Player, render_scene
from avsep_zoo.synth.score import compose_score
from avsep_zoo.synth.solos import find_onsets, read_solo
from avsep_zoo.synth.soundfont import RATE, render_score

__all__ = ["SECONDS", "Recipe", "generator", "make_clip", "play_recording", "play_soundfont"]

SECONDS = 10.0
"""Length of every clip."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a clip, so that it comes out the same whoever makes it, in whatever order."""

    seed: int
    class_name: str
    detector_id: int
    id: str
    index: str  # the index file it is listed in, without .csv
    source: Path  # a soundfont or a recording
    melody: str | None  # name of the melody; None: the source is a recording


def generator(*names: object) -> np.random.Generator:
    """A random generator that depends on the names and on nothing else."""
    digest = sha256("/".join(map(str, names)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _loudness(sound: np.ndarray, frames: int) -> np.ndarray:
    size = RATE // FPS
    padded = np.zeros(frames * size)
    padded[: len(sound)] = sound[: frames * size]
    level = np.sqrt(np.mean(padded.reshape(frames, size) ** 2, axis=1))
    return level / max(float(level.max()), 1e-9)


def play_soundfont(
    class_name: str, soundfont: Path, seconds: float, melody: np.random.Generator, room: np.random.Generator
) -> tuple[np.ndarray, Player]:
    """A random melody on a General MIDI instrument: float32 [samples] at 44.1 kHz, and who plays it.

    DataError for a soundfont that cannot be loaded, lacks the program or gives no sound.
    """
    for _ in range(8):  # a soundfont may have no sample for an extreme note: another melody then
        score = compose_score(melody, INSTRUMENTS[class_name], seconds)
        dry = render_score(score, soundfont, seconds, chorus=bool(room.random() < 0.2))
        if float(np.sqrt(np.mean(dry**2))) > 1e-4:
            break
    else:
        raise DataError(f"soundfont {soundfont} is silent for {class_name}: use a General MIDI soundfont")
    sound = record(room, dry, RATE)
    onsets = [(note.start, note.velocity / 127) for note in score.notes]
    return sound, Player(onsets, _loudness(sound, round(seconds * FPS)))


def play_recording(path: Path, seconds: float, room: np.random.Generator) -> tuple[np.ndarray, Player]:
    """A recorded solo at a random level: float32 [samples] at 44.1 kHz, and who plays it."""
    sound = read_solo(path, seconds, RATE)
    sound = set_peak(sound, float(room.uniform(1, 14))).astype(np.float32)
    return sound, Player(find_onsets(sound, RATE), _loudness(sound, round(seconds * FPS)))


def make_clip(recipe: Recipe, out: Path) -> None:
    """Make one clip and write its files; MediaError where a recording cannot be used."""
    room = generator(recipe.seed, "room", recipe.class_name, recipe.id)
    if recipe.melody is None:
        sound, player = play_recording(recipe.source, SECONDS, room)
    else:
        melody = generator(recipe.seed, "melody", recipe.melody)
        sound, player = play_soundfont(recipe.class_name, recipe.source, SECONDS, melody, room)
    look = generator(recipe.seed, "look", recipe.class_name, recipe.id)
    video, boxes = render_scene(look, [Actor(recipe.class_name, player)], round(SECONDS * FPS))
    write_clip(out, recipe.class_name, recipe.detector_id, recipe.id, video, boxes[:, 0], sound)
