"""The cues of a recording along its time: embeddings for the network; notes, pictures and maps for the user."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from avsep_zoo.contracts import CueBatch, Embedding
from avsep_zoo.cue import Cue
from avsep_zoo.errors import CueError
from avsep_zoo.media import VideoSource, probe
from avsep_zoo.model import SeparationModel
from avsep_zoo.pictures import read_picture
from avsep_zoo.queries import Queries
from avsep_zoo.separation import Localisation

__all__ = ["Guide", "check_read"]

_SHOWN = 4  # pictures that are kept of a localisation
_LOOKING = frozenset({"frames", "detections"})
_POINTING = frozenset({"label", "box", "detections"})  # these tell what is meant of what is seen


class Guide:
    """The cues of a recording as embeddings, made once, or per segment where pictures come from the video.

    Embeddings are of the Q queries; what the user gets to see is of the N stems.

    Args:
        model: what they are for.
        cues: as they were given, one per stem.
        video: the video that is separated, where there is one.

    Raises:
        CueError: a cue has nothing that the model could use.
    """

    def __init__(self, model: SeparationModel, cues: Sequence[Cue], video: VideoSource | None) -> None:
        check_read(model, cues)
        self.model, self.queries, self.video = model, Queries.of_cues(cues), video
        self.remarks = list(dict.fromkeys(model.encoder.remarks(self.queries.asked)))
        self.still: Embedding | None = None
        self.first: CueBatch | None = None
        self.first_time = 0.0
        self.shown: dict[float, np.ndarray] = {}  # pictures of the video that were asked for, by their time
        self.times: list[float] = []  # of the segments
        self.regions: list[np.ndarray | None] = []  # (Q, 5) of each, or one of all: what the map of a cue shows
        self.maps: list[np.ndarray | None] = []  # (Q, h, w) of each segment: where in its region a source was found

    def embed(self, times: Sequence[float]) -> Embedding:
        """Embedding (B, Q) for the next segments, which are centred at ``times`` seconds."""
        self.times += times
        if self.still is not None:
            return self.still.repeat(len(times))
        still = self.video is None or self.model.encoder.per_clip
        moments = [self._middle(times[0])] if still else times
        batches = [self.model.encoder.prepare(self.queries.asked, video=self.video, time=time) for time in moments]
        if self.first is None:
            self.first, self.first_time = batches[0], moments[0]
        self.regions += [_regions(batch) for batch in batches]
        embedding = self.model.encoder(CueBatch.stack(batches).to(self.model.device))
        if still:
            self.still = self.model.conditioner.digest(embedding)
            return self.still.repeat(len(times))
        return embedding

    def heard(self, localisation: Tensor | None) -> None:
        """Keep where the sources were found (B, Q, h, w) in the segments that were embedded last."""
        count = len(self.times) - len(self.maps)
        kept = None if localisation is None else localisation.clamp(0, 1).half().cpu().numpy()
        self.maps += [None] * count if kept is None else list(kept)

    def _middle(self, time: float) -> float:
        """The middle of the video, in seconds; ``time`` where there is none or its length is unknown."""
        duration = None if self.video is None else probe(self.video.path).duration
        return time if duration is None else duration / 2

    def notes(self) -> list[str]:
        """What was used of each cue, and what was not."""
        assert self.first is not None
        notes = []
        for cue, n in self._stems():
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
        for cue, n in self._stems():
            used = "frames" in self.first.values and bool(self.first.has("frames")[0, n])
            time, box = self._looked_at(n)
            shown = used or (self.video is not None and box is not None)
            pictures.append(self._picture(cue, time) if shown else None)
            boxes.append(box if shown else None)
        return pictures, boxes

    def localisations(self) -> list[Localisation | None] | None:
        """Where the source of each cue was found; None where the model does not say so, or not of which picture."""
        localisations = [self._localisation(n, cue) for cue, n in self._stems()]
        return localisations if any(found is not None for found in localisations) else None

    def _stems(self) -> Iterator[tuple[Cue, int]]:
        """The cue and the number of the query of each stem."""
        return zip(self.queries.wanted, self.queries.of, strict=True)

    def _localisation(self, number: int, cue: Cue) -> Localisation | None:
        """That of one cue, of the segments whose map and region have only finite numbers."""
        if cue.frames is None and self.video is None:
            return None
        regions = self.regions if self.still is None else self.regions * len(self.times)
        found = [
            (time, region[number], maps[number])
            for time, region, maps in zip(self.times, regions, self.maps, strict=True)
            if region is not None and maps is not None
            if np.isfinite(region[number]).all() and np.isfinite(maps[number]).all()
        ]
        if not found:
            return None
        times, seen, stack = (np.stack(values) for values in zip(*found, strict=True))
        shown = min(_SHOWN, len(found))
        chosen = ((np.arange(shown) + 0.5) * len(found) / shown).astype(int).tolist()
        pictures = {time: self._picture(cue, time) for time in dict.fromkeys(seen[chosen, 0].tolist())}
        return Localisation(times, seen[:, 1:], stack, {k: pictures[seen[k, 0]] for k in chosen})

    def _looked_at(self, number: int) -> tuple[float, Sequence[float] | None]:
        """When and where the source of a cue was looked at: what the encoder says, or else the box of the cue."""
        told = None if self.first is None else self.first.get("object_box")
        if told is not None and bool(told[0, number].isfinite().all()):
            time, *box = told[0, number].tolist()
            return time, box
        return self.first_time, self.queries.asked[number].box_at(self.first_time)

    def _picture(self, cue: Cue, time: float) -> np.ndarray:
        if cue.frames is None and self.video is not None:
            if time not in self.shown:
                self.shown[time] = self.video.frames_at([time])[0]
            return self.shown[time]
        if isinstance(cue.frames, str | Path):
            if probe(cue.frames).duration is None:
                return read_picture(cue.frames)
            with VideoSource(cue.frames) as video:
                return video.frames_at([time])[0]
        frames = np.asarray(cue.frames)
        return frames if frames.ndim == 3 else frames[len(frames) // 2]


def check_read(model: SeparationModel, cues: Sequence[Cue]) -> None:
    """Make sure that no cue is made only of what the model passes over, however the rest of the video is used.

    Raises:
        CueError: one is; the sentence names it, what it has and what the model reads.
    """
    reads = model.encoder.reads
    usable = reads | _POINTING if reads & _LOOKING else reads
    for cue in cues:
        if not cue.modalities & usable:
            wanted = [*sorted(reads), "a box in the video"] if "frames" in reads else sorted(reads)
            raise CueError(
                f"The cue {cue.title!r} has only {_listed(sorted(cue.modalities), 'and')}, and {model.name} reads "
                f"{_listed(sorted(reads), 'and')}; give it {_listed(wanted, 'or')}."
            )


def _listed(words: Sequence[str], last: str) -> str:
    return f" {last} ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def _regions(batch: CueBatch) -> np.ndarray | None:
    """What the maps of the cues show (Q, 5): seconds of the media, x1, y1, x2, y2; None where that is not known."""
    told = batch.get("map_region")
    return None if told is None else told[0].double().cpu().numpy()
