"""Detections in a file of their own: ``.safetensors``, with features and the names of classes.

Tensors of K boxes: ``frames`` (K,), ``classes`` (K,), ``scores`` (K,), ``boxes`` (K, 4); where they are known also
``times`` (K,), ``features`` (K, D) and ``scene`` (D,). The metadata are texts: ``names``, a JSON list of the names of
classes 1, 2, ..., and ``sounding``, a JSON list of ``[row, label or null]``. See
:class:`~avsep_zoo.data.detections.Detections` for what they mean.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avsep_zoo.data.detections import Detections, Sounding
from avsep_zoo.errors import DataError
from avsep_zoo.replaced import replaced

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LARGEST", "SUFFIX", "read_detections_file", "write_detections_file"]

SUFFIX = ".safetensors"
LARGEST = 2**28
"""Numbers in one tensor: 1 GiB of float32."""

_WHOLE, _REAL = ("I64", "I32", "I16", "U8"), ("F64", "F32", "F16")
_COLUMNS: Mapping[str, tuple[int, tuple[str, ...], Any]] = {
    "frames": (1, _WHOLE, np.int64),
    "classes": (1, _WHOLE, np.int64),
    "scores": (1, _REAL, np.float64),
    "boxes": (2, _REAL, np.float64),
    "times": (1, _REAL, np.float64),
    "features": (2, _REAL, np.float32),
    "scene": (1, _REAL, np.float32),
}
"""Tensor: number of its axes, what it may be stored as, what it is read as."""
_NEEDED = ("frames", "classes", "scores", "boxes")


def write_detections_file(path: Path, detections: Detections) -> None:
    """Write a file that :func:`read_detections_file` reads, whole or not at all.

    Raises:
        DataError: the name does not end with ``.safetensors``, or the detections do not fit together.
    """
    from safetensors.numpy import save_file

    if path.suffix != SUFFIX:
        raise DataError(f"The detections {str(path)!r} shall be a {SUFFIX} file; name one.")
    _check(detections, f"The detections for {str(path)!r}")
    given = {name: getattr(detections, name) for name in _COLUMNS}
    tensors = {
        name: np.ascontiguousarray(given[name], dtype=kind)
        for name, (_, _, kind) in _COLUMNS.items()
        if given[name] is not None
    }
    metadata = {"names": json.dumps(detections.names)}
    if detections.sounding:
        metadata["sounding"] = json.dumps([[one.row, one.label] for one in detections.sounding])
    with replaced(path) as part:
        save_file(tensors, part, metadata=metadata)


def read_detections_file(path: Path) -> Detections:
    """Read a ``.safetensors`` file of detections.

    Raises:
        DataError: it is missing or damaged, lacks a tensor, or holds something that does not fit.
    """
    from safetensors import SafetensorError, safe_open

    title = f"The detections {str(path)!r}"
    try:
        with safe_open(path, framework="numpy") as file:
            present = set(file.keys())
            missing = [name for name in _NEEDED if name not in present]
            if missing:
                raise DataError(f"{title} lack {', '.join(missing)}; write them with 'avsep detect'.")
            for name, (axes, stored, _) in _COLUMNS.items():
                if name in present:
                    _check_form(file.get_slice(name), axes, stored, f"{title} have {name}")
            tensors = {name: file.get_tensor(name).astype(_COLUMNS[name][2]) for name in _COLUMNS if name in present}
            metadata = file.metadata() or {}
    except (OSError, SafetensorError, ValueError, OverflowError) as error:
        why = " ".join(str(error).split()).rstrip(". ") or type(error).__name__
        raise DataError(f"{title} cannot be read ({why}); write them again with 'avsep detect'.") from error
    found = Detections(**tensors, names=_names(metadata, title), sounding=_sounding(metadata, title))
    _check(found, title)
    return found


def _check_form(tensor: Any, axes: int, stored: tuple[str, ...], what: str) -> None:
    """Look at type and size of a tensor before it is read."""
    shape, kind = tensor.get_shape(), tensor.get_dtype()
    if len(shape) != axes or kind not in stored or math.prod(shape) > LARGEST:
        raise DataError(f"{what} of {kind} {tuple(shape)}; give {axes} axes of {' or '.join(stored)}, up to {LARGEST}.")


def _check(found: Detections, title: str) -> None:
    """Make sure that everything has a row per box, is finite, and that numbers of classes and frames can be."""
    count = len(found.frames)
    shapes = {"frames": (count,), "classes": (count,), "scores": (count,), "boxes": (count, 4), "times": (count,)}
    arrays = {name: getattr(found, name) for name in _COLUMNS if getattr(found, name) is not None}
    width = arrays["features"].shape[-1] if "features" in arrays else arrays.get("scene", np.zeros(1)).shape[-1]
    shapes |= {"features": (count, width), "scene": (width,)}
    for name, array in arrays.items():
        if array.shape != shapes[name]:
            raise DataError(f"{title} have {name} {array.shape} with {count} frames; give {shapes[name]}.")
        if not np.isfinite(array).all():
            raise DataError(f"{title} have NaN or infinity in {name}; leave such boxes out.")
    if count and (found.frames.min() < 0 or found.frames.max() >= 2**31):
        raise DataError(f"{title} have frame {found.frames.min()} or {found.frames.max()}; number frames from 0 or 1.")
    first, last = (1, len(found.names)) if found.names else (0, 2**31 - 1)
    if count and (found.classes.min() < first or found.classes.max() > last):
        strange = next(int(c) for c in found.classes if not first <= c <= last)
        raise DataError(f"{title} have a class {strange}; give {first} to {last}, one per name.")
    if any(not 0 <= one.row < count for one in found.sounding):
        raise DataError(f"{title} name something that sounds in a row they don't have; give rows 0 to {count - 1}.")


def _names(metadata: Mapping[str, str], title: str) -> tuple[str, ...]:
    names = _json(metadata, "names", title)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{title} have names {str(names)[:60]!r}; give a JSON list of texts.")
    return tuple(names)


def _sounding(metadata: Mapping[str, str], title: str) -> tuple[Sounding, ...]:
    rows = _json(metadata, "sounding", title)
    try:
        found = tuple(Sounding(row, label) for row, label in rows)
    except (TypeError, ValueError):
        found = (Sounding(-1, ""),)
    if not all(type(one.row) is int and one.row >= 0 and isinstance(one.label, str | None) for one in found):
        raise DataError(f"{title} have sounding {str(rows)[:60]!r}; give a JSON list of [row, label or null].")
    return found


def _json(metadata: Mapping[str, str], key: str, title: str) -> Any:
    try:
        return json.loads(metadata.get(key, "[]"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{title} have {key} that are no JSON; give a JSON list.") from error
