"""The folder of a data set while it is filled: claimed for its settings, filled by processes, its manifest."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from avsep_zoo.errors import DataError, MediaError
from avsep_zoo.synth.files import write_text

__all__ = ["GENERATOR", "MANIFEST", "Progress", "claim", "fill", "write_manifest"]

MANIFEST = "synth.json"
GENERATOR = 1
"""Raised whenever the same settings give other files."""

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


class _Named(Protocol):
    @property
    def id(self) -> str: ...


_Recipe = TypeVar("_Recipe", bound=_Named)


def claim(out: Path, settings: dict[str, Any]) -> None:
    """Make sure that a folder is empty or holds a data set of the same settings; DataError where it does not."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file: name a folder for the data set")
    manifest = out / MANIFEST
    present = [path.name for path in out.iterdir()] if out.is_dir() else []
    if present and not manifest.is_file():
        raise DataError(f"folder {out} is not empty and holds no {MANIFEST}: name an empty folder")
    if present not in ([], [MANIFEST]):  # a lone manifest is left by a run that failed before its first clip
        try:
            found = json.loads(manifest.read_text(encoding="utf-8"))["settings"]
            changed = sorted(key for key in {*found, *settings} if found.get(key) != settings.get(key))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"manifest {manifest} is damaged: name an empty folder") from error
        if changed:
            raise DataError(
                f"folder {out} holds a data set made with other settings ({', '.join(changed)}): "
                f"name an empty folder or repeat the settings in its {MANIFEST}"
            )


def write_manifest(out: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest as JSON."""
    write_text(out / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def _attempt(
    recipe: _Recipe, out: Path, make: Callable[[_Recipe, Path], None], done: Callable[[_Recipe, Path], bool]
) -> str | None:
    """Make a clip unless it is there; the reason in words where its recording cannot be used."""
    if done(recipe, out):
        return None
    try:
        make(recipe, out)
    except MediaError as error:
        return str(error)
    except OSError as error:
        raise DataError(f"clip {recipe.id} cannot be written: {error}; finished clips are kept") from error
    return None


def _attempt_all(
    recipes: Sequence[_Recipe], work: Callable[[_Recipe], str | None], workers: int
) -> Iterator[str | None]:
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


def fill(
    out: Path,
    recipes: Sequence[_Recipe],
    make: Callable[[_Recipe, Path], None],
    done: Callable[[_Recipe, Path], bool],
    *,
    workers: int,
    progress: Progress | None,
) -> tuple[list[_Recipe], list[tuple[_Recipe, str]]]:
    """Make whatever is not ``done`` yet, in ``workers`` processes.

    ``make`` and ``done`` are functions of a module, called with (recipe, out). Returns the recipes that were made and
    those that could not be, because of a recording, with the reason.
    """
    made: list[_Recipe] = []
    failed: list[tuple[_Recipe, str]] = []
    work = partial(_attempt, out=out, make=make, done=done)
    for recipe, reason in zip(recipes, _attempt_all(recipes, work, workers), strict=True):
        if reason is None:
            made.append(recipe)
        else:
            failed.append((recipe, reason))
        if progress is not None:
            progress(len(made) + len(failed), len(recipes))
    return made, failed
