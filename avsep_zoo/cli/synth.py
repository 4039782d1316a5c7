"""``avsep synth``: write a data set of synthetic solo clips in the MUSIC layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from avsep_zoo.cli.terminal import console, count_bar, print_json, print_table

__all__ = ["synth"]


def synth(
    out: Annotated[
        Path,
        typer.Argument(
            metavar="DST", help="Folder to write: new, empty, or left by an interrupted run.", show_default=False
        ),
    ],
    clips: Annotated[
        int, typer.Option(help="Clips played by soundfonts, over all splits (0: recorded solos only).")
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Decides every melody and every picture.")] = 0,
    solos: Annotated[
        Path | None,
        typer.Option(
            help="Folder of recorded solos, DIR/<class>/<recording>; a name that begins with train_, val_ or "
            "test_ says the split."
        ),
    ] = None,
    soundfont: Annotated[
        list[Path] | None,
        typer.Option(help="General MIDI soundfont for all splits but the next; repeatable (default: FluidR3_GM)"),
    ] = None,
    timbre_soundfont: Annotated[
        Path | None, typer.Option(help="Soundfont of the cross-timbre test split (default: TimGM6mb)")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes; the files do not depend on it.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Write a data set of solo clips: moving pictures of instruments, their sound, and the index files.

    Sound comes from General MIDI soundfonts, from recorded solos, or both;
    the layout is the one of MUSIC; synth.json lists settings and licences.
    """
    from avsep_zoo.synth import write_dataset

    with count_bar("clips") as advance:
        manifest = write_dataset(
            out,
            clips=clips,
            seed=seed,
            solos=solos,
            soundfonts=soundfont,
            timbre_soundfont=timbre_soundfont,
            workers=workers,
            progress=advance,
        )
    written = json.loads(manifest.read_text(encoding="utf-8"))
    summary = {key: written[key] for key in ("rows", "skipped", "generic_picture")}
    if as_json:
        print_json({"manifest": str(manifest), **summary})
        return
    print_table(("list", "rows"), [(f"{name}.csv", str(n)) for name, n in summary["rows"].items()], numbers=(1,))
    for entry in summary["skipped"]:
        console().print(f"Left out: {entry['recording']} ({entry['reason']})", soft_wrap=True)
    if summary["generic_picture"]:
        console().print(f"Shown as the generic picture: {', '.join(summary['generic_picture'])}", soft_wrap=True)
    console().print(f"Manifest: {manifest}", soft_wrap=True)
