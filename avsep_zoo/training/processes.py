"""Several processes as one: the main one speaks, and a failure in one ends all of them with one sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from avsep_zoo.errors import AvsepError, DataError

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["end_if_orphaned", "fail", "finish", "gathered", "is_main", "start", "together"]

_PARENT = os.getppid()
_PATIENCE = timedelta(hours=12)  # the others wait as long as the main process validates


def is_main() -> bool:
    """Whether this is the process that writes and prints; imports nothing heavy."""
    return int(os.environ.get("RANK", "0")) == 0


def _several() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def start() -> Accelerator:
    """Join the processes that ``accelerate launch`` or ``torchrun`` started; alone this is one process.

    Mixed precision is left to the trainer.
    """
    import torch
    from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
    from accelerate.utils import parse_flag_from_env

    cpu = not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")
    options = [DistributedDataParallelKwargs(find_unused_parameters=True), InitProcessGroupKwargs(timeout=_PATIENCE)]
    return Accelerator(mixed_precision="no", cpu=cpu, kwargs_handlers=options)


def finish() -> None:
    """Leave the other processes."""
    if _several():
        import torch

        torch.distributed.destroy_process_group()


def end_if_orphaned() -> None:
    """End this process when the launcher that started it was killed; it would train on unseen.

    Raises:
        SystemExit: the launcher is gone.
    """
    if _several() and os.getppid() != _PARENT:
        raise SystemExit(1)


def gathered(entries: list[Any]) -> list[Any]:
    """Join the lists of all processes; every process calls it at the same place."""
    if not _several():
        return entries
    from accelerate.state import is_initialized
    from accelerate.utils import gather_object

    if not is_initialized():
        start()
    return list(gather_object(entries))


@contextmanager
def together() -> Iterator[None]:
    """Run a stretch that every process runs; an error in one of them is an error of all.

    Raises:
        AvsepError: in the main process: its own error, or that of another process.
        SystemExit: in the others.
    """
    error: AvsepError | OSError | None = None
    if _several():  # else each process warns of the search for parameters that a step leaves out
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        yield
    except (AvsepError, OSError) as caught:
        if not _several():
            raise
        error = caught
    if _several():
        fail(error)


def fail(error: AvsepError | OSError | None) -> None:
    """End all processes if one of them has an error; every process calls it at the same place.

    Raises:
        AvsepError, SystemExit: as :func:`together`.
    """
    errors = gathered([] if error is None else [str(error)])
    if not errors:
        return
    if is_main():
        raise error or DataError(errors[0])
    import torch

    with suppress(RuntimeError):
        torch.distributed.barrier()  # until the main process has said it and is gone
    raise SystemExit(1)
