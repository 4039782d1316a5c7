"""One plugin manager for every way a plugin can come.

Plugins are found as installed entry points (group ``avsep_zoo``), as the ``plugins/*`` of the checkout this
package lies in (declared by the same entry point in their ``pyproject.toml``), or registered by hand with
:func:`register_plugin`. The checkout's copy of a plugin wins over an installed one, as it was made together with this
core; a warning says so where versions differ. A plugin that fails, whatever it raises, is reported by name and never
stops the others. The core is loaded first, then the checkout's plugins, then installed ones, each by name.

Environment: ``AVSEP_ZOO_DISABLE`` (comma-separated names) blocks plugins without importing them;
``AVSEP_ZOO_STRICT=1`` raises a plugin's own exception; ``AVSEP_ZOO_PLUGIN_SECONDS`` is how long the import of one may
take (:mod:`avsep_zoo.plugin_guard`). What may change for plugins, and when, is in ``plugins/COMPATIBILITY.md``.
"""

from __future__ import annotations

import os
import sys
import tomllib
import traceback
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import pluggy

from avsep_zoo import builtin, hookspecs
from avsep_zoo.errors import PluginError
from avsep_zoo.plugin_check import unknown_parts
from avsep_zoo.plugin_faults import explain, misfit, plain
from avsep_zoo.plugin_guard import guarded, patience, plugin_seconds
from avsep_zoo.plugin_trial import Lost, try_plugins
from avsep_zoo.registry import Register, Registry, registry

__all__ = ["PluginReport", "checkout_root", "load_alone", "load_plugins", "plugin_reports", "register_plugin"]

GROUP = "avsep_zoo"


@dataclass
class PluginReport:
    """What became of one plugin.

    Args:
        name: name of the entry point; of one that cannot be used, with its distribution.
        origin: ``core``, ``installed``, ``checkout`` or ``by hand``.
        status: ``ok``, ``incomplete`` (a method names parts that are not there), ``disabled`` or ``failed``.
        value: what the entry point names.
        distribution: distribution and version, where known.
        error: one line for a failed one, with the whole ``traceback`` beside it.
        registered: ``kind name`` of everything it registered.
        problems: sentences that say why it is incomplete.
        remarks: sentences about what its import does that it should not do.
    """

    name: str
    origin: str
    status: str
    value: str = ""
    distribution: str = ""
    error: str = ""
    traceback: str = ""
    registered: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Found:
    entry_point: metadata.EntryPoint
    origin: str
    distribution: str
    version: str
    source: Path | None = None
    requires: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.distribution} {self.version}".strip()


_manager: pluggy.PluginManager | None = None
_reports: dict[str, PluginReport] = {}
_loading = False
_lost: Mapping[str, Lost] = {}


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
    seconds = plugin_seconds()
    _loading = True
    try:
        _manager = pluggy.PluginManager(hookspecs.PROJECT)
        _manager.add_hookspecs(hookspecs)
        _reports.clear()
        result = Registry()
        for name, found in _discover().items():
            _load(_manager, result, name, found, seconds)
    finally:
        _loading = False
    result.failures = {r.name: r.error for r in _reports.values() if r.status == "failed"}
    for name, problems in unknown_parts(result).items():
        warnings.warn(f"The plugin {name!r} is incomplete: {' '.join(problems)}", stacklevel=2)
    return result


def load_alone(name: str, value: str) -> None:
    """Import one plugin and register it alone, in a process that is made for that and loads no plugins otherwise."""
    global _loading
    _loading = True
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    _register(manager, Registry(), metadata.EntryPoint(name, value, GROUP).load(), name)


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
        registered, remarks = _register(_manager, target, plugin, name)
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(f"The plugin {name!r} cannot be registered: {_sentence(error)}.") from error
    _reports[name] = PluginReport(name, "by hand", "ok", repr(plugin), registered=registered, remarks=remarks)


def plugin_reports(*, try_first: bool = False) -> list[PluginReport]:
    """Return what became of every plugin, by name.

    Args:
        try_first: before any installed plugin is imported, try each in a process of its own; one that hangs or crashes
            there has failed and is not imported. Where plugins are loaded already, this makes no difference.
    """
    global _lost
    if try_first and not registry.cache_info().currsize:
        _reports.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come when the plugins are loaded
            chosen = _discover()
        installed = {n: f.entry_point.value for n, f in chosen.items() if f.origin == "installed" and not _disabled(n)}
        _lost = try_plugins(installed, plugin_seconds())
    problems = unknown_parts(registry())
    return [
        replace(report, status="incomplete", problems=tuple(problems[name])) if name in problems else report
        for name, report in sorted(_reports.items())
    ]


def _disabled(name: str) -> bool:
    return name in os.environ.get("AVSEP_ZOO_DISABLE", "").replace(" ", "").split(",")


def _load(manager: pluggy.PluginManager, target: Registry, name: str, found: _Found, seconds: float) -> None:
    value = str(found.entry_point.value)
    report = _reports[name] = PluginReport(name, found.origin, "ok", value, found.title)
    core = found.origin == "core"
    if not core and _disabled(name):
        manager.set_blocked(name)
        report.status = "disabled"
        return
    remarks: list[str] = []
    strict = os.environ.get("AVSEP_ZOO_STRICT") == "1"
    try:
        if name in _lost:
            raise PluginError(f"Plugin {name!r} was not imported: {_lost[name].why}")
        if found.source is not None:
            _put_on_path(found.source, found.entry_point.module.partition(".")[0])
        allowed = patience(found.origin, seconds)
        guard = guarded(name, found.title or found.origin, seconds=allowed, quiet_input=not strict)
        with nullcontext(remarks) if core else guard as remarks:
            report.registered, announced = _register(manager, target, found.entry_point.load(), name)
            remarks.extend(announced)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may also exit, or panic in native code
        _fail(report, error, found)
        report.traceback = _lost[name].traceback if name in _lost else report.traceback
    report.remarks = tuple(remarks)


def _register(
    manager: pluggy.PluginManager, target: Registry, plugin: Any, name: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Register a plugin with all it declares, or nothing.

    Returns:
        ``kind name`` of each part and method, and what it uses that is announced to go.
    """
    if isinstance(plugin, type):
        raise PluginError(f"Plugin {name!r} is the class {plugin.__name__}; give an instance of it.")
    version = getattr(plugin, "avsep_zoo_api", hookspecs.API_VERSION)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise PluginError(f"Plugin {name!r} declares avsep_zoo_api = {version!r}; give the number of an API, e.g. 1.")
    if version > hookspecs.API_VERSION:
        raise PluginError(
            f"Plugin {name!r} needs avsep-zoo API {version!r} and this is {hookspecs.API_VERSION}; upgrade avsep-zoo."
        )
    problem = misfit(manager, plugin, name)
    if problem is not None:
        raise PluginError(f"{problem}.")
    try:
        with warnings.catch_warnings(record=True) as caught:  # of pluggy: no code of the plugin runs here
            warnings.simplefilter("always")
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
    for warning in caught:
        warnings.warn(f"The plugin {name!r} has to change: {warning.message}", warning.category, stacklevel=2)
    registered = tuple(f"{e.kind} {e.name}" for e in register.entries if e.kind != "adapter")
    return registered, tuple(f"It has to change: {warning.message}" for warning in caught)


def _fail(report: PluginReport, error: BaseException, found: _Found | None = None) -> None:
    if os.environ.get("AVSEP_ZOO_STRICT") == "1":
        raise error
    report.status = "failed"
    report.error = _sentence(error, found)
    report.traceback = "".join(traceback.format_exception(error))
    warnings.warn(
        f"The plugin {report.name!r} ({report.distribution or report.origin}) failed to load: {report.error} "
        "('avsep plugins --verbose' shows the traceback).",
        stacklevel=2,
    )


def _sentence(error: BaseException, found: _Found | None = None) -> str:
    if found is None:
        return explain(error, distribution="", requires=(), package="")
    package = str(found.entry_point.value).partition(":")[0].partition(".")[0].strip()
    return explain(error, distribution=found.distribution, requires=found.requires, package=package)


def _discover() -> dict[str, _Found]:
    """Find every plugin, as they are loaded. The first of a name is used; another distribution's is reported."""
    core = _Found(metadata.EntryPoint("core", builtin.__name__, GROUP), "core", "avsep-zoo", "")
    chosen = {"core": core}
    in_checkout = _in_checkout()
    candidates = in_checkout + _without_copies(_installed(), in_checkout)
    for found in sorted(candidates, key=lambda f: (f.origin != "checkout", f.entry_point.name)):
        name = found.entry_point.name
        first = chosen.setdefault(name, found)
        if plain(first.distribution) != plain(found.distribution):
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
    own = {plain(found.distribution): found for found in in_checkout}
    others = {}
    for found in installed:
        copy = own.get(plain(found.distribution))
        if copy is not None and copy.version not in ("", found.version):
            others[found.title] = copy.title
    if others:
        warnings.warn(
            f"This checkout of avsep-zoo uses its own {', '.join(others.values())} and not the installed "
            f"{', '.join(others)}; upgrade or uninstall what is installed.",
            stacklevel=2,
        )
    return [found for found in installed if plain(found.distribution) not in own]


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
    try:
        return [_of_distribution(entry_point) for entry_point in metadata.entry_points(group=GROUP)]
    except Exception:  # the metadata of one distribution are damaged: leave out that one
        found: dict[tuple[str, str], _Found] = {}
        for distribution in metadata.distributions():
            try:
                for entry_point in distribution.entry_points.select(group=GROUP):
                    one = _of_distribution(entry_point)
                    found.setdefault((plain(one.distribution), entry_point.name), one)
            except Exception as error:
                where = str(getattr(distribution, "_path", None) or "a distribution without a path")
                report = _reports[where] = PluginReport(where, "installed", "failed")
                _fail(report, PluginError(f"its metadata cannot be read ({error}); install it again"))
        return list(found.values())


def _of_distribution(entry_point: metadata.EntryPoint) -> _Found:
    distribution = entry_point.dist
    if distribution is None:
        return _Found(entry_point, "installed", "", "")
    stated = distribution.metadata  # of a damaged one, what is missing is None
    name, version = str(stated["Name"] or ""), str(stated["Version"] or "")
    return _Found(entry_point, "installed", name, version, requires=tuple(distribution.requires or ()))


def _in_checkout() -> list[_Found]:
    root = checkout_root()
    found: list[_Found] = []
    for file in sorted(root.glob("plugins/*/pyproject.toml")) if root else ():
        try:
            project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
            declared = project.get("entry-points", {}).get(GROUP, {})
            title = (str(project.get("name", file.parent.name)), str(project.get("version", "")))
            source = file.parent / "src"
            requires = tuple(str(line) for line in project.get("dependencies", ()))
            found += [
                _Found(metadata.EntryPoint(name, value, GROUP), "checkout", *title, source, requires)
                for name, value in declared.items()
            ]
        except (OSError, ValueError, AttributeError) as error:
            report = PluginReport(f"plugins/{file.parent.name}", "checkout", "failed", str(file))
            _reports[report.name] = report
            _fail(report, error)
    return found
