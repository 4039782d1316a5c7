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
        int | None,
        typer.Option(
            help="Clips played by soundfonts, over all splits; 0: recorded solos only (default: 1000, or 0 with "
            "--ensembles)"
        ),
    ] = None,
    ensembles: Annotated[
        int,
        typer.Option(
            help="Instead of solo clips, write this many ensembles for training and validation: two players among "
            "things that make no sound. With --solos some players play those."
        ),
    ] = 0,
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
    """Write a data set of solo clips or ensembles: moving pictures of instruments, their sound, and the index files.

    Sound comes from General MIDI soundfonts, from recorded solos, or both;
    the layout is the one of MUSIC; synth.json lists settings and licences.
    """
    from avsep_zoo.errors import DataError
    from avsep_zoo.synth import write_dataset, write_ensembles

    if ensembles and clips:
        raise DataError(f"clips is {clips} and ensembles {ensembles}: make two folders, one of clips, one of ensembles")
    if ensembles and timbre_soundfont is not None:
        raise DataError("ensembles have no cross-timbre test split: leave out --timbre-soundfont")
    with count_bar("ensembles" if ensembles else "clips") as advance:
        if ensembles:
            manifest = write_ensembles(
                out,
                ensembles=ensembles,
                seed=seed,
                solos=solos,
                soundfonts=soundfont,
                workers=workers,
                progress=advance,
            )
        else:
            manifest = write_dataset(
                out,
                clips=1000 if clips is None else clips,
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
        console().print(f"Left out: {entry.get('recording') or entry['ensemble']} ({entry['reason']})", soft_wrap=True)
    if summary["generic_picture"]:
        console().print(f"Shown as the generic picture: {', '.join(summary['generic_picture'])}", soft_wrap=True)
    console().print(f"Manifest: {manifest}", soft_wrap=True)
