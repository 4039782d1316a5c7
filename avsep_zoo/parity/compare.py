"""Outputs of an adapter against the expected ones of a golden case."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from avsep_zoo.parity.case import Case
from avsep_zoo.parity.expression import select

__all__ = ["OutputError", "compare"]


@dataclass(frozen=True)
class OutputError:
    """How far one output is from what was expected.

    Args:
        name: of the output.
        error: largest absolute difference, or relative L2 difference where the case asks for it; inf for an
            output that is missing, has the wrong shape, is not finite or differs from an exact value.
        tolerance: the largest error allowed.
        reason: why ``error`` is inf, or "".
    """

    name: str
    error: float
    tolerance: float
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.error <= self.tolerance

    @property
    def ratio(self) -> float:
        """Error over tolerance: at most 1 if passed."""
        if self.tolerance > 0:
            return self.error / self.tolerance
        return 0.0 if self.error == 0 else math.inf


def compare(case: Case, outputs: Mapping[str, Any]) -> list[OutputError]:
    """Return the error of every expected output of ``case``; outputs it does not expect are ignored."""
    errors = []
    for name, rule in case.spec["outputs"].items():
        tolerance = rule.get("rel_l2", rule.get("atol"))
        if name not in outputs:
            errors.append(OutputError(name, math.inf, tolerance or 0.0, "missing"))
        elif tolerance is None:
            same = _plain(outputs[name]) == _plain(case.expected[name])
            errors.append(OutputError(name, 0.0, 0.0) if same else OutputError(name, math.inf, 0.0, "different"))
        else:
            errors.append(_numeric(name, rule, case.expected[name], outputs[name], tolerance))
    return errors


def _numeric(name: str, rule: dict[str, Any], expected: Any, output: Any, tolerance: float) -> OutputError:
    got, want = _numbers(output), _numbers(expected)
    shape = tuple(rule.get("shape", want.shape))
    if got.shape != shape:
        return OutputError(name, math.inf, tolerance, f"has the shape {got.shape} instead of {shape}")
    if rule.get("select"):
        got = select(got, rule["select"])
    if got.shape != want.shape:
        reason = f"is {got.shape} where {want.shape} is stored"
        return OutputError(name, math.inf, tolerance, reason)
    if not np.isfinite(got).all():
        return OutputError(name, math.inf, tolerance, "is not finite")
    difference = np.abs(got - want)
    if "rel_l2" in rule:
        size = max(float(np.linalg.norm(want)), 1e-30)
        return OutputError(name, float(np.linalg.norm(difference)) / size, tolerance)
    return OutputError(name, float(difference.max(initial=0.0)), tolerance)


def _numbers(value: Any) -> NDArray[Any]:
    """Return ``value`` as an array of double precision."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.cdouble() if value.is_complex() else value.double()).numpy()
    array = np.asarray(value)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON would give it back: lists for tuples and arrays."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
