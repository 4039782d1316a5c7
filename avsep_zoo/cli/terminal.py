"""What every command writes with: text and tables on stdout, progress and warnings on stderr, or JSON."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from avsep_zoo.errors import CueWarning

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID
    from rich.text import Text

__all__ = [
    "busy",
    "client_bars",
    "console",
    "count_bar",
    "cue_warnings",
    "print_json",
    "print_table",
    "seconds_bar",
    "warn",
]


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints texts as they are: no markup, no emoji codes, no guessed colours."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def print_json(document: Any) -> None:
    """Print one JSON document, in ASCII, so that every pipe can carry it; NaN and infinity are null."""
    import typer

    typer.echo(json.dumps(_finite(document), indent=2, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str | Text]], *, numbers: Sequence[int] = ()) -> None:
    """Print a table; empty headers are left out, the columns ``numbers`` are aligned right, never wrapped."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_header=any(headers))
    for index, header in enumerate(headers):
        number = index in numbers
        table.add_column(Text(header), justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    console().print(table)


@contextmanager
def busy(text: str) -> Iterator[None]:
    """Show ``text`` with a spinner while something of unknown length runs; only on a terminal."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield
        return
    with screen.status(text, spinner="line"):
        yield


@contextmanager
def count_bar(what: str) -> Iterator[Callable[..., None]]:
    """Show progress bars of things that are counted; only on a terminal.

    Call it with (done, in all), and with a third argument, a text, for a bar of its own beside that of ``what``.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    screen = console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def advance(done: int, total: int, text: str = what) -> None:
            if text not in tasks:
                tasks[text] = progress.add_task(text, total=total, completed=done)
            progress.update(tasks[text], completed=done, total=total)

        yield advance


@contextmanager
def seconds_bar(text: str) -> Iterator[Callable[[float, float | None], None]]:
    """Show a progress bar in seconds of sound; only on a terminal. Call it with (done, in all or None)."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    screen = console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[seconds]} of sound"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task(text, total=None, seconds="0 s")

        def advance(done: float, total: float | None) -> None:
            total = None if total is None else max(done, total)
            shown = f"{done:.0f} s" if total is None else f"{done:.0f} / {total:.0f} s"
            progress.update(task, completed=done, total=total, seconds=shown)

        yield advance


@contextmanager
def client_bars(*, shown: bool) -> Iterator[None]:
    """Show the progress bars of the Hub's client, or none."""
    try:
        from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    except ModuleNotFoundError:  # the sentence for that comes when something has to be fetched
        yield
        return
    hide = not shown and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()


@contextmanager
def cue_warnings() -> Iterator[list[str]]:
    """Hold what a model remarks about cues while it works, then show each sentence once; after an error, none.

    Gives the list of the sentences, for whoever shows the notes of the separation, which hold them, too.
    """
    told: list[str] = []
    show = warnings.showwarning

    def hold(message: Warning | str, category: type[Warning], *more: Any, **named: Any) -> None:
        if not issubclass(category, CueWarning):
            show(message, category, *more, **named)
        elif str(message) not in told:
            told.append(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", CueWarning)
        warnings.showwarning = hold
        yield told
    for sentence in told:
        warn(sentence)


def warn(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as one line on stderr; takes the place of :func:`warnings.showwarning`."""
    from rich.text import Text

    text = " ".join(str(message).split())
    console(stderr=True).print(Text.assemble(("Warning: ", "yellow"), text), soft_wrap=True)
