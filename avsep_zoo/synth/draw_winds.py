"""Drawings of wind instruments."""

from __future__ import annotations

from avsep_zoo.synth.pen import Pen, smooth

__all__ = [
    "bass_clarinet", "bassoon", "clarinet", "cor_anglais", "flute", "french_horn", "oboe", "trombone", "tuba",
]  # fmt: skip

_BLACK, _BRASS, _SILVER = "#26262b", "#f2b632", "#c3ccd6"


def _keys(pen: Pen, x: float, top: float, bottom: float, count: int, width: float, colour: str) -> None:
    for i in range(count):
        y = top + (bottom - top) * i / (count - 1)
        pen.disc(x, y, width * 0.42, width * 0.42, colour)
        if i % 2 == 0:
            pen.line([(x, y), (x + width * 0.95, y + 0.012)], 0.012, colour)


def clarinet(pen: Pen) -> None:
    pen.shape("48.5,2 51.5,2 53.2,13 46.8,13", "#101014")
    pen.box(0.46, 0.125, 0.54, 0.86, _BLACK, 0.008)
    pen.shape("46,84 54,84 60,98 40,98", _BLACK)
    pen.disc(0.5, 0.978, 0.1, 0.016, "#4a4a52")
    for y in (0.13, 0.22, 0.53, 0.85):
        pen.box(0.455, y, 0.545, y + 0.022, _SILVER)
    _keys(pen, 0.5, 0.28, 0.5, 5, 0.06, _SILVER)
    _keys(pen, 0.5, 0.6, 0.8, 5, 0.06, _SILVER)


def oboe(pen: Pen) -> None:
    pen.shape("49,1 51,1 50.6,12 49.4,12", "#e8c26a")
    pen.box(0.491, 0.08, 0.509, 0.14, "#9a5a2a")
    pen.shape("48,13 52,13 53.6,88 46.4,88", "#5c2a1a")
    pen.shape(smooth("46.5,86 53.5,86 56,94 55,98.5 45,98.5 44,94"), "#5c2a1a")
    for y in (0.14, 0.44, 0.84):
        pen.box(0.462, y, 0.538, y + 0.016, _BRASS)
    _keys(pen, 0.505, 0.2, 0.42, 6, 0.05, "#e9eef5")
    _keys(pen, 0.505, 0.5, 0.8, 7, 0.055, "#e9eef5")


def cor_anglais(pen: Pen) -> None:
    pen.arc(0.585, 0.15, 0.085, 0.11, 180, 275, 0.018, _SILVER)
    pen.shape("58.5,3 69,2.2 69,5 58.5,5.2", "#e8c26a")
    pen.shape("47.5,15 52.5,15 54,80 46,80", "#a4562a")
    pen.shape(smooth("46,76 54,76 60,86 57.5,95 53,98.5 47,98.5 42.5,95 40,86"), "#a4562a")
    pen.disc(0.5, 0.975, 0.045, 0.012, "#3d1c0c")
    for y in (0.16, 0.45, 0.755):
        pen.box(0.458, y, 0.542, y + 0.018, _SILVER)
    _keys(pen, 0.5, 0.22, 0.42, 5, 0.056, _SILVER)
    _keys(pen, 0.5, 0.51, 0.72, 5, 0.06, _SILVER)


def bassoon(pen: Pen) -> None:
    pen.box(0.505, 0.03, 0.575, 0.93, "#8e1f14", 0.01)
    pen.box(0.43, 0.27, 0.51, 0.93, "#b02a1a", 0.01)
    pen.box(0.425, 0.86, 0.58, 0.985, "#b02a1a", 0.03)
    pen.box(0.425, 0.955, 0.58, 0.985, _SILVER, 0.012)
    pen.box(0.5, 0.015, 0.58, 0.05, "#fbf7ea", 0.008)
    for y in (0.33, 0.6, 0.85):
        pen.box(0.425, y, 0.58, y + 0.018, _SILVER)
    pen.line(smooth("45.5,27 45,20 40,15.5 33,17 28,23", closed=False), 0.016, _SILVER)
    pen.shape("29,21 30,23.5 23.5,28 22,25.5", "#e8c26a")
    _keys(pen, 0.47, 0.38, 0.8, 8, 0.055, _SILVER)
    _keys(pen, 0.54, 0.12, 0.8, 9, 0.045, _SILVER)


def bass_clarinet(pen: Pen) -> None:
    pen.arc(0.56, 0.13, 0.075, 0.09, 180, 300, 0.026, _SILVER)
    pen.shape("58.5,4 60,6.5 72,13 73,10.5", "#101014")
    pen.box(0.445, 0.13, 0.525, 0.84, _BLACK, 0.008)
    pen.arc(0.565, 0.84, 0.08, 0.1, 180, 0, 0.055, _SILVER)
    pen.shape("62,84.5 67.5,84.5 79,66 58,66", _SILVER)
    pen.disc(0.685, 0.66, 0.105, 0.022, "#76818d")
    for y in (0.135, 0.3, 0.52, 0.82):
        pen.box(0.438, y, 0.532, y + 0.022, _SILVER)
    _keys(pen, 0.485, 0.2, 0.48, 6, 0.068, _BRASS)
    _keys(pen, 0.485, 0.57, 0.78, 5, 0.074, _BRASS)


def flute(pen: Pen) -> None:
    pen.box(0.475, 0.02, 0.525, 0.98, _SILVER, 0.02)
    pen.box(0.505, 0.03, 0.518, 0.97, "#eef3f8")
    pen.box(0.468, 0.02, 0.532, 0.05, "#8d98a5", 0.01)
    pen.disc(0.5, 0.17, 0.04, 0.05, "#dfe6ee")
    pen.disc(0.5, 0.17, 0.016, 0.024, _BLACK)
    for y in (0.27, 0.78):
        pen.box(0.465, y, 0.535, y + 0.025, "#8d98a5")
    for i in range(9):
        pen.disc(0.515, 0.34 + 0.05 * i, 0.032, 0.021, "#9aa6b4")
        pen.disc(0.515, 0.34 + 0.05 * i, 0.02, 0.012, "#eef3f8")
    pen.line("56,33 56,76", 0.01, "#8d98a5")


def french_horn(pen: Pen) -> None:
    pen.shape("50,62 58,56 93,74 68,97", _BRASS)
    pen.disc(0.8, 0.86, 0.16, 0.13, _BRASS)
    pen.disc(0.81, 0.87, 0.12, 0.09, "#8c5a12")
    for radius, colour in ((0.3, "#d8951c"), (0.225, _BRASS), (0.15, "#d8951c")):
        pen.arc(0.42, 0.42, radius, radius, 0, 360, 0.05, colour)
        pen.arc(0.42, 0.42, radius - 0.012, radius - 0.012, 150, 300, 0.01, "#fff0b8")
    pen.line("20,22 10,8 5,4", 0.028, "#d8951c")
    pen.disc(0.05, 0.045, 0.035, 0.03, _SILVER)
    for i in range(3):
        pen.disc(0.33 + 0.09 * i, 0.42 + 0.02 * i, 0.042, 0.042, _SILVER)
        pen.disc(0.33 + 0.09 * i, 0.42 + 0.02 * i, 0.022, 0.022, "#7d8894")


def trombone(pen: Pen) -> None:
    pen.line(smooth("39,98 39,20 42,6 50,3 58,6 60,20", closed=False), 0.022, _BRASS)
    pen.line("39,98 43,99 47,98 47,30", 0.022, "#d8951c")
    pen.line("39,40 47,40", 0.014, _SILVER)
    pen.line("39,62 47,62", 0.014, _SILVER)
    pen.line("47,36 60,36", 0.014, _SILVER)
    pen.shape(smooth("58.8,20 61.2,20 62.5,42 66,56 74,64 46,64 54,56 57.5,42"), _BRASS)
    pen.disc(0.6, 0.635, 0.14, 0.028, "#8c5a12")
    pen.disc(0.47, 0.28, 0.024, 0.035, _SILVER)


def tuba(pen: Pen) -> None:
    pen.shape(smooth("24,4 60,4 52,20 50,42 36,42 33,20"), _BRASS)
    pen.disc(0.42, 0.055, 0.24, 0.05, _BRASS)
    pen.disc(0.42, 0.05, 0.19, 0.032, "#8c5a12")
    pen.line(smooth("43,40 42,75 44,88 54,94 66,92 74,82 75,50 70,40 62,38", closed=False), 0.1, "#e0a021")
    pen.line("62,38 58,45 58,72", 0.06, "#d08f16")
    pen.line("38,50 37,75 40,88", 0.012, "#fff0b8")
    for i in range(4):
        x = 0.5 + 0.06 * i
        pen.box(x - 0.024, 0.52, x + 0.024, 0.78, _SILVER, 0.01)
        pen.line([(x, 0.52), (x, 0.46)], 0.014, "#7d8894")
        pen.disc(x, 0.455, 0.024, 0.012, "#f7f2e2")
    pen.line("58,42 72,30 82,28", 0.026, "#d08f16")
    pen.disc(0.83, 0.28, 0.022, 0.038, _SILVER)
