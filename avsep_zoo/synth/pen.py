"""A pen for vector drawings on a transparent square, and the smooth outlines it draws."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

__all__ = ["SIZE", "Pen", "Points", "mirrored", "smooth"]

SIZE = 512
"""Pixels per side of a drawing."""

Points = str | Sequence[tuple[float, float]]
"""Points in unit coordinates, or a string of them in percent as in an SVG outline: ``"50,0 100,50 0,50"``."""


def _listed(points: Points) -> list[tuple[float, float]]:
    if not isinstance(points, str):
        return list(points)
    pairs = (pair.split(",") for pair in points.split())
    return [(float(x) / 100, float(y) / 100) for x, y in pairs]


def smooth(points: Points, closed: bool = True) -> list[tuple[float, float]]:
    """A Catmull-Rom curve through the points, eight steps from each to the next."""
    path = _listed(points)
    count = len(path)
    curve = []
    for i in range(count if closed else count - 1):
        around = [path[(i + k) % count if closed else min(max(i + k, 0), count - 1)] for k in (-1, 0, 1, 2)]
        for step in range(8):
            curve.append((_spline([x for x, _ in around], step / 8), _spline([y for _, y in around], step / 8)))
    return curve if closed else [*curve, path[-1]]


def _spline(values: list[float], t: float) -> float:
    a, b, c, d = values
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)


def mirrored(half: Points) -> list[tuple[float, float]]:
    """The smooth closed outline whose right half is given, mirrored about the middle of the square."""
    right = _listed(half)
    return smooth([*right, *((1 - x, y) for x, y in reversed(right))])


class Pen:
    """Filled shapes in unit coordinates (x to the right, y down) and strokes with round joints.

    ``image`` is the drawing so far, RGBA, SIZE x SIZE pixels.
    """

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (SIZE, SIZE))
        self._draw = ImageDraw.Draw(self.image)

    def disc(self, x: float, y: float, rx: float, ry: float, fill: str) -> None:
        """An ellipse with its centre and its two radii."""
        self._draw.ellipse([(x - rx) * SIZE, (y - ry) * SIZE, (x + rx) * SIZE, (y + ry) * SIZE], fill=fill)

    def box(self, x1: float, y1: float, x2: float, y2: float, fill: str, radius: float = 0.0) -> None:
        """A rectangle with round corners."""
        self._draw.rounded_rectangle([x1 * SIZE, y1 * SIZE, x2 * SIZE, y2 * SIZE], radius * SIZE, fill=fill)

    def shape(self, points: Points, fill: str) -> None:
        """A filled polygon."""
        self._draw.polygon([(x * SIZE, y * SIZE) for x, y in _listed(points)], fill=fill)

    def line(self, points: Points, width: float, fill: str) -> None:
        """A stroke through the points."""
        path = _listed(points)
        scaled = [(x * SIZE, y * SIZE) for x, y in path]
        self._draw.line(scaled, fill=fill, width=max(1, round(width * SIZE)), joint="curve")
        for x, y in path:
            self.disc(x, y, width / 2, width / 2, fill)

    def arc(self, x: float, y: float, rx: float, ry: float, start: float, end: float, width: float, fill: str) -> None:
        """A stroke along an ellipse, from one angle to another in degrees clockwise from three o'clock."""
        steps = max(8, int(abs(end - start) / 6))
        angles = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
        self.line([(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles], width, fill)
