"""Drawings of string and percussion instruments, and the one picture for unknown classes."""

from __future__ import annotations

from avsep_zoo.synth.pen import Pen, mirrored

__all__ = ["cello", "double_bass", "generic", "guitar", "mandolin", "xylophone"]

_DARK, _BLACK, _BRASS, _SILVER = "#6b3a1a", "#26262b", "#f2b632", "#c3ccd6"


def _strings(pen: Pen, count: int, top: float, bottom: float, spread: float) -> None:
    for i in range(count):
        offset = (i - (count - 1) / 2) * spread
        pen.line([(0.5 + offset * 0.7, top), (0.5 + offset, bottom)], 0.004, "#efe6d0")


def _f_holes(pen: Pen, y: float, gap: float) -> None:
    for side in (-1, 1):
        pen.line(
            [(0.5 + side * gap, y - 0.06), (0.5 + side * gap * 1.2, y), (0.5 + side * gap, y + 0.06)],
            0.012,
            _BLACK,
        )


def cello(pen: Pen) -> None:
    pen.line("50,86 50,99", 0.012, _SILVER)
    outline = mirrored("50,38 60,40 63.5,47 60,56 60,62 66,70 65,82 50,89")
    pen.shape(outline, "#b5521f")
    pen.box(0.47, 0.1, 0.53, 0.6, _BLACK, 0.01)
    pen.disc(0.5, 0.055, 0.032, 0.04, "#8a3c15")
    pen.box(0.475, 0.06, 0.525, 0.14, "#8a3c15")
    for y in (0.08, 0.115):
        pen.line([(0.44, y), (0.56, y)], 0.012, _BLACK)
    _f_holes(pen, 0.67, 0.075)
    pen.box(0.445, 0.675, 0.555, 0.69, "#e9c48c")
    pen.shape("47.5,73 52.5,73 51,86 49,86", _BLACK)
    _strings(pen, 4, 0.12, 0.74, 0.012)
    pen.line("27,80 80,53", 0.012, "#5b2b10")
    pen.line("27.5,81.5 80.5,54.5", 0.006, "#f5f0e0")


def double_bass(pen: Pen) -> None:
    pen.line("50,90 50,99", 0.016, _SILVER)
    outline = mirrored("50,30 56,34 66,44 68,52 63.5,59 65,66 75,76 72,89 50,94")
    pen.shape(outline, "#5a2d12")
    inner = mirrored("50,35 55,38 63,46 64.5,52 60,59 61.5,67 70.5,77 68,87 50,91.5")
    pen.shape(inner, "#8a4a1e")
    pen.box(0.465, 0.06, 0.535, 0.6, _BLACK, 0.01)
    pen.disc(0.5, 0.045, 0.04, 0.04, "#5a2d12")
    for y in (0.075, 0.12):
        pen.box(0.4, y, 0.6, y + 0.018, _BRASS, 0.008)
    _f_holes(pen, 0.7, 0.1)
    pen.box(0.43, 0.71, 0.57, 0.73, "#e9c48c")
    pen.shape("46.5,78 53.5,78 51.5,92 48.5,92", _BLACK)
    _strings(pen, 4, 0.1, 0.8, 0.017)


def guitar(pen: Pen) -> None:
    outline = mirrored("50,47 61,48 65,55 61,64 66,72 72,83 66,94 50,97")
    pen.shape(outline, _DARK)
    inner = mirrored("50,49 59.5,50 62.5,55 59,64 64,73 69.5,83 64,92 50,95")
    pen.shape(inner, "#e5a04d")
    pen.disc(0.5, 0.67, 0.075, 0.075, "#f4ddb0")
    pen.disc(0.5, 0.67, 0.06, 0.06, _BLACK)
    pen.box(0.462, 0.13, 0.538, 0.62, "#4a2814")
    for i in range(11):
        pen.line([(0.462, 0.17 + 0.038 * i), (0.538, 0.17 + 0.038 * i)], 0.005, "#d8d8d8")
    pen.shape("45.5,2 54.5,2 53.8,14 46.2,14", "#8a4b1f")
    for y in (0.04, 0.075, 0.11):
        for side in (-1, 1):
            pen.disc(0.5 + side * 0.06, y, 0.016, 0.011, "#e8e4d8")
    pen.box(0.41, 0.845, 0.59, 0.87, "#3a1d0c", 0.008)
    _strings(pen, 6, 0.1, 0.855, 0.011)


def mandolin(pen: Pen) -> None:
    outline = mirrored("50,44 56,49 66,60 73,75 67,90 50,96")
    pen.shape(outline, "#4b1d0d")
    inner = mirrored("50,48 55,52 63,62 69.5,75 64.5,87.5 50,93")
    pen.shape(inner, "#d9581f")
    pen.shape(mirrored("50,56 57,66 60,76 56,84 50,86"), "#f0a23a")
    pen.disc(0.5, 0.68, 0.06, 0.045, _BLACK)
    pen.box(0.468, 0.2, 0.532, 0.6, _BLACK)
    for i in range(8):
        pen.line([(0.468, 0.24 + 0.042 * i), (0.532, 0.24 + 0.042 * i)], 0.005, _SILVER)
    pen.shape("44,3 56,3 53.5,21 46.5,21", "#4b1d0d")
    for y in (0.05, 0.09, 0.13, 0.17):
        for side in (-1, 1):
            pen.disc(0.5 + side * 0.075, y, 0.018, 0.013, "#fff4d8")
    pen.box(0.43, 0.8, 0.57, 0.82, "#fff1d0", 0.006)
    _strings(pen, 8, 0.18, 0.9, 0.008)


def xylophone(pen: Pen) -> None:
    colours = ("#e23b3b", "#f08a24", "#f5d02f", "#6cc24a", "#2fa8a0", "#3478d8", "#7a4fc9", "#c94f9e")
    pen.shape("4,30 4,36 96,47 96,43", _DARK)
    pen.shape("4,74 4,80 96,65 96,60", _DARK)
    for i, colour in enumerate(colours):
        x, half = 0.06 + 0.112 * i, 0.36 - 0.026 * i
        pen.box(x, 0.55 - half, x + 0.09, 0.55 + half, colour, 0.02)
        for side in (-1, 1):
            pen.disc(x + 0.045, 0.55 + side * half * 0.62, 0.012, 0.012, "#fdf6e3")
    for tip, end in (((0.35, 0.5), (0.12, 0.04)), ((0.62, 0.6), (0.9, 0.1))):
        pen.line([tip, end], 0.016, "#f0d8a8")
        pen.disc(*tip, 0.04, 0.04, "#2b2b33")


def generic(pen: Pen) -> None:
    pen.box(0.46, 0.08, 0.52, 0.75, "#35506b")
    pen.shape("46,8 84,16 84,30 46,22", "#35506b")
    pen.box(0.78, 0.16, 0.84, 0.66, "#35506b")
    pen.disc(0.38, 0.78, 0.14, 0.11, "#2c7fb8")
    pen.disc(0.7, 0.69, 0.14, 0.11, "#2c7fb8")
