"""Names of parts and methods, and how to get what is behind a name.

A target is ``"package.module:attribute"`` and is imported when it is asked for, never when it is listed.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avsep_zoo.errors import CompositionError, PluginError
from avsep_zoo.recipe import Recipe

__all__ = ["PART_KINDS", "Entry", "Register", "Registry", "registry"]

PART_KINDS = ("encoder", "conditioner", "separator", "driver", "front_end", "objective", "reader", "detector", "motion")
_CONTRACTS = {
    "driver": "avsep_zoo.generative.contract:Driver",
    "objective": "avsep_zoo.contracts:Objective",
    "reader": "avsep_zoo.data.reader:Reader",
    "detector": "avsep_zoo.detection:Detector",
    "motion": "avsep_zoo.detection:MotionNet",
}
"""What a class of these kinds derives from; the parts of a model are only called, :func:`avsep_zoo.compose` checks."""
_WORDS = {"motion": "motion network"}
_PART_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?")


@dataclass(frozen=True)
class Entry:
    """One registered name: who registered it, what it is, and where it is found.

    ``small`` are settings that make a small one, to try what it does in no time.
    """

    kind: str
    name: str
    target: Any
    summary: str
    plugin: str
    small: Mapping[str, Any] = field(default_factory=dict)

    def resolve(self) -> Any:
        """Import and return what the name stands for.

        Raises:
            PluginError: the target cannot be imported.
        """
        if not isinstance(self.target, str):
            return self.target
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"The {_words(self.kind)} {self.name!r} of plugin {self.plugin!r} cannot be "
                f"imported from {self.target!r} ({type(error).__name__}: {error}); install what it needs or "
                "report it to its author."
            ) from error


@dataclass
class Registry:
    """Every registered part, method and parity adapter."""

    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)

    def add(self, entries: Iterable[Entry]) -> None:
        """Add the entries of one plugin, all or none.

        Raises:
            PluginError: a name is taken; the message names both owners.
        """
        fresh: dict[tuple[str, str], Entry] = {}
        for entry in entries:
            taken = self.entries.get((entry.kind, entry.name)) or fresh.get((entry.kind, entry.name))
            if taken is not None:
                raise PluginError(
                    f"Plugin {entry.plugin!r} registers {entry.kind} {entry.name!r}, which plugin "
                    f"{taken.plugin!r} has; rename one of them."
                )
            fresh[entry.kind, entry.name] = entry
        self.entries.update(fresh)

    def list(self, kind: str) -> list[Entry]:
        """Entries of one kind, by name."""
        return sorted((e for e in self.entries.values() if e.kind == kind), key=lambda e: e.name)

    def get(self, kind: str, name: str) -> Entry:
        """Return one entry.

        Raises:
            CompositionError: the name is unknown; the message says what exists, and which plugins failed.
        """
        entry = self.entries.get((kind, name))
        if entry is None:
            raise CompositionError(self._unknown(kind, name))
        return entry

    def part(self, kind: str, name: str) -> Any:
        """Return the class behind a part's name.

        Raises:
            CompositionError: the name is unknown.
            PluginError: the class cannot be imported, or does not keep the contract of its kind.
        """
        entry = self.get(kind, name)
        found = entry.resolve()
        if kind in _CONTRACTS:
            _check_contract(entry, found)
        return found

    def method(self, name: str) -> Recipe:
        """Return the recipe of a method."""
        return self.get("method", name).target

    def methods(self) -> dict[str, Recipe]:
        """All methods by name."""
        return {entry.name: entry.target for entry in self.list("method")}

    def card_folders(self, method: str) -> tuple[Path, ...]:
        """Folders with weights cards of a method that its own plugin registered; none for an unknown method."""
        owner = self.entries.get(("method", method))
        return tuple(e.target for e in self.list("cards") if owner is not None and e.plugin == owner.plugin)

    def adapter(self, method: str, adapter: str) -> Callable[..., Any] | None:
        """Return the parity adapter of a method, or None."""
        entry = self.entries.get(("adapter", f"{method}/{adapter}"))
        return None if entry is None else entry.resolve()

    def _unknown(self, kind: str, name: str) -> str:
        known = [entry.name for entry in self.list(kind)]
        near = difflib.get_close_matches(name, known, n=1)
        if not near:  # by the name without its plugin: clap-text is bimodal_sep.clap_text
            last = {full.rpartition(".")[2]: full for full in known}
            near = [last[end] for end in difflib.get_close_matches(name.replace("-", "_"), last, n=1)]
        hint = f"did you mean {near[0]!r}" if near else f"known are {', '.join(known) or 'none'}"
        failed = "".join(f"; plugin {p!r} failed to load ({why})" for p, why in self.failures.items())
        return f"There is no {_words(kind)} {name!r}; {hint}{failed}."


class Register:
    """What a plugin's hook is handed: collects its entries."""

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self.entries: list[Entry] = []

    def encoder(self, name: str, target: str, summary: str = "", *, small: Mapping[str, Any] | None = None) -> None:
        """Register a :class:`~avsep_zoo.contracts.CueEncoder` class as ``"module:Class"``."""
        self._part("encoder", name, target, summary, small)

    def conditioner(self, name: str, target: str, summary: str = "", *, small: Mapping[str, Any] | None = None) -> None:
        """Register a :class:`~avsep_zoo.contracts.Conditioner` class."""
        self._part("conditioner", name, target, summary, small)

    def separator(self, name: str, target: str, summary: str = "", *, small: Mapping[str, Any] | None = None) -> None:
        """Register a :class:`~avsep_zoo.contracts.Separator` class."""
        self._part("separator", name, target, summary, small)

    def driver(self, name: str, target: str, summary: str = "", *, small: Mapping[str, Any] | None = None) -> None:
        """Register a :class:`~avsep_zoo.generative.contract.Driver` class."""
        self._part("driver", name, target, summary, small)

    def front_end(self, name: str, target: str, summary: str = "", *, small: Mapping[str, Any] | None = None) -> None:
        """Register a :class:`~avsep_zoo.contracts.FrontEnd` class."""
        self._part("front_end", name, target, summary, small)

    def objective(self, name: str, target: str, summary: str = "", *, small: Mapping[str, Any] | None = None) -> None:
        """Register a :class:`~avsep_zoo.contracts.Objective` class."""
        self._part("objective", name, target, summary, small)

    def reader(self, name: str, target: str, summary: str = "") -> None:
        """Register a :class:`~avsep_zoo.data.reader.Reader` class."""
        self._part("reader", name, target, summary)

    def detector(self, name: str, target: str, summary: str = "") -> None:
        """Register a :class:`~avsep_zoo.detection.Detector` class."""
        self._part("detector", name, target, summary)

    def motion(self, name: str, target: str, summary: str = "") -> None:
        """Register a :class:`~avsep_zoo.detection.MotionNet` class."""
        self._part("motion", name, target, summary)

    def method(self, recipe: Recipe) -> None:
        """Register a method."""
        if not isinstance(recipe, Recipe):
            raise PluginError(f"Plugin {self.plugin!r} registers {recipe!r} as a method; give an avsep_zoo.Recipe.")
        self.entries.append(Entry("method", recipe.name, recipe, recipe.summary, self.plugin))

    def cards(self, folder: str | Path) -> None:
        """Register a folder of weights cards that travel in the plugin's package.

        Args:
            folder: absolute path, e.g. ``Path(__file__).with_name("cards")``; holds ``<method>.<tag>/README.md`` with
                the weights beside it. Only cards of methods of the same plugin are found in it.
        """
        path = Path(folder) if isinstance(folder, str | Path) else None
        if path is None or not path.is_absolute():
            raise PluginError(
                f"Plugin {self.plugin!r} names {str(folder)!r} as its folder of weights cards; give an absolute path, "
                "e.g. Path(__file__).with_name('cards')."
            )
        self.entries.append(Entry("cards", str(path), path, "", self.plugin))

    def adapter(self, method: str, adapter: str, target: str) -> None:
        """Register a parity adapter: a function of a :class:`~avsep_zoo.parity.case.Case`."""
        self.entries.append(Entry("adapter", f"{method}/{adapter}", _target(target, self.plugin), "", self.plugin))

    def _part(self, kind: str, name: str, target: str, summary: str, small: Mapping[str, Any] | None = None) -> None:
        if not _PART_NAME.fullmatch(name):
            raise PluginError(
                f"Plugin {self.plugin!r} names a {kind} {name!r}; use lower-case letters, digits, _ and one dot."
            )
        self.entries.append(Entry(kind, name, _target(target, self.plugin), summary, self.plugin, dict(small or {})))


def _words(kind: str) -> str:
    return _WORDS.get(kind, kind.replace("_", " "))


def _check_contract(entry: Entry, found: Any) -> None:
    """Raise a PluginError unless ``found`` is a class that implements the contract of its kind."""
    module, _, attribute = _CONTRACTS[entry.kind].partition(":")
    contract = getattr(importlib.import_module(module), attribute)
    missing: list[str] = []
    if isinstance(found, type) and issubclass(found, contract):
        missing = sorted(getattr(found, "__abstractmethods__", ()))
        if not missing:
            return
    why = f"lacks {', '.join(missing)}" if missing else f"is no class derived from {module}.{attribute}"
    raise PluginError(
        f"The {_words(entry.kind)} {entry.name!r} of plugin {entry.plugin!r}, {entry.target!r}, {why}; "
        "report it to its author."
    )


def _target(target: str, plugin: str) -> str:
    if not isinstance(target, str) or target.count(":") != 1:
        raise PluginError(
            f"Plugin {plugin!r} registers the target {target!r}; give a string 'package.module:attribute'."
        )
    return target


@functools.cache
def registry() -> Registry:
    """Return the registry of this process, with every plugin loaded."""
    from avsep_zoo.plugins import load_plugins

    return load_plugins()
