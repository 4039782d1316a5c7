"""A whole data set: the clips of a plan made by one or more processes, the index files, and the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from avsep_zoo.errors import DataError
from avsep_zoo.synth.clip import SECONDS, Recipe, make_clip
from avsep_zoo.synth.files import WAV_RATE, clip_done
from avsep_zoo.synth.folder import GENERATOR, MANIFEST, Progress, claim, fill, write_manifest
from avsep_zoo.synth.index import write_index
from avsep_zoo.synth.instruments import INSTRUMENTS
from avsep_zoo.synth.plan import make_plan
from avsep_zoo.synth.scene import FPS, SIDE
from avsep_zoo.synth.soundfont import RATE, fluidsynth_version
from avsep_zoo.synth.sprites import find_font

__all__ = ["write_dataset"]


def _done(recipe: Recipe, out: Path) -> bool:
    return clip_done(out, recipe.class_name, recipe.id)


def write_dataset(
    out: Path,
    *,
    clips: int,
    seed: int = 0,
    solos: Path | None = None,
    soundfonts: Sequence[Path] | None = None,
    timbre_soundfont: Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
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
    settings = {"generator": GENERATOR, "clips": clips, "seed": seed, "sources": list(plan.sources)}
    claim(out, settings)
    manifest: dict[str, Any] = {
        "settings": settings,
        "complete": False,
        "classes": plan.classes,
        "generic_picture": plan.unknown,
        "clip": {"seconds": SECONDS, "fps": FPS, "side": SIDE, "mp4_rate": RATE, "wav_rate": WAV_RATE},
        "versions": versions,
    }
    write_manifest(out, manifest)
    made, failed = fill(out, plan.recipes, make_clip, _done, workers=workers, progress=progress)
    skipped = [{"recording": f"{one.class_name}/{one.source.name}", "reason": reason} for one, reason in failed]
    rows = write_index(out, seed, made)
    write_manifest(out, manifest | {"complete": True, "rows": rows, "skipped": skipped})
    return out / MANIFEST
