"""Weights and inputs that both sides of a parity test draw from a name (recipe version 1).

A golden case stores no weights: every entry of a state dict is filled from its own name, so a network of
100 MB needs no stored parameter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["draw", "fill"]


def fill(key: str, shape: Sequence[int]) -> NDArray[Any]:
    """Return the float32 value of the state-dict entry ``key`` of the official checkpoint.

    With n standard normal, the first rule that matches:

    - ``*running_var``: 1 + 0.1 abs(n)
    - ``*running_mean``: 0.1 n
    - two or more axes: n / sqrt(prod(shape[1:]))
    - ``*weight``: 1 + 0.1 n
    - anything else: 0.1 n
    """
    n = _generator(key.encode()).standard_normal(tuple(shape))
    if key.endswith("running_var"):
        value = 1 + 0.1 * np.abs(n)
    elif key.endswith("running_mean"):
        value = 0.1 * n
    elif len(shape) >= 2:
        value = n / np.sqrt(np.prod(shape[1:]))
    elif key.endswith("weight"):
        value = 1 + 0.1 * n
    else:
        value = 0.1 * n
    return np.asarray(value, dtype=np.float32)


def draw(name: str, shape: Sequence[int], kind: str = "normal") -> NDArray[Any]:
    """Return the float32 input ``name``: ``normal``, ``uniform`` in [0, 1) or ``abs``, the modulus of normal.

    Raises:
        ValueError: another ``kind``.
    """
    if kind not in ("normal", "uniform", "abs"):
        raise ValueError(f"Inputs cannot be drawn {kind!r}: say normal, uniform or abs.")
    generator = _generator(b"input:" + name.encode())
    if kind == "uniform":
        return np.asarray(generator.random(tuple(shape)), dtype=np.float32)
    value = generator.standard_normal(tuple(shape))
    return np.asarray(np.abs(value) if kind == "abs" else value, dtype=np.float32)


def _generator(name: bytes) -> np.random.Generator:
    seed = int.from_bytes(hashlib.sha256(name).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(seed))
