"""Try plugins in processes of their own, each with a time limit: what hangs or crashes there is not imported here."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from avsep_zoo.plugin_guard import SECONDS, leave_out

__all__ = ["Lost", "try_plugins"]

_CAME_BACK = 88
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from avsep_zoo.plugin_trial import _alone; _alone(*sys.argv[2:])"
)
_STACK = "most recent call first"


@dataclass(frozen=True)
class Lost:
    """A plugin that does not come back from its import: a sentence without its stop, and where it was."""

    why: str
    traceback: str


@dataclass
class _Trial:
    process: subprocess.Popen[bytes]
    said: IO[bytes]
    end: float

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)  # also what it started
            else:
                self.process.kill()
        self.process.wait()

    def stack(self) -> str:
        """Where its threads were, as far as it could say that."""
        self.said.seek(0)
        text = self.said.read().decode("utf-8", "replace")
        return text[max(text.rfind("Timeout ("), text.rfind("Fatal Python error"), 0) :] if _STACK in text else ""


def try_plugins(plugins: Mapping[str, str], seconds: float) -> dict[str, Lost]:
    """Import and register each plugin in a process of its own, as many at once as there are cores.

    Args:
        plugins: name -> ``"module"`` or ``"module:attribute"``.
        seconds: how long each may take.

    Returns:
        Those that did not come back, by name; what else is wrong with a plugin shows when it is imported.
    """
    waiting, running, lost = sorted(plugins.items(), reverse=True), dict[str, _Trial](), dict[str, Lost]()
    if not sys.executable:
        return {}
    try:
        while waiting or running:
            while waiting and len(running) < (os.cpu_count() or 1):
                name, value = waiting.pop()
                running[name] = _start(name, value, seconds)
            for name, trial in list(running.items()):
                code = trial.process.poll()
                if code is None and time.monotonic() < trial.end:
                    continue
                trial.stop()
                if code is None:
                    why = f"its import does not come back within {seconds:g} s; {leave_out(name)}"
                    lost[name] = Lost(f"{why}, {SECONDS} gives it longer", trial.stack())
                elif code != _CAME_BACK:
                    lost[name] = Lost(f"its import ends the process ({_end(code)}); {leave_out(name)}", trial.stack())
                running.pop(name).said.close()
            time.sleep(0.01)
    finally:
        for trial in running.values():
            trial.stop()
            trial.said.close()
    return lost


def _start(name: str, value: str, seconds: float) -> _Trial:
    path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
    said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the trial
    command = [sys.executable, "-P", "-c", _START, path, name, value, str(seconds)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
    )
    return _Trial(process, said, time.monotonic() + seconds)


def _end(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _alone(name: str, value: str, seconds: str) -> None:
    """What such a process does; it ends with a code of its own."""
    from avsep_zoo.plugins import load_alone

    faulthandler.enable()
    faulthandler.dump_traceback_later(0.8 * float(seconds))
    with suppress(BaseException):
        load_alone(name, value)
    os._exit(_CAME_BACK)
