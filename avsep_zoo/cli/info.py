"""``avsep info``: everything known about one method, variant or weights card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from avsep_zoo.cli.terminal import console, print_json, print_table
from avsep_zoo.load import find_card, is_place
from avsep_zoo.recipe import PartConfig
from avsep_zoo.registry import registry
from avsep_zoo.weights.card_results import MEASURED, REPORTED, read_results
from avsep_zoo.weights.cards import Card, card_folder, read_card
from avsep_zoo.weights.licences import FIELDS, commercial, entries

__all__ = ["info"]


def info(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A method, a variant, the folder of a weights card, or hf://org/name@commit.",
            show_default=False,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Tell about a method, variant or weights card.

    Paper, cues, parts with their settings, classes, weights, licences, results.
    """
    about = _card(find_card(name)) if is_place(name) else _method(name)
    if as_json:
        print_json(about)
        return
    _show(about)


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
    from avsep_zoo.weights.download import weights_state

    described = ("parts", "classes", "format", "name", "file")
    stated = {key: value for key, value in card.manifest.items() if key not in described}
    return {
        "name": card.name,
        "folder": str(card.folder),
        "file": str(card.weights),
        "state": weights_state(card),
        "here": card.weights.is_file(),
        "hub": card.hub,
        "licence": card.front.get("license"),
        "commercial": commercial(card),
        "results": [asdict(result) for result in read_results(card)],
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
    print_table(("", ""), _weight_rows(weights))
    for kind, title in {MEASURED: "Measured here", REPORTED: "Reported by the paper", "": "Other results"}.items():
        results = [result for result in weights["results"] if result["kind"] == kind]
        for source in dict.fromkeys(result["source"] for result in results):
            screen.print(f"\n{title}", style="bold", end="")
            screen.print(f": {source}" if source else "")
            print_table(("", ""), [_result(result) for result in results if result["source"] == source])


def _settings(part: Mapping[str, Any]) -> str:
    shown = {key: value for key, value in part.items() if key not in ("name", "classes")}
    return ", ".join(f"{key}={_text(value)}" for key, value in shown.items()) or "defaults"


def _weight_rows(weights: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [("Card", weights["folder"]), ("State", weights["state"])]
    if weights.get("sha256"):
        size = f"{weights['bytes'] / 1e6:.1f} MB"
        rows.append(("File", f"{weights['file']} ({size})" if weights["here"] else size))
        rows.append(("sha256", weights["sha256"]))
    else:
        rows.append(("How to get them", f"avsep convert {weights['name']} --checkpoint FILE... -o CARD, see the card"))
    if weights["hub"]:
        repo, _, revision = weights["hub"].partition("@")
        rows += [("Repository", repo), ("Revision", revision)]
    rows.append(("Sample rate", f"{weights['sample_rate']} Hz"))
    if weights.get("licences"):
        stated = entries(weights)
        for field in FIELDS:
            lines = "\n".join(str(entry) for entry in stated if entry.field == field)
            rows.append((f"Licence of {field.replace('_', ' ')}", lines))
        rows.append(("Commercial use", "permitted" if weights["commercial"] else "not permitted as far as is stated"))
    elif weights["licence"]:
        rows.append(("Licence", str(weights["licence"])))
    for key in ("source", "started_from", "converted"):
        if isinstance(block := weights.get(key), Mapping):
            lines = "\n".join(f"{name}: {_text(value)}" for name, value in block.items())
            rows.append((key.replace("_", " ").capitalize(), lines))
    if isinstance(weights.get("training"), Mapping):
        rows.append(("Training", _settings(weights["training"])))
    return rows


def _result(result: Mapping[str, Any]) -> tuple[str, str]:
    return result["data"], ", ".join(f"{metric['name']} {metric['value']}" for metric in result["metrics"])


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_text(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_text(entry) for entry in value) + "]"
    return str(value)
