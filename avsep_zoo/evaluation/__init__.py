"""Scores of separated sound; each name is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avsep_zoo.evaluation.bss import BssScores, bss_eval, si_sdr

__all__ = ["BssScores", "bss_eval", "si_sdr"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.bss"), name)
