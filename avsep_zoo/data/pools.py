"""Which clips go together in a mixture: by class, no class twice."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

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
        solos: share of recordings of one sound among those of ``members`` sounds.
        fewer: take clips without a class and with fewer phrases than ``members``, too.

    Attributes:
        cued: sounds that a clip counts as: ``members`` where clips hold so many, otherwise 1.
        skipped: clips that are left out, and why.

    Raises:
        DataError: there are too few clips or classes.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        *,
        sources: int,
        members: int = 1,
        whole: bool = False,
        solos: float = 0.0,
        fewer: bool = False,
    ) -> None:
        self.skipped: list[Skipped] = []
        self._whole, self._sources, self._solos = whole, sources, solos if members > 1 and not whole else 0.0
        least = 1 if fewer else members
        duets = members > 1 and not whole and any(_holds(clip, members, least) for clip in clips)
        self.cued = members if duets else 1
        self._members = 1 if duets or whole else members
        self.per_mixture = sources * self._members
        least = min(least, self.cued)
        allowed = {self.cued, 1} if self._solos else {self.cued}
        named = any(clip.labels for clip in clips if whole or any(_holds(clip, cued, least) for cued in allowed))
        self._by_labels: dict[tuple[str, ...], list[Clip]] = {}
        for clip in clips:
            if not (whole or any(_holds(clip, cued, least) for cued in allowed)):
                has = f"{len(clip.labels)} classes and {len(clip.phrases)} phrases"
                self._skip(clip, f"It has {has}, and is not a recording of {self.cued} cued sounds as others are.")
            elif named and not clip.labels:
                self._skip(clip, "It has no class, and other clips have.")
            else:
                self._by_labels.setdefault(tuple(sorted(clip.labels)), []).append(clip)
        self._keys = sorted(self._by_labels)
        self._check_solos()
        self._check(clips, f"mixtures of {sources} sources" + (f" of {members} sounds" if members > 1 else ""))

    def draw(self, rng: np.random.Generator) -> list[list[Clip]]:
        """Draw the clips of each recording of a mixture: classes uniformly among those that are left, then a clip.

        Recordings that are taken whole are drawn uniformly among those without a class of the ones before.
        """
        for _ in range(_REDRAWS):
            chosen: list[list[Clip]] = []
            taken: set[str] = set()
            while len(chosen) < self._sources:
                alone = self._solos > 0 and rng.random() < self._solos
                recording = self._recording(alone, [c for r in chosen for c in r], taken, rng)
                if recording is None:
                    break
                chosen.append(recording)
            else:
                return chosen
        raise DataError(
            f"The clips have no {self.per_mixture} recordings without a common class; add clips of other classes."
        )

    def _recording(
        self, alone: bool, before: Sequence[Clip], taken: set[str], rng: np.random.Generator
    ) -> list[Clip] | None:
        """Draw the clips of one recording, and add their classes to ``taken``; None where no class is left.

        ``alone`` is a recording of one sound; without it, where there is a share of those, it is one of several.
        """
        recording: list[Clip] = []
        sounds = 1 if alone else self.cued
        while len(recording) < (1 if alone else self._members):
            keys = [key for key in self._keys if taken.isdisjoint(key) and (not self._solos or _is(key, sounds))]
            if not keys:
                return None
            key = self._key(keys, rng)
            pool = self._by_labels[key]
            clip = pool[rng.integers(len(pool))]
            if key or clip.audio not in {other.audio for other in (*before, *recording)}:
                recording.append(clip)
                taken.update(key)
        return recording

    def _key(self, keys: Sequence[tuple[str, ...]], rng: np.random.Generator) -> tuple[str, ...]:
        if not self._whole:
            return keys[int(rng.integers(len(keys)))]
        sizes = np.cumsum([len(self._by_labels[key]) for key in keys])
        return keys[int(np.searchsorted(sizes, int(rng.integers(sizes[-1])), side="right"))]

    def another(self, clip: Clip, tried: Collection[str], rng: np.random.Generator) -> Clip | None:
        """Draw a clip of the same classes whose id was not tried; None where there is none left."""
        left = [other for other in self._by_labels[tuple(sorted(clip.labels))] if other.id not in tried]
        return left[rng.integers(len(left))] if left else None

    def solo(self, label: str, files: Collection[Path], rng: np.random.Generator) -> Clip | None:
        """Draw a clip of that class alone that is in none of these files; None where there is none."""
        left = [clip for clip in self._by_labels.get((label,), ()) if clip.audio not in files]
        return left[rng.integers(len(left))] if left else None

    def _skip(self, clip: Clip, why: str) -> None:
        self.skipped.append(Skipped(clip.id, why))

    def _check_solos(self) -> None:
        if self._solos and self._keys and not any(len(key) == 1 for key in self._keys):
            raise DataError(
                f"A share of {self._solos:g} solos is asked for and no clip has one class; add such clips, or set "
                "solos to 0."
            )

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


def _holds(clip: Clip, cued: int, least: int) -> bool:
    """Whether a clip can be taken for a recording of so many cued sounds; of phrases ``least`` are enough."""
    if clip.labels:
        return len(clip.labels) == len(set(clip.labels)) == cued
    return cued == 1 or len(clip.phrases) >= least


def _is(key: tuple[str, ...], sounds: int) -> bool:
    """Whether clips of these classes have so many; those without any class have as many as they are asked for."""
    return not key or len(key) == sounds
