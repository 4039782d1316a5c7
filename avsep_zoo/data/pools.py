"""Which clips go together in a mixture: by class, no class twice."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from avsep_zoo.data.clip import Clip
from avsep_zoo.data.reader import Skipped
from avsep_zoo.errors import DataError

__all__ = ["Pools"]

_REDRAWS = 1000  # of a mixture whose first clips leave no class for the others


class Pools:
    """Clips by the classes that sound in them.

    Args:
        clips: of a reader.
        sources: recordings per mixture.
        members: cued sounds per recording.
        whole: take recordings as they are, of any number of classes, each as one cue, whatever ``members`` is.

    Attributes:
        cued: sounds that a clip counts as: ``members`` where clips hold so many, otherwise 1.
        skipped: clips that are left out, and why.

    Raises:
        DataError: there are too few clips or classes.
    """

    def __init__(self, clips: Sequence[Clip], *, sources: int, members: int = 1, whole: bool = False) -> None:
        self.skipped: list[Skipped] = []
        self._whole = whole
        duets = members > 1 and not whole and any(_holds(clip, members) for clip in clips)
        self.cued = members if duets else 1
        self.per_mixture = sources if duets or whole else sources * members
        named = any(clip.labels for clip in clips if whole or _holds(clip, self.cued))
        self._by_labels: dict[tuple[str, ...], list[Clip]] = {}
        for clip in clips:
            if not (whole or _holds(clip, self.cued)):
                has = f"{len(clip.labels)} classes and {len(clip.phrases)} phrases"
                self._skip(clip, f"It has {has}, and is not a recording of {self.cued} cued sounds as others are.")
            elif named and not clip.labels:
                self._skip(clip, "It has no class, and other clips have.")
            else:
                self._by_labels.setdefault(tuple(sorted(clip.labels)), []).append(clip)
        self._keys = sorted(self._by_labels)
        self._check(clips, f"mixtures of {sources} sources" + (f" of {members} sounds" if members > 1 else ""))

    def draw(self, rng: np.random.Generator) -> list[Clip]:
        """Draw the clips of a mixture: classes uniformly among those that are left, then a clip of them.

        Recordings that are taken whole are drawn uniformly among those without a class of the ones before.
        """
        for _ in range(_REDRAWS):
            chosen: list[Clip] = []
            taken: set[str] = set()
            while len(chosen) < self.per_mixture:
                keys = [key for key in self._keys if taken.isdisjoint(key)]
                if not keys:
                    break
                key = self._key(keys, rng)
                pool = self._by_labels[key]
                clip = pool[rng.integers(len(pool))]
                if key or clip.audio not in {other.audio for other in chosen}:
                    chosen.append(clip)
                    taken.update(key)
            else:
                return chosen
        raise DataError(
            f"The clips have no {self.per_mixture} recordings without a common class; add clips of other classes."
        )

    def _key(self, keys: Sequence[tuple[str, ...]], rng: np.random.Generator) -> tuple[str, ...]:
        if not self._whole:
            return keys[int(rng.integers(len(keys)))]
        sizes = np.cumsum([len(self._by_labels[key]) for key in keys])
        return keys[int(np.searchsorted(sizes, int(rng.integers(sizes[-1])), side="right"))]

    def another(self, clip: Clip, tried: Collection[str], rng: np.random.Generator) -> Clip | None:
        """Draw a clip of the same classes whose id was not tried; None where there is none left."""
        left = [other for other in self._by_labels[tuple(sorted(clip.labels))] if other.id not in tried]
        return left[rng.integers(len(left))] if left else None

    def _skip(self, clip: Clip, why: str) -> None:
        self.skipped.append(Skipped(clip.id, why))

    def _check(self, clips: Sequence[Clip], wanted: str) -> None:
        if not self._keys:
            why = f" ({self.skipped[0].where}: {self.skipped[0].why})" if self.skipped else ""
            raise DataError(f"None of {len(clips)} clips can be used for {wanted}{why}; give others.")
        needed = self.per_mixture * self.cued
        if self._keys == [()]:
            sounds = len({clip.audio for clip in self._by_labels[()]})
            if sounds < self.per_mixture:
                raise DataError(f"There are {sounds} different clips; {wanted} need {self.per_mixture}.")
            return
        classes = {label for key in self._keys for label in key}
        if len(classes) < needed:
            raise DataError(f"The clips have {len(classes)} classes; {wanted} need {needed} different ones.")
        self.draw(np.random.default_rng(0))


def _holds(clip: Clip, cued: int) -> bool:
    """Whether a clip can be taken for a recording of so many cued sounds."""
    if clip.labels:
        return len(clip.labels) == len(set(clip.labels)) == cued
    return cued == 1 or len(clip.phrases) >= cued
