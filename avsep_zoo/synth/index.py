"""The index files of a data set in the official MUSIC layout: video lists and test mixture lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avsep_zoo.synth.clip import SECONDS, Recipe, generator
from avsep_zoo.synth.files import write_text

__all__ = ["write_index"]

_MIXTURES = 250  # rows of a test mixture list, as in the official MUSIC list


def _mixtures(seed: int, index: str, recipes: Sequence[Recipe]) -> list[str]:
    """Pairs of clips of different classes: every clip comes first once, then again until 250 are listed."""
    rng = generator(seed, "mixtures", index)
    partners = []
    for first in recipes:
        others = [other for other in recipes if other.class_name != first.class_name]
        partners.append([others[int(i)] for i in rng.permutation(len(others))])
    rows: list[str] = []
    for turn in range(max(map(len, partners), default=0)):
        for first, others in zip(recipes, partners, strict=True):
            if turn < len(others) and (turn == 0 or len(rows) < _MIXTURES):
                second = others[turn]
                rows.append(f"/{first.class_name}/{first.id}.wav, /{second.class_name}/{second.id}.wav\n")
    return rows


def write_index(out: Path, seed: int, made: Sequence[Recipe]) -> dict[str, int]:
    """Write ``<index>.csv`` and, for tests, ``testsep*.csv``; the number of rows of each that has any."""
    lists: dict[str, list[str]] = {}
    for recipe in made:
        stem = f"/{recipe.class_name}/{recipe.id}"
        lists.setdefault(recipe.index, []).append(f"{stem}.wav,{stem}.mp4,{int(SECONDS)}\n")
    for index in [name for name in lists if name.startswith("test")]:
        chosen = [recipe for recipe in made if recipe.index == index]
        lists[index.replace("test", "testsep")] = _mixtures(seed, index, chosen)
    for index, rows in lists.items():
        write_text(out / f"{index}.csv", "".join(rows))
    return {index: len(rows) for index, rows in lists.items()}
