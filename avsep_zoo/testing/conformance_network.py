"""Checks of the network as a program: torch.compile, torch.export, and another device.

The network is the separator with a bound conditioner; what :meth:`~avsep_zoo.contracts.Conditioner.digest` does once
per recording comes before it. Of a driven separator it is what the driver calls. It is taken as it runs with gradients:
in inference a part may do the same in another way, out of weights that it rearranged once.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from avsep_zoo.contracts import Embedding, Spectrum
from avsep_zoo.generative.contract import DrivenSeparator
from avsep_zoo.model import SeparationModel
from avsep_zoo.testing.subject import Subject, worst
from avsep_zoo.testing.verdict import NotApplicable, Rule

__all__ = ["check_compile", "check_cuda", "check_export", "network_of"]

_COMPILE = Rule(
    "torch.compile takes the network and gives the same numbers; it may break the graph.",
    "values that are read back into Python (.item(), float(tensor), a branch on a tensor) and end as constants, or "
    "state that the first call leaves behind for the second.",
)
_EXPORT = Rule(
    "torch.export takes the network for fixed shapes and gives the same numbers, so that it runs without this "
    "package. Only what `Conditioner.digest` does once per recording may depend on data; one that cannot be "
    "exported is declared in `exempt` of your test class, with the reason.",
    "boolean indexing, nonzero, .item() or a branch on a tensor in `bind`, at a site or in `forward`: move it to "
    "`digest`, or write it with torch.where.",
)
_CUDA = Rule(
    "on CUDA the model gives what it gives on the CPU, up to rounding.",
    "a tensor that was made without device=, or is a plain attribute and not a buffer, and stays on the CPU; or "
    "noise that is drawn on the device.",
)


def check_compile(subject: Subject) -> None:
    """torch.compile with the backend ``eager``: everything is traced, nothing is generated."""
    network, arguments = network_of(subject)
    wanted = network(*arguments).detach()
    with _quiet(), _COMPILE.during("torch.compile"):
        found = torch.compile(network, backend="eager")(*arguments).detach()
    apart = worst(found, wanted)
    _COMPILE.need(apart < 1e-4, f"The compiled network is {apart:.2g} of the largest value away from the plain one.")


def check_export(subject: Subject) -> None:
    """torch.export for fixed shapes."""
    network, arguments = network_of(subject)
    wanted = network(*arguments).detach()
    with _quiet(), _EXPORT.during("torch.export"):
        found = torch.export.export(network, arguments).module()(*arguments).detach()
    apart = worst(found, wanted)
    _EXPORT.need(apart < 1e-4, f"The exported network is {apart:.2g} of the largest value away from the plain one.")


def check_cuda(subject: Subject) -> None:
    """The same estimate on CUDA."""
    if not torch.cuda.is_available():
        raise NotApplicable("There is no CUDA device here.")
    if subject.fetches:
        raise NotApplicable("The encoder fetches something when the first cue comes, so no cue is prepared here.")
    wanted = subject.estimate().values
    precise = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with precise, _CUDA.during("Estimating on CUDA"):
        found = subject.estimate(copy.deepcopy(subject.model).to("cuda")).values
    _CUDA.need(found.is_cuda, f"The estimate of a model on CUDA is on {found.device}.")
    apart = worst(found.cpu(), wanted)
    _CUDA.need(apart < 1e-2, f"On CUDA the estimate is {apart:.2g} of the largest value away from that on the CPU.")


class _Network(nn.Module):
    """Separator and conditioner as a function of tensors."""

    def __init__(self, model: SeparationModel, kind: type[Embedding]) -> None:
        super().__init__()
        self.separator, self.conditioner, self.kind = model.separator, model.conditioner, kind

    def forward(self, spectrum: tuple[Tensor, ...], views: dict[str, Tensor]) -> Tensor:
        inject = self.conditioner.bind(self.kind(**views))
        values: Tensor = self.separator(Spectrum(*spectrum), inject).values
        return values


class _Step(nn.Module):
    """What a driver calls, for one batch of mixtures and cues."""

    def __init__(self, model: SeparationModel, spectrum: Spectrum, embedding: Embedding) -> None:
        super().__init__()
        assert isinstance(model.separator, DrivenSeparator)
        self.separator = model.separator
        self.network = model.separator.bind(spectrum, model.conditioner.bind(embedding))

    def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
        return self.network(noisy, time)


def network_of(subject: Subject, model: SeparationModel | None = None) -> tuple[nn.Module, tuple[Any, ...]]:
    """The network of ``model``, or of the subject's own, and its arguments: one mixture of two sources."""
    model, spectrum = model or subject.model, subject.spectrum(1)
    with torch.no_grad():
        embedding = model.conditioner.digest(model.encode(subject.cue_rows(1)[0]))
    if model.driver is not None and isinstance(model.separator, DrivenSeparator):
        shape = (2, *spectrum.features.shape[1:])
        noisy = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return _Step(model, spectrum, embedding).eval(), (noisy, torch.full((1,), 0.5))
    views = {one.name: getattr(embedding, one.name) for one in fields(embedding)}
    given = {name: value for name, value in views.items() if value is not None}
    return _Network(model, type(embedding)).eval(), (tuple(getattr(spectrum, f.name) for f in fields(spectrum)), given)


@contextmanager
def _quiet() -> Iterator[None]:
    """Start tracing afresh, without the warnings of PyTorch's own code."""
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.compiler.reset()
