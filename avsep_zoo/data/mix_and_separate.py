"""Training items by mix and separate (Zhao et al., 2018): solos are added up, the parts are the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from torch.utils.data import Dataset

from avsep_zoo.contracts import CueBatch
from avsep_zoo.cue import Cue
from avsep_zoo.data.augment import Augmentation, background
from avsep_zoo.data.music import Clip
from avsep_zoo.errors import DataError
from avsep_zoo.pictures import read_picture

__all__ = ["FixedMixtures", "MixAndSeparate", "collate"]

Prepare = Callable[..., CueBatch]


class MixAndSeparate(Dataset[dict[str, Any]]):
    """Item i is a mixture of solos of different classes, drawn by a generator seeded with (seed, i).

    Args:
        clips: solo clips.
        prepare: an encoder's ``prepare``.
        rate: sample rate in Hz of the model.
        length: samples of a segment.
        items: number of items; any index below it gives the same item in any order and process.
        sources: sources per mixture.
        seed: of every draw.
        frame_rate: of the stored frames, per second.
        augmentation: how far sounds are varied.
        motion: whether the model reads motion features.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        prepare: Prepare,
        *,
        rate: int,
        length: int,
        items: int,
        sources: int = 2,
        seed: int = 0,
        frame_rate: float = 1.0,
        augmentation: Augmentation | None = None,
        motion: bool = False,
    ) -> None:
        self.by_label: dict[str, list[Clip]] = {}
        for clip in clips:
            self.by_label.setdefault(clip.label, []).append(clip)
        if len(self.by_label) < sources:
            raise DataError(f"The clips have {len(self.by_label)} classes; mixtures of {sources} sources need as many.")
        self.labels = sorted(self.by_label)
        self.prepare, self.rate, self.length, self.items, self.sources = prepare, rate, length, items, sources
        self.seed, self.frame_rate, self.motion = seed, frame_rate, motion
        self.augmentation = augmentation or Augmentation()

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, index))
        labels = rng.choice(len(self.labels), self.sources, replace=False)
        sounds, cues = [], []
        for label in labels:
            clips = self.by_label[self.labels[label]]
            sound, cue = self._source(clips[rng.integers(len(clips))], rng)
            sounds.append(sound)
            cues.append(cue)
        sources = np.stack(sounds)
        item = {"sources": torch.from_numpy(sources), "cues": self.prepare(cues, video=None, time=0.0)}
        level = float(np.sqrt((sources.sum(axis=0) ** 2).mean()))
        noisy = rng.random() < self.augmentation.noise
        noise = background(self.length, level, rng) if noisy else np.zeros(self.length, dtype=np.float32)
        item["background"] = torch.from_numpy(noise)
        return item

    def _source(self, clip: Clip, rng: np.random.Generator) -> tuple[np.ndarray, Cue]:
        augmentation = self.augmentation
        sound, centre = _random_segment(clip.audio, self.rate, self.length, augmentation.speed(rng), rng)
        sound = augmentation.colour(sound, self.rate, rng)
        if rng.random() < augmentation.silence:
            sound = np.zeros_like(sound)
        label: str | None = clip.label
        frames = None
        if rng.random() >= augmentation.drop_frames:
            frames = clip_frames(clip, centre, self.frame_rate)
            if frames is not None and rng.random() < augmentation.drop_label:
                label = None
        return sound, Cue(label=label, frames=frames, motion=clip.motion if self.motion else None)


class FixedMixtures(Dataset[dict[str, Any]]):
    """Given mixtures, cut around the middle of each clip: validation and test items.

    Args:
        mixtures: clips of each mixture.
        prepare: an encoder's ``prepare``.
        rate: sample rate in Hz of the model.
        length: samples of a segment.
        frame_rate: of the stored frames, per second.
        motion: whether the model reads motion features.
        use: modalities of the cues that are given: ``label``, ``frames`` or both.
    """

    def __init__(
        self,
        mixtures: Sequence[Sequence[Clip]],
        prepare: Prepare,
        *,
        rate: int,
        length: int,
        frame_rate: float = 1.0,
        motion: bool = False,
        use: frozenset[str] = frozenset({"label", "frames"}),
    ) -> None:
        self.mixtures, self.prepare, self.rate, self.length = mixtures, prepare, rate, length
        self.frame_rate, self.motion, self.use = frame_rate, motion, use

    def __len__(self) -> int:
        return len(self.mixtures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sounds, cues = [], []
        for clip in self.mixtures[index]:
            duration = _seconds(clip.audio)
            start = max(0.0, (duration - self.length / self.rate) / 2)
            sounds.append(read_segment(clip.audio, self.rate, self.length, start))
            frames = clip_frames(clip, duration / 2, self.frame_rate) if "frames" in self.use else None
            label = clip.label if "label" in self.use or frames is None else None
            cues.append(Cue(label=label, frames=frames, motion=clip.motion if self.motion else None))
        return {
            "sources": torch.from_numpy(np.stack(sounds)),
            "cues": self.prepare(cues, video=None, time=0.0),
        }


def read_segment(path: Path, rate: int, length: int, start: float, speed: float = 1.0) -> np.ndarray:
    """Read float32 mono (length,) at ``rate``, zero padded; only the part that is needed is decoded.

    Args:
        path: a sound file.
        rate: in Hz.
        length: samples.
        start: where to begin, in seconds.
        speed: how much faster it is played.

    Raises:
        DataError: the file cannot be read, or holds NaN or infinity.
    """
    with _reading(path), soundfile.SoundFile(path) as file:
        file.seek(min(int(start * file.samplerate), file.frames))
        wanted = int(np.ceil(length / rate * file.samplerate * speed)) + 1
        sound = file.read(wanted, dtype="float32", always_2d=True).mean(axis=1)
        if file.samplerate * speed != rate:
            sound = soxr.resample(sound, file.samplerate * speed, rate, quality="MQ")
    if not np.isfinite(sound).all():
        raise DataError(f"The sound {str(path)!r} holds NaN or infinity; check it or remove its row.")
    sound = sound[:length]
    return np.pad(sound, (0, length - len(sound)))


def _seconds(path: Path) -> float:
    with _reading(path):
        return float(soundfile.info(path).duration)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, soundfile.SoundFileError) as error:
        raise DataError(f"The sound {str(path)!r} cannot be read ({error}); check it or remove its row.") from error


def clip_frames(clip: Clip, time: float, frame_rate: float, around: int = 1) -> np.ndarray | None:
    """Stored frames around ``time`` seconds, cropped to the best detection.

    Returns:
        uint8 (2 around + 1, H, W, 3), black around smaller crops, or None where no frame is stored.

    Raises:
        CueError: a frame that the list counts is missing or damaged.
        DataError: the detections are damaged.
    """
    centre = int(time * frame_rate) + 1
    numbers = [min(max(centre + o, 1), max(clip.frame_count, 1)) for o in range(-around, around + 1)]
    if not (clip.frames / f"{numbers[0]:06d}.jpg").is_file():
        return None
    boxes = clip.boxes(frame_rate)
    pictures = []
    for number in numbers:
        picture = read_picture(clip.frames / f"{number:06d}.jpg")
        if boxes is not None:
            row = boxes[int(np.abs(boxes[:, 0] - (number - 0.5) / frame_rate).argmin())]
            picture = _cut(picture, row[1:])
        pictures.append(picture)
    return _same_size(pictures)


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


def _random_segment(
    path: Path, rate: int, length: int, speed: float, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """A segment that is not silent (best of three draws), and its centre in seconds."""
    spare = max(0.0, _seconds(path) - length / rate * speed)
    sound, start = np.zeros(length, dtype=np.float32), 0.0
    for _ in range(3):
        start = float(rng.uniform(0, spare)) if spare else 0.0
        sound = read_segment(path, rate, length, start, speed)
        if float(np.abs(sound).max()) > 1e-3:
            break
    return sound, start + length / rate * speed / 2


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stack items to a batch; a modality some items lack is filled and marked absent there."""
    batch: dict[str, Any] = {name: torch.stack([item[name] for item in items]) for name in items[0] if name != "cues"}
    batch["cues"] = CueBatch.stack([item["cues"] for item in items])
    return batch
