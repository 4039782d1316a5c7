"""One ensemble: two players side by side among props, the sound of both together and of each alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avsep_zoo.synth.clip import SECONDS, generator, play_recording, play_soundfont
from avsep_zoo.synth.files import clip_done, write_scene, write_wav
from avsep_zoo.synth.props import PROPS, place_props
from avsep_zoo.synth.room import set_peak
from avsep_zoo.synth.scene import FPS, SIDE, Actor, Player, stage_scene

__all__ = ["Ensemble", "Part", "ensemble_done", "make_ensemble"]

_GAIN = 3.0  # decibels either way


@dataclass(frozen=True)
class Part:
    """What one player plays: the class, its number for a detector, a soundfont or recording, and a melody."""

    class_name: str
    detector_id: int
    source: Path
    melody: str | None  # name of the melody; None: the source is a recording


@dataclass(frozen=True)
class Ensemble:
    """Everything that decides an ensemble, so that it comes out the same whoever makes it, in whatever order."""

    seed: int
    id: str
    index: str  # the index file it is listed in, without .csv
    parts: tuple[Part, Part]  # left and right player
    first_prop: int  # number of the first kind of prop for a detector

    @property
    def classes(self) -> tuple[str, str]:
        """Both classes in alphabetical order."""
        first, second = sorted(part.class_name for part in self.parts)
        return first, second

    @property
    def folder(self) -> str:
        """Name of the folders of its files, e.g. ``cello+piano``."""
        return "+".join(self.classes)


def ensemble_done(ensemble: Ensemble, out: Path) -> bool:
    """Whether every file of an ensemble is there."""
    stems = (out / "audio" / name / f"{ensemble.id}.wav" for name in ensemble.classes)
    return all(stem.exists() for stem in stems) and clip_done(out, ensemble.folder, ensemble.id)


def _play(ensemble: Ensemble, part: Part) -> tuple[np.ndarray, Player]:
    room = generator(ensemble.seed, "ensemble", "room", ensemble.id, part.class_name)
    if part.melody is None:
        return play_recording(part.source, SECONDS, room)
    melody = generator(ensemble.seed, "melody", part.melody)
    return play_soundfont(part.class_name, part.source, SECONDS, melody, room)


def _balance(rng: np.random.Generator, sounds: list[np.ndarray]) -> np.ndarray:
    """Sounds as they are in their sum: [2, samples]; equally loud but for up to 3 dB either way, peak below -1 dBFS."""
    gains = 10 ** (rng.uniform(-_GAIN, _GAIN, len(sounds)) / 20)
    levels = [gain / np.sqrt(np.mean(sound**2)) for gain, sound in zip(gains, sounds, strict=True)]
    stems = np.stack([level * sound for level, sound in zip(levels, sounds, strict=True)])
    scaled = set_peak(np.stack((*stems, stems.sum(axis=0))), float(rng.uniform(1, 14)))
    return scaled[: len(sounds)].astype(np.float32)


def make_ensemble(ensemble: Ensemble, out: Path) -> None:
    """Make one ensemble and write its files; MediaError where a recording cannot be used."""
    played = [_play(ensemble, part) for part in ensemble.parts]
    stems = _balance(generator(ensemble.seed, "ensemble", "balance", ensemble.id), [sound for sound, _ in played])
    actors = [
        Actor(part.class_name, player, left=i / 2, right=(i + 1) / 2)
        for i, (part, (_, player)) in enumerate(zip(ensemble.parts, played, strict=True))
    ]
    look = generator(ensemble.seed, "ensemble", "look", ensemble.id)
    scene = stage_scene(look, actors, round(SECONDS * FPS), width=2 * SIDE)
    props = place_props(
        generator(ensemble.seed, "ensemble", "props", ensemble.id), scene.poses[FPS // 2 :: FPS], scene.width
    )
    video = scene.draw(
        behind=[prop.pose for prop in props if not prop.before], before=[prop.pose for prop in props if prop.before]
    )
    detections = [(part.detector_id, 1.0, scene.boxes[:, i]) for i, part in enumerate(ensemble.parts)]
    for prop in props:
        number = ensemble.first_prop + list(PROPS).index(prop.kind)
        still = np.broadcast_to(np.array(prop.box, np.float32), (len(video), 4))
        detections.append((number, prop.score, still))
    for part, stem in zip(ensemble.parts, stems, strict=True):
        write_wav(out / "audio" / part.class_name / f"{ensemble.id}.wav", stem)
    write_scene(out, ensemble.folder, ensemble.id, video, detections, stems.sum(axis=0))
