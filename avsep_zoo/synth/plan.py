"""Which clips a data set consists of, and the sound sources they are made from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from avsep_zoo.errors import DataError
from avsep_zoo.synth.clip import Recipe, generator
from avsep_zoo.synth.instruments import INSTRUMENTS, playable
from avsep_zoo.synth.solos import Solo, list_solos
from avsep_zoo.synth.soundfont import FLUID_R3, LICENCES, TIM_GM, check_soundfont, find_soundfont

__all__ = ["Plan", "check_solos", "check_soundfonts", "make_plan"]


@dataclass(frozen=True)
class Plan:
    """The recipes of all clips, the class list (position + 1 = detector class), and the sources of sound."""

    recipes: tuple[Recipe, ...]
    classes: tuple[str, ...]
    unknown: tuple[str, ...]  # classes outside the table: one generic picture
    sources: tuple[dict[str, str], ...]  # name, sha256, licence and use, for the manifest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shares(clips: int) -> dict[str, int]:
    """Clips per index file: 72 % train, 8 % val, 10 % test, 10 % cross-timbre test, at least two per test."""
    val, test = max(1, round(0.08 * clips)), max(2, round(0.1 * clips))
    return {"train": clips - val - 2 * test, "val": val, "test": test, "test_timbre": test}


def _from_soundfonts(seed: int, clips: int, soundfonts: Sequence[Path], timbre: Path) -> Iterator[Recipe]:
    names, classes = playable(), list(INSTRUMENTS)
    shares = _shares(clips)
    first = {"train": 0, "val": shares["train"], "test": 0, "test_timbre": 0}  # val goes on where train stops
    for index, count in shares.items():
        split = "test" if index == "test_timbre" else index  # the same melodies in another timbre
        for number in range(count):
            name = names[(first[index] + number) % len(names)]
            source = soundfonts[int(generator(seed, "soundfont", index, number).integers(len(soundfonts)))]
            if index == "test_timbre":
                source = timbre
            prefix = re.sub(r"[^a-z0-9]+", "", source.stem.lower())
            clip = f"{prefix}_{index.removeprefix('test_')}_{number:05d}"
            detector_id = classes.index(name) + 1
            yield Recipe(seed, name, detector_id, clip, index, source, melody=f"{split}/{number}")


def _from_solos(seed: int, solos: Sequence[Solo], classes: Sequence[str]) -> Iterator[Recipe]:
    for solo in solos:
        index = "test_recorded" if solo.split == "test" else solo.split
        detector_id = classes.index(solo.class_name) + 1
        yield Recipe(seed, solo.class_name, detector_id, solo.id, index, solo.path, melody=None)


def check_soundfonts(uses: Sequence[tuple[Path, str]]) -> list[dict[str, str]]:
    """Entries of a manifest for soundfonts and what each is used for; DataError for a file that is none."""
    stated = "not known to the generator: see the soundfont"
    listed = []
    for path, use in uses:
        check_soundfont(path)
        licence = LICENCES.get(path.name, stated)
        listed.append({"name": path.name, "sha256": _digest(path), "licence": licence, "used_for": use})
    return listed


def check_solos(root: Path, solos: Sequence[Solo], use: str) -> dict[str, str]:
    """Entry of a manifest for a folder of recorded solos; DataError for a recording that cannot be read."""
    whole = hashlib.sha256()
    for solo in solos:
        try:
            content = _digest(solo.path)
        except OSError as error:
            raise DataError(f"recording {solo.path} cannot be read: {error.strerror}; remove it") from error
        whole.update(f"{solo.class_name}/{solo.path.name} {content}\n".encode())
    note = next((root / name for name in ("LICENSE", "LICENCE", "README.md") if (root / name).is_file()), None)
    licence = note.read_text(errors="replace")[:2000] if note else "not stated by the folder"
    return {"name": "solos", "sha256": whole.hexdigest(), "licence": licence, "used_for": use}


def make_plan(
    *,
    clips: int,
    seed: int,
    solos: Path | None,
    soundfonts: Sequence[Path] | None,
    timbre_soundfont: Path | None,
) -> Plan:
    """Decide every clip of a data set, arguments as in ``write_dataset``.

    DataError for settings that make no data set and for sound sources that are missing.
    """
    if clips < 0 or 0 < clips < 8:
        raise DataError(f"clips is {clips}: use at least 8, so that every split has some, or 0 for solos only")
    if clips == 0 and solos is None:
        raise DataError("clips is 0 and there are no solos: give a number of clips, a folder of solos, or both")
    recipes: list[Recipe] = []
    sources: list[dict[str, str]] = []
    if clips:
        fonts = list(soundfonts) if soundfonts else [find_soundfont(FLUID_R3)]
        timbre = timbre_soundfont or find_soundfont(TIM_GM)
        if timbre in fonts:
            raise DataError(f"soundfont {timbre} is given for training and for the cross-timbre test: use two")
        sources += check_soundfonts([*((path, "train, val, test") for path in fonts), (timbre, "test_timbre")])
        recipes += _from_soundfonts(seed, clips, fonts, timbre)
    recordings = list_solos(solos) if solos is not None else []
    unknown = sorted({solo.class_name for solo in recordings} - set(INSTRUMENTS))
    classes = (*INSTRUMENTS, *unknown)
    if solos is not None:
        sources.append(check_solos(solos, recordings, "train, val, test_recorded"))
        recipes += _from_solos(seed, recordings, classes)
    return Plan(tuple(recipes), classes, tuple(unknown), tuple(sources))
