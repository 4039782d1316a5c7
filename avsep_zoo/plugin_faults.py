"""Why a plugin cannot be used, in a sentence: what it raised, and what to do where that is known."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import pluggy

from avsep_zoo import __version__
from avsep_zoo.errors import PluginError
from avsep_zoo.hookspecs import API_VERSION

__all__ = ["explain", "misfit", "plain"]

_LONGEST = 600
_DISTRIBUTIONS = {
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "fluidsynth": "pyfluidsynth",
    "pil": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Import name in lower case -> distribution, where they differ."""


def explain(error: BaseException, *, distribution: str, requires: Sequence[str], package: str) -> str:
    """Return a sentence, without its stop.

    Args:
        error: what importing or registering the plugin raised.
        distribution: name of the plugin's distribution, empty where it is unknown.
        requires: the requirements of that distribution.
        package: top-level package of the plugin.
    """
    advice = ""
    if isinstance(error, SystemExit):
        advice = "; it ends the program when it is imported, report that to its author"
    elif isinstance(error, ModuleNotFoundError) and error.name:
        advice = _missing(error.name, distribution, requires, package)
    elif isinstance(error, ImportError) and error.name:
        advice = _other_version(error.name.partition(".")[0], requires)
    try:
        said = str(error)
    except Exception:
        said = "its message cannot be shown"
    kind = "" if isinstance(error, PluginError) else f"{type(error).__name__}: "
    text = " ".join(f"{kind}{said}".split()).rstrip(".:")
    return (text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ...") + advice


def _missing(name: str, distribution: str, requires: Sequence[str], package: str) -> str:
    top = name.partition(".")[0]
    if _is_there(top):
        return _other_version(top, requires)
    who = distribution or "the plugin"
    if top == package:
        return f"; its own package is not there, install {who} again"
    wanted = plain(_DISTRIBUTIONS.get(top.lower(), top))
    for line in requires:
        if plain(_requirement(line)) != wanted:
            continue
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", line)
        if extra:
            return f"; its extra needs it: pip install '{who}[{extra[1]}]'"
        needed = line.partition(";")[0].strip()
        return f"; {who} requires it: pip install '{needed}'"
    if top.lower() in _DISTRIBUTIONS:
        return f"; {who} does not list it as a requirement, report that to its author: pip install {wanted}"
    return f"; {who} does not list it as a requirement, report that to its author and install what provides it"


def _other_version(top: str, requires: Sequence[str]) -> str:
    """What is there of a package that lacks something, and what was asked for."""
    name = "avsep-zoo" if top == "avsep_zoo" else _DISTRIBUTIONS.get(top.lower(), top)
    try:
        there = __version__ if top == "avsep_zoo" else metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
    asked = next((line.partition(";")[0].strip() for line in requires if plain(_requirement(line)) == plain(name)), "")
    return f"; {name} {there} is here" + (f" and it asks for {asked}" if asked else "") + ", install one that has it"


def _is_there(top: str) -> bool:
    try:
        return find_spec(top) is not None
    except (ImportError, ValueError):
        return False


def _requirement(line: str) -> str:
    found = re.match(r"\s*([A-Za-z0-9._-]+)", line)
    return found[1] if found else ""


def plain(distribution: str) -> str:
    """Return a distribution's name in the form in which names are compared."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def misfit(manager: pluggy.PluginManager, plugin: Any, name: str) -> str | None:
    """Say in which way a plugin implements a hook that is not offered, or asks for an argument that is not given."""
    known = {hook: caller.spec for hook, caller in vars(manager.hook).items() if getattr(caller, "spec", None)}
    for attribute in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, attribute)
        if options is None:
            continue
        hook = options.get("specname") or attribute
        if hook not in known:
            if options.get("optionalhook"):
                continue
            return (
                f"Plugin {name!r} implements the hook {hook}, which API {API_VERSION} of avsep-zoo does not have; "
                f"it has {', '.join(sorted(known))}"
            )
        given = (*known[hook].argnames, *known[hook].kwargnames)
        parameters = inspect.signature(getattr(plugin, attribute)).parameters.values()
        unknown = [p.name for p in parameters if p.name not in given and p.default is p.empty]
        if unknown:
            return (
                f"Plugin {name!r} asks {hook} for {', '.join(unknown)}, which API {API_VERSION} of avsep-zoo does not "
                f"give; it gives {', '.join(given)}, a newer avsep-zoo may give more"
            )
    return None
