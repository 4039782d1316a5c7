"""Training items by mix and separate (Zhao et al., 2018): recordings are added up, the parts are the truth."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from avsep_zoo.contracts import CueBatch
from avsep_zoo.cue import Cue
from avsep_zoo.data.augment import Augmentation, background
from avsep_zoo.data.clip import Clip
from avsep_zoo.data.clip_cues import black_cue, blacken, shown_cue
from avsep_zoo.data.examples import example_cue
from avsep_zoo.data.pools import Pools
from avsep_zoo.data.reader import Protocol, Skipped
from avsep_zoo.data.repeats import draw_places, shares
from avsep_zoo.data.segment import clip_seconds, published_segment, read_segment
from avsep_zoo.errors import AvsepError, CueError, DataError

__all__ = ["MixAndSeparate"]

_ATTEMPTS = 100  # clips that are tried for one place of a mixture
_DRAWS = 3  # segments that are tried for one that is not silent
_SILENT = 1e-3  # largest sample of a silent segment


@dataclass(frozen=True)
class _Part:
    """A clip that was read: its sound (L,), and a cue for each sound that it counts as, with its weight."""

    clip: Clip
    sound: np.ndarray
    cues: tuple[Cue, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class _Drawn:
    """A clip to read, and how many cues it has to have."""

    clip: Clip
    cued: int


class MixAndSeparate(Dataset[dict[str, Any]]):
    """Item i is a mixture of ``sources`` recordings, drawn by a generator seeded with (seed, i) alone.

    Clips with classes are drawn class by class, and no class is twice in a mixture. Clips without any are drawn
    uniformly, and their captions are their cues. With ``members`` K > 1 each source holds K cued sounds: a clip of K
    classes, or of K or more named phrases, K of which are drawn; where no clip is of that kind, K clips of one sound
    averaged.

    An item has ``sources``, float32 (N, L); ``cues``, a CueBatch of (1, N K), source n having the K cues from n K on;
    ``background``, float32 (L,), noise that no cue asks for; and ``skipped``, a list of
    :class:`~avsep_zoo.data.reader.Skipped`: clips that were drawn, could not be used and made way for others of the
    same class. Getting an item raises a DataError where no clip of a class can be used, or none of 100 that were tried.

    With a ``caption`` and K > 1 it also has ``captions``, a CueBatch of (1, N) texts of whole recordings, and
    ``shares``, float32 (N K,): a recording of fewer than K sounds repeats cues, which share in one weight of 1.

    Where the encoder reads ``audio``, a cue of a class has a clip of that class alone as an example, in another file;
    without one it has none, or the clip itself where the encoder reads neither texts nor labels.

    Args:
        clips: of a reader. Those that do not fit the setting are left out and noted in the attribute ``skipped``.
        prepare: an encoder's ``prepare``; it is told that the centre of the segment is at ``time`` seconds, and draws
            from the item's generator.
        rate: sample rate in Hz of the model.
        length: samples of a segment.
        items: number of items; any index below it gives the same item in any order and process.
        sources: recordings per mixture.
        members: cued sounds per recording.
        whole: take recordings as they are, of any number of classes, each with one cue, which shows all that sounds.
        solos: share of recordings of one sound among those of ``members``; it needs a ``caption``.
        caption: makes a text of classes, drawing from a generator.
        seed: of every draw.
        augmentation: how far sounds are varied.
        reads: modalities that the encoder reads; nothing else is loaded.
        pictures: frames per cue.
        stride: frames of the list from one of them to the next.
        protocol: ``paper`` reads sounds as :func:`~avsep_zoo.data.segment.published_segment` and crops frames as
            :func:`~avsep_zoo.data.frames.published_frames`; an item with a file that fails is silent and black.

    Raises:
        DataError: there are too few clips or classes, or the augmentation does not go with the protocol.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        prepare: Callable[..., CueBatch],
        *,
        rate: int,
        length: int,
        items: int,
        sources: int = 2,
        members: int = 1,
        whole: bool = False,
        solos: float = 0.0,
        caption: Callable[[Sequence[str], np.random.Generator], str] | None = None,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        reads: frozenset[str] = frozenset({"label", "frames"}),
        pictures: int = 3,
        stride: int = 1,
        protocol: Protocol = "default",
    ) -> None:
        if solos and (caption is None or members == 1):
            raise DataError(
                f"A share of {solos:g} solos is asked for, and the method does not take them beside recordings of "
                "several sounds, or members is 1; set solos to 0."
            )
        fewer = caption is not None
        self.pools = Pools(clips, sources=sources, members=members, whole=whole, solos=solos, fewer=fewer)
        self.members, self.caption = members, caption if members > 1 and not whole else None
        self.skipped = self.pools.skipped
        self.prepare, self.rate, self.length, self.items = prepare, rate, length, items
        self.sources, self.seed, self.reads, self.pictures = sources, seed, reads, pictures
        self.stride = stride
        self.protocol, self.augmentation = protocol, augmentation or Augmentation()
        self.time = length / rate / 2
        if protocol == "paper" and self.augmentation.semitones:
            raise DataError("Published loaders do not change the speed; set semitones to 0, or protocol to default.")

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, index))
        skipped: list[Skipped] = []
        make = self._published if self.protocol == "paper" else self._usable
        drawn = [[_Drawn(clip, self._cued(clips)) for clip in clips] for clips in self.pools.draw(rng)]
        recordings, cues = make(drawn, rng, skipped)
        sources = np.stack([np.mean([part.sound for part in parts], axis=0) for parts in recordings])
        level = float(np.sqrt((sources.sum(axis=0) ** 2).mean()))
        noisy = rng.random() < self.augmentation.noise
        noise = background(self.length, level, rng) if noisy else np.zeros(self.length, dtype=np.float32)
        item = {
            "sources": torch.from_numpy(sources),
            **cues,
            "background": torch.from_numpy(noise),
            "skipped": skipped,
        }
        if self.caption is not None:
            item["shares"] = torch.tensor([share for parts in recordings for part in parts for share in part.shares])
        return item

    def _cued(self, recording: Sequence[Clip]) -> int:
        """Cues of each clip of a recording."""
        return self.pools.cued if self.caption is None else self.members // len(recording)

    def _usable(
        self, drawn: Sequence[Sequence[_Drawn]], rng: np.random.Generator, skipped: list[Skipped]
    ) -> tuple[list[list[_Part]], dict[str, CueBatch]]:
        """Read clips; one that cannot be used makes way for another of its class."""
        for checked in (False, True):  # the cues one by one only where they do not pass together
            taken = {one.clip.id for recording in drawn for one in recording}
            read = functools.partial(self._part, taken=taken, rng=rng, skipped=skipped, checked=checked)
            parts = [[read(one) for one in recording] for recording in drawn]
            try:
                return parts, self._prepare(parts, rng)
            except CueError:
                if checked:
                    raise
            drawn = [[_Drawn(part.clip, len(part.cues)) for part in recording] for recording in parts]
        raise AssertionError("unreachable")

    def _part(
        self, drawn: _Drawn, *, taken: set[str], rng: np.random.Generator, skipped: list[Skipped], checked: bool
    ) -> _Part:
        """Read a clip, or else another of its class that is not ``taken``, and note why."""
        failed: list[Skipped] = []
        clip = drawn.clip
        candidate: Clip | None = clip
        while candidate is not None and len(failed) < _ATTEMPTS:
            taken.add(candidate.id)
            try:
                part = self._read(_Drawn(candidate, drawn.cued), rng)
                if checked:
                    self._prepare([[part]], rng)
            except AvsepError as error:
                failed.append(Skipped(candidate.id, str(error)))
                candidate = self.pools.another(clip, taken, rng)
            else:
                skipped.extend(failed)
                return part
        of = f" of {' + '.join(clip.labels)}" if clip.labels else ""
        first = failed[0]
        raise DataError(f"None of {len(failed)} clips{of} can be used; the first is {first.where!r}: {first.why}")

    def _published(
        self, drawn: Sequence[Sequence[_Drawn]], rng: np.random.Generator, skipped: list[Skipped]
    ) -> tuple[list[list[_Part]], dict[str, CueBatch]]:
        """Read clips; if one of them cannot be used, all are silent and black."""
        try:
            parts = [[self._read(one, rng) for one in recording] for recording in drawn]
        except AvsepError as error:
            skipped.append(Skipped(" + ".join(one.clip.id for recording in drawn for one in recording), str(error)))
            parts = [[self._black(one, rng) for one in recording] for recording in drawn]
        cues = self._prepare(parts, rng)
        if skipped:
            blacken(cues["cues"])
        return parts, cues

    def _black(self, drawn: _Drawn, rng: np.random.Generator) -> _Part:
        shown = black_cue(drawn.clip, self.reads, pictures=self.pictures)
        return _Part(drawn.clip, np.zeros(self.length, dtype=np.float32), *self._cues(drawn, shown, rng))

    def _prepare(self, recordings: Sequence[Sequence[_Part]], rng: np.random.Generator) -> dict[str, CueBatch]:
        """The cues of recordings, and their captions where they have any."""
        told = {"cues": [cue for parts in recordings for part in parts for cue in part.cues]}
        if self.caption is not None:
            told["captions"] = [Cue(text=self._caption(parts, rng)) for parts in recordings]
        return {name: self.prepare(cues, video=None, time=self.time, rng=rng) for name, cues in told.items()}

    def _caption(self, recording: Sequence[_Part], rng: np.random.Generator) -> str:
        """What is said of a recording as a whole: the captions of its clips, or else their classes."""
        assert self.caption is not None
        clips = [part.clip for part in recording]
        if not any(clip.text for clip in clips):
            return self.caption([label for clip in clips for label in clip.labels or clip.phrases], rng)
        return " and ".join(clip.text or self.caption(clip.labels or clip.phrases, rng) for clip in clips)

    def _read(self, drawn: _Drawn, rng: np.random.Generator) -> _Part:
        clip, augmentation = drawn.clip, self.augmentation
        sound, time = self._sound(clip, rng)
        sound = augmentation.colour(sound, self.rate, rng)
        if rng.random() < augmentation.silence:
            sound = np.zeros_like(sound)
        reads = self.reads - {"frames"} if rng.random() < augmentation.drop_frames else self.reads
        how: Any = {"pictures": self.pictures, "stride": self.stride, "protocol": self.protocol}
        shown = shown_cue(clip, time, reads, at=self.time, **how)
        return _Part(clip, sound, *self._cues(drawn, shown, rng))

    def _sound(self, clip: Clip, rng: np.random.Generator) -> tuple[np.ndarray, float]:
        """A segment that is not silent, if one is drawn, and its centre in seconds from the beginning of the clip."""
        paper, speed = self.protocol == "paper", self.augmentation.speed(rng)
        span = clip_seconds(clip, self.rate if paper else 1)
        wanted = self.length / self.rate * speed
        spare = max(0.0, span - wanted)
        sound, start = np.zeros(self.length, dtype=np.float32), 0.0
        for _ in range(_DRAWS):
            start = float(rng.uniform(0, spare)) if spare else 0.0
            if paper:
                centre = clip.start + start + self.time
                sound = published_segment(clip.audio, rate=self.rate, length=self.length, centre=centre)
            else:
                end = None if clip.duration is None else clip.start + span
                sound = read_segment(clip.audio, self.rate, self.length, clip.start + start, speed, end=end)
            if float(np.abs(sound).max()) > _SILENT:
                break
        return sound, start + min(span, wanted) / 2

    def _cues(
        self, drawn: _Drawn, shown: dict[str, Any], rng: np.random.Generator
    ) -> tuple[tuple[Cue, ...], tuple[float, ...]]:
        """The cues of a clip and their weights; where it names fewer sounds than asked for, some again."""
        clip, cued = drawn.clip, drawn.cued
        if cued == 1:
            dropped = shown.get("frames") is not None and rng.random() < self.augmentation.drop_label
            given = {**shown, **self._example(clip.label, clip, rng)}
            return (Cue(label=None if dropped else clip.label, text=clip.text, **given),), (1.0,)
        if not clip.labels:
            places = draw_places(len(clip.phrases), cued, rng)
            return tuple(Cue(text=clip.phrases[place], **shown) for place in places), shares(places)
        places = [*range(cued)] if len(clip.labels) == cued else draw_places(len(clip.labels), cued, rng)
        named = [clip.labels[place] for place in places]
        text = clip.text if clip.label is not None else None
        cues = [Cue(label=label, text=text, **shown, **self._example(label, clip, rng)) for label in named]
        return tuple(cues), shares(places)

    def _example(self, label: str | None, clip: Clip, rng: np.random.Generator) -> dict[str, Any]:
        """An example of the sound of a class in a clip, as arguments of a cue."""
        if "audio" not in self.reads or label is None:
            return {}
        tried = {clip.audio}
        for _ in range(_ATTEMPTS):
            example = self.pools.solo(label, tried, rng)
            if example is None:
                break
            try:
                return example_cue(example)
            except AvsepError:  # noted where it is drawn itself
                tried.add(example.audio)
        alone = clip.label == label and not self.reads & {"label", "text"}
        return example_cue(clip) if alone else {}
