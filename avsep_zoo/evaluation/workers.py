"""Processes that score batches of mixtures side by side; each loads the model once.

Every process computes on one thread, the only one included: sums over several threads round differently, and
scores would depend on the number of processes.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from types import TracebackType
from typing import Self

import torch
from threadpoolctl import threadpool_limits

from avsep_zoo.data.clip import Clip
from avsep_zoo.errors import DataError
from avsep_zoo.evaluation.score import Scored
from avsep_zoo.evaluation.scorer import Scorer, Separated

__all__ = ["Task", "Workers"]

Task = tuple[Sequence[Sequence[Clip]], tuple[int, ...], int]  # a batch, the positions wanted of it, its seed

_scorer: Scorer | None = None  # of this process, where it is a worker


class Workers:
    """Runs a scorer, here or in ``count`` processes; as a context manager it ends them."""

    def __init__(self, scorer: Scorer, count: int = 1) -> None:
        self.scorer, self.count = scorer, count
        self.pool: ProcessPoolExecutor | None = None
        self.threads = torch.get_num_threads()

    def __enter__(self) -> Self:
        torch.set_num_threads(1)
        self.limits = threadpool_limits(1)  # of NumPy's and SciPy's linear algebra, too
        if self.count > 1:
            self.pool = ProcessPoolExecutor(
                self.count, mp_context=get_context("spawn"), initializer=_start, initargs=(self.scorer,)
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.limits.restore_original_limits()
        torch.set_num_threads(self.threads)
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def score(self, tasks: Sequence[Task]) -> Iterator[list[tuple[int, Scored]]]:
        """Yield what :meth:`Scorer.score` says of each task, in their order.

        Raises:
            DataError: a process was ended from outside.
        """
        if self.pool is None:
            yield from (_score(task, self.scorer) for task in tasks)
            return
        try:
            yield from self.pool.map(_score, tasks)
        except BrokenProcessPool as error:
            raise DataError(
                f"One of the {self.count} worker processes was ended from outside, maybe for lack of memory; evaluate "
                "again with fewer --workers: with -o, what was scored is kept."
            ) from error

    def separate(self, task: Task) -> Separated | str:
        """Separate the one mixture that is wanted of a batch."""
        if self.pool is None:
            return _separate(task, self.scorer)
        return self.pool.submit(_separate, task).result()


def _start(scorer: Scorer) -> None:
    """Set up a worker: interrupts are left to its parent, and it ends when that ends, however it does."""
    global _scorer
    _scorer = scorer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threadpool_limits(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _score(task: Task, scorer: Scorer | None = None) -> list[tuple[int, Scored]]:
    mixtures, wanted, seed = task
    scorer = scorer or _scorer
    assert scorer is not None
    return scorer.score(mixtures, wanted, seed=seed)


def _separate(task: Task, scorer: Scorer | None = None) -> Separated | str:
    mixtures, wanted, seed = task
    scorer = scorer or _scorer
    assert scorer is not None
    return scorer.separate(mixtures, seed=seed)[wanted[0]]
