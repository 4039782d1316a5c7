"""Files of tensors that other people's programs wrote, read without running anything that is in them."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsep_zoo.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["read_content", "read_settings", "read_tensors", "tensors_of"]

_GLOBAL = re.compile(r"GLOBAL ([\w.<>]+)")
_WRAPPERS = ("state_dict", "model")


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
    import torch

    if not file.is_file():
        raise WeightsError(f"There is no file {str(file)!r}; give a checkpoint.")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        with torch.serialization.safe_globals([*_numbers(), *((_Inert, name) for name in allowed)]):
            zipped = zipfile.is_zipfile(file)
            if zipped and (wanted := torch.serialization.get_unsafe_globals_in_checkpoint(file)):
                raise WeightsError(_refusal(file, wanted))
            return torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    except WeightsError:
        raise
    except Exception as error:
        if wanted := _GLOBAL.findall(str(error)):
            raise WeightsError(_refusal(file, wanted)) from error
        why = re.split(r"\n|\. ", str(error), maxsplit=1)[0].rstrip(". ")[:200] or type(error).__name__
        raise WeightsError(
            f"{str(file)!r} cannot be read as tensors ({why}), as it is cut short, damaged or no checkpoint; get it "
            "again, or give a .safetensors file or a state_dict in .pth."
        ) from error


def tensors_of(content: Any, file: Path) -> dict[str, Tensor]:
    """Return the state dict in what a file holds: under ``state_dict`` or ``model``, or all of it.

    The prefix ``module.`` of data-parallel training comes off.

    Raises:
        WeightsError: there is none.
    """
    import torch

    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise WeightsError(f"{str(file)!r} holds no state_dict; save model.state_dict() to it.")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


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


class _Inert(dict[Any, Any]):
    """Stands for an object that is not made: keeps what it is told, does nothing with it."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()


def _refusal(file: Path, wanted: Sequence[str]) -> str:
    names = sorted(set(wanted))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"{str(file)!r} was not loaded: it asks for {', '.join(names[:3])}{more}, which no tensors need and which may "
        "run anything; do not use it, or ask its authors for a file of tensors alone."
    )


def _numbers() -> list[Any]:
    """What a pickle needs for NumPy's numbers, under their names of before and since NumPy 2; none of it is code."""
    import numpy as np

    kinds = [np.dtype(kind) for kind in (np.float32, np.float64, np.int32, np.int64, np.bool_)]
    make = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [*((make, name) for name in names), np.dtype, *(type(kind) for kind in kinds)]


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
