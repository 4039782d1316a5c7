"""Items of the published training, validation and test sets, by the rules of :mod:`.official_data`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from avsep_iquery.encoder import IQueryEncoder
from avsep_iquery.official_data import (
    Protocol,
    audio_segment,
    choose_box,
    collate_motion,
    frame_numbers,
    frame_time,
    frames_view,
    pool_motion,
)
from avsep_zoo.contracts import CueBatch
from avsep_zoo.data.music import Clip
from avsep_zoo.errors import CueError, DataError
from avsep_zoo.pictures import read_picture

__all__ = ["OfficialItems", "collate_items"]


class OfficialItems(Dataset[dict[str, Any]]):
    """Mixtures of solo clips as the published loaders make them.

    With ``mixtures`` (the test lists) item i is mixture i. Otherwise its first source is clip i of the list
    and the others are drawn until all classes differ, by a generator seeded with (seed, i).

    Args:
        clips: the video list.
        encoder: says which frames, classes and features an item needs.
        dataset: ``music``, ``music21``, ``ave`` or ``nomotion``: the detection rule.
        rate: sample rate in Hz of the model.
        length: samples of a segment.
        mixtures: the clips of each test mixture.
        sources: sources per drawn mixture.
        training: draw centre frame, level, crop and mirroring instead of taking the middle of each clip.
        repeats: how often the list is gone through per epoch (published training: 40).
        seed: of every draw.
        protocol: ``paper`` also turns an item whose sound or frames cannot be read into silence and black
            frames, as published, with a warning; the default raises.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        encoder: IQueryEncoder,
        *,
        dataset: str,
        rate: int,
        length: int,
        mixtures: Sequence[Sequence[Clip]] | None = None,
        sources: int = 2,
        training: bool = False,
        repeats: int = 1,
        seed: int = 0,
        protocol: Protocol = "default",
    ) -> None:
        classes = {clip.label for clip in clips}
        if mixtures is None and len(classes) < sources:
            raise DataError(f"The clips have {len(classes)} classes; mixtures of {sources} sources need as many.")
        self.clips, self.encoder, self.dataset, self.rate, self.length = clips, encoder, dataset, rate, length
        self.mixtures, self.sources, self.training, self.repeats = mixtures, sources, training, repeats
        self.seed, self.protocol = seed, protocol

    def __len__(self) -> int:
        return len(self.clips) * self.repeats if self.mixtures is None else len(self.mixtures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, index))
        clips = self._partners(index, rng) if self.mixtures is None else list(self.mixtures[index])
        labels = [self.encoder.label_index(clip.label) for clip in clips]
        try:
            loaded = [self._source(clip, label, rng) for clip, label in zip(clips, labels, strict=True)]
            sounds, frames = (np.stack(values) for values in zip(*loaded, strict=True))
        except (DataError, CueError) as error:
            if self.protocol != "paper":
                raise
            warnings.warn(f"Item {index} is silent and black: {error}", stacklevel=2)
            sounds = np.zeros((len(clips), self.length), dtype=np.float32)
            size = self.encoder.image_size
            frames = np.zeros((len(clips), 3, self.encoder.frames, size, size), dtype=np.float32)
        item: dict[str, Any] = {"sources": torch.from_numpy(sounds), "frames": torch.from_numpy(frames)}
        item["label"] = torch.tensor(labels)
        if self.encoder.motion:
            item["motion"] = [pool_motion(_load(clip.motion)) for clip in clips]
        return item

    def _partners(self, index: int, rng: np.random.Generator) -> list[Clip]:
        chosen = [self.clips[index % len(self.clips)]]
        while len(chosen) < self.sources:
            partner = self.clips[int(rng.integers(len(self.clips)))]
            if partner.label not in {clip.label for clip in chosen}:
                chosen.append(partner)
        return chosen

    def _source(self, clip: Clip, label: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Sound (L,) and frames (3, K, S, S) of one clip."""
        encoder, fps = self.encoder, self.encoder.frame_rate
        draws = rng if self.training else None
        numbers = frame_numbers(clip.frame_count, frames=encoder.frames, frame_rate=fps, rng=draws)
        centre = frame_time(numbers[encoder.frames // 2], fps)
        sound = audio_segment(
            clip.audio, rate=self.rate, length=self.length, centre=centre, protocol=self.protocol, rng=draws
        )
        detections = _load(clip.detections)
        boxes = [choose_box(detections, number, self.dataset, label) for number in numbers]
        pictures = [read_picture(clip.frames / f"{number:06d}.jpg") for number in numbers]
        return sound, frames_view(pictures, boxes, size=encoder.image_size, rng=draws)


def collate_items(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stack items to a batch of ``sources`` (B, N, L) and ``cues``, motion padded as published."""
    cues = {name: torch.stack([item[name] for item in items]) for name in ("frames", "label")}
    if "motion" in items[0]:
        cues["motion"], cues["motion_mask"] = collate_motion([item["motion"] for item in items])
    return {"sources": torch.stack([item["sources"] for item in items]), "cues": CueBatch(cues)}


def _load(path: Any) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"The file {str(path)!r} cannot be read ({error}); give a .npy file in the published layout."
        ) from error
