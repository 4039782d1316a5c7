"""The vector drawings by name: instruments that the emoji font lacks, upright, on a transparent square."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

from avsep_zoo.synth import draw_strings, draw_winds
from avsep_zoo.synth.pen import Pen

__all__ = ["DRAWINGS", "draw"]

DRAWINGS: dict[str, Callable[[Pen], None]] = {
    name: getattr(module, name) for module in (draw_strings, draw_winds) for name in module.__all__
}


def draw(name: str) -> Image.Image:
    """One drawing as an RGBA image of 512 x 512 pixels."""
    pen = Pen()
    DRAWINGS[name](pen)
    return pen.image
