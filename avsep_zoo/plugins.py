"""One plugin manager for every way a plugin can come.

Plugins are found as installed entry points (group ``avsep_zoo``), as the ``plugins/*`` of the checkout this
package lies in (declared by the same entry point in their ``pyproject.toml``), or registered by hand with
:func:`register_plugin`. The checkout's copy of a plugin wins over an installed one, as it was made together with this
core; a warning says so where versions differ. A plugin that fails, whatever it raises, is reported by name and never
stops the others.

Environment: ``AVSEP_ZOO_DISABLE`` (comma-separated names) blocks plugins without importing them;
``AVSEP_ZOO_STRICT=1`` raises a plugin's own exception.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
import traceback
import warnings
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import pluggy

from avsep_zoo import builtin, hookspecs
from avsep_zoo.errors import PluginError
from avsep_zoo.registry import Register, Registry, registry

__all__ = ["PluginReport", "checkout_root", "load_plugins", "plugin_reports", "register_plugin"]

GROUP = "avsep_zoo"


@dataclass
class PluginReport:
    """What became of one plugin.

    Args:
        name: name of the entry point; of one that cannot be used, with its distribution.
        origin: ``core``, ``installed``, ``checkout`` or ``by hand``.
        status: ``ok``, ``disabled`` or ``failed``.
        value: what the entry point names.
        distribution: distribution and version, where known.
        error: one line for a failed one, with the whole ``traceback`` beside it.
        registered: ``kind name`` of everything it registered.
    """

    name: str
    origin: str
    status: str
    value: str = ""
    distribution: str = ""
    error: str = ""
    traceback: str = ""
    registered: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Found:
    entry_point: metadata.EntryPoint
    origin: str
    distribution: str
    version: str
    source: Path | None = None

    @property
    def title(self) -> str:
        return f"{self.distribution} {self.version}".strip()


_manager: pluggy.PluginManager | None = None
_reports: dict[str, PluginReport] = {}
_loading = False


def checkout_root() -> Path | None:
    """Return the root of the checkout this package lies in, or None for an installed wheel."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "hubconf.py").is_file() and (root / "plugins").is_dir() else None


def load_plugins() -> Registry:
    """Find and load every plugin; return the registry they filled.

    Raises:
        PluginError: a plugin asks for the registry while it is being imported or registered.
        Exception: a plugin's own exception, only with ``AVSEP_ZOO_STRICT=1``.
    """
    global _manager, _loading
    if _loading:
        raise PluginError("A plugin asks for the registry while plugins are loaded; do that inside a function.")
    _loading = True
    try:
        _manager = pluggy.PluginManager(hookspecs.PROJECT)
        _manager.add_hookspecs(hookspecs)
        _reports.clear()
        result = Registry()
        for name, found in _discover().items():
            _load(_manager, result, name, found)
    finally:
        _loading = False
    result.failures = {r.name: r.error for r in _reports.values() if r.status == "failed"}
    return result


def register_plugin(plugin: Any, name: str) -> None:
    """Register a plugin object by hand, e.g. in a notebook.

    Args:
        plugin: a module or object with an ``avsep_register`` function marked with ``avsep_zoo.hookimpl``.
        name: its name in ``avsep plugins``.

    Raises:
        PluginError: the name is taken, the plugin breaks the hook, or what it registers clashes.
    """
    target = registry()
    if name in _reports:
        raise PluginError(f"There is a plugin {name!r} already ({_reports[name].status}); choose another name.")
    assert _manager is not None
    try:
        registered = _register(_manager, target, plugin, name)
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(f"The plugin {name!r} cannot be registered: {_sentence(error)}.") from error
    _reports[name] = PluginReport(name, "by hand", "ok", repr(plugin), registered=registered)


def plugin_reports() -> list[PluginReport]:
    """Return what became of every plugin, by name."""
    registry()
    return [_reports[name] for name in sorted(_reports)]


def _load(manager: pluggy.PluginManager, target: Registry, name: str, found: _Found) -> None:
    value = str(found.entry_point.value)
    report = _reports[name] = PluginReport(name, found.origin, "ok", value, found.title)
    if found.origin != "core" and name in os.environ.get("AVSEP_ZOO_DISABLE", "").replace(" ", "").split(","):
        manager.set_blocked(name)
        report.status = "disabled"
        return
    try:
        if found.source is not None:
            _put_on_path(found.source, found.entry_point.module.partition(".")[0])
        report.registered = _register(manager, target, found.entry_point.load(), name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may also exit, or panic in native code
        _fail(report, error)


def _register(manager: pluggy.PluginManager, target: Registry, plugin: Any, name: str) -> tuple[str, ...]:
    """Register a plugin with all it declares, or nothing; return ``kind name`` of each part and method."""
    if isinstance(plugin, type):
        raise PluginError(f"Plugin {name!r} is the class {plugin.__name__}; give an instance of it.")
    version = getattr(plugin, "avsep_zoo_api", hookspecs.API_VERSION)
    if not isinstance(version, int) or version > hookspecs.API_VERSION:
        raise PluginError(
            f"Plugin {name!r} needs avsep-zoo API {version!r} and this is {hookspecs.API_VERSION}; upgrade avsep-zoo."
        )
    try:
        manager.register(plugin, name)
        manager.check_pending()
        if not manager.get_hookcallers(plugin):
            raise PluginError(
                f"Plugin {name!r} implements no hook; mark a function avsep_register(register) with avsep_zoo.hookimpl."
            )
        register = Register(name)
        others = [p for p in manager.get_plugins() if p is not plugin]
        manager.subset_hook_caller("avsep_register", others)(register=register)
        target.add(register.entries)
    except BaseException:
        if manager.has_plugin(name) and manager.get_plugin(name) is plugin:
            manager.unregister(plugin)
        raise
    return tuple(f"{e.kind} {e.name}" for e in register.entries if e.kind != "adapter")


def _fail(report: PluginReport, error: BaseException) -> None:
    if os.environ.get("AVSEP_ZOO_STRICT") == "1":
        raise error
    report.status = "failed"
    report.error = _sentence(error)
    report.traceback = "".join(traceback.format_exception(error))
    warnings.warn(
        f"The plugin {report.name!r} ({report.distribution or report.origin}) failed to load: {report.error} "
        "('avsep plugins --verbose' shows the traceback).",
        stacklevel=2,
    )


def _sentence(error: BaseException) -> str:
    kind = "" if isinstance(error, PluginError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split()).rstrip(".:")


def _discover() -> dict[str, _Found]:
    """Find every plugin, the core first. The first of a name is used; another distribution's is reported."""
    core = _Found(metadata.EntryPoint("core", builtin.__name__, GROUP), "core", "avsep-zoo", "")
    chosen = {"core": core}
    in_checkout = _in_checkout()
    candidates = in_checkout + _without_copies(_installed(), in_checkout)
    for found in sorted(candidates, key=lambda f: (f.entry_point.name, f.origin != "checkout")):
        name = found.entry_point.name
        first = chosen.setdefault(name, found)
        if _plain(first.distribution) != _plain(found.distribution):
            report = PluginReport(f"{name} ({found.distribution})", found.origin, "failed")
            report.value, report.distribution = str(found.entry_point.value), found.title
            _reports[report.name] = report
            _fail(
                report,
                PluginError(f"the name {name!r} is taken by {first.distribution}; rename the entry point"),
            )
    return chosen


def _without_copies(installed: list[_Found], in_checkout: list[_Found]) -> list[_Found]:
    """Leave out what is installed of the distributions in the checkout; warn once of other versions."""
    own = {_plain(found.distribution): found for found in in_checkout}
    others = {}
    for found in installed:
        copy = own.get(_plain(found.distribution))
        if copy is not None and copy.version not in ("", found.version):
            others[found.title] = copy.title
    if others:
        warnings.warn(
            f"This checkout of avsep-zoo uses its own {', '.join(others.values())} and not the installed "
            f"{', '.join(others)}; upgrade or uninstall what is installed.",
            stacklevel=2,
        )
    return [found for found in installed if _plain(found.distribution) not in own]


def _put_on_path(source: Path, package: str) -> None:
    """Let ``package`` be imported from ``source`` for good, also by processes that are started later.

    It comes last in ``sys.path``, so that it hides nothing of the user's; or just before the first entry that holds
    another package of this name.
    """
    for index, entry in enumerate(sys.path):
        spec = PathFinder.find_spec(package, [entry])
        if spec is not None and spec.origin is not None:
            if not Path(spec.origin).resolve().is_relative_to(source.resolve()):
                sys.path.insert(index, str(source))
            return
    sys.path.append(str(source))


def _installed() -> list[_Found]:
    found = []
    for entry_point in metadata.entry_points(group=GROUP):
        distribution = entry_point.dist
        title = (distribution.name, distribution.version) if distribution is not None else ("", "")
        found.append(_Found(entry_point, "installed", *title))
    return found


def _in_checkout() -> list[_Found]:
    root = checkout_root()
    found: list[_Found] = []
    for file in sorted(root.glob("plugins/*/pyproject.toml")) if root else ():
        try:
            project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
            declared = project.get("entry-points", {}).get(GROUP, {})
            title = (str(project.get("name", file.parent.name)), str(project.get("version", "")))
            source = file.parent / "src"
            found += [
                _Found(metadata.EntryPoint(name, value, GROUP), "checkout", *title, source)
                for name, value in declared.items()
            ]
        except (OSError, ValueError, AttributeError) as error:
            report = PluginReport(f"plugins/{file.parent.name}", "checkout", "failed", str(file))
            _reports[report.name] = report
            _fail(report, error)
    return found


def _plain(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
