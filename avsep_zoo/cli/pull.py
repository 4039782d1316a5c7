"""``avsep pull``: fetch weights now, to use them later without a network."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from avsep_zoo.cli.terminal import busy, client_bars, console, print_json, print_table
from avsep_zoo.errors import AvsepError

__all__ = ["pull"]


def pull(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="Methods, variants, folders of weights cards, or hf://org/name@commit.",
            show_default=False,
        ),
    ],
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="A folder or https:// address with <name of a card>/<file>, instead of the Hub "
            "(default: that of AVSEP_ZOO_MIRROR).",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Fetch weights, check them, and load each model once, so that it works without a network later."""
    pulled: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    said = console(stderr=True)
    with client_bars(shown=said.is_terminal and not as_json):
        for name in dict.fromkeys(names):
            try:
                pulled.append(_pull(name, mirror))
            except (AvsepError, OSError) as error:
                if os.environ.get("AVSEP_ZOO_DEBUG") == "1":
                    raise
                failed.append({"name": name, "error": " ".join(str(error).split())})
                said.print(f"{name}: {failed[-1]['error']}", style="red", soft_wrap=True)
    if as_json:
        print_json({"pulled": pulled, "failed": failed})
    elif pulled:
        rows = [(one["name"], one["file"], f"{one['bytes'] / 1e6:.1f}", one["from"]) for one in pulled]
        print_table(("Name", "File", "MB", "From"), rows, numbers=(2,))
    if failed:
        raise typer.Exit(1)


def _pull(name: str, mirror: str | None) -> dict[str, Any]:
    from avsep_zoo.load import find_card, load
    from avsep_zoo.weights.download import find_weights

    card = find_card(name)
    found = find_weights(card, mirror=mirror)
    with busy(f"Loading {card.name}"):
        model = load(name)
    model.encoder.fetch()
    about = {"name": card.name, "file": str(found.path), "bytes": card.manifest["bytes"], "sha256": card.sha256}
    return about | {"from": found.source}
