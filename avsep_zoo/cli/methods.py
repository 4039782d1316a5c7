"""``avsep list``: every method with its variants, their weights and what the licences of these permit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from avsep_zoo.cli.terminal import console, print_json, print_table
from avsep_zoo.errors import WeightsError
from avsep_zoo.registry import registry
from avsep_zoo.weights.cards import card_folder, read_card

if TYPE_CHECKING:
    from avsep_zoo.recipe import Recipe

__all__ = ["list_methods"]


def list_methods(
    commercial: Annotated[
        bool,
        typer.Option(
            "--commercial",
            help="Only weights whose card states licences that permit commercial use: of the code, of the weights and "
            "of the data they were trained on.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List methods, variants and weights."""
    methods = [_describe(entry.target, entry.plugin) for entry in registry().list("method")]
    if commercial:
        for method in methods:
            method["variants"] = [variant for variant in method["variants"] if variant["commercial"]]
        methods = [method for method in methods if method["variants"]]
    if as_json:
        print_json(methods)
        return
    screen = console()
    if not methods:
        screen.print(
            "No weights here have licences that permit commercial use."
            if commercial
            else "There are no methods; install a plugin, e.g. avsep-iquery, and see 'avsep plugins'."
        )
        return
    for method in methods:
        screen.print(f"{method['name']}  {method['summary']}", style="bold")
        screen.print(f"Cues: {method['cues']}.")
        screen.print(f"Plugin: {method['plugin']}\n")
        rows = []
        for variant in method["variants"]:
            meant = [f"--model {method['name']}"] if variant["name"] == method["weights"] else []
            meant += [f"train {method['name']}"] if variant["name"] == method["default_variant"] else []
            rows.append((variant["name"], variant["weights"], variant["licence"] or "", ", ".join(meant)))
        print_table(("Variant", "Weights", "Their licence", "Meant by"), rows)
        screen.print()
    screen.print("'avsep info NAME' tells more about a method or variant.")


def _describe(recipe: Recipe, plugin: str) -> dict[str, Any]:
    names = [f"{recipe.name}.{variant}" for variant in recipe.variant_names]
    return {
        "name": recipe.name,
        "summary": recipe.summary,
        "cues": recipe.cues,
        "plugin": plugin,
        "default_variant": names[0],
        "weights": recipe.weights,
        "variants": [{"name": name, **_weights(name)} for name in names],
    }


def _weights(name: str) -> dict[str, Any]:
    """Where the weights of a variant are, their licence, and whether they may be used commercially."""
    from avsep_zoo.weights.download import weights_state
    from avsep_zoo.weights.licences import commercial, entries

    folder = card_folder(name)
    if folder is None:
        return {"weights": "none", "licence": None, "commercial": False}
    try:
        card = read_card(folder)
    except WeightsError:
        return {"weights": "damaged card", "licence": None, "commercial": False}
    licence = ", ".join(dict.fromkeys(e.licence for e in entries(card.manifest) if e.field == "weights"))
    return {"weights": weights_state(card), "licence": licence, "commercial": commercial(card)}
