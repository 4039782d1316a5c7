"""The cues of a recording along its time: embeddings for the network, and notes and pictures for the user."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avsep_zoo.contracts import CueBatch, Embedding
from avsep_zoo.cue import Cue
from avsep_zoo.media import VideoSource, probe
from avsep_zoo.model import SeparationModel
from avsep_zoo.pictures import read_picture

__all__ = ["Guide"]


class Guide:
    """The cues of a recording as embeddings, made once, or per segment where pictures come from the video."""

    def __init__(self, model: SeparationModel, cues: Sequence[Cue], video: VideoSource | None) -> None:
        self.model, self.cues, self.video = model, cues, video
        self.still: Embedding | None = None
        self.first: CueBatch | None = None
        self.first_time = 0.0

    def embed(self, times: Sequence[float]) -> Embedding:
        """Embedding (B, N) for segments centred at ``times`` seconds."""
        if self.still is not None:
            return self.still.repeat(len(times))
        still = self.video is None or self.model.encoder.per_clip
        moments = [self._middle(times[0])] if still else times
        batches = [self.model.encoder.prepare(self.cues, video=self.video, time=time) for time in moments]
        if self.first is None:
            self.first, self.first_time = batches[0], moments[0]
        embedding = self.model.encoder(CueBatch.stack(batches).to(self.model.device))
        if still:
            self.still = self.model.conditioner.digest(embedding)
            return self.still.repeat(len(times))
        return embedding

    def _middle(self, time: float) -> float:
        """The middle of the video, in seconds; ``time`` where there is none or its length is unknown."""
        duration = None if self.video is None else probe(self.video.path).duration
        return time if duration is None else duration / 2

    def notes(self) -> list[str]:
        """What was used of each cue, and what was not."""
        assert self.first is not None
        notes = []
        for n, cue in enumerate(self.cues):
            reads = self.model.encoder.reads & self.first.values.keys()
            told = self.first.present.keys() - self.first.values.keys()
            used = sorted(modality for modality in reads | told if self.first.has(modality)[0, n])
            offered = cue.modalities - {"box"}
            unused = sorted((offered | ({"frames"} if self.video else set())) - set(used))
            place = " in its box" if "box" in cue.modalities else ""
            by = [modality for modality in used if modality != "frames"]
            if "frames" in used:
                by.append("its own frames" if cue.frames is not None else f"the video's frames{place}")
            elif "detections" in used:
                by[by.index("detections")] += place
            note = f"{cue.title}: by {' and '.join(by)}"
            if unused == ["frames"] and cue.frames is None:
                note += "; the video's pictures were not used"
                note += "" if place or "frames" not in self.model.encoder.reads else ", since the cue has no box"
            elif unused:
                note += f"; not used: {', '.join(unused)}"
            notes.append(note + ".")
        return notes

    def pictures(self) -> tuple[list[np.ndarray | None], list[Sequence[float] | None]]:
        """A picture and a box per cue, where it has a box in the video or its frames were used."""
        assert self.first is not None
        pictures: list[np.ndarray | None] = []
        boxes: list[Sequence[float] | None] = []
        for n, cue in enumerate(self.cues):
            used = "frames" in self.first.values and bool(self.first.has("frames")[0, n])
            time, box = self._looked_at(n)
            shown = used or (self.video is not None and box is not None)
            pictures.append(self._picture(cue, time) if shown else None)
            boxes.append(box if shown else None)
        return pictures, boxes

    def _looked_at(self, number: int) -> tuple[float, Sequence[float] | None]:
        """When and where the source of a cue was looked at: what the encoder says, or else the box of the cue."""
        told = None if self.first is None else self.first.get("object_box")
        if told is not None and bool(told[0, number].isfinite().all()):
            time, *box = told[0, number].tolist()
            return time, box
        return self.first_time, self.cues[number].box_at(self.first_time)

    def _picture(self, cue: Cue, time: float) -> np.ndarray | None:
        if cue.frames is None and self.video is not None:
            return self.video.frames_at([time])[0]
        if isinstance(cue.frames, str | Path):
            if probe(cue.frames).duration is None:
                return read_picture(cue.frames)
            with VideoSource(cue.frames) as video:
                return video.frames_at([time])[0]
        frames = np.asarray(cue.frames)
        return frames if frames.ndim == 3 else frames[len(frames) // 2]
