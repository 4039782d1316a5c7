"""``avsep card``: check weights cards, and make the table of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avsep_zoo.cli.terminal import console, print_json
from avsep_zoo.errors import WeightsError

__all__ = ["card"]

card = typer.Typer(no_args_is_help=True, help="Check weights cards, or make the table of them.")


@card.command("check")
def check(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Folders of cards, or folders of such folders.", show_default=False),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say everything that is wrong with cards: front matter, parts, licences, results, weights.

    Exit code 1 if a card has a problem.
    """
    from avsep_zoo.weights.card_check import check as problems_of

    found = {str(folder): problems_of(folder) for given in folders for folder in _cards(given)}
    if as_json:
        print_json([{"folder": folder, "problems": problems} for folder, problems in found.items()])
    else:
        screen = console()
        for folder, problems in found.items():
            screen.print(f"{folder}: {_count(len(problems))}", soft_wrap=True)
            for problem in problems:
                screen.print(f"- {problem}", soft_wrap=True)
    raise typer.Exit(int(any(found.values())))


@card.command("table")
def table(
    readme: Annotated[
        Path | None,
        typer.Argument(metavar="[README]", help="File whose table is replaced.", show_default=False),
    ] = None,
) -> None:
    """Print the table of methods and weights, made of cards and recipes, or write it into a README.

    In a README it stands between two lines: <!-- avsep card table --> and <!-- end of avsep card table -->.
    """
    from avsep_zoo.weights.card_table import methods_table, write_table

    if readme is None:
        typer.echo(methods_table(), nl=False)
        return
    changed = write_table(readme)
    console(stderr=True).print(f"{readme} {'has the table now' if changed else 'has it already'}.", soft_wrap=True)


def _cards(folder: Path) -> list[Path]:
    """The folder of a card, or the folders of all cards in it."""
    if (folder / "README.md").exists() or not folder.exists():
        return [folder]
    inside = sorted(file.parent for file in folder.glob("*/README.md"))
    if not inside:
        raise WeightsError(f"The folder {str(folder)!r} holds no card; give a folder with a README.md, or one of such.")
    return inside


def _count(problems: int) -> str:
    return "no problems" if problems == 0 else "1 problem" if problems == 1 else f"{problems} problems"
