"""The picture of a class in one of its many looks: emoji or drawing, mirrored, recoloured, cut out tight."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from avsep_zoo.errors import DataError
from avsep_zoo.synth.drawings import draw
from avsep_zoo.synth.instruments import INSTRUMENTS

__all__ = ["find_font", "make_look", "make_sprite"]

_FOLDERS = (Path("/usr/share/fonts/truetype/noto"), Path("/usr/share/fonts/noto"), Path("/usr/share/fonts"))
_PIXELS = 109  # the only size of the bitmap glyphs in NotoColorEmoji


def find_font() -> Path:
    """Path of the colour-emoji font; DataError naming its Debian package if it is missing."""
    for folder in _FOLDERS:
        path = folder / "NotoColorEmoji.ttf"
        if path.is_file():
            return path
    raise DataError("font NotoColorEmoji.ttf is not installed: run `apt-get install fonts-noto-color-emoji`")


@functools.cache
def _picture(source: str) -> Image.Image:
    """An emoji (one character) or a drawing (its name), cut to what is visible, about 256 pixels large."""
    if len(source) == 1:
        glyph = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(glyph).text((10, 10), source, font=ImageFont.truetype(find_font(), _PIXELS), embedded_color=True)
        box = glyph.getchannel("A").getbbox()
        if box is None:
            raise DataError(f"the emoji font has no picture for {source}: update the package fonts-noto-color-emoji")
        return glyph.crop(box)
    picture = draw(source)
    return picture.crop(picture.getchannel("A").getbbox()).resize(_half(picture), Image.Resampling.LANCZOS)


def _half(picture: Image.Image) -> tuple[int, int]:
    left, top, right, bottom = picture.getchannel("A").getbbox() or (0, 0, 2, 2)
    return max(1, (right - left) // 2), max(1, (bottom - top) // 2)


def _recolour(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    alpha = picture.getchannel("A")
    hue, saturation, value = picture.convert("RGB").convert("HSV").split()
    shift = int(rng.normal(0, 9) if rng.random() < 0.8 else rng.integers(-60, 61))
    hue = hue.point([(i + shift) % 256 for i in range(256)])
    out = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    out = ImageEnhance.Color(out).enhance(float(rng.uniform(0.5, 1.25)))
    out = ImageEnhance.Brightness(out).enhance(float(rng.uniform(0.7, 1.25)))
    out = ImageEnhance.Contrast(out).enhance(float(rng.uniform(0.8, 1.2)))
    out.putalpha(alpha)
    return out


def make_sprite(rng: np.random.Generator, class_name: str, size: float) -> Image.Image:
    """A random look of a class as a tight RGBA image whose longer side is ``size`` pixels.

    A class outside the table gets the one generic picture. DataError if the emoji font is missing and needed.
    """
    sources = ["generic"]
    if class_name in INSTRUMENTS:
        sources = [s for s in (INSTRUMENTS[class_name].emoji, INSTRUMENTS[class_name].drawing) if s]
    return make_look(rng, sources[int(rng.integers(len(sources)))], size)


def make_look(rng: np.random.Generator, source: str, size: float) -> Image.Image:
    """A random look of an emoji (one character) or of a drawing (its name); otherwise as ``make_sprite``."""
    picture = _recolour(rng, _picture(source))
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    factor = size / max(picture.size)
    stretch = float(rng.uniform(0.88, 1.12))
    width, height = (max(4, round(side * factor)) for side in picture.size)
    return picture.resize((max(4, round(width * stretch)), height), Image.Resampling.LANCZOS)
