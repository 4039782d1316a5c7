"""Separate the sound of what you see, name or point at.

>>> import avsep_zoo
>>> model = avsep_zoo.load("iquery")                                            # doctest: +SKIP
>>> model.separate("duet.mp4", ["violin", "flute"]).save("stems")                # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from avsep_zoo.errors import AvsepError
from avsep_zoo.hookspecs import API_VERSION, hookimpl

if TYPE_CHECKING:
    from avsep_zoo.caption_cues import cues_of_caption
    from avsep_zoo.compose import compose
    from avsep_zoo.cue import Cue
    from avsep_zoo.load import load, methods
    from avsep_zoo.model import SeparationModel
    from avsep_zoo.plugins import register_plugin
    from avsep_zoo.recipe import PartConfig, Recipe
    from avsep_zoo.separation import Separation

__version__ = "0.1.0"
__all__ = [
    "API_VERSION",
    "AvsepError",
    "Cue",
    "PartConfig",
    "Recipe",
    "Separation",
    "SeparationModel",
    "compose",
    "cues_of_caption",
    "hookimpl",
    "load",
    "methods",
    "register_plugin",
]

_LAZY = {
    "Cue": "cue",
    "PartConfig": "recipe",
    "Recipe": "recipe",
    "Separation": "separation",
    "SeparationModel": "model",
    "compose": "compose",
    "cues_of_caption": "caption_cues",
    "load": "load",
    "methods": "load",
    "register_plugin": "plugins",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'avsep_zoo' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"avsep_zoo.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps ``load`` and ``compose`` the functions when the modules of these names are imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _LAZY and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
