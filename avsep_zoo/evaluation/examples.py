"""The best, the median and the worst mixture of a list, to be listened to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from torch import Tensor

from avsep_zoo.errors import MediaError
from avsep_zoo.evaluation.scorer import Separated
from avsep_zoo.evaluation.statistics import METRICS, mixture_scores
from avsep_zoo.evaluation.workers import Task, Workers
from avsep_zoo.media.wav import whole_file

__all__ = ["choose", "write_examples"]


def choose(items: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the ``best``, ``median`` and ``worst`` of scored mixtures by SDR improvement; fewer of one or two."""
    gains = mixture_scores(items)[:, METRICS.index("sdr_improvement")]
    ranked = [int(k) for k in np.argsort(gains, kind="stable") if np.isfinite(gains[k])]
    places = {"best": -1, "median": len(ranked) // 2, "worst": 0}
    named = ("best", "median", "worst") if len(ranked) > 2 else ("best", "worst")[: len(ranked)]
    return {name: items[ranked[places[name]]] for name in named}


def write_examples(
    pool: Workers, out: Path, folder: Path, items: Sequence[Mapping[str, Any]], tasks: Sequence[Task]
) -> dict[str, dict[str, Any]]:
    """Separate the chosen mixtures once more and write them as 16-bit FLAC files below ``out / folder``.

    All sounds of a mixture are turned down alike where one of them would clip.

    Args:
        pool: separates.
        out: folder that the names returned are relative to.
        folder: inside ``out``.
        items: scored mixtures; their ids end with the number in the list.
        tasks: the batches of the list.

    Returns:
        Name of the choice -> ``id``, ``labels``, and the files ``mixture``, ``sources``, ``estimates``.

    Raises:
        MediaError: a file cannot be written.
    """
    written: dict[str, dict[str, Any]] = {}
    for name, item in choose(items).items():
        position = int(item["id"].rpartition("-")[2]) - 1
        batch, _, start = next(t for t in tasks if t[2] <= position < t[2] + len(t[0]))
        found = pool.separate((batch, (position - start,), start))
        if isinstance(found, Separated):
            files = _write(found, out, folder / name)
            written[name] = {"id": item["id"], "labels": item["labels"], **files}
    return written


def _write(found: Separated, out: Path, folder: Path) -> dict[str, Any]:
    sounds = {"mixture": found.mixture}
    sounds |= {f"source-{n}": source for n, source in enumerate(found.sources, 1)}
    sounds |= {f"estimate-{n}": estimate for n, estimate in enumerate(found.estimates, 1)}
    peak = max(1.0, *(float(sound.abs().max()) for sound in sounds.values()))
    (out / folder).mkdir(parents=True, exist_ok=True)
    for name, sound in sounds.items():
        _write_flac(out / folder / f"{name}.flac", sound / peak, found.rate)
    names = {name: (folder / f"{name}.flac").as_posix() for name in sounds}
    return {
        "mixture": names["mixture"],
        "sources": [file for name, file in names.items() if name.startswith("source")],
        "estimates": [file for name, file in names.items() if name.startswith("estimate")],
    }


def _write_flac(target: Path, sound: Tensor, rate: int) -> None:
    with whole_file(target) as part:
        try:
            soundfile.write(part, sound.numpy(), rate, format="FLAC", subtype="PCM_16")
        except soundfile.SoundFileError as error:
            raise MediaError(f"The sound {str(target)!r} cannot be written ({error}); check the free space.") from error
