"""Pairs of separated sounds: of one mixture, or of one and an earlier one.

Source: Independency Adversarial Learning for Cross-Modal Sound Separation, AAAI 2024, section 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from avsep_zoo.errors import DataError

__all__ = ["MemoryBank", "dependent_pairs", "draw_partners"]


class MemoryBank:
    """The last separated spectrograms, to draw partners from that have nothing to do with a sound.

    It is kept on the CPU in float32, whatever device the model is on. Before anything was separated it holds noise,
    always the same one. Several processes keep the same bank: each draws partners for its own sounds, then those of
    all processes are written.

    Args:
        size: spectrograms.

    Attributes:
        rows: (size, F', T'); None before the first use.
        pointer: row that is written next.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.rows: Tensor | None = None
        self.pointer = 0

    def pairs(self, sounds: Tensor, drawn: Sequence[int] | None = None) -> Tensor:
        """Pair each sound with a row of the bank, then write it there, one after the other.

        Args:
            sounds: (n, F', T').
            drawn: rows; None draws them from torch's generator of the CPU.

        Returns:
            (n, 2, F', T'); the gradient flows into the sounds alone.

        Raises:
            DataError: the bank holds spectrograms of another shape.
        """
        shape = tuple(sounds.shape[1:])
        if self.rows is None:
            self.rows = torch.randn(self.size, *shape, generator=torch.Generator().manual_seed(0))
        if shape != tuple(self.rows.shape[1:]):
            raise DataError(
                f"The memory bank holds spectrograms of {_points(self.rows.shape[1:])} and the model gives those of "
                f"{_points(shape)}; take the front end the bank was filled with, or start the run anew."
            )
        places = torch.randint(self.size, (len(sounds),)).tolist() if drawn is None else list(drawn)
        heard = sounds.detach().to("cpu", torch.float32)
        partners = torch.empty_like(heard)
        for number, place in enumerate(places):
            written = self._latest(place, number)
            partners[number] = self.rows[place] if written is None else heard[written]
        self._write(_of_all_processes(sounds).to("cpu", torch.float32))
        return torch.stack((sounds, partners.to(sounds)), dim=1)

    def _latest(self, place: int, count: int) -> int | None:
        """Which of the first ``count`` sounds lies in a row once they are written; None if none of them does."""
        first = (place - self.pointer) % self.size
        return None if first >= count else first + (count - 1 - first) // self.size * self.size

    def _write(self, sounds: Tensor) -> None:
        assert self.rows is not None
        for sound in sounds:
            self.rows[self.pointer] = sound
            self.pointer = (self.pointer + 1) % self.size

    def state(self) -> dict[str, Tensor | int]:
        """What :meth:`restore` takes."""
        return {"pointer": self.pointer} | ({} if self.rows is None else {"rows": self.rows})

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, wherever its rows are.

        Raises:
            DataError: it is that of a bank of another size.
        """
        rows, pointer = state.get("rows"), int(state["pointer"])
        if rows is not None and len(rows) != self.size:
            raise DataError(f"The memory bank holds {len(rows)} spectrograms instead of {self.size}; set bank to that.")
        self.rows = None if rows is None else rows.detach().to("cpu", torch.float32, copy=True)
        self.pointer = pointer % self.size


def draw_partners(counts: Sequence[int]) -> list[int]:
    """One integer from 0 to n - 2 for each of the n sounds of each mixture, from torch's generator of the CPU.

    It is 0 for a sound that is alone.
    """
    return [draw for n in counts for draw in torch.randint(max(n - 1, 1), (n,)).tolist()]


def dependent_pairs(sounds: Tensor, counts: Sequence[int], drawn: Sequence[int]) -> Tensor:
    """Pair each sound (n, F', T') with another one of its mixture -> (at most n, 2, F', T').

    Args:
        sounds: those of the first mixture, the second, ...
        counts: sounds of each mixture; one that has a single sound gives no pair.
        drawn: for each sound the number of its partner, itself not counted.
    """
    firsts: list[int] = []
    partners: list[int] = []
    start = 0
    for count in counts:
        for place in range(count if count > 1 else 0):
            draw = drawn[start + place]
            firsts.append(start + place)
            partners.append(start + draw + (draw >= place))
        start += count
    return torch.stack((sounds[firsts], sounds[partners]), dim=1)


def _of_all_processes(sounds: Tensor) -> Tensor:
    """The sounds of all processes, one process after the other; each of them has as many."""
    own = sounds.detach().float().contiguous()
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return own
    everyone = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(everyone, own)
    return torch.cat(everyone)


def _points(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) + " points"
