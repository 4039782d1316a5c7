"""What plugins promise and what is there: parts that methods name, and targets behind names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from avsep_zoo.errors import PluginError
from avsep_zoo.recipe import Recipe
from avsep_zoo.registry import PART_KINDS, Entry, Registry

__all__ = ["check_targets", "unknown_parts"]


def unknown_parts(registry: Registry) -> dict[str, list[str]]:
    """Return plugin -> sentences about parts that its methods name and nobody registered, of every variant."""
    problems: dict[str, list[str]] = {}
    for entry in registry.list("method"):
        for sentence in _unknown(registry, entry.target):
            found = problems.setdefault(entry.plugin, [])
            if sentence not in found:
                found.append(sentence)
    return problems


def _unknown(registry: Registry, recipe: Recipe) -> Iterator[str]:
    try:
        for variant in recipe.variant_names:
            for slot, part in recipe.parts(variant).items():
                if (slot, part.name) not in registry.entries:
                    what = slot.replace("_", " ")
                    yield f"The method {recipe.name!r} names the {what} {part.name!r}, which no plugin here registers."
    except Exception as error:  # recipes are what plugins make them
        yield f"The method {recipe.name!r} is malformed ({type(error).__name__}: {error})."


def check_targets(registry: Registry, plugin: str) -> list[str]:
    """Import everything that a plugin names, and look whether its methods' parts fit; return what is wrong."""
    problems = []
    for entry in list(registry.entries.values()):
        if entry.plugin != plugin:
            continue
        for check in _checks(registry, entry):
            try:
                check()
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # also what exits, or panics in native code
                said = str(error) if isinstance(error, PluginError) else _about(entry, error)
                problems.append(" ".join(said.split()))
    return list(dict.fromkeys(problems))


def _about(entry: Entry, error: BaseException) -> str:
    return f"The {entry.kind.replace('_', ' ')} {entry.name!r} cannot be used ({type(error).__name__}: {error})."


def _checks(registry: Registry, entry: Entry) -> Iterator[Callable[[], Any]]:
    if entry.kind in PART_KINDS:
        yield lambda: _callable(entry, registry.part(entry.kind, entry.name))
    elif entry.kind == "adapter":
        yield lambda: _callable(entry, entry.resolve())
    elif entry.kind == "cards":
        yield lambda: _folder(entry)
    else:
        recipe: Recipe = entry.target
        for target in (recipe.add_classes, recipe.converter):
            if target is not None:
                yield Entry(entry.kind, entry.name, target, "", entry.plugin).resolve
        if not list(_unknown(registry, recipe)):
            for variant in recipe.variant_names:
                yield lambda variant=variant: _fits(recipe, variant)  # type: ignore[misc]


def _callable(entry: Entry, found: Any) -> None:
    if not callable(found):
        raise PluginError(
            f"The {entry.kind.replace('_', ' ')} {entry.name!r} of plugin {entry.plugin!r}, {entry.target!r}, is a "
            f"{type(found).__name__}, no class or function; report it to its author."
        )


def _folder(entry: Entry) -> None:
    if not entry.target.is_dir():
        raise PluginError(
            f"The folder of cards {entry.name!r} of plugin {entry.plugin!r} is not there; it may be missing from the "
            "package, report it to its author."
        )


def _fits(recipe: Recipe, variant: str) -> None:
    from avsep_zoo.compose import check_parts
    from avsep_zoo.errors import CompositionError

    try:
        check_parts(recipe.parts(variant))
    except CompositionError as error:
        raise PluginError(f"The variant {recipe.name}.{variant} cannot be built: {error}") from error
