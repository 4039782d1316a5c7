"""The cues of ``avsep separate``: read from its options, and checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from avsep_zoo.errors import CueError

if TYPE_CHECKING:
    from avsep_zoo.cue import Cue

__all__ = ["all_cues", "check_examples", "check_media", "parse_cue"]


def all_cues(cues: Sequence[str], texts: Sequence[str], examples: Sequence[Path]) -> list[Cue]:
    """The cues of the options, in this order.

    Raises:
        typer.BadParameter: there is none, or one means nothing.
    """
    from avsep_zoo.caption_cues import cues_of_caption
    from avsep_zoo.cue import Cue

    if not cues and not texts and not examples:
        raise typer.BadParameter("Nothing is asked for; give --cue, --text or --example.")
    found = [parse_cue(cue, number) for number, cue in enumerate(cues, 1)]
    for text in texts:
        try:
            found += cues_of_caption(text)
        except CueError as error:
            raise typer.BadParameter(str(error), param_hint="--text") from error
    return found + [Cue(audio=file, name=file.stem) for file in examples]


def check_examples(examples: Sequence[Path]) -> None:
    """Make sure before a model is loaded that every example has sound.

    Raises:
        MediaError: one cannot be read or has none.
    """
    from avsep_zoo.media import open_audio

    for file in examples:
        open_audio(file)


def parse_cue(text: str, number: int) -> Cue:
    """Read ``label``, ``label@x1,y1,x2,y2`` or ``@x1,y1,x2,y2``; ``number`` names a cue without a label.

    Raises:
        typer.BadParameter: the text is none of these.
    """
    from avsep_zoo.cue import Cue

    label, at, corners = text.rpartition("@") if "@" in text else (text, "", "")
    label = label.strip()
    box: list[float] | None = None
    if at:
        try:
            box = [float(corner) for corner in corners.split(",")]
        except ValueError:
            box = []
        if len(box) != 4:
            raise typer.BadParameter(
                f"{text!r} has the box {corners!r}; give four numbers, as in violin@0,20,190,180.",
                param_hint="--cue",
            )
    elif not label:
        raise typer.BadParameter(f"{text!r} names nothing; give a class, a box, or both.", param_hint="--cue")
    try:
        return Cue(label=label or None, box=box, name=None if label else f"source-{number}")
    except CueError as error:
        raise typer.BadParameter(f"{text!r}: {error}", param_hint="--cue") from error


def check_media(file: Path, cues: Sequence[Cue]) -> None:
    """Make sure before a model is loaded that ``file`` has sound, and pictures where the boxes are.

    Raises:
        MediaError: the file cannot be read or has no sound.
        CueError: a box lies where there is no picture.
    """
    from avsep_zoo.media import open_audio, probe

    open_audio(file)
    video = probe(file).video
    for cue in cues:
        box = cue.box_at(0.0)
        if box is None:
            continue
        if video is None:
            raise CueError(f"{file} has no pictures, so leave out the box of {cue.title!r}.")
        x1, y1, x2, y2 = box
        if x2 <= 0 or y2 <= 0 or x1 >= video.width or y1 >= video.height:
            raise CueError(
                f"The box of {cue.title!r} ({x1:g},{y1:g},{x2:g},{y2:g}) is outside the picture of {file}; "
                f"give pixels within {video.width} x {video.height}."
            )
