"""What surrounds the import of a plugin, so that it cannot spoil the program that imports it.

What it prints goes to stderr, what it reads is empty, and ``sys.path`` and the current folder are put in order
afterwards; a plugin that takes long is named while it does. ``AVSEP_ZOO_PLUGIN_SECONDS`` (10) is the time that the
import of a plugin may take: ``avsep plugins`` and ``avsep doctor`` give up then, everything else says after a third of
it what is being imported.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from avsep_zoo.errors import PluginError

__all__ = ["SECONDS", "guarded", "leave_out", "patience", "plugin_seconds"]

SECONDS = "AVSEP_ZOO_PLUGIN_SECONDS"
"""Environment variable of the time that the import of a plugin may take, in seconds."""

_HEAVY = "torch"


class _Stderr:
    """Takes the place of stdout: writes to stderr, whatever that is then, and knows whether it was used."""

    used = False

    def write(self, text: str) -> int:
        self.used = True
        return int(sys.stderr.write(text)) if sys.stderr is not None else len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def plugin_seconds() -> float:
    """Return the time that the import of a plugin may take, in seconds.

    Raises:
        PluginError: ``AVSEP_ZOO_PLUGIN_SECONDS`` is no number above 0.
    """
    text = os.environ.get(SECONDS, "10")
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise PluginError(f"{SECONDS} is {text!r}; give a number of seconds above 0, e.g. 10.")


def leave_out(name: str) -> str:
    """Say how to do without a plugin."""
    return f"AVSEP_ZOO_DISABLE={name} leaves it out"


def patience(origin: str, seconds: float) -> float:
    """Return ``seconds`` for an installed plugin, and no end for others: a fresh checkout is slow, not stuck."""
    return seconds if origin == "installed" else math.inf


@contextmanager
def guarded(name: str, title: str, *, seconds: float, quiet_input: bool = True) -> Iterator[list[str]]:
    """Import a plugin inside; gives a list that holds afterwards what its author should change, as sentences.

    Args:
        name: name of the plugin.
        title: its distribution and version, or where it comes from.
        seconds: after a third of them, stderr names the plugin; never where they are infinite.
        quiet_input: whether what reads stdin finds its end.
    """
    remarks: list[str] = []
    path, entries = sys.path, list(sys.path)
    variables = dict(os.environ)
    heavy = _HEAVY in sys.modules
    folder = _folder()
    stdout = _Stderr()
    text = f"The plugin {name!r} ({title}) takes long to be imported; {leave_out(name)}."
    watchdog = threading.Timer(seconds / 3, _tell, (text,))
    watchdog.daemon = True
    if math.isfinite(seconds):
        watchdog.start()
    try:
        with redirect_stdout(stdout), _empty_stdin(quiet_input):
            yield remarks
    finally:
        watchdog.cancel()
        if stdout.used:
            remarks.append("It prints when it is imported, which is on stderr now; leave that to its functions.")
        if _restore_path(path, entries):
            remarks.append("It puts folders before others in sys.path; they come last now, as they hide what is there.")
        if folder is not None and _folder() != folder:
            os.chdir(folder)
            remarks.append("It changes the current folder, which is changed back; leave it as it is.")
        changed = sorted(k for k in {*variables, *os.environ} if variables.get(k) != os.environ.get(k))
        if changed:
            remarks.append(f"It changes the environment ({', '.join(changed)}), which every other plugin sees, too.")
        if not heavy and _HEAVY in sys.modules:
            remarks.append(f"It imports {_HEAVY}, which every command waits for; name targets in the hook instead.")


def _tell(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


@contextmanager
def _empty_stdin(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    before = sys.stdin
    with Path(os.devnull).open(encoding="utf-8") as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = before


def _restore_path(path: list[str], before: list[str]) -> bool:
    """Make ``sys.path`` the list it was, with new entries last; return whether they were elsewhere."""
    now = list(sys.path)
    sys.path = path
    if now[: len(before)] == before:
        path[:] = now
        return False
    path[:] = [*before, *(entry for entry in now if entry not in before)]
    return True


def _folder() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # it was removed
        return None
