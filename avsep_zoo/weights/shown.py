"""Values of a card in sentences about it: short, whatever they are."""

from __future__ import annotations

import reprlib
from typing import Any

__all__ = ["shown"]

_MOST = 80
_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother = 3, _MOST, _MOST


def shown(value: Any) -> str:
    """Return the representation of a value in 80 characters at most."""
    text = _repr.repr(value)
    return text if len(text) <= _MOST else f"{text[: _MOST - 1]}…"
