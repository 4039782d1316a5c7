"""``avsep info``: everything known about one method, variant or weights card."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from avsep_zoo.cli.terminal import console, print_json, print_table
from avsep_zoo.errors import WeightsError
from avsep_zoo.recipe import PartConfig
from avsep_zoo.registry import registry
from avsep_zoo.weights.cards import Card, card_folder, read_card

__all__ = ["info"]


def info(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A method, a variant, or the folder of a weights card.", show_default=False
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Tell about a method, variant or weights card.

    Paper, cues, parts with their settings, classes, weights, licences, results.
    """
    about = _card(read_card(Path(name))) if _is_card(name) else _method(name)
    if as_json:
        print_json(about)
        return
    _show(about)


def _is_card(name: str) -> bool:
    if "/" in name or os.sep in name:
        return True
    return name.partition(".")[0] not in registry().methods() and Path(name).is_dir()


def _card(card: Card) -> dict[str, Any]:
    parts = {slot: PartConfig.parse(part).to_dict() for slot, part in card.manifest["parts"].items()}
    recipe = registry().methods().get(card.name.partition(".")[0])
    about = _recipe(recipe.name) if recipe else {}
    return about | {
        "name": card.name,
        "variant": card.manifest.get("variant", card.name),
        "parts": parts,
        "sampling": _sampling(parts),
        "classes": _classes(parts),
        "weights": _weights(card),
    }


def _method(name: str) -> dict[str, Any]:
    method, _, variant = name.partition(".")
    recipe = registry().method(method)
    folder = card_folder(name if variant else recipe.weights or "")
    if variant and variant not in recipe.variant_names and folder is not None:
        return _card(read_card(folder))
    parts = {slot: part.to_dict() for slot, part in recipe.parts(variant or None).items()}
    return _recipe(method) | {
        "name": name,
        "variant": f"{method}.{variant or recipe.default_variant}",
        "parts": parts,
        "sampling": _sampling(parts),
        "classes": _classes(parts),
        "weights": _weights(read_card(folder)) if folder else None,
    }


def _recipe(method: str) -> dict[str, Any]:
    entry = registry().get("method", method)
    recipe = entry.target
    return {
        "method": method,
        "summary": recipe.summary,
        "paper": recipe.paper,
        "cues": recipe.cues,
        "plugin": entry.plugin,
        "variants": [f"{method}.{variant}" for variant in recipe.variant_names],
        "presets": sorted(recipe.training),
    }


def _classes(parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return list(parts["encoder"].get("classes", ())) if "encoder" in parts else []


def _sampling(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """What a generative model can be asked for: its solvers, with network evaluations per step, and its defaults."""
    if "driver" not in parts:
        return None
    from avsep_zoo.compose import build_part

    driver = build_part("driver", PartConfig.parse(parts["driver"]))
    return {"steps": driver.steps, "solver": driver.solver, "solvers": dict(driver.solvers)}


def _weights(card: Card) -> dict[str, Any]:
    described = ("parts", "classes", "format", "name", "file")
    stated = {key: value for key, value in card.manifest.items() if key not in described}
    return {
        "name": card.name,
        "folder": str(card.folder),
        "file": str(card.weights),
        "here": card.weights.is_file(),
        "licence": card.front.get("license"),
        "results": card.front.get("model-index", []),
        **stated,
    }


def _show(about: Mapping[str, Any]) -> None:
    screen = console()
    screen.print(about["name"], style="bold")
    if "summary" in about:
        screen.print(about["summary"])
        fields = {"Paper": about["paper"], "Cues": about["cues"], "Plugin": about["plugin"]}
        fields |= {
            "Variants": ", ".join(about["variants"]),
            "Training": ", ".join(about["presets"]) or "none",
        }
        screen.print()
        print_table(("", ""), fields.items())
    screen.print()
    parts = [(slot.replace("_", " "), part["name"], _settings(part)) for slot, part in about["parts"].items()]
    print_table((f"Part of {about['variant']}", "Name", "Settings"), parts)
    if about["sampling"]:
        screen.print(f"\nSampling: {about['sampling']['steps']} steps of {about['sampling']['solver']}", style="bold")
        solvers = [(name, str(cost)) for name, cost in about["sampling"]["solvers"].items()]
        print_table(("Solver", "Network evaluations per step"), solvers, numbers=(1,))
    if about["classes"]:
        screen.print(f"\n{len(about['classes'])} classes", style="bold")
        screen.print(", ".join(about["classes"]))
    weights = about["weights"]
    if weights is None:
        screen.print(f"\nThere are no weights {about['name']} here.")
        return
    screen.print(f"\nWeights {weights['name']}", style="bold")
    try:
        rows = _weight_rows(weights)
    except (AttributeError, KeyError, TypeError) as error:
        raise WeightsError(
            f"The front matter of {weights['folder']} has licences, results or training of another form "
            f"({error}); correct it."
        ) from error
    print_table(("", ""), rows)


def _settings(part: Mapping[str, Any]) -> str:
    shown = {key: value for key, value in part.items() if key not in ("name", "classes")}
    return ", ".join(f"{key}={_text(value)}" for key, value in shown.items()) or "defaults"


def _weight_rows(weights: Mapping[str, Any]) -> list[tuple[str, ...]]:
    size = int(weights["bytes"]) / 1e6
    rows: list[tuple[str, ...]] = [
        ("File", f"{weights['file']} ({size:.1f} MB)" if weights["here"] else f"not here ({size:.1f} MB)"),
        ("sha256", str(weights["sha256"])),
        ("Sample rate", f"{weights['sample_rate']} Hz"),
    ]
    if weights["licence"]:
        rows.append(("Licence", str(weights["licence"])))
    licences = weights.get("licences", {})
    rows += [(f"Licence, {what}".replace("_", " "), _text(text)) for what, text in licences.items()]
    rows += [("Result", text) for text in _results(weights["results"])]
    if weights.get("training"):
        rows.append(("Training", _settings(weights["training"])))
    return rows


def _results(index: Any) -> list[str]:
    """Read the Hugging Face ``model-index``: one line per data set."""
    lines = []
    for model in index:
        for result in model.get("results", []):
            metrics = (f"{m.get('name', m['type'])} {m['value']}" for m in result.get("metrics", []))
            lines.append(f"{result.get('dataset', {}).get('name', 'unnamed data')}: {', '.join(metrics)}")
    return lines


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_text(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_text(entry) for entry in value) + "]"
    return str(value)
