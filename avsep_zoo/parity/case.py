"""Golden cases, format 2: weights by name, inputs by expression, expected outputs as tensors.

A case is ``NAME.json`` with ``NAME.safetensors`` beside it (absent if nothing is stored):

    method, case, adapter, tier   what it is; tier is network (networks, samplers, losses, front ends) or
                                  protocol (data-set rules, metrics, optimiser steps)
    about, config, mode           what is called; its hyper-parameters; eval or train
    weights.parts                 {part: [[key, shape, dtype], ...]}, the official state dicts in order
    weights.kept                  {part: [key, ...]}, constants by construction, not filled
    weights.tied                  {part: {key: the key it shares its tensor with}}
    weights.adjust                first match wins: offset + gain * fill(key, shape), the fill times
                                  sqrt(prod(shape[1:])) if unscale is true
    inputs                        in order: {"expr", "dtype"}, {"stored": tensor name} or {"value": JSON}
    outputs                       {name: {"stored", "select", "shape", "atol" or "rel_l2"}, or
                                  {"value", "atol"}, exact where atol is null}
"""

from __future__ import annotations

import fnmatch
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import Tensor

from avsep_zoo.errors import DataError
from avsep_zoo.parity.expression import evaluate
from avsep_zoo.parity.recipe import fill

__all__ = ["Case", "load_case"]

FORMAT = 2


@dataclass(frozen=True)
class Case:
    """One golden case; weights, inputs and expected outputs are built when they are first asked for."""

    path: Path
    spec: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the case, unique within its method."""
        return str(self.spec["case"])

    @property
    def method(self) -> str:
        """The method the case belongs to."""
        return str(self.spec["method"])

    @property
    def adapter(self) -> str:
        """The name of the component under test."""
        return str(self.spec["adapter"])

    @property
    def tier(self) -> str:
        """``network`` or ``protocol``."""
        return str(self.spec.get("tier", ""))

    @property
    def config(self) -> dict[str, Any]:
        """The hyper-parameters of the component."""
        return dict(self.spec.get("config", {}))

    @property
    def mode(self) -> str:
        """``eval`` or ``train``."""
        return str(self.spec.get("mode", "eval"))

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """Inputs by name: arrays, or plain JSON where the case gives a value. Names with ``_`` are steps."""
        inputs: dict[str, Any] = {}
        for name, rule in self.spec.get("inputs", {}).items():
            if "expr" in rule:
                dtype = np.dtype(rule.get("dtype", "float32"))
                if dtype.kind not in "biufc":
                    raise DataError(f"Input {name!r} has the type {dtype}: give one of numbers.")
                inputs[name] = np.asarray(evaluate(rule["expr"], inputs), dtype=dtype)
            else:
                inputs[name] = self._tensor(rule["stored"]) if "stored" in rule else rule["value"]
        return inputs

    @cached_property
    def state_dicts(self) -> dict[str, dict[str, Tensor]]:
        """The complete official state dict of every part."""
        return {part: self.official_state_dict(part) for part in self.spec.get("weights", {}).get("parts", {})}

    @cached_property
    def expected(self) -> dict[str, Any]:
        """Expected outputs by name: arrays (after ``select``), or plain JSON."""
        outputs = self.spec["outputs"]
        return {n: self._tensor(r["stored"]) if "stored" in r else r["value"] for n, r in outputs.items()}

    def official_state_dict(self, part: str) -> dict[str, Tensor]:
        """Return the official state dict of ``part``, in order, as a checkpoint would hold it.

        Tied entries share one tensor. Integer entries (batch counters, index tables) are zeros. Float entries
        that are constants by construction (windows, filter banks) are left out: the part makes them itself.

        Raises:
            DataError: an entry has an unknown type.
        """
        rules = self.spec["weights"]
        kept, tied = set(rules.get("kept", {}).get(part, ())), rules.get("tied", {}).get(part, {})
        filled: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        state: dict[str, Tensor] = {}
        for key, shape, dtype_name in rules["parts"][part]:
            dtype = getattr(torch, dtype_name, None)
            if not isinstance(dtype, torch.dtype):
                raise DataError(f"Entry {key!r} has the unknown type {dtype_name!r}: give a type of torch.")
            if not dtype.is_floating_point:
                state[key] = torch.zeros(shape, dtype=dtype)
            elif key not in kept:
                source = (tied.get(key, key), tuple(shape))
                if source not in filled:
                    filled[source] = torch.from_numpy(self._filled(part, *source)).to(dtype)
                state[key] = filled[source]
        return state

    def _filled(self, part: str, key: str, shape: Sequence[int]) -> NDArray[Any]:
        value = fill(key, shape)
        for rule in self.spec["weights"].get("adjust", ()):
            if fnmatch.fnmatchcase(key, rule["match"]) and rule.get("part", part) == part:
                unscale = math.sqrt(math.prod(shape[1:])) if rule.get("unscale") else 1.0
                value = rule.get("offset", 0.0) + rule.get("gain", 1.0) * unscale * value
                break
        return np.asarray(value, dtype=np.float32)

    def _tensor(self, name: str) -> NDArray[Any]:
        if name not in self._stored:
            raise DataError(f"There is no tensor {name!r} in {self._tensors}: restore the file beside its case.")
        return self._stored[name]

    @property
    def _tensors(self) -> Path:
        return self.path.with_suffix(".safetensors")

    @cached_property
    def _stored(self) -> dict[str, NDArray[Any]]:
        return load_file(self._tensors) if self._tensors.exists() else {}


def load_case(path: Path) -> Case | None:
    """Return the golden case in the file ``path`` (.json), or None if it is another kind of JSON file.

    Raises:
        DataError: the file is not JSON, or a case of another format.
    """
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a JSON file ({error}): remove or repair it.") from error
    if not isinstance(spec, dict) or not {"method", "case", "adapter"} <= spec.keys():
        return None
    if spec.get("format", FORMAT) != FORMAT:
        raise DataError(f"{path} has the format {spec['format']}: golden cases of format {FORMAT} can be read.")
    return Case(path, spec)
