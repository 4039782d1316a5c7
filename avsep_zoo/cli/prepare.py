"""``avsep prepare``: from raw videos to the layout that training and evaluation read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avsep_zoo.cli.detector_options import DetectorName, DetectorWeights, Labels, MinScore, choose_detector
from avsep_zoo.cli.separate import Device, choose_device
from avsep_zoo.cli.terminal import busy, console, count_bar, print_json, print_table
from avsep_zoo.errors import DataError
from avsep_zoo.registry import registry

if TYPE_CHECKING:
    from avsep_zoo.data.reader import Reader
    from avsep_zoo.prepare import DetectorChoice, MotionChoice

__all__ = ["prepare"]

_SHOWN = 5  # reasons that are printed; the manifest has all


def prepare(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SRC", help="Folder with the index files, if any, and videos below.", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="DST", help="Folder to write: new, empty, or left by an interrupted run.", show_default=False
        ),
    ],
    dataset: Annotated[
        str,
        typer.Option(metavar="NAME", help="Data set: music, ave, ..., or folder (class/clip.mp4).", show_default=False),
    ],
    rate: Annotated[
        int | None, typer.Option(metavar="HZ", help="Samples per second (default: the data set's, music: 11025).")
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second (default: the data set's, music: 1).")] = None,
    detector: DetectorName = None,
    detector_weights: DetectorWeights = None,
    labels: Labels = None,
    min_score: MinScore = None,
    motion: Annotated[
        str | None, typer.Option(metavar="NAME", help="video_net or frame_difference (default: no motion features).")
    ] = None,
    motion_weights: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="As --detector-weights, of video_net.")
    ] = None,
    device: Annotated[
        Device, typer.Option(help="Of detector and motion network; auto takes a GPU where there is one.")
    ] = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; the files do not depend on it (default: one per core).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Prepare a data set: sound, frames, detections and motion features of raw videos.

    A run that was stopped goes on with the same command;
    prepare.json lists settings, what is missing or broken, and hashes of the splits.

    [bold]avsep prepare videos prepared --dataset music --motion frame_difference[/bold]
    """
    from avsep_zoo.data.reader import open_data
    from avsep_zoo.prepare import Settings, prepare_dataset
    from avsep_zoo.prepare.settings import RATES

    with busy("Reading the lists"):
        reader = open_data(source, dataset, frame_rate=fps)
        seeing = _detector(reader, detector, detector_weights, labels, min_score)
        moving = _motion(motion, motion_weights)
    usual = RATES.get(dataset, RATES["music"])
    settings = Settings(dataset, usual if rate is None else rate, float(reader.frame_rate), seeing, moving)
    with count_bar("clips") as advance:
        manifest = prepare_dataset(
            reader,
            out,
            settings,
            workers=_cores() if workers is None else workers,
            device=None if device == "auto" else choose_device(device),
            progress=advance,
        )
    written = json.loads(manifest.read_text(encoding="utf-8"))
    if as_json:
        print_json({"manifest": str(manifest), **written})
    else:
        _show(written, manifest)


def _detector(
    reader: Reader, name: str | None, weights: str | None, labels: str | None, min_score: float | None
) -> DetectorChoice | None:
    if name is None:
        if weights is not None or labels is not None or min_score is not None:
            raise DataError("--detector-weights, --labels or --min-score is given without --detector; name one.")
        return None
    return choose_detector(name, weights, labels, min_score, usual=lambda: _classes(reader))


def _motion(name: str | None, weights: str | None) -> MotionChoice | None:
    from avsep_zoo.prepare import MotionChoice
    from avsep_zoo.weights.hub_files import fetch

    if name is None:
        if weights is not None:
            raise DataError("--motion-weights is given without --motion; name a network.")
        return None
    registry().get("motion", name)
    return MotionChoice(name, None if weights is None else fetch(weights))


def _classes(reader: Reader) -> tuple[str, ...]:
    classes: set[str] = set()
    for split in reader.splits():
        try:
            classes |= {label for clip in reader.clips(split) for label in clip.labels}
        except DataError:
            continue  # the run itself reports lists without a usable row
    return tuple(sorted(classes))


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _show(written: Mapping[str, Any], manifest: Path) -> None:
    splits = written["splits"].items()
    rows = [(name, str(split["listed"]), str(split["prepared"])) for name, split in splits]
    print_table(("list", "listed", "prepared"), rows, numbers=(1, 2))
    screen = console()
    if written["missing"]:
        names = ", ".join(written["missing"][:_SHOWN])
        screen.print(f"No file for {len(written['missing'])} clips: {names}{_more(written['missing'])}", soft_wrap=True)
    for title, key in (("Left out", "broken"), ("Doubtful", "doubtful")):
        for entry in written[key][:_SHOWN]:
            screen.print(f"{title}: {entry['clip']} ({entry['why']})", soft_wrap=True)
        if len(written[key]) > _SHOWN:
            screen.print(f"{title}: {len(written[key]) - _SHOWN} more", soft_wrap=True)
    if written["sound_only"]:
        screen.print(f"Without pictures, sound only: {written['sound_only']} clips", soft_wrap=True)
    if written["rows_left_out"]:
        screen.print(f"Rows of lists left out: {len(written['rows_left_out'])}", soft_wrap=True)
    screen.print(f"Manifest: {manifest}", soft_wrap=True)


def _more(names: list[str]) -> str:
    return ", ..." if len(names) > _SHOWN else ""
