"""Weights of torchvision models: a file of tensors, and the architecture that has exactly these tensors."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsep_zoo.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["build_fitting", "read_settings", "read_tensors", "torchvision"]

_COUNTERS = "num_batches_tracked"  # frozen batch norms and old files have none; evaluation reads none


def torchvision() -> Any:
    """Return the package.

    Raises:
        WeightsError: it is not installed.
    """
    try:
        import torchvision
    except ImportError as error:
        raise WeightsError("This detector needs torchvision; install it: pip install 'avsep-zoo[detect]'.") from error
    return torchvision


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


def read_tensors(weights: Path) -> dict[str, Tensor]:
    """Read the one ``.safetensors`` or ``.pth`` file of a folder, or the file itself; never unpickles objects.

    Training checkpoints may hold their tensors under ``model`` or ``state_dict``, with names ``module.*``, and numbers
    of NumPy among what is not needed.

    Raises:
        WeightsError: there is no such file, there are several, or it holds anything but named tensors.
    """
    import torch

    file = _weights_file(weights)
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        with torch.serialization.safe_globals(_numbers()):
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:
        why = str(error).split("\n")[0].split(". ")[0].rstrip(". ")[:200]
        raise WeightsError(
            f"{str(file)!r} cannot be read as tensors ({why}); give a .safetensors file or a state_dict in .pth."
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise WeightsError(f"{str(file)!r} holds no state_dict; save model.state_dict() to it.")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def build_fitting(
    names: Sequence[str], tensors: Mapping[str, Tensor], build: Callable[[str], nn.Module], title: str
) -> tuple[str, nn.Module]:
    """Build the first of ``names`` whose tensors have the names and shapes of ``tensors``, and load these.

    Returns:
        Its name, and the model in eval mode.

    Raises:
        WeightsError: they fit none.
    """
    import torch

    wanted = {name: value.shape for name, value in tensors.items() if not name.endswith(_COUNTERS)}
    for name in names:
        with torch.device("meta"):
            shapes = {k: v.shape for k, v in build(name).state_dict().items() if not k.endswith(_COUNTERS)}
        if shapes == wanted:
            model = build(name)
            model.load_state_dict(dict(tensors), strict=False)
            return name, model.eval()
    raise WeightsError(
        f"The {title} have {len(wanted)} tensors that fit none of {', '.join(names)}; give the state_dict of one of "
        "these."
    )


def _numbers() -> list[Any]:
    """What a pickle needs for NumPy's numbers, under their names of before and since NumPy 2; none of it is code."""
    import numpy as np

    kinds = [np.dtype(kind) for kind in (np.float32, np.float64, np.int32, np.int64, np.bool_)]
    make = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [*((make, name) for name in names), np.dtype, *(type(kind) for kind in kinds)]


def _weights_file(weights: Path) -> Path:
    if weights.is_file():
        return weights
    for suffix in (".safetensors", ".pth"):
        files = sorted(weights.glob(f"*{suffix}"))
        if len(files) > 1:
            raise WeightsError(f"{str(weights)!r} holds {len(files)} {suffix} files; name the one to use.")
        if files:
            return files[0]
    raise WeightsError(f"{str(weights)!r} holds no .safetensors and no .pth file; give the weights.")
