"""Pictures of a clip around a time, from its stored frames or its video, and where its object is in them."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from avsep_zoo.data.clip import Clip
from avsep_zoo.data.detections import Detections, read_detections
from avsep_zoo.media import VideoSource
from avsep_zoo.pictures import read_picture

__all__ = ["clip_detections", "clip_frames", "published_frames", "whole_frames"]

_FRAME = re.compile(r"[0-9]{6}\.(jpg|png)")
_FOLDERS_KNOWN = 2**16  # folders of frames whose last frame a process remembers
_FILES_KNOWN = 2**12  # files of detections whose best boxes it remembers: some kilobytes each
_ROWS_KNOWN = 2**10  # those it remembers all boxes of: some ten kilobytes each
_ROWS = ".npy"  # of files without features, which would take megabytes


def clip_frames(clip: Clip, time: float, count: int = 3, *, stride: int = 1) -> np.ndarray | None:
    """Frames around ``time``, each cropped to the best detection of the clip's class that is nearest in time.

    A recording of several sounds is not cropped, as detections do not say which
    of them they show.

    Args:
        clip: frames are taken from its folder, or where there is none from its video.
        time: seconds from the beginning of the clip.
        count: number of frames.
        stride: frames of the list from one to the next.

    Returns:
        uint8 RGB (count, H, W, 3), black around smaller crops, or None where there is no picture.

    Raises:
        CueError: a frame that the list counts is missing or damaged.
        DataError: the detections are damaged.
        MediaError: the video cannot be read.
    """
    numbers = _numbers(clip, time, count, stride)
    pictures = _pictures(clip, numbers)
    if pictures is None:
        return None
    boxes = _best_boxes(clip)
    if boxes is not None:
        rows = [int(np.abs(boxes[:, 0] - _time(clip, n)).argmin()) for n in numbers]
        pictures = [_cut(picture, boxes[row, 1:]) for picture, row in zip(pictures, rows, strict=True)]
    return _same_size(pictures)


def whole_frames(clip: Clip, time: float, count: int = 3, *, stride: int = 1) -> np.ndarray | None:
    """The same as :func:`clip_frames`, not cropped."""
    pictures = _pictures(clip, _numbers(clip, time, count, stride))
    return None if pictures is None else _same_size(pictures)


def clip_detections(clip: Clip) -> Detections | None:
    """What was detected in a clip, with times in seconds from its beginning; None where it has no detections.

    Raises:
        DataError: they are damaged.
    """
    path = clip.detections
    if path is None or not path.exists():
        return None
    if path.suffix != _ROWS:
        return _read_found(path, clip.frame_rate, clip.detector_classes)
    return _read_rows(path, path.stat().st_mtime_ns, clip.frame_rate, clip.detector_classes)


def published_frames(
    clip: Clip, time: float, count: int = 3, *, stride: int = 1
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Frames around ``time`` as they are stored, and the box that published loaders crop each of them to.

    That is the one with the best score of that very frame; a frame without one is not cropped. (MUSIC-21 and AVE take
    the first one of the detector's class, whose number no list of clips holds.) What of a box lies further outside
    than the picture is wide or high is cut off, as a crop of it may take any amount of memory.

    Source: Chen et al., iQuery, CVPR 2023; the ``stride``, in frames of the list, is that of DAVIS, ACCV 2024.

    Returns:
        uint8 RGB (count, H, W, 3), and rows (count, 5) of seconds from ``time``, x1, y1, x2, y2, or None for a clip
        without boxes; None where there is no picture.

    Raises:
        CueError, DataError, MediaError: as :func:`clip_frames`.
    """
    numbers = _numbers(clip, time, count, stride)
    pictures = _pictures(clip, numbers)
    if pictures is None:
        return None
    frames, boxes = _same_size(pictures), _best_boxes(clip)
    if boxes is None:
        return frames, None
    rows, size = np.empty((count, 5)), (frames.shape[2], frames.shape[1])
    for place, number in enumerate(numbers):
        here = boxes[np.isclose(boxes[:, 0], _time(clip, number))]
        rows[place] = (0, *here[0, 1:]) if len(here) else (0, 0, 0, *size)
        rows[place, 0] = stride * (place - count // 2) / clip.frame_rate
    limits = np.array([*size, *size])
    rows[:, 1:] = rows[:, 1:].clip(-limits, 2 * limits)
    return frames, rows


def _numbers(clip: Clip, time: float, count: int, stride: int) -> list[int]:
    """Numbers, from 1, of the frames around a time; those beyond the ends are the first and the last one."""
    centre = int(time * clip.frame_rate) + 1
    last = clip.frame_count or (0 if clip.frames is None else _stored(clip.frames)[0]) or centre + stride * count
    return [min(max(centre + stride * offset, 1), last) for offset in range(-(count // 2), count - count // 2)]


def _time(clip: Clip, number: int) -> float:
    """Middle of a frame, in seconds from the beginning of the clip."""
    return (number - 0.5) / clip.frame_rate


def _stored(folder: Path) -> tuple[int, str]:
    """Number of the last frame in a folder, 0 if there is none, and what the names of frames end in."""
    return _last_frame(folder, folder.stat().st_mtime_ns) if folder.is_dir() else (0, "")


@functools.lru_cache(_FOLDERS_KNOWN)
def _last_frame(folder: Path, changed: int) -> tuple[int, str]:
    """The same of a folder as it was at a time."""
    last = max((path.name for path in folder.iterdir() if _FRAME.fullmatch(path.name)), default="000000")
    return int(last[:6]), last[6:]


def _pictures(clip: Clip, numbers: Sequence[int]) -> list[np.ndarray] | None:
    last, suffix = (0, "") if clip.frames is None else _stored(clip.frames)
    if clip.frames is not None and last:
        return [read_picture(clip.frames / f"{number:06d}{suffix}") for number in numbers]
    if clip.video is None or not clip.video.is_file():
        return None
    with VideoSource(clip.video, threads=1) as video:
        return list(video.frames_at([clip.start + _time(clip, number) for number in numbers]))


def _best_boxes(clip: Clip) -> np.ndarray | None:
    """Best box of every frame as rows time, x1, y1, x2, y2, where there are any; of the clip's class, if known."""
    if clip.detections is None or len(clip.labels) > 1 or not clip.detections.exists():
        return None
    changed = clip.detections.stat().st_mtime_ns
    return _read_boxes(clip.detections, changed, clip.frame_rate, clip.detector_classes, clip.label)


@functools.lru_cache(_FILES_KNOWN)
def _read_boxes(
    path: Path, changed: int, frame_rate: float, names: tuple[str, ...], label: str | None
) -> np.ndarray | None:
    """Read the best boxes of a file as it was at a time."""
    found = read_detections(path)
    found = replace(found, names=found.names or names)
    number = None if label is None else found.number(label)
    if number is not None and (found.classes == number).any():
        found = found.take(np.flatnonzero(found.classes == number))
    return found.best(frame_rate)


@functools.lru_cache(_ROWS_KNOWN)
def _read_rows(path: Path, changed: int, frame_rate: float, names: tuple[str, ...]) -> Detections:
    """Read the detections of a file as it was at a time."""
    return _read_found(path, frame_rate, names)


def _read_found(path: Path, frame_rate: float, names: tuple[str, ...]) -> Detections:
    found = read_detections(path)
    if path.is_dir():  # ASIW counts frames from 0 and does not say when they are seen
        return found
    times = (found.frames - 0.5) / frame_rate if found.times is None else found.times
    return replace(found, times=times, names=found.names or names)


def _cut(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The part of a picture in a box x1, y1, x2, y2; all of it where the box has no 2 x 2 pixels of it."""
    x1, y1, x2, y2 = (int(v) for v in (*np.floor(box[:2]).clip(0), *np.ceil(box[2:]).clip(0)))
    cut = picture[y1:y2, x1:x2]
    return cut if min(cut.shape[:2]) > 1 else picture


def _same_size(pictures: list[np.ndarray]) -> np.ndarray:
    height, width = max(p.shape[0] for p in pictures), max(p.shape[1] for p in pictures)
    out = np.zeros((len(pictures), height, width, 3), dtype=np.uint8)
    for canvas, p in zip(out, pictures, strict=True):
        top, left = (height - p.shape[0]) // 2, (width - p.shape[1]) // 2
        canvas[top : top + p.shape[0], left : left + p.shape[1]] = p
    return out
