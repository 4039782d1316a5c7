"""``avsep convert``: files of a method's authors become a weights card."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from avsep_zoo.cli.terminal import busy, console, print_json, print_table

__all__ = ["convert"]

_SHOWN = 5


def convert(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="A method, or one of its variants as 'avsep list' names them."),
    ],
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="Further files, as --checkpoint.", hidden=True)
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE...", help="The authors' files, one or several, in any order.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="CARD", help="Folder of the new card.", show_default=False)
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store the weights as float16.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Name every entry that is not used.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Convert the checkpoints that a method's authors publish into a weights card.

    Pickles are read without running anything in them; every entry has to be known, finite and in its place; and the
    model has to separate a made-up mixture before anything is written.
    """
    files = [*(checkpoint or ()), *(more or ())]
    if not files or out is None:
        raise typer.BadParameter("give the authors' files and the folder of the new card: --checkpoint FILE... -o CARD")
    from avsep_zoo.weights.conversion import convert as convert_files

    with busy("Converting"):
        done = convert_files(name, files, out, half=half)
    card = done.card
    if as_json:
        print_json(
            {
                "name": card.name,
                "folder": str(card.folder),
                "bytes": card.manifest["bytes"],
                "sha256": card.sha256,
                "files": [asdict(file) for file in done.files],
                "used": done.used,
                "missing": [],
                "unused": list(done.unused),
                "check": asdict(done.check),
            }
        )
        return
    screen = console()
    rows = [(file.name, file.part, f"{file.bytes / 1e6:.1f}", file.sha256[:12]) for file in done.files]
    print_table(("File", "Part", "MB", "sha256"), rows, numbers=(2,))
    screen.print(f"\n{done.used} entries of {card.name} are filled, none is missing; {len(done.unused)} are not used.")
    for entry in done.unused if verbose else done.unused[:_SHOWN]:
        screen.print(f"  not used: {entry}", soft_wrap=True)
    if len(done.unused) > _SHOWN and not verbose:
        screen.print(f"  and {len(done.unused) - _SHOWN} more (--verbose names them)")
    check = done.check
    screen.print(
        f"Self-check by {check.cues}: estimates from {check.low:.3g} to {check.high:.3g}, two sources "
        f"{check.apart:.2g} apart.",
        soft_wrap=True,
    )
    screen.print(f"{card.name} is in {card.folder} ({card.manifest['bytes'] / 1e6:.1f} MB).", soft_wrap=True)
    screen.print(f"Use it: avsep separate FILE --model {card.folder} --cue ...", soft_wrap=True)
