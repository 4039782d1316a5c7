"""What a cue shows: its own pictures, or those of the video, cut to its box."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from avsep_zoo.cue import Cue
from avsep_zoo.errors import CueError
from avsep_zoo.pictures import crop, read_picture

if TYPE_CHECKING:
    from avsep_zoo.media import VideoSource

__all__ = ["check_shown", "cue_pictures", "cue_views"]

_IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def check_shown(cues: Sequence[Cue], video: VideoSource | None, time: float) -> None:
    """Make sure that each of several cues shows a source of its own, for a model that goes by pictures alone.

    Raises:
        CueError: one of several cues has neither frames nor a box, and would show the whole picture of the video.
    """
    for cue in cues:
        if len(cues) > 1 and cue.frames is None and video is not None and cue.box_at(time) is None:
            raise CueError(
                f"The cue {cue.title!r} has neither frames nor a box, and the whole picture shows all "
                f"{len(cues)} sources; give it one of them."
            )


def cue_views(cue: Cue, video: VideoSource | None, times: Sequence[float]) -> list[Image.Image]:
    """Pictures of a cue at ``times`` (seconds of the media), cropped to its box where it has one.

    Args:
        cue: its own frames come first; an array of them is spread over the times, of which one gets the middle.
        video: where they come from otherwise.
        times: before the beginning and after the end the video has its first and last picture.

    Raises:
        CueError: there are no pictures, or they cannot be read.
    """
    pictures = cue_pictures(cue, video, times)
    return [crop(picture, cue.box_at(time)) for picture, time in zip(pictures, times, strict=True)]


def cue_pictures(cue: Cue, video: VideoSource | None, times: Sequence[float]) -> list[np.ndarray]:
    """The same as :func:`cue_views`, whole: uint8 RGB (H, W, 3) each."""
    if cue.frames is not None:
        return _own_pictures(cue, times)
    if video is not None:
        return list(video.frames_at(times))
    raise CueError(f"The cue {cue.title!r} has no frames and this model needs them; give frames, or a video.")


def _own_pictures(cue: Cue, times: Sequence[float]) -> list[np.ndarray]:
    if isinstance(cue.frames, str | Path):
        if Path(cue.frames).suffix.lower() in _IMAGES:
            return [read_picture(cue.frames)] * len(times)
        from avsep_zoo.media import VideoSource

        with VideoSource(cue.frames) as video:
            return list(video.frames_at(times))
    try:
        frames = np.asarray(cue.frames)
    except ValueError as error:
        raise CueError(f"The frames of {cue.title!r} are no array ({error}); give uint8 RGB (K, H, W, 3).") from error
    if frames.ndim == 3:
        frames = frames[None]
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or frames.size == 0:
        raise CueError(
            f"The frames of {cue.title!r} are {frames.dtype} of shape {frames.shape}; give uint8 RGB (K, H, W, 3)."
        )
    if len(times) == 1:
        return [frames[len(frames) // 2]]
    places = np.linspace(0, len(frames) - 1, len(times)).round().astype(int)
    return [frames[p] for p in places]
