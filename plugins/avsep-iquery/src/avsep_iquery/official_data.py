"""Data rules of the published loaders: sound segments, frame numbers, detections, crops, motion features.

Source: Chen et al., iQuery, CVPR 2023; its configurations are ``music``, ``music21``, ``ave``, ``nomotion``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor

from avsep_zoo.errors import DataError
from avsep_zoo.media import resample
from avsep_zoo.pictures import centre_view, crop, normalise

__all__ = [
    "Protocol", "audio_segment", "choose_box", "collate_motion", "frame_numbers", "frame_time", "frames_view",
    "pool_motion",
]  # fmt: skip

Protocol = Literal["default", "paper"]
_CLASS_OFFSET = {"music21": 1, "ave": 0}  # detector class of class id 0; the other data sets ignore the class
_TRAINING_ZOOM = 1.1


def audio_segment(
    path: str | Path | None,
    *,
    rate: int,
    length: int,
    centre: float,
    protocol: Protocol = "default",
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Return mono float32 (length,) at ``rate`` around ``centre`` seconds, zero outside the file.

    A sound shorter than a segment is repeated first. ``protocol="paper"`` keeps what the published loader
    does: a file whose own rate is at most ``rate`` is not resampled but taken as if it were at ``rate``, the
    sound is repeated before it is resampled, the last sample of a segment of odd length stays zero, and the
    result is clipped to [-1, 1]. The default resamples every rate, fills every sample and does not clip.

    Args:
        path: sound file; None or a path that ends in ``silent`` is silence.
        rate: sample rate in Hz of the model.
        length: samples.
        centre: seconds.
        protocol: see above.
        rng: of the level in training, a factor from 0.5 to 1.5; None leaves the level as it is.

    Raises:
        DataError: the file cannot be read, is empty, or ends before the segment begins.
    """
    segment = np.zeros(length, dtype=np.float32)
    if path is None or str(path).endswith("silent"):
        return segment
    sound, own_rate = _read_mono(path)
    paper = protocol == "paper"
    shortest = own_rate * (length / rate)
    if len(sound) < shortest and paper:
        sound = np.tile(sound, int(shortest / len(sound)) + 1)
    if own_rate > rate or not paper:
        sound = resample(sound[None], own_rate, rate)[0]
    if len(sound) < length and not paper:
        sound = np.tile(sound, length // len(sound) + 1)
    middle, before = int(centre * rate), length // 2
    after = before if paper else length - before
    start, end = max(0, middle - before), min(len(sound), middle + after)
    if start > len(sound):
        raise DataError(
            f"The sound {str(path)!r} ends at {len(sound) / rate:.2f} s, before its segment around "
            f"{centre:.2f} s begins; check the frame count in its list."
        )
    segment[before - (middle - start) : before + (end - middle)] = sound[start:end]
    if rng is not None:
        segment *= np.float32(rng.uniform(0.5, 1.5))
    return segment.clip(-1.0, 1.0) if paper else segment


def _read_mono(path: str | Path) -> tuple[np.ndarray, int]:
    try:
        sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise DataError(f"The sound {str(path)!r} cannot be read ({error}); check or remove its row.") from error
    if len(sound) == 0:
        raise DataError(f"The sound {str(path)!r} is empty; remove its row.")
    return sound.mean(axis=1), rate


def frame_numbers(
    count: int, *, frames: int, frame_rate: float, stride: int = 1, rng: np.random.Generator | None = None
) -> list[int]:
    """Numbers (from 1) of the frames of one item.

    The centre is the frame after the middle, or in training a uniform draw that stays ``max(frame_rate, half
    of the frames)`` away from both ends.

    Args:
        count: number of frames of the video.
        frames: number of frames wanted.
        frame_rate: of the stored frames, per second.
        stride: distance of the wanted frames.
        rng: of the centre, in training.

    Raises:
        DataError: the video is too short.
    """
    around = frames // 2
    centre = count // 2 + 1
    if rng is not None:
        margin = max(int(frame_rate), around * stride)
        if count <= 2 * margin:
            raise DataError(f"The video has {count} frames and training needs {2 * margin + 1}; remove its row.")
        centre = int(rng.integers(margin + 1, count - margin, endpoint=True))
    numbers = [centre + (i - around) * stride for i in range(frames)]
    if numbers[0] < 1 or numbers[-1] > count:
        raise DataError(
            f"The video has {count} frames and its item takes {numbers[0]} to {numbers[-1]}; remove its row."
        )
    return numbers


def frame_time(number: int, frame_rate: float) -> float:
    """Time in seconds of the middle of frame ``number``, counted from 1."""
    return (number - 0.5) / frame_rate


def choose_box(
    rows: np.ndarray, frame: int, dataset: str, class_id: int | None = None
) -> tuple[float, float, float, float] | None:
    """Return the box x1, y1, x2, y2 in pixels that ``frame`` is cropped to, or None for the whole frame.

    ``music`` and ``nomotion`` take the row with the largest score, whatever its class. ``music21`` and
    ``ave`` take the first row of the wanted class, whatever its score, then the row with the largest score of
    any class.

    Args:
        rows: (K, 7) detections of one video: frame number, detector class, score, x1, y1, x2, y2.
        frame: frame number.
        dataset: ``music``, ``nomotion``, ``music21`` or ``ave``.
        class_id: row of the class in the data set's list; needed for ``music21`` and ``ave``.

    Raises:
        DataError: the rows have another shape, the box has no area, the data set is unknown or its class is
            missing.
    """
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.shape[1] != 7:
        raise DataError(f"The detections have shape {rows.shape}; give (K, 7).")
    if dataset not in ("music", "nomotion", *_CLASS_OFFSET):
        raise DataError(f"There is no detection rule for {dataset!r}; give music, nomotion, music21 or ave.")
    here = rows[rows[:, 0] == frame]
    if len(here) == 0:
        return None
    row = here[here[:, 2].argmax()]
    if dataset in _CLASS_OFFSET:
        if class_id is None:
            raise DataError(f"The detection rule of {dataset} needs the class; give class_id.")
        wanted = here[here[:, 1] == class_id + _CLASS_OFFSET[dataset]]
        row = wanted[0] if len(wanted) else row
    x1, y1, x2, y2 = (float(v) for v in row[3:])
    if round(x2) <= round(x1) or round(y2) <= round(y1):
        raise DataError(f"The detection of frame {frame} is the box {[x1, y1, x2, y2]} without area; remove its row.")
    return x1, y1, x2, y2


def frames_view(
    pictures: Sequence[np.ndarray],
    boxes: Sequence[Sequence[float] | None],
    *,
    size: int = 224,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Crop, resize and normalise the frames of one source to float32 (3, K, size, size).

    Without ``rng`` the shorter side becomes ``size`` and the centre is cut out. In training it becomes 1.1
    times that, one position is drawn from the size of the first frame and cut out of all of them (black where
    a frame is smaller), and all of them are mirrored or none.

    Args:
        pictures: K pictures, uint8 RGB (H, W, 3).
        boxes: one per picture, x1, y1, x2, y2 in pixels, or None for the whole picture.
        size: pixels.
        rng: of the training transform.
    """
    cropped = [crop(picture, box) for picture, box in zip(pictures, boxes, strict=True)]
    if rng is None:
        return normalise([centre_view(image, size) for image in cropped])
    views = [_shorter_side(image, int(size * _TRAINING_ZOOM)) for image in cropped]
    left, top = (int(rng.integers(side - size, endpoint=True)) for side in views[0].size)
    views = [view.crop((left, top, left + size, top + size)) for view in views]
    if rng.random() < 0.5:
        views = [view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for view in views]
    return normalise(views)


def _shorter_side(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    shorter = min(width, height)
    return image.resize((int(size * width / shorter), int(size * height / shorter)), Image.Resampling.BICUBIC)


def pool_motion(features: np.ndarray) -> np.ndarray:
    """(D, S, h, w) motion features of a video -> float32 (D, S), the maximum over the picture.

    Raises:
        DataError: the features have another shape or no step.
    """
    features = np.asarray(features)
    if features.ndim != 4 or 0 in features.shape:
        raise DataError(f"The motion features have shape {features.shape}; give (features, steps, rows, columns).")
    return features.max(axis=(2, 3)).astype(np.float32)


def collate_motion(batch: Sequence[Sequence[np.ndarray]]) -> tuple[Tensor, Tensor]:
    """Pad pooled motion features (D, S), one per item and source, to a batch.

    Returns:
        ``motion`` (B, N, D, S), zero at padded steps, and ``motion_mask`` float32 (B, N, S): 0 at real steps,
        1 at steps up to the longest item of the same source slot (the published padding, which an encoder
        with ``motion_padding="added"`` lets through) and infinity at steps only another slot has.

    Raises:
        DataError: the items differ in their number of sources or in their number of features.
    """
    if len({len(sources) for sources in batch}) != 1:
        raise DataError(f"The items have {[len(sources) for sources in batch]} sources; give the same number.")
    widths = {features.shape[0] for sources in batch for features in sources}
    if len(widths) != 1:
        raise DataError(f"The motion features have {sorted(widths)} rows; give the same number.")
    steps = np.array([[features.shape[1] for features in sources] for sources in batch])  # (B, N)
    motion = torch.zeros(*steps.shape, *widths, int(steps.max()))
    mask = torch.full((*steps.shape, int(steps.max())), torch.inf)
    for b, sources in enumerate(batch):
        for n, features in enumerate(sources):
            motion[b, n, :, : features.shape[1]] = torch.from_numpy(features)
            mask[b, n, : steps[:, n].max()] = 1
            mask[b, n, : features.shape[1]] = 0
    return motion, mask
