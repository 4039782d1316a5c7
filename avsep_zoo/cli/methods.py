"""``avsep list``: every method with its variants and weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from avsep_zoo.cli.terminal import console, print_json, print_table
from avsep_zoo.registry import registry
from avsep_zoo.weights.cards import card_folder, read_card

if TYPE_CHECKING:
    from avsep_zoo.recipe import Recipe

__all__ = ["list_methods", "weights_state"]


def list_methods(
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List methods, variants and weights."""
    methods = [_describe(entry.target, entry.plugin) for entry in registry().list("method")]
    if as_json:
        print_json(methods)
        return
    screen = console()
    if not methods:
        screen.print("There are no methods; install a plugin, e.g. avsep-iquery, and see 'avsep plugins'.")
        return
    for method in methods:
        screen.print(f"{method['name']}  {method['summary']}", style="bold")
        screen.print(f"Cues: {method['cues']}.")
        screen.print(f"Plugin: {method['plugin']}\n")
        rows = []
        for variant in method["variants"]:
            meant = [f"--model {method['name']}"] if variant["name"] == method["weights"] else []
            meant += [f"train {method['name']}"] if variant["name"] == method["default_variant"] else []
            rows.append((variant["name"], variant["weights"], ", ".join(meant)))
        print_table(("Variant", "Weights", "Meant by"), rows)
        screen.print()
    screen.print("'avsep info NAME' tells more about a method or variant.")


def weights_state(name: str) -> str:
    """Say whether the weights ``<method>.<tag>`` are ``here``, or ``card only``, or there are ``none``."""
    folder = card_folder(name)
    if folder is None:
        return "none"
    return "here" if read_card(folder).weights.is_file() else "card only"


def _describe(recipe: Recipe, plugin: str) -> dict[str, Any]:
    names = [f"{recipe.name}.{variant}" for variant in recipe.variant_names]
    return {
        "name": recipe.name,
        "summary": recipe.summary,
        "cues": recipe.cues,
        "plugin": plugin,
        "default_variant": names[0],
        "weights": recipe.weights,
        "variants": [{"name": name, "weights": weights_state(name)} for name in names],
    }
