"""Work in several processes that survives the death of one of them, and does not survive that of its parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

__all__ = ["run_all"]

J = TypeVar("J")
R = TypeVar("R")


def run_all(work: Callable[[J], R], jobs: Sequence[J], workers: int) -> Iterator[tuple[J, R | None]]:
    """Yield every job with its result as they come; None for a job whose process died (killed, out of memory).

    One worker is this process. With several, jobs that were in work when a process died are tried again, each in
    a process of its own. If this process is killed, its workers end at once.
    """
    if workers == 1:
        for job in jobs:
            yield job, work(job)
        return
    waiting = list(reversed(jobs))
    while waiting:
        died: list[J] = []
        yield from _run(work, waiting, workers, died)
        for job in died:
            again: list[J] = []
            yield from _run(work, [job], 1, again)
            if again:
                yield job, None


def _run(work: Callable[[J], R], waiting: list[J], workers: int, died: list[J]) -> Iterator[tuple[J, R]]:
    """Take jobs from the end of ``waiting`` until it is empty or a process dies; ``died`` gets what was in work."""
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start)
    running: dict[Future[R], J] = {}
    try:
        while (waiting and not died) or running:
            while waiting and not died and len(running) < 2 * workers:
                job = waiting.pop()
                try:
                    running[pool.submit(work, job)] = job
                except BrokenProcessPool:
                    died.append(job)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    died.append(job)
                    continue
                yield job, result
    finally:
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    """Prepare a worker: one thread for numbers, quiet at Ctrl-C, and gone when its parent is."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
