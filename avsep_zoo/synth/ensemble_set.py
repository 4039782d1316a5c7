"""A whole data set of ensembles: which ones, made by one or more processes, the index files, and the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

from avsep_zoo.errors import DataError
from avsep_zoo.synth.clip import SECONDS, generator
from avsep_zoo.synth.ensemble import Ensemble, Part, ensemble_done, make_ensemble
from avsep_zoo.synth.files import WAV_RATE, write_text
from avsep_zoo.synth.folder import GENERATOR, MANIFEST, Progress, claim, fill, write_manifest
from avsep_zoo.synth.instruments import INSTRUMENTS, playable
from avsep_zoo.synth.plan import check_solos, check_soundfonts
from avsep_zoo.synth.props import PROPS
from avsep_zoo.synth.scene import FPS, SIDE
from avsep_zoo.synth.solos import Solo, list_solos
from avsep_zoo.synth.soundfont import FLUID_R3, RATE, find_soundfont, fluidsynth_version
from avsep_zoo.synth.sprites import find_font

__all__ = ["plan_ensembles", "write_ensembles"]

_SPLITS = "train, val"

_Recordings = Mapping[str, Sequence[Path]]
"""Recordings of every class."""


def _part(
    ensemble: str, class_name: str, seed: int, fonts: Sequence[Path], recordings: _Recordings, number: int
) -> Part:
    rng = generator(seed, "ensemble", "source", ensemble, class_name)
    own = recordings.get(class_name, ())
    if own and (class_name not in playable() or rng.random() < 0.5):
        return Part(class_name, number, own[int(rng.integers(len(own)))], melody=None)
    return Part(class_name, number, fonts[int(rng.integers(len(fonts)))], melody=f"{ensemble}/{class_name}")


def plan_ensembles(
    ensembles: int, seed: int, fonts: Sequence[Path], solos: Sequence[Solo], classes: Sequence[str]
) -> Iterator[Ensemble]:
    """The ensembles of both splits: every pair of classes is as frequent as the others, sides are drawn.

    ``classes`` are those of a detector, so that position + 1 is the number of a class, and props follow after them.
    """
    val = max(2, round(0.08 * ensembles))
    for index, count in (("train", ensembles - val), ("val", val)):
        recordings: dict[str, list[Path]] = {}
        for solo in solos:
            if solo.split == index:
                recordings.setdefault(solo.class_name, []).append(solo.path)
        pairs = list(combinations([name for name in classes if name in recordings or name in playable()], 2))
        for number in range(count):
            if number % len(pairs) == 0:
                order = generator(seed, "ensemble", "pairs", index, number).permutation(len(pairs))
            pair = list(pairs[int(order[number % len(pairs)])])
            if generator(seed, "ensemble", "sides", index, number).random() < 0.5:
                pair.reverse()
            melody = f"ensemble/{index}/{number}"
            first, second = (
                _part(melody, name, seed, fonts, recordings, number=classes.index(name) + 1) for name in pair
            )
            yield Ensemble(seed, f"ensemble_{index}_{number:05d}", index, (first, second), len(classes) + 1)


def _write_index(out: Path, made: Sequence[Ensemble]) -> dict[str, int]:
    """Write ``train.csv`` and ``val.csv``: of every ensemble the duet and both stems; and lists of a part of them.

    ``*_duets.csv`` are the duets; ``*_half.csv`` both stems of every second ensemble, and ``*_semi.csv`` these and the
    duets of the others. Return the number of rows of each.
    """
    lists: dict[str, list[str]] = {}
    for one in made:
        pictures = f"/{one.folder}/{one.id}.mp4,{int(SECONDS)}"
        rows = [f"/{folder}/{one.id}.wav,{pictures}\n" for folder in (one.folder, *one.classes)]
        lists.setdefault(one.index, []).extend(rows)
        duets = lists.setdefault(f"{one.index}_duets", [])
        solos = rows[1:] if len(duets) % 2 == 0 else []
        duets.append(rows[0])
        lists.setdefault(f"{one.index}_half", []).extend(solos)
        lists.setdefault(f"{one.index}_semi", []).extend(solos or rows[:1])
    for index, rows in lists.items():
        write_text(out / f"{index}.csv", "".join(rows))
    return {index: len(rows) for index, rows in lists.items()}


def write_ensembles(
    out: Path,
    *,
    ensembles: int,
    seed: int = 0,
    solos: Path | None = None,
    soundfonts: Sequence[Path] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Write a data set of ensembles in the MUSIC layout and return its manifest ``out/synth.json``.

    An ensemble is two players of different classes side by side among props: things that make no sound and overlap
    a player in the picture. It is listed three times, with the same pictures: the duet (``/cello+piano/ID.wav``) and
    what each player contributes to it (``/cello/ID.wav``, ``/piano/ID.wav``); ``train_duets`` and ``val_duets`` list
    the duets alone, to learn from without any solo; ``train_half`` and ``val_half`` what the players of every second
    ensemble contribute, ``train_semi`` and ``val_semi`` these and the duets of the others, to learn from few solos. Of
    ``ensembles`` (at least 3) 8 %, and at least two, are the split
    ``val``; there is no test split. ``soundfonts`` (default: FluidR3_GM) play melodies; where ``solos/<class>/`` has
    recordings of the split, every second player of the class plays one of those. The boxes of players (score 1) and
    props (score 0.3 to 1) are the detections; ``classes`` of the manifest names the detector's classes from 1 on,
    ``props`` those of them that make no sound. Otherwise as ``write_dataset``.

    Raises DataError for settings, soundfonts, fonts or folders that cannot be used.
    """
    if workers < 1:
        raise DataError(f"workers is {workers}: use 1 or more")
    if ensembles < 3:
        raise DataError(f"ensembles is {ensembles}: use at least 3, two of which are for validation")
    fonts = list(soundfonts) if soundfonts else [find_soundfont(FLUID_R3)]
    sources = check_soundfonts([(path, _SPLITS) for path in fonts])
    recordings = list_solos(solos) if solos is not None else []
    if solos is not None:
        sources.append(check_solos(solos, recordings, _SPLITS))
    unknown = sorted({solo.class_name for solo in recordings} - set(INSTRUMENTS))
    if set(unknown) & set(PROPS):
        raise DataError(
            f"solos folder {solos} has the class {min(set(unknown) & set(PROPS))!r}, which is a prop: rename it"
        )
    classes = (*INSTRUMENTS, *unknown)
    find_font()
    versions = {name: version(name) for name in ("av", "numpy", "pillow", "scipy", "soxr")}
    settings = {"generator": GENERATOR, "ensembles": ensembles, "seed": seed, "sources": sources}
    claim(out, settings)
    manifest: dict[str, Any] = {
        "settings": settings,
        "complete": False,
        "classes": [*classes, *PROPS],
        "props": list(PROPS),
        "generic_picture": unknown,
        "clip": {
            "seconds": SECONDS,
            "fps": FPS,
            "width": 2 * SIDE,
            "height": SIDE,
            "mp4_rate": RATE,
            "wav_rate": WAV_RATE,
        },
        "versions": versions | {"fluidsynth": fluidsynth_version()},
    }
    write_manifest(out, manifest)
    plan = list(plan_ensembles(ensembles, seed, fonts, recordings, classes))
    made, failed = fill(out, plan, make_ensemble, ensemble_done, workers=workers, progress=progress)
    skipped = [{"ensemble": f"{one.folder}/{one.id}", "reason": reason} for one, reason in failed]
    rows = _write_index(out, made)
    write_manifest(out, manifest | {"complete": True, "rows": rows, "skipped": skipped})
    return out / MANIFEST
