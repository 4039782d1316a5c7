"""A whole data set: the clips of a plan made by one or more processes, the index files, and the manifest."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from avsep_zoo.errors import DataError, MediaError
from avsep_zoo.synth.clip import SECONDS, Recipe, make_clip
from avsep_zoo.synth.files import WAV_RATE, clip_done, write_text
from avsep_zoo.synth.index import write_index
from avsep_zoo.synth.instruments import INSTRUMENTS
from avsep_zoo.synth.plan import make_plan
from avsep_zoo.synth.scene import FPS, SIDE
from avsep_zoo.synth.soundfont import RATE, fluidsynth_version
from avsep_zoo.synth.sprites import find_font

__all__ = ["write_dataset"]

_MANIFEST = "synth.json"
_GENERATOR = 1  # raised whenever the same settings give other clips


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """Make sure that OUT is empty or holds a data set of the same settings."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file: name a folder for the data set")
    manifest = out / _MANIFEST
    present = [path.name for path in out.iterdir()] if out.is_dir() else []
    if present and not manifest.is_file():
        raise DataError(f"folder {out} is not empty and holds no {_MANIFEST}: name an empty folder")
    if present not in ([], [_MANIFEST]):  # a lone manifest is left by a run that failed before its first clip
        try:
            found = json.loads(manifest.read_text(encoding="utf-8"))["settings"]
            changed = sorted(key for key in {*found, *settings} if found.get(key) != settings.get(key))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"manifest {manifest} is damaged: name an empty folder") from error
        if changed:
            raise DataError(
                f"folder {out} holds a data set made with other settings ({', '.join(changed)}): "
                f"name an empty folder or repeat the settings in its {_MANIFEST}"
            )


def _attempt(recipe: Recipe, out: Path) -> str | None:
    """Make a clip unless it is there; the reason in words where its recording cannot be used."""
    if clip_done(out, recipe.class_name, recipe.id):
        return None
    try:
        make_clip(recipe, out)
    except MediaError as error:
        return str(error)
    except OSError as error:
        raise DataError(f"clip {recipe.id} cannot be written: {error}; finished clips are kept") from error
    return None


def _attempt_all(recipes: Sequence[Recipe], out: Path, workers: int) -> Iterator[str | None]:
    work = partial(_attempt, out=out)
    if workers == 1:
        yield from map(work, recipes)
        return
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield from pool.map(work, recipes, chunksize=4)
    except BrokenProcessPool as error:
        raise DataError("a worker process was killed: use fewer workers; finished clips are kept") from error
    finally:
        pool.shutdown(cancel_futures=True)


def write_dataset(
    out: Path,
    *,
    clips: int,
    seed: int = 0,
    solos: Path | None = None,
    soundfonts: Sequence[Path] | None = None,
    timbre_soundfont: Path | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a data set of solo clips in the MUSIC layout and return its manifest ``out/synth.json``.

    ``clips`` is the number of soundfont clips over all splits (0, or at least 8), balanced over the classes;
    every recording of ``solos/<class>/`` becomes one more clip. ``soundfonts`` (default: FluidR3_GM) play
    train, val and test; ``timbre_soundfont`` (default: TimGM6mb) the test melodies again, as ``test_timbre``.
    Finished clips of an earlier run with the same settings are kept; unusable recordings are left out and
    named in the manifest. The files depend on the settings only, not on ``workers`` (processes; a script with
    more than one needs the usual ``if __name__ == "__main__"``). ``progress`` is called with (done, total).

    Raises DataError for settings, soundfonts, fonts or folders that cannot be used.
    """
    if workers < 1:
        raise DataError(f"workers is {workers}: use 1 or more")
    plan = make_plan(clips=clips, seed=seed, solos=solos, soundfonts=soundfonts, timbre_soundfont=timbre_soundfont)
    versions = {name: version(name) for name in ("av", "numpy", "pillow", "scipy", "soxr")}
    if clips:
        versions["fluidsynth"] = fluidsynth_version()
    if any(name in INSTRUMENTS and INSTRUMENTS[name].emoji for name in {r.class_name for r in plan.recipes}):
        find_font()
    settings = {"generator": _GENERATOR, "clips": clips, "seed": seed, "sources": list(plan.sources)}
    _claim(out, settings)
    manifest: dict[str, Any] = {
        "settings": settings,
        "complete": False,
        "classes": plan.classes,
        "generic_picture": plan.unknown,
        "clip": {"seconds": SECONDS, "fps": FPS, "side": SIDE, "mp4_rate": RATE, "wav_rate": WAV_RATE},
        "versions": versions,
    }
    _write_manifest(out, manifest)
    made, skipped = [], []
    for recipe, reason in zip(plan.recipes, _attempt_all(plan.recipes, out, workers), strict=True):
        if reason is None:
            made.append(recipe)
        else:
            skipped.append({"recording": f"{recipe.class_name}/{recipe.source.name}", "reason": reason})
        if progress is not None:
            progress(len(made) + len(skipped), len(plan.recipes))
    rows = write_index(out, seed, made)
    _write_manifest(out, manifest | {"complete": True, "rows": rows, "skipped": skipped})
    return out / _MANIFEST


def _write_manifest(out: Path, manifest: dict[str, Any]) -> None:
    write_text(out / _MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
