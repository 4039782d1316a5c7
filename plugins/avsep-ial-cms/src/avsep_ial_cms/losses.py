"""Losses of IAL-CMS that no network computes: of waveforms, and of what is seen against what is heard.

All of them are computed in float32 at least, also under autocast.

Source: Independency Adversarial Learning for Cross-Modal Sound Separation, AAAI 2024, section 3, as published.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["artifact_ratio", "correspondence_loss", "interference_ratio", "signal_ratio", "stepped"]

_TINY = 1e-8
_Arguments = ParamSpec("_Arguments")


def _exact(loss: Callable[_Arguments, Tensor]) -> Callable[_Arguments, Tensor]:
    """Compute it in float32 at least, whatever autocast is on."""

    @wraps(loss)
    def exact(*tensors: _Arguments.args, **settings: _Arguments.kwargs) -> Tensor:
        given: list[Any] = [x.float() if x.dtype.itemsize < 4 else x for x in tensors]  # type: ignore[attr-defined]
        with torch.autocast(given[0].device.type, enabled=False):
            return loss(*given, **settings)

    return exact


@_exact
def signal_ratio(estimate: Tensor, target: Tensor, *, most: float = 30.0, scaled: bool = True) -> Tensor:
    """SI-SNR in dB of waveforms (..., L) -> (...), which no estimate brings above ``most``.

    Args:
        estimate, target: waveforms, whose means do not count.
        most: dB; infinity for no limit.
        scaled: the target counts as loud as it is in the estimate; otherwise as it is (SNR, not part of the paper).
    """
    estimate, target = (x - x.mean(dim=-1, keepdim=True) for x in (estimate, target))
    signal = target
    if scaled:
        power = target.square().sum(dim=-1, keepdim=True) + 2 * _TINY
        signal = (estimate * target).sum(dim=-1, keepdim=True) / power * target
    rest = (estimate - signal).square().sum(dim=-1)
    wanted = signal.square().sum(dim=-1)
    allowed = 0.0 if math.isinf(most) else 10 ** (-most / 10)
    return 10 * torch.log10(wanted / (rest + allowed * wanted + _TINY) + _TINY)


@_exact
def correspondence_loss(maps: Tensor, heard: Tensor, *, temperature: float = 0.3, discarded: int = 6) -> Tensor:
    """Contrast: somewhere in its own picture an object is more like what is heard of it than in any other picture.

    Args:
        maps: of all N objects of a batch (N, D, h, w).
        heard: vectors (N, D).
        temperature: of the softmax over cosines.
        discarded: largest negatives of each object, left out because they may show and sound like it. With no more
            than ``discarded + 1`` objects nothing is contrasted, and the loss is about 0.
    """
    places = F.normalize(maps.flatten(2), dim=1, eps=_TINY)
    directions = F.normalize(heard, dim=1, eps=_TINY)
    best = torch.einsum("idp,jd->ijp", places, directions).amax(dim=2)
    return 0.5 * (_contrast(best, temperature, discarded) + _contrast(best.t(), temperature, discarded))


def _contrast(similarities: Tensor, temperature: float, discarded: int) -> Tensor:
    """Of each row of (N, N) its own column against the others."""
    likely = torch.exp(similarities / temperature)
    own = likely.diagonal()
    others = likely - torch.diag(own)
    hardest = others.detach().topk(min(discarded, len(others)), dim=1).indices
    rest = others.scatter(1, hardest, 0.0).sum(dim=1)
    return -torch.log(own / (own + rest + _TINY) + _TINY).mean() / (1 + _TINY)


@_exact
def interference_ratio(estimates: Tensor) -> Tensor:
    """How little an estimate (..., K, L) has of the other ones of its mixture, in dB (..., K): a diagnostic."""
    centred = estimates - estimates.mean(dim=-1, keepdim=True)
    products = torch.stack([(centred * other[..., None, :]).sum(dim=-1) for other in centred.unbind(-2)], dim=-1)
    power = products.diagonal(dim1=-2, dim2=-1)
    shared = products.square() / (power + 2 * _TINY).unsqueeze(-2)
    others = shared.masked_fill(torch.eye(shared.shape[-1], dtype=torch.bool, device=shared.device), 0.0).sum(dim=-1)
    return _capped(power + _TINY, others)


@_exact
def artifact_ratio(estimate: Tensor, target: Tensor) -> Tensor:
    """SNR in dB of (..., L) against a target -> (...): a diagnostic."""
    estimate, target = (x - x.mean(dim=-1, keepdim=True) for x in (estimate, target))
    return _capped(target.square().sum(dim=-1) + _TINY, (estimate - target).square().sum(dim=-1) + _TINY)


def _capped(wanted: Tensor, rest: Tensor) -> Tensor:
    """Their ratio in dB, 30 at most."""
    return 10 * torch.log10(wanted / (rest + 1e-3 * wanted + _TINY) + _TINY)


def stepped(weight: float, milestones: tuple[int, ...], count: int) -> float:
    """The weight of a loss after ``count`` of its steps: ten times less for every milestone that was not passed."""
    return weight / 10.0 ** sum(count <= milestone for milestone in milestones)
