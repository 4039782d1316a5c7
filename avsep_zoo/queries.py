"""What a network is asked for, and the stems its answers become: a negated stem is the mixture without an answer.

A sound and all but that sound are one question. So where some cue is negated, each thing is asked for once; the answers
share the mixture out between them as always, and then a negated stem is the mixture minus the answer, sample by sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from avsep_zoo.cue import Cue

__all__ = ["Queries"]

_WORDS = ("label", "text")
_SAID_OTHERWISE = ("name", "negated")  # these do not change what a cue shows


@dataclass(frozen=True)
class Queries:
    """The queries of a list of cues.

    Args:
        wanted: the N cues as they were given, one per stem.
        asked: what the network is asked for: Q cues, none of them negated.
        of: for each stem the number of its query.
    """

    wanted: tuple[Cue, ...]
    asked: tuple[Cue, ...]
    of: tuple[int, ...]

    @classmethod
    def of_cues(cls, cues: Sequence[Cue]) -> Self:
        """Ask for each thing once; where no cue is negated, for each cue: their stems add up to the mixture."""
        if not any(cue.negated for cue in cues):
            return cls(tuple(cues), tuple(cues), tuple(range(len(cues))))
        numbers: dict[tuple[Any, ...], int] = {}
        of = tuple(numbers.setdefault(_meaning(cue), len(numbers)) for cue in cues)
        asked = tuple(replace(cues[of.index(number)], negated=False) for number in range(len(numbers)))
        return cls(tuple(cues), asked, of)

    @property
    def unclaimed(self) -> int | None:
        """The query whose sound no stem claims: the only negated one, where no other cue asks for it; or None."""
        negated = {number for cue, number in zip(self.wanted, self.of, strict=True) if cue.negated}
        positive = {number for cue, number in zip(self.wanted, self.of, strict=True) if not cue.negated}
        return next(iter(negated)) if len(negated) == 1 and not negated & positive else None

    @property
    def leaves_rest(self) -> bool:
        """Whether there may be something in the mixture that no stem claims."""
        return not any(cue.negated for cue in self.wanted) or self.unclaimed is not None

    def stems(self, mixture: np.ndarray, answers: np.ndarray) -> list[np.ndarray]:
        """The N stems (channels, n) of a piece of the mixture (channels, n) and the answers (Q, channels, n)."""
        return self._each(answers, lambda answer: mixture - answer)

    def rest(self, mixture: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """What no stem claims (channels, n); of the same arguments."""
        return mixture - answers.sum(axis=0) if self.unclaimed is None else answers[self.unclaimed]

    def masks(self, masks: np.ndarray) -> np.ndarray:
        """The masks (N, F, T) of the stems, from those in [0, 1] of the queries (Q, F, T)."""
        return np.stack(self._each(masks, lambda mask: 1 - mask))

    def _each(self, answers: np.ndarray, negate: Any) -> list[np.ndarray]:
        pairs = zip(self.wanted, self.of, strict=True)
        return [negate(answers[number]) if cue.negated else answers[number] for cue, number in pairs]


def _meaning(cue: Cue) -> tuple[Any, ...]:
    """What tells cues apart: all they show, whatever they are called; case and blanks of words do not matter."""
    return tuple(_plain(getattr(cue, f.name), f.name) for f in fields(cue) if f.name not in _SAID_OTHERWISE)


def _plain(value: Any, name: str) -> Any:
    if name in _WORDS and value is not None:
        return " ".join(str(value).casefold().split())
    if value is None or isinstance(value, str | Path | int):
        return None if value is None else str(value)
    if name in ("box", "boxes"):
        value = np.asarray(value, dtype=np.float64)
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str, value.tobytes()
    return id(value)
