"""One clip of two instruments side by side: a mixture whose true sources and boxes are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from avsep_zoo.errors import DataError
from avsep_zoo.synth.clip import generator, play_recording, play_soundfont
from avsep_zoo.synth.files import write_mp4, write_text, write_wav
from avsep_zoo.synth.instruments import INSTRUMENTS
from avsep_zoo.synth.scene import FPS, SIDE, Actor, Player, render_scene
from avsep_zoo.synth.solos import list_solos
from avsep_zoo.synth.soundfont import FLUID_R3, find_soundfont

__all__ = ["write_duet"]


def _perform(class_name: str, source: Path | None, seed: int, seconds: float) -> tuple[np.ndarray, Player]:
    room = generator(seed, "duet", "room", class_name)
    if source is not None and source.is_dir():
        tests = [s for s in list_solos(source) if s.class_name == class_name and s.split == "test"]
        if not tests:
            raise DataError(f"solos folder {source} has no test recording of {class_name}: name another source")
        source = tests[int(room.integers(len(tests)))].path
    if source is not None and source.suffix.lower() not in (".sf2", ".sf3"):
        return play_recording(source, seconds, room)
    if class_name not in INSTRUMENTS or not INSTRUMENTS[class_name].voices:
        raise DataError(f"class {class_name!r} has no General MIDI program: name a recording or a solos folder")
    melody = generator(seed, "melody", f"test/duet/{class_name}")
    return play_soundfont(class_name, source or find_soundfont(FLUID_R3), seconds, melody, room)


def write_duet(
    out: Path,
    classes: tuple[str, str],
    *,
    seed: int = 0,
    sources: tuple[Path | None, Path | None] = (None, None),
    seconds: float = 6.0,
) -> Path:
    """Write ``mixture.mp4``, ``<class>.wav`` for both instruments and ``boxes.json`` into ``out``.

    Each source is a soundfont that plays a test melody (None: FluidR3_GM), a recording, or a solos folder of
    which a test recording of the class is taken. The sources are equally loud and the mixture is their sum,
    peak -1 dBFS. ``boxes.json`` maps each class to rows [seconds, x1, y1, x2, y2] in pixels of the 384 x 192
    picture, one per video frame. Returns the path of the mixture. Raises DataError for classes and sources
    that do not fit together, and MediaError for a recording that cannot be used.
    """
    if classes[0] == classes[1]:
        raise DataError(f"both instruments are {classes[0]}: name two different classes")
    played = [_perform(c, source, seed, seconds) for c, source in zip(classes, sources, strict=True)]
    sounds = np.stack([sound / np.sqrt(np.mean(sound**2)) for sound, _ in played])  # [2, samples]
    loudest = float(np.abs(sounds.sum(axis=0)).max())
    sounds = (sounds * 10 ** (-1 / 20) / loudest).astype(np.float32)
    actors = [Actor(classes[i], played[i][1], left=i / 2, right=(i + 1) / 2) for i in range(2)]
    look = generator(seed, "duet", "look", *classes)
    video, boxes = render_scene(look, actors, round(seconds * FPS), width=2 * SIDE)
    for name, sound in zip(classes, sounds, strict=True):
        write_wav(out / f"{name}.wav", sound)
    listed = {
        name: [[(frame + 0.5) / FPS, *map(float, box)] for frame, box in enumerate(boxes[:, i])]
        for i, name in enumerate(classes)
    }
    write_text(out / "boxes.json", json.dumps(listed) + "\n")
    write_mp4(out / "mixture.mp4", video, sounds.sum(axis=0))
    return out / "mixture.mp4"
