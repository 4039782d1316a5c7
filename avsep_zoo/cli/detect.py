"""``avsep detect``: what is seen in a video, in a file that cues can refer to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsep_zoo.cli.detector_options import DetectorWeights, MinScore, choose_detector
from avsep_zoo.cli.separate import Device, choose_device
from avsep_zoo.cli.terminal import busy, console, count_bar, print_json, print_table
from avsep_zoo.errors import DataError, MediaError

if TYPE_CHECKING:
    from avsep_zoo.data.detections import Detections

__all__ = ["detect"]


def detect(
    file: Annotated[
        Path,
        typer.Argument(metavar="VIDEO", help="Any video or picture that FFmpeg reads.", show_default=False),
    ],
    detector: Annotated[str, typer.Option(metavar="NAME", help="faster_rcnn or zero_shot.", show_default=False)],
    detector_weights: DetectorWeights = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="A,B|FILE", help="What to detect; a file has one per line (default: what it knows)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="FILE", help="File to write (default: VIDEO's name with -detections.safetensors)."
        ),
    ] = None,
    fps: Annotated[float, typer.Option(min=0.01, max=240.0, help="Frames per second that are looked at.")] = 1.0,
    start: Annotated[float, typer.Option(min=0.0, metavar="SECONDS", help="Where to begin.")] = 0.0,
    end: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Where to stop (default: at the end).", show_default=False)
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Boxes of a frame that are kept, the best ones.")] = 20,
    min_score: MinScore = None,
    features: Annotated[
        bool, typer.Option(help="Store the detector's features of the boxes, where it gives them.")
    ] = True,
    device: Annotated[Device, typer.Option(help="Where to compute; auto takes a GPU where there is one.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier FILE.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Detect objects in a video, for methods that go by what is seen around a source.

    [bold]avsep detect duet.mp4 --detector zero_shot --detector-weights WEIGHTS --labels violin,flute[/bold]
    [bold]avsep separate duet.mp4 --model avsgs --cue violin --cue flute --detections duet-detections.safetensors[/bold]
    """
    from avsep_zoo.data.detection_file import SUFFIX, write_detections_file
    from avsep_zoo.detection.look import detect as look
    from avsep_zoo.media import probe

    target = out if out is not None else Path(f"{file.stem}-detections{SUFFIX}")
    if target.suffix != SUFFIX:
        raise DataError(f"{target} is no name for detections; end it with {SUFFIX}.")
    if target.is_dir() or (target.exists() and not overwrite):
        raise DataError(f"{target} is there already; give another name with -o, or --overwrite.")
    if probe(file).video is None:
        raise MediaError(f"{file} has no pictures; give a video or a picture.")
    with busy(f"Loading {detector}"):
        tool = choose_detector(detector, detector_weights, labels, min_score).build(choose_device(device))
    looked = 0
    with count_bar("frames") as advance:

        def progress(done: int, total: int | None) -> None:
            nonlocal looked
            looked = done
            advance(done, done if total is None else total)

        found = look(file, tool, fps=fps, start=start, end=end, most=most, features=features, progress=progress)
    write_detections_file(target, found)
    if as_json:
        print_json(_document(found, file, target, looked))
        return
    screen = console()
    screen.print(f"{_many(len(found), 'box', 'boxes')} in {_many(looked, 'frame')} of {file}", soft_wrap=True)
    rows = [
        (name, str(entry["boxes"]), str(entry["frames"]), f"{entry['best']:.2f}")
        for name, entry in _by_class(found).items()
    ]
    if rows:
        print_table(("class", "boxes", "frames", "best score"), rows, numbers=(1, 2, 3))
    if found.features is not None:
        screen.print(f"With {found.features.shape[1]} features per box", soft_wrap=True)
    screen.print(f"Detections: {target}", soft_wrap=True)


def _document(found: Detections, file: Path, target: Path, looked: int) -> dict[str, object]:
    return {
        "file": str(file),
        "detections": str(target),
        "frames": looked,
        "boxes": len(found),
        "classes": _by_class(found),
        "features": None if found.features is None else found.features.shape[1],
    }


def _by_class(found: Detections) -> dict[str, dict[str, float]]:
    """Name -> numbers of boxes and of frames that have one, and the best score; what was found most often first."""
    import numpy as np

    numbers, counts = np.unique(found.classes, return_counts=True)
    table = {}
    for number, count in sorted(zip(numbers, counts, strict=True), key=lambda pair: -pair[1]):
        mine = found.classes == number
        entry = {"boxes": int(count), "frames": len(set(found.frames[mine].tolist()))}
        table[found.names[number - 1]] = entry | {"best": float(found.scores[mine].max())}
    return table


def _many(count: int, one: str, several: str | None = None) -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"
