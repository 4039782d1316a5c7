"""Checks of whole recordings: any length, and stems that add up."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from avsep_zoo.contracts import Estimate
from avsep_zoo.example_cues import example_sources
from avsep_zoo.separation import Separation
from avsep_zoo.testing.subject import Subject
from avsep_zoo.testing.verdict import Rule

__all__ = ["check_any_length", "check_consistency"]

_LENGTH = Rule(
    "SeparationModel.separate takes a recording of any length: it is cut into segments, the last of which is filled"
    " up with silence, and every stem has the length of the recording and finite samples, of silence, too.",
    "a division by a level or deviation that is 0 where there is silence, or state that one batch of segments "
    "leaves for the next, which may be smaller.",
)
_SUM = Rule(
    "FrontEnd.synthesise is linear in the mask, and a mask of ones gives the mixture back, nearly; so stems that "
    "share the mixture out, and the residual, add up to the recording.",
    "stems that are normalised one by one (to a peak of 1, to a level), or an inverse transform with another "
    "window, hop or gain than the analysis.",
)
_SNR = 10.0  # dB: what a warp of the frequency axis and its way back leave


def check_any_length(subject: Subject) -> None:
    """0.3 s of sound and of silence, one segment, and 2.7 segments."""
    front = subject.model.front_end
    short = int(0.3 * front.rate)
    lengths = {"0.3 s": short, "0.3 s of silence": short, "one segment": front.length}
    for what, samples in {**lengths, "2.7 segments": int(2.7 * front.length)}.items():
        recording = _recording(subject, samples) * (0.0 if "silence" in what else 1.0)
        with _LENGTH.during(f"Separating {what}"):
            separation = _separated(subject, recording)
        _LENGTH.need(len(separation.stems) == 2, f"Two cues gave {len(separation.stems)} stems.")
        for stem in separation.tracks:
            shape = stem.waveform.shape
            _LENGTH.need(shape == (1, samples), f"Of {what}, {samples} samples, the stem {stem.name!r} has {shape}.")
            finite = bool(np.isfinite(stem.waveform).all())
            _LENGTH.need(finite, f"Of {what} the stem {stem.name!r} is not finite.")


def check_consistency(subject: Subject) -> None:
    """Shares of a mask against the whole, the whole against the mixture, and stems with the residual."""
    front, mixture, spectrum = subject.model.front_end, subject.mixture(1), subject.spectrum(1)
    share = torch.rand(spectrum.features.shape, generator=torch.Generator().manual_seed(0))
    with _SUM.during("Synthesising masks"), torch.no_grad():
        parts = front.synthesise(Estimate(torch.cat((share, 1 - share), dim=1)), spectrum, length=front.length)
        whole = front.synthesise(Estimate(torch.ones_like(share)), spectrum, length=front.length)
    inner = slice(front.hop_length, -2 * front.hop_length)  # at the ends little of the windows is left to divide by
    apart = float((parts.sum(dim=1) - whole[:, 0])[:, inner].abs().max() / mixture.abs().max())
    _SUM.need(apart < 1e-3, f"Two masks that add up to 1 give sounds that are {apart:.2g} away from the mask 1.")
    ratio = float(mixture[:, inner].square().sum() / (whole[:, 0] - mixture)[:, inner].square().sum().clamp_min(1e-12))
    level = 10 * float(np.log10(max(ratio, 1e-12)))
    _SUM.need(level > _SNR, f"A mask of ones gives the mixture back with a signal-to-noise ratio of {level:.1f} dB.")
    recording = _recording(subject, front.length)
    with _SUM.during("Separating one segment"):
        separation = _separated(subject, recording)
    if separation.adds_up:
        total = np.sum([stem.waveform for stem in separation.tracks], axis=0)
        apart = float(np.abs(total - recording).max())
        _SUM.need(apart < 1e-4, f"Stems and residual add up to something that is {apart:.2g} away from the recording.")


def _recording(subject: Subject, samples: int) -> np.ndarray:
    made: np.ndarray = example_sources(samples, rate=subject.model.rate)[0].sum(0).numpy()
    return made[None]


def _separated(subject: Subject, recording: np.ndarray) -> Separation:
    model = subject.model
    cues, steps = subject.user_cues(0), None if model.driver is None else 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of cues that are not used in full
        return model.separate(recording, cues, rate=model.rate, overlap=0.25, batch=2, steps=steps)
