"""``avsep new``: the plugin package of a new method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avsep_zoo.cli.terminal import console, print_json

__all__ = ["new"]


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the method is called, as in my-method.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Folder of the package; avsep-NAME here if not given."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write the plugin package of a new method, which trains, is tested and can be published as it is.

    Encoder, conditioner, separator and objective are short, and their comments say what to change.

    [bold]avsep new my-method[/bold]
    """
    from avsep_zoo.scaffold import Names, write_package

    names = Names.parse(name)
    folder = Path(names.distribution) if out is None else out
    written = write_package(names, folder)
    if as_json:
        print_json({"method": names.method, "package": names.package, "folder": str(folder), "files": written})
        return
    screen = console()
    screen.print(f"{names.distribution} is in {folder}:", soft_wrap=True)
    for path in written:
        screen.print(f"  {path}", soft_wrap=True)
    screen.print(
        f"Install it: python -m pip install --no-deps -e {folder}\n"
        f"Test it:    python -m pytest {folder}\n"
        f"Train it:   avsep train {names.method}.tiny --data DATA -o runs/tiny\n"
        f"{folder / 'README.md'} says what comes then.",
        soft_wrap=True,
    )
