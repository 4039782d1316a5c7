"""What tests of methods, plugins and weights need, usable in the tests of third parties too."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avsep_zoo.testing.conformance import ConformanceChecks
    from avsep_zoo.testing.loopback_hub import LoopbackHub
    from avsep_zoo.testing.subject import Subject, subject_of
    from avsep_zoo.testing.verdict import NotApplicable

__all__ = ["ConformanceChecks", "LoopbackHub", "NotApplicable", "Subject", "subject_of"]

_LAZY = {
    "ConformanceChecks": "conformance",
    "LoopbackHub": "loopback_hub",
    "NotApplicable": "verdict",
    "Subject": "subject",
    "subject_of": "subject",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'avsep_zoo.testing' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"avsep_zoo.testing.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
