"""What a run tells: a line of JSON per step, curves for TensorBoard, and the files that were left out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from avsep_zoo.data.reader import Skipped
from avsep_zoo.errors import DataError
from avsep_zoo.folder_lock import folder_lock
from avsep_zoo.replaced import write_text

__all__ = ["RunLog", "note_skipped", "read_skipped"]

Progress = Callable[[Mapping[str, Any]], None]

_PATIENCE = 10.0  # seconds a run waits for the end of another one, whose launcher was killed


class RunLog:
    """Writes records to ``log.jsonl``, to ``tensorboard/``, and hands them to ``progress``.

    What is there of later steps, of a run that was killed, is cut off. As long as the log is open, no other process
    can open that of the same run.

    Args:
        run: folder of the run; None writes nothing.
        step: last step of which the log is kept; -1 keeps nothing.
        tensorboard: whether to write curves.
        progress: called with every record.

    Raises:
        DataError: another process trains into the folder, or TensorBoard is not installed.
    """

    def __init__(
        self, run: Path | None, *, step: int = -1, tensorboard: bool = False, progress: Progress | None = None
    ) -> None:
        self.progress = progress
        self._lines = self._board = None
        with ExitStack() as opened:
            if run is not None:
                opened.enter_context(folder_lock(run, patience=_PATIENCE))
                self._lines = opened.enter_context((run / "log.jsonl").open("a+", encoding="utf-8", errors="replace"))
                self._lines.seek(0)
                self._lines.truncate(_length_until(self._lines.read(), step))
                if tensorboard:
                    self._board = opened.enter_context(_writer(run / "tensorboard", step + 1))
            self._open = opened.pop_all()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def record(self, *, step: int, **values: float) -> None:
        """Write one record; NaN and infinity are null."""
        if self._lines is None:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._lines.write(json.dumps({"step": step, **finite}) + "\n")
        self._lines.flush()
        if self._board is not None:
            for name, value in finite.items():
                if value is not None:
                    self._board.add_scalar(name, value, step)
        if self.progress is not None:
            self.progress({"step": step, **values})


def _writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise DataError(
            "TensorBoard is not installed; run pip install tensorboard, or set tensorboard to false."
        ) from error
    return SummaryWriter(str(folder), purge_step=step, flush_secs=10)


def _length_until(text: str, step: int) -> int:
    """Bytes of a log up to ``step``; a line that was cut off in the middle ends it."""
    length = 0
    for line in text.splitlines(keepends=True):
        try:
            if json.loads(line)["step"] > step or not line.endswith("\n"):
                break
        except (ValueError, TypeError, LookupError):
            break
        length += len(line.encode())
    return length


def note_skipped(run: Path, skipped: Iterable[Skipped]) -> None:
    """Add to ``skipped.jsonl`` what is not there yet: one line per file or row, with the reason."""
    file = run / "skipped.jsonl"
    noted = read_skipped(run)
    fresh = {entry.where: entry.why for entry in skipped if entry.where not in noted}
    if fresh:
        lines = [json.dumps({"where": where, "why": why}) + "\n" for where, why in (noted | fresh).items()]
        write_text(file, "".join(lines))


def read_skipped(run: Path) -> dict[str, str]:
    """Read ``skipped.jsonl``: where -> why."""
    file = run / "skipped.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {entry["where"]: entry["why"] for entry in map(json.loads, lines)}
