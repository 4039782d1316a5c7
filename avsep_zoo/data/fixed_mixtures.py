"""Validation and test items: given mixtures, cut at a given place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from avsep_zoo.contracts import CueBatch
from avsep_zoo.cue import Cue
from avsep_zoo.data.clip import Clip
from avsep_zoo.data.clip_cues import black_cue, blacken, shown_cue
from avsep_zoo.data.examples import example_cue
from avsep_zoo.data.reader import Protocol, Skipped
from avsep_zoo.data.segment import clip_seconds, published_segment, read_segment
from avsep_zoo.errors import AvsepError, DataError

__all__ = ["FixedMixtures", "Placement", "Prepare"]

Placement = Literal["middle", "frame", "start"]
Prepare = Callable[..., CueBatch]


class FixedMixtures(Dataset[dict[str, Any]]):
    """Given mixtures, each clip cut at a fixed place: validation and test items.

    An item has ``sources``, float32 (N, L); ``cues``, a CueBatch of (1, N), or where there is no ``prepare`` the list
    of cues, to be given to :meth:`~avsep_zoo.SeparationModel.separate`; and ``skipped``, a list of
    :class:`~avsep_zoo.data.reader.Skipped` that says why an item is silent and black (only with
    ``protocol="paper"``). Where a file cannot be used, an item raises an AvsepError; the others are not affected.

    Args:
        mixtures: clips of each mixture.
        prepare: an encoder's ``prepare``; it is told that the centre of the segment is at ``time`` seconds.
        rate: sample rate in Hz, the model's or any other.
        length: samples of a segment.
        reads: modalities that the encoder reads; nothing else is loaded.
        use: which of ``label``, ``text``, ``frames``, ``detections`` and ``audio`` cues give; None is all. One that
            would be empty gives its label, or caption; but with ``audio`` alone a clip without an example
            (:func:`~avsep_zoo.data.examples.with_examples`) cannot be used.
        members: cues per clip; above 1 every clip has so many classes, and a cue for each of them.
        placement: ``middle``: around the middle of each clip, from its beginning where it is shorter; ``frame``:
            around the frame after the middle one, its number being the frame count // 2 + 1, silent outside of the
            clip; ``start``: at its beginning.
        pictures: frames per source.
        stride: frames of the list from one of them to the next.
        protocol: ``paper`` reads sounds as :func:`~avsep_zoo.data.segment.published_segment` and crops frames as
            :func:`~avsep_zoo.data.frames.published_frames`; an item with a file that fails is silent and black.
        assume_rate, repeat: of published segments. One that is not repeated lies in the middle of a ``middle``.
    """

    def __init__(
        self,
        mixtures: Sequence[Sequence[Clip]],
        prepare: Prepare | None,
        *,
        rate: int,
        length: int,
        reads: frozenset[str] = frozenset({"label", "frames"}),
        use: frozenset[str] | None = None,
        members: int = 1,
        placement: Placement = "middle",
        pictures: int = 3,
        stride: int = 1,
        protocol: Protocol = "default",
        assume_rate: bool = True,
        repeat: bool = True,
    ) -> None:
        self.mixtures, self.prepare, self.rate, self.length = mixtures, prepare, rate, length
        self.reads, self.use, self.placement, self.pictures = reads, use, placement, pictures
        self.stride = stride
        self.members, self.protocol, self.assume_rate, self.repeat = members, protocol, assume_rate, repeat
        self.time = length / rate / 2

    def __len__(self) -> int:
        return len(self.mixtures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        clips = self.mixtures[index]
        skipped: list[Skipped] = []
        try:
            sounds, groups = zip(*map(self._source, clips), strict=True)
        except AvsepError as error:
            if self.protocol == "default":
                raise
            skipped.append(Skipped(" + ".join(clip.id for clip in clips), str(error)))
            sounds = (np.zeros(self.length, dtype=np.float32),) * len(clips)
            groups = tuple(self._cues(clip, black_cue(clip, self._loaded, pictures=self.pictures)) for clip in clips)
        cues = [cue for group in groups for cue in group]
        item: dict[str, Any] = {"sources": torch.from_numpy(np.stack(sounds)), "skipped": skipped}
        if self.prepare is None:
            return {**item, "cues": cues}
        item["cues"] = self.prepare(cues, video=None, time=self.time)
        if skipped:
            blacken(item["cues"])
        return item

    @property
    def _loaded(self) -> frozenset[str]:
        return self.reads if self.use is None else self.reads - ({"frames", "detections", "audio"} - self.use)

    def _source(self, clip: Clip) -> tuple[np.ndarray, list[Cue]]:
        paper = self.protocol == "paper"
        span = clip_seconds(clip, self.rate if paper and self.assume_rate else 1)
        start, time = self._place(clip, span)
        if not paper and start >= span:  # published loaders may repeat the sound
            raise DataError(
                f"The sound {str(clip.audio)!r} ends at {span:.2f} s, before the segment of clip {clip.id!r} begins at "
                f"{start:.2f} s; check its frame count."
            )
        if paper:
            centre = time if self.placement == "frame" else start + (self.length / 2 + 0.25) / self.rate
            sound = published_segment(
                clip.audio,
                rate=self.rate,
                length=self.length,
                centre=clip.start + centre,
                assume_rate=self.assume_rate,
                repeat=self.repeat,
            )
        else:
            end = None if clip.duration is None else clip.start + span
            sound = read_segment(clip.audio, self.rate, self.length, clip.start + start, end=end)
        shown = shown_cue(
            clip,
            time,
            self._loaded,
            pictures=self.pictures,
            stride=self.stride,
            protocol=self.protocol,
            at=self.time,
        )
        return sound, self._cues(clip, shown | self._example(clip))

    def _example(self, clip: Clip) -> dict[str, Any]:
        """An example of the sound of a clip, as arguments of a cue."""
        if "audio" in self._loaded and clip.example is not None:
            return example_cue(clip.example)
        if self.use == {"audio"}:
            raise DataError(
                f"The clip {clip.id!r} has no other clip of its class in another file as an example; add one, or give "
                "other cues than audio."
            )
        return {}

    def _place(self, clip: Clip, span: float) -> tuple[float, float]:
        """Where the segment begins and the time of its frames, in seconds from the beginning of the clip."""
        length = self.length / self.rate
        if self.placement == "middle":
            before = (span - length) / 2
            return (before if self.protocol == "paper" and not self.repeat else max(0.0, before)), span / 2
        if self.placement == "start":
            return 0.0, min(span, length) / 2
        count = clip.frame_count or int(span * clip.frame_rate)
        centre = (count // 2 + 0.5) / clip.frame_rate
        return centre - length / 2, centre

    def _cues(self, clip: Clip, shown: dict[str, Any]) -> list[Cue]:
        if self.members > 1:
            return [Cue(label=label, **shown) for label in clip.labels]
        names: dict[str, Any] = {"label": clip.label, "text": clip.text}
        given = {name: value for name, value in names.items() if self.use is None or name in self.use}
        if shown.get("frames") is None and "audio" not in shown and not any(given.values()):
            given = names
        return [Cue(**given, **shown)]
