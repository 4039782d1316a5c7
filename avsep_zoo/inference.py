"""Separation of recordings of any length, rate and number of channels, segment by segment.

A model sees one segment at its own rate, mono; :mod:`avsep_zoo.full_band` carries its mask over to the
recording. Overlapping segments are cross-faded; a generative model sees the same noise where they overlap. Results
that grow large lie in temporary files, so memory does not grow with the length.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from avsep_zoo.blocks.consistency import share_out
from avsep_zoo.cue import Cue
from avsep_zoo.errors import CueError, CueWarning, WeightsError
from avsep_zoo.full_band import FullBand
from avsep_zoo.generative.noise import Sampling
from avsep_zoo.generative.plan import describe_sampling, plan_sampling
from avsep_zoo.guide import Guide
from avsep_zoo.media import AudioSource, VideoSource, open_audio, probe
from avsep_zoo.model import SeparationModel
from avsep_zoo.separation import Separation, Stem
from avsep_zoo.spool import Spool

__all__ = ["separate"]

_IN_MEMORY = 256 * 2**20  # bytes of all results before they move to temporary files
_CALLER = 4  # stack level of who calls SeparationModel.separate: torch's inference mode and the method lie between
_LOUDEST = 10.0  # of a mask: where sources cancel they are far louder than the mixture, and it may not be in between


@torch.inference_mode()
def separate(
    model: SeparationModel,
    media: Any,
    cues: Sequence[Cue | str] | Cue | str,
    *,
    rate: int | None = None,
    consistency: bool = True,
    overlap: float = 0.5,
    batch: int = 4,
    seed: int = 0,
    steps: int | None = None,
    solver: str | None = None,
    progress: Callable[[float, float | None], None] | None = None,
) -> Separation:
    """Take a recording apart; see :meth:`avsep_zoo.SeparationModel.separate` for the arguments."""
    if not 0 <= overlap <= 0.75:
        raise ValueError(f"overlap is {overlap}; give a share in [0, 0.75].")
    if batch < 1:
        raise ValueError(f"batch is {batch}; give at least 1 segment.")
    sampling = plan_sampling(model.driver, model.name, seed=seed, steps=steps, solver=solver)
    wanted = _as_cues(cues)
    training = model.training
    model.eval()
    try:
        with ExitStack() as stack:
            source = open_audio(media, rate=rate)
            video = _open_video(media, stack)
            guide = Guide(model, wanted, video)
            queries, stems = guide.queries, len(wanted)
            residual = consistency and queries.leaves_rest
            for remark in guide.remarks:
                warnings.warn(remark, CueWarning, stacklevel=_CALLER)
            band = FullBand.of(model.front_end, source.rate)
            step, columns = _step(model, band, overlap)
            share = _IN_MEMORY // (stems + 2)
            tracks = stems + (2 if residual else 1)
            spools = [stack.enter_context(Spool(source.channels, share)) for _ in range(tracks)]
            masks = stack.enter_context(_MaskStrip(model, band, step, stems))
            overlap_add = _OverlapAdd(band.segment, step, len(queries.asked), source.channels)
            begun = 0
            for segments in _batched(_segments(source, band.segment, step), batch):
                if sampling is not None:
                    starts = [(begun + k) * columns for k in range(len(segments))]
                    sampling, begun = replace(sampling, starts=starts), begun + len(segments)
                done = _run(model, guide, band, segments, consistency, sampling)
                for (start, mixture, last), answers, mask in done:
                    masks.add(start, queries.masks(mask), last, mixture.shape[1])
                    whole, parts = overlap_add.add(mixture, answers, last)
                    rest = [queries.rest(whole, parts)] if residual else []
                    for spool, block in zip(spools, [*queries.stems(whole, parts), whole, *rest], strict=True):
                        spool.write(block)
                    if progress:
                        progress(spools[-1].columns / source.rate, source.duration)
            result = _result(model, wanted, guide, spools, masks, source.rate)
            result.sampling = describe_sampling(model.driver, sampling)
            if consistency and not residual:
                result.notes.append("There is no residual: the stems together claim all of the mixture.")
            return result
    finally:
        model.train(training)


def _step(model: SeparationModel, band: FullBand, overlap: float) -> tuple[int, int]:
    """Samples from one segment to the next; for a generative model whole columns of features, and how many."""
    if model.driver is None:
        return max(1, round(band.segment * (1 - overlap))), 0
    front: Any = model.front_end
    column = front.column_seconds() * band.rate  # samples
    most = int(band.segment / column)
    columns = max(1, min(most, round(band.segment / column * (1 - overlap))))
    return max(1, round(columns * column)), columns


def _as_cues(cues: Sequence[Cue | str] | Cue | str) -> list[Cue]:
    listed = [cues] if isinstance(cues, Cue | str) else list(cues)
    if not listed:
        raise CueError("No cue is given; give one per source, e.g. ['violin', 'flute'].")
    for number, cue in enumerate(listed, 1):
        if not isinstance(cue, Cue | str):
            raise CueError(f"Cue {number} is a {type(cue).__name__}; give a label or an avsep_zoo.Cue.")
    return [Cue(label=cue) if isinstance(cue, str) else cue for cue in listed]


def _open_video(media: Any, stack: ExitStack) -> VideoSource | None:
    if not isinstance(media, str | Path) or probe(media).video is None:
        return None
    return stack.enter_context(VideoSource(media))


_Segment = tuple[int, np.ndarray, bool]  # start sample, (channels, <= segment), whether it is the last one


def _segments(source: AudioSource, length: int, step: int) -> Iterator[_Segment]:
    """Cut a recording into overlapping segments; the last one may be shorter."""
    start, held = 0, np.zeros((source.channels, 0), np.float32)
    blocks = source.blocks(step)
    ended = False
    while not ended:
        while held.shape[1] <= length and not ended:
            block = next(blocks, None)
            ended = block is None
            if block is not None:
                held = np.concatenate((held, block), axis=1)
        while held.shape[1] > length:
            yield start, held[:, :length], False
            start, held = start + step, held[:, step:]
    yield start, held, True


def _batched(segments: Iterator[_Segment], size: int) -> Iterator[list[_Segment]]:
    group: list[_Segment] = []
    for segment in segments:
        group.append(segment)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _run(
    model: SeparationModel,
    guide: Guide,
    band: FullBand,
    segments: Sequence[_Segment],
    consistency: bool,
    sampling: Sampling | None,
) -> Iterator[tuple[_Segment, np.ndarray, np.ndarray]]:
    """Separate a batch of segments: sounds (Q, channels, segment) and the model's mask (Q, F', T) of each."""
    front: Any = model.front_end
    heard = np.stack([band.listen(mixture) for _, mixture, _ in segments])
    times = [(start + mixture.shape[1] / 2) / band.rate for start, mixture, _ in segments]
    spectrum = front.analyse(torch.from_numpy(heard).to(model.device))
    estimate = model.estimate(spectrum, guide.embed(times), sampling=sampling)
    guide.heard(estimate.localisation)
    linear = front.mask(estimate, spectrum).float()
    if not torch.isfinite(linear).all():
        raise WeightsError(
            f"{model.name} gave numbers that are not finite; its weights are damaged, or its precision is too low."
        )
    linear = share_out(linear) if consistency else linear.clamp(0, _LOUDEST)
    shown = front.warped_mask(estimate, spectrum)
    for index, segment in enumerate(segments):
        row = slice(index, index + 1)
        mask = band.spread(linear[row], spectrum.magnitude[row])[0]  # (Q, F_R, T_R)
        yield segment, band.apply(segment[1], mask), shown[index].clamp(0, 1).float().cpu().numpy()


class _OverlapAdd:
    """Cross-fades segments; gives out what no later segment will touch."""

    def __init__(self, segment: int, step: int, sources: int, channels: int) -> None:
        self.step, fade = step, segment - step
        ramp = (np.sin(np.pi / 2 * (np.arange(fade) + 0.5) / max(1, fade)) ** 2).astype(np.float32)
        self.window = np.ones(segment, np.float32)
        self.window[:fade] *= ramp
        self.window[step:] *= ramp[::-1]
        self.stems = np.zeros((sources, channels, segment), np.float32)
        self.weights = np.zeros(segment, np.float32)

    def add(self, mixture: np.ndarray, stems: np.ndarray, last: bool) -> tuple[np.ndarray, np.ndarray]:
        """Add one segment; return finished mixture (channels, n) and stems (N, channels, n)."""
        samples = mixture.shape[1]
        window = self.window[:samples]
        self.stems[..., :samples] += stems * window
        self.weights[:samples] += window
        ready = samples if last else self.step
        finished = self.stems[..., :ready] / self.weights[:ready]
        self.stems = np.concatenate((self.stems[..., ready:], np.zeros_like(finished)), axis=-1)
        self.weights = np.concatenate((self.weights[ready:], np.zeros(ready, np.float32)))
        return mixture[:, :ready], finished


class _MaskStrip:
    """The model's masks of all segments in a row, each frame from the segment it is most inside of."""

    def __init__(self, model: SeparationModel, band: FullBand, step: int, sources: int) -> None:
        front: Any = model.front_end
        self.rate, self.seconds, self.sources = band.rate, front.column_seconds(), sources
        self.middle = (band.segment + step) / 2  # of the overlap with the next segment
        self.spool = Spool(sources * len(front.row_frequencies()), _IN_MEMORY // 4, np.float16)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.spool.__exit__(*error)

    def add(self, start: int, mask: np.ndarray, last: bool, samples: int) -> None:
        """Add the mask (N, F', T) of the segment that starts at sample ``start``."""
        until = samples if last else self.middle
        end = math.ceil((start + until) / self.rate / self.seconds)
        local = np.arange(self.spool.columns, end) - start / self.rate / self.seconds
        chosen = local.round().astype(int).clip(0, mask.shape[-1] - 1)
        self.spool.write(mask[..., chosen].reshape(self.spool.rows, len(chosen)))

    def joined(self) -> np.ndarray:
        """(N, F', T) float16."""
        rows = self.spool.read()
        return rows.reshape(self.sources, -1, rows.shape[1])


def _result(
    model: SeparationModel,
    cues: Sequence[Cue],
    guide: Guide,
    spools: Sequence[Spool],
    masks: _MaskStrip,
    rate: int,
) -> Separation:
    waves = [spool.read() for spool in spools]
    stems, mixture, rest = waves[: len(cues)], waves[len(cues)], waves[len(cues) + 1 :]
    strips = masks.joined()
    pictures, boxes = guide.pictures()
    named = [Stem(cue.title, wave, strips[n]) for n, (cue, wave) in enumerate(zip(cues, stems, strict=True))]
    front: Any = model.front_end
    return Separation(
        stems=named,
        residual=Stem("residual", rest[0]) if rest else None,
        mixture=mixture,
        rate=rate,
        method=model.name,
        cues=[cue.describe() for cue in cues],
        notes=[*guide.notes(), *guide.remarks],
        frames=pictures,
        boxes=boxes,
        localisations=guide.localisations(),
        mask_seconds=masks.seconds,
        mask_frequencies=front.row_frequencies(),
    )
