"""The names of a new method, all made of one that was checked."""

from __future__ import annotations

import importlib.util
import keyword
import re
from dataclasses import dataclass

from avsep_zoo.errors import PluginError
from avsep_zoo.plugins import plugin_reports
from avsep_zoo.registry import registry

__all__ = ["Names"]

_METHOD = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LONGEST = 30
_IN_HUBCONF = ("compose", "dependencies")
_EXAMPLE = "my-method"


@dataclass(frozen=True)
class Names:
    """Every name of a new method.

    Args:
        method: ``my_method``: words of lower-case letters and digits, with underscores between.
    """

    method: str

    @property
    def dashed(self) -> str:
        """``my-method``."""
        return self.method.replace("_", "-")

    @property
    def distribution(self) -> str:
        """``avsep-my-method``: the folder, and what pip installs."""
        return f"avsep-{self.dashed}"

    @property
    def package(self) -> str:
        """``avsep_my_method``: what Python imports."""
        return f"avsep_{self.method}"

    @property
    def classes(self) -> str:
        """``MyMethod``: what the names of its classes begin with."""
        return "".join(word.capitalize() for word in self.method.split("_"))

    @classmethod
    def parse(cls, text: str) -> Names:
        """Check a name, written with dashes or underscores, that nothing else has.

        Raises:
            PluginError: it is no such name, or it is taken; the message says what to type.
        """
        method = text.replace("-", "_")
        if not _METHOD.fullmatch(method):
            raise PluginError(
                f"{_shown(text)} is no name of a method; use lower-case letters, digits and single dashes, beginning "
                f"with a letter: avsep new {_similar(text)}."
            )
        if method.startswith("avsep_"):
            raise PluginError(
                f"The name {text!r} begins with avsep, which is put before it anyway; type avsep new {_similar(text)}."
            )
        if len(method) > _LONGEST:
            raise PluginError(
                f"The name {_shown(text)} has {len(method)} characters, and {_LONGEST} at most are legible; type a "
                f"shorter one, as in avsep new {_similar(text)}."
            )
        if taken := _taken(method):
            raise PluginError(f"The name {text!r} is taken: {taken}; type another, as in avsep new {cls(method).free}.")
        return cls(method)

    @property
    def free(self) -> str:
        """This name with dashes, or with a number behind it where it is taken."""
        candidates = [self.method, *(f"{self.method[: _LONGEST - 3].rstrip('_')}_{n}" for n in range(2, 100))]
        return next((Names(name).dashed for name in candidates if not _taken(name)), _EXAMPLE)


def _taken(method: str) -> str:
    """Say what has the name; nothing where it is free."""
    if keyword.iskeyword(method):
        return "it is a keyword of Python"
    if method in _IN_HUBCONF:
        return "torch.hub means something else by it"
    entry = registry().entries.get(("method", method))
    if entry is not None:
        return f"the plugin {entry.plugin!r} has a method {method!r}"
    if method in {report.name for report in plugin_reports()}:
        return f"there is a plugin {method!r}"
    if importlib.util.find_spec(f"avsep_{method}") is not None:
        return f"there is a package avsep_{method}"
    return ""


def _similar(text: str) -> str:
    """The nearest name that can be taken, with dashes."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text)
    plain = re.sub(r"[^a-z0-9]+", "_", spaced.lower()).lstrip("_0123456789").removeprefix("avsep_")
    short = plain[:_LONGEST].strip("_")
    return Names(short).free if _METHOD.fullmatch(short) else _EXAMPLE


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
