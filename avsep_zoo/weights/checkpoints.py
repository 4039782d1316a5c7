"""Files of tensors that other people's programs wrote, read without running anything that is in them."""

from __future__ import annotations

import json
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsep_zoo.errors import WeightsError
from avsep_zoo.weights.pickle_names import asked

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["read_content", "read_settings", "read_tensors", "tensors_of"]

_WRAPPERS = ("state_dict", "model")
_DEEPEST = 3  # wrappers in each other
_PROTOCOL = 2
_NUMPY = ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")


def read_content(file: Path, *, allowed: Sequence[str] = ()) -> Any:
    """Return what a ``.safetensors`` file, or a file of ``torch.save``, holds: tensors and plain values.

    Before anything is loaded, a pickle is refused that asks for anything but tensors, containers, numbers of NumPy and
    the names in ``allowed``. These are not imported either: an inert dictionary takes the place of what they make.

    Args:
        file: to read.
        allowed: names of classes, ``"argparse.Namespace"``, that the authors' files are known to hold beside tensors.

    Raises:
        WeightsError: there is no such file, it is cut short or damaged, or it asks for something else.
    """
    if not file.is_file():
        what = f"{str(file)!r} is a folder" if file.is_dir() else f"There is no file {str(file)!r}"
        raise WeightsError(f"{what}; give a checkpoint.")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        return _unpickled(file, allowed)
    except WeightsError:
        raise
    except Exception as error:
        told = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
        why = re.split(r"\n|\. ", told, maxsplit=1)[0].rstrip(". ")[:200] or type(error).__name__
        raise WeightsError(
            f"{str(file)!r} cannot be read as tensors ({why}), as it is cut short, damaged or no checkpoint; get it "
            "again, or give a .safetensors file or a state_dict in .pth."
        ) from error


def tensors_of(content: Any, file: Path) -> dict[str, Tensor]:
    """Return the state dict in what a file holds: under ``state_dict`` or ``model``, or all of it.

    The prefix ``module.`` of data-parallel training comes off. Tensors are plain ones: what a file attached to them,
    hooks and attributes, is gone.

    Raises:
        WeightsError: there is none, or an entry is no dense tensor, or is there twice.
    """
    import torch

    # As functions of dict and Tensor: an entry of a file may have attributes that are called like their methods.
    for _ in range(_DEEPEST):
        inner = [dict.get(content, key) for key in _WRAPPERS] if isinstance(content, dict) else []
        content = next((one for one in inner if isinstance(one, dict)), content)
    entries: list[tuple[Any, Any]] = list(dict.items(content)) if isinstance(content, dict) else [("", None)]
    if not all(isinstance(k, str) and k.isprintable() and isinstance(v, torch.Tensor) for k, v in entries):
        raise WeightsError(f"{str(file)!r} holds no state_dict; save model.state_dict() to it.")
    tensors: dict[str, Tensor] = {}
    for key, value in entries:
        name = key.removeprefix("module.")
        if name in tensors:
            raise WeightsError(f"{str(file)!r} holds {name} with and without 'module.'; remove one of the two.")
        tensors[name] = torch.Tensor.detach(value)
        if (kind := _kind(tensors[name])) is not None:
            raise WeightsError(f"{str(file)!r} holds {name} as a {kind} tensor; save it as a dense one of numbers.")
    return tensors


def read_tensors(weights: Path) -> dict[str, Tensor]:
    """Read the one ``.safetensors`` or ``.pth`` file of a folder, or the file itself; never unpickles objects.

    Raises:
        WeightsError: there is no such file, there are several, or it holds anything but named tensors.
    """
    file = _weights_file(weights)
    return tensors_of(read_content(file), file)


def read_settings(weights: Path, known: Mapping[str, type]) -> dict[str, Any]:
    """Return what ``config.json`` beside the weights says about ``known`` keys; empty without the file.

    Raises:
        WeightsError: the file is no JSON object, or a value is of another kind.
    """
    file = weights / "config.json"
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{str(file)!r} is no JSON ({' '.join(str(error).split())}); repair or remove it."
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{str(file)!r} holds no JSON object; give one with keys {', '.join(known)}.")
    for key, kind in known.items():
        if key in content and not isinstance(content[key], kind):
            raise WeightsError(f"{str(file)!r} has {key} {content[key]!r}; give a {kind.__name__}.")
    return {key: content[key] for key in known if key in content}


class _Inert:
    """Makes a plain dictionary in place of any object; what would set the object up does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return OrderedDict()


def _unpickled(file: Path, allowed: Sequence[str]) -> Any:
    """What ``torch.load`` makes of tensors, plain values and NumPy's numbers alone, with inert ones of ``allowed``."""
    import torch
    from torch import serialization

    wanted = asked(file)
    names = sorted(wanted.names.difference(allowed, _NUMPY))
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise WeightsError(
            f"{str(file)!r} was not loaded: it asks for {', '.join(names[:3])}{more}, which no tensors need and which "
            "may run anything; do not use it, or ask its authors for a file of tensors alone."
        )
    if wanted.protocol > _PROTOCOL:
        raise WeightsError(
            f"{str(file)!r} is pickled by protocol {wanted.protocol}, and only {_PROTOCOL} is read without running "
            "anything; save what it holds by torch.save as it is by default."
        )
    ours = [*_numbers(), *((_Inert, name) for name in allowed)]
    others = serialization.get_safe_globals()  # what other packages allow in this process does not count here
    serialization.clear_safe_globals()
    serialization.add_safe_globals(ours)
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=wanted.zipped)
    finally:
        others += [one for one in serialization.get_safe_globals() if one not in ours]
        serialization.clear_safe_globals()
        serialization.add_safe_globals(others)


def _numbers() -> list[Any]:
    """What a pickle needs for NumPy's numbers, under their names of before and since NumPy 2; none of it is code."""
    import numpy as np

    make = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in "?bhilqBHILQefd"]
    return [*((make, name) for name in _NUMPY[1:]), np.dtype, *kinds]


def _kind(value: Tensor) -> str | None:
    """What is in the way of using a tensor's numbers as they are."""
    import torch

    if value.is_meta:
        return "empty"
    if value.is_quantized:
        return "quantised"
    return None if value.layout == torch.strided else "sparse"


def _weights_file(weights: Path) -> Path:
    if not weights.is_dir():
        return weights
    for suffix in (".safetensors", ".pth"):
        files = sorted(weights.glob(f"*{suffix}"))
        if len(files) > 1:
            raise WeightsError(f"{str(weights)!r} holds {len(files)} {suffix} files; name the one to use.")
        if files:
            return files[0]
    raise WeightsError(f"{str(weights)!r} holds no .safetensors and no .pth file; give the weights.")
