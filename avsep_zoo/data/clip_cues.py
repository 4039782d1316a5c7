"""What a clip shows of its sound: the modalities of a cue that are read from files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from avsep_zoo.contracts import CueBatch
from avsep_zoo.data.clip import Clip
from avsep_zoo.data.detections import Detections, Sounding
from avsep_zoo.data.frames import clip_detections, clip_frames, published_frames, whole_frames
from avsep_zoo.data.reader import Protocol
from avsep_zoo.errors import DataError

__all__ = ["black_cue", "blacken", "shown_cue"]

_BLACK = 32  # pixels of the side of a black picture


def shown_cue(
    clip: Clip,
    time: float,
    reads: frozenset[str],
    *,
    pictures: int = 3,
    stride: int = 1,
    protocol: Protocol = "default",
    at: float = 0.0,
) -> dict[str, Any]:
    """Read frames, detections and motion of a clip, as arguments of a :class:`~avsep_zoo.Cue`.

    What the clip lacks is left out. With detections frames are whole, around the frame that the detections are of.

    Args:
        clip: where they are.
        time: centre of the segment, in seconds from the beginning of the clip.
        reads: modalities; nothing else is loaded.
        pictures: number of frames.
        stride: frames of the list from one to the next.
        protocol: ``paper`` leaves it to the encoder to crop, by :func:`~avsep_zoo.data.frames.published_frames`.
        at: centre of the segment, in seconds, as ``prepare`` is told.

    Raises:
        CueError, DataError, MediaError: a file is damaged.
    """
    shown: dict[str, Any] = {}
    if "detections" in reads:
        found, seen = clip_detections(clip), time
        if found is not None:
            found = _told(clip, found, time)
            if found.times is not None and len(found):
                seen = float(found.times[0])
                found = replace(found, times=found.times - time + at)
            shown["detections"] = found
        if "frames" in reads:
            shown["frames"] = whole_frames(clip, seen, pictures, stride=stride)
    elif "frames" in reads and protocol == "paper":
        published = published_frames(clip, time, pictures, stride=stride)
        if published is not None:
            shown["frames"], boxes = published
            if boxes is not None:
                shown["boxes"] = boxes + np.array([at, 0, 0, 0, 0])
    elif "frames" in reads:
        shown["frames"] = clip_frames(clip, time, pictures, stride=stride)
    if "motion" in reads and clip.motion is not None and clip.motion.exists():
        shown["motion"] = _read_motion(clip.motion)
    return shown


def black_cue(clip: Clip, reads: frozenset[str], *, pictures: int = 3) -> dict[str, Any]:
    """What published loaders give for a clip that fails: black frames, and its motion as it is.

    Raises:
        DataError: the motion features are damaged.
    """
    shown = shown_cue(clip, 0.0, reads & {"motion"})
    if "frames" in reads:
        shown["frames"] = np.zeros((pictures, _BLACK, _BLACK, 3), dtype=np.uint8)
    return shown


def blacken(cues: CueBatch) -> None:
    """Turn prepared black frames into what published loaders give: zeros, which is no black once it is normalised."""
    frames = cues.get("frames")
    if isinstance(frames, Tensor):
        frames.zero_()


def _told(clip: Clip, found: Detections, time: float) -> Detections:
    """The detections of one frame, with what sounds among them; all of them where times are unknown.

    Where they do not say it themselves it is the best detection of each class of the clip, or, for a clip of one sound
    in a vocabulary that lacks its class, the best one. Of the frames that show most of what sounds it is the one
    nearest to ``time``.
    """
    if found.sounding:
        return _best_frame(found, [np.array([one.row]) for one in found.sounding], time)
    numbers = {label: found.number(label) for label in clip.labels}
    wanted = [number for number in numbers.values() if number is not None]
    seen = _best_frame(found, [np.flatnonzero(found.classes == number) for number in wanted], time)
    sounding = []
    for label, number in numbers.items():
        rows = np.flatnonzero(seen.classes == number) if number is not None else np.arange(len(seen))
        if len(rows) and (number is not None or len(numbers) == 1):
            sounding.append(Sounding(int(rows[seen.scores[rows].argmax()]), label))
    return replace(seen, sounding=tuple(sounding))


def _best_frame(found: Detections, wanted: Sequence[np.ndarray], time: float) -> Detections:
    """The boxes of the frame with some box of as many of ``wanted`` (rows each) as any has, nearest to ``time``."""
    if found.times is None or len(found) == 0:
        return found
    held = sum((np.isin(found.frames, found.frames[rows]) for rows in wanted), np.zeros(len(found), dtype=np.int64))
    return found.take(np.flatnonzero(held == held.max())).at(time)


def _read_motion(path: Path) -> np.ndarray:
    try:
        features = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise DataError(f"The motion features {str(path)!r} cannot be read ({error}); replace them.") from error
    if not isinstance(features, np.ndarray) or features.dtype.kind not in "fiu" or not np.isfinite(features).all():
        raise DataError(f"The motion features {str(path)!r} are no finite numbers; replace them.")
    return features
