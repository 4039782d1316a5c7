"""Evaluation protocols as data: what is cut, mixed, reconstructed, dropped and averaged, and how.

``own`` scores a model as it was trained, ``common`` all models on equal terms. The others repeat the published
evaluation of one paper on one data set, as the official code runs it. Any model can be scored under any of them.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import Literal

from avsep_zoo.errors import DataError
from avsep_zoo.evaluation.published import PUBLISHED, Reported

__all__ = ["PROTOCOLS", "Protocol", "find_protocol"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way to evaluate.

    Args:
        name: of the protocol; the published ones are called ``<method>.<data set>``.
        summary: what is done, in one or two sentences.
        source: where the settings come from.
        dataset: reader its test mixtures belong to; None is any.
        lists: names that its list of test mixtures may have; the first one that is there is taken.
        rate: in Hz of everything that is mixed and scored; None is the model's.
        length: samples of a mixture; None is the model's segment.
        scored: samples that are scored, from the start; None is as many as are estimated.
        shortest: whether a mixture ends with its shortest source.
        placement: where a segment lies in its clip: around the ``middle``, around the middle ``frame`` of its
            list, or at the ``start``.
        offset: seconds by which that is later.
        frame_rate: frames per second that the list of frames is taken to have; None is its own.
        frame_stride: frames of the list from one that is shown to the next.
        loader: ``paper`` reads clips as the published code does, oddities included.
        assume_rate, repeat: how it treats slow files and short sounds
            (:func:`~avsep_zoo.data.segment.published_segment`).
        mixture: ``sum`` or ``mean`` of the sources; None is the rule of the model's objective.
        full_level: whether the truth is the source before a ``mean`` divides it.
        window, hop: samples of windows and steps of the published sliding window, whose estimates are averaged;
            models with other segments use their own cross-fade.
        restore: whether estimates are multiplied by the number of sources and clipped to [-1, 1].
        consistency: whether stems and residual share the mixture out.
        silence: a mixture with a source whose absolute samples add up to at most this is dropped.
        silent_estimate: what becomes of a mixture with an estimate like that: it is dropped, or counts 0 dB.
        batch: mixtures per batch of the published mean over batches of unequal worth; None for a plain mean.
        drop_last: whether that mean leaves an incomplete batch out.
    """

    name: str
    summary: str
    source: str
    dataset: str | None = None
    lists: tuple[str, ...] = ()
    rate: int | None = None
    length: int | None = None
    scored: int | None = None
    shortest: bool = False
    placement: Literal["middle", "frame", "start"] = "middle"
    offset: float = 0.0
    frame_rate: float | None = None
    frame_stride: int = 1
    loader: Literal["default", "paper"] = "default"
    assume_rate: bool = True
    repeat: bool = True
    mixture: Literal["sum", "mean"] | None = None
    full_level: bool = False
    window: int | None = None
    hop: int | None = None
    restore: bool = False
    consistency: bool = True
    silence: float = 0.0
    silent_estimate: Literal["drop", "zero"] = "drop"
    batch: int | None = None
    drop_last: bool = False

    @property
    def seconds(self) -> float | None:
        """Length of a mixture; None where the model decides."""
        return self.length / self.rate if self.length and self.rate else None

    @property
    def reported(self) -> tuple[Reported, ...]:
        """What papers report under this protocol, as far as it was found."""
        return PUBLISHED.get(self.name, ())


_OFFICIAL = Protocol(name="", summary="", source="", loader="paper", consistency=False, silence=1e-5)

_IQUERY = replace(
    _OFFICIAL,
    source="Chen et al., iQuery, CVPR 2023, arXiv 2212.03814, and its official code; the batch size is that of its "
    "training script",
    dataset="music",
    rate=11025,
    length=65535,
    scored=65280,
    placement="frame",
    mixture="mean",
    batch=64,
    summary="5.9 s at 11025 Hz around the middle frame, mean of the sources, masks as they are.",
)
_DAVIS = replace(
    _OFFICIAL,
    source="Huang et al., DAVIS, ACCV 2024, arXiv 2308.00122, and DAVIS-Flow, IJCV 134(3), 2026, arXiv 2509.22063, "
    "and their official code; noise is drawn from another seed",
    mixture="mean",
    full_level=True,
    batch=8,
)
_BIMODAL = replace(
    _OFFICIAL,
    source="Mahmud et al., Weakly-supervised Audio Separation via Bi-modal Semantic Similarity, ICLR 2024, "
    "arXiv 2404.01740, and its official code; the batch size is that of its training",
    rate=16000,
    length=131070,
    assume_rate=False,
    mixture="mean",
    batch=16,
)

_ALL = (
    Protocol(
        name="own",
        summary="As the model was trained: one segment of its length at its rate from the middle of each clip, mixed "
        "by the rule of its objective.",
        source="avsep-zoo; baselines follow the first model, or take 65535 samples at 11025 Hz and the sum",
    ),
    Protocol(
        name="common",
        summary="All methods on equal terms: 10 s from the middle of each clip at 16 kHz, the sum of the sources, "
        "separated as a user would, with cross-fades and consistency.",
        source="avsep-zoo; 16 kHz holds what methods at 11 kHz hear and is the rate of those that hear more, 10 s is "
        "a whole clip of AVE, VGGSound and AudioCaps and longer than the segment of any method",
        rate=16000,
        length=160000,
        mixture="sum",
    ),
    replace(_IQUERY, name="iquery.music", lists=("testsepmusic", "testsep")),
    replace(_IQUERY, name="iquery.music21", lists=("testsepmusic21", "testsep")),
    replace(
        _IQUERY,
        name="iquery.ave",
        summary="2.1 s at 22050 Hz around the middle frame, sum of the sources, masks as they are.",
        dataset="ave",
        lists=("testsepave", "testsep"),
        rate=22050,
        length=47087,
        scored=46920,
        mixture="sum",
        batch=16,
    ),
    replace(
        _DAVIS,
        name="davis.music",
        summary="5.9 s at 11025 Hz around an eighth of the time of the middle frame (frames at 1 per second are taken "
        "for 8), mean of the sources, which are the truth at full level. Every second frame is shown.",
        dataset="music",
        lists=("testsepmusic", "testsep"),
        rate=11025,
        length=65535,
        scored=65280,
        placement="frame",
        frame_rate=8.0,
        frame_stride=2,
    ),
    replace(
        _DAVIS,
        name="davis.ave",
        summary="10 s at 11000 Hz, mean of the sources, which are the truth at full level.",
        dataset="ave",
        lists=("testsepave", "testsep"),
        rate=11000,
        length=110000,
        scored=109824,
        placement="start",
    ),
    Protocol(
        name="avsgs.asiw",
        summary="Both clips at 11025 Hz, cut to the shorter, 10 s at most; their mean; a window of 5.9 s every 0.05 s, "
        "averaged; estimates at twice their level, clipped. The paper's pairs were never released.",
        source="Chatterjee et al., Visual Scene Graphs for Audio Source Separation, ICCV 2021, arXiv 2109.11955, and "
        "its official code",
        dataset="asiw",
        rate=11025,
        length=110250,
        shortest=True,
        placement="start",
        mixture="mean",
        full_level=True,
        window=65535,
        hop=551,
        restore=True,
        consistency=False,
    ),
    replace(
        _OFFICIAL,
        name="ial_cms.music",
        summary="10 s at 11025 Hz from the start of each clip, sum of the sources, a window of 5.9 s every 0.2 s, "
        "averaged; a silent estimate counts as 0 dB. The published run draws detections, and the order of its "
        "mixtures, at random.",
        source="Independency Adversarial Learning for Cross-Modal Sound Separation, AAAI 2024, and its official code; "
        "the batch size is that of its README",
        dataset="duets",
        lists=("test_2mix", "test_3mix"),
        rate=11025,
        length=110250,
        placement="start",
        assume_rate=False,
        repeat=False,
        mixture="sum",
        window=65535,
        hop=2205,
        silent_estimate="zero",
        batch=8,
        drop_last=True,
    ),
    replace(
        _BIMODAL,
        name="bimodal_sep.music",
        summary="8.2 s at 16 kHz around the middle frame, mean of the sources.",
        dataset="music",
        lists=("test_sep_2", "testsep"),
        placement="frame",
    ),
    replace(
        _BIMODAL,
        name="bimodal_sep.vggsound",
        summary="8.2 s at 16 kHz around 4.5 s, mean of the sources.",
        dataset="vggsound",
        lists=("test_sep_2", "testsep"),
        placement="start",
        offset=4.5 - 65535 / 16000,
    ),
    replace(
        _BIMODAL,
        name="bimodal_sep.audiocaps",
        summary="8.2 s at 16 kHz from the middle of each clip, mean of the sources. The paper's pairs are not in its "
        "repository.",
        dataset="audiocaps",
        lists=("test_sep2",),
        repeat=False,
    ),
)

PROTOCOLS = {protocol.name: protocol for protocol in _ALL}


def find_protocol(name: str) -> Protocol:
    """Return a protocol by its name.

    Raises:
        DataError: there is none of that name.
    """
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name, PROTOCOLS, n=1)
        hint = f"did you mean {near[0]!r}" if near else f"known are {', '.join(PROTOCOLS)}"
        raise DataError(f"There is no protocol {name!r}; {hint}.")
    return PROTOCOLS[name]
