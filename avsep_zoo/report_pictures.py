"""The pictures of a report: a source in its box, and the map of where it was found drawn over it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from avsep_zoo.page import data_uri

if TYPE_CHECKING:
    from avsep_zoo.separation import Localisation

__all__ = ["boxed", "heat_bar", "localised"]

_WIDTH, _HEIGHT = (320, 640), 960  # pixels of a picture: least and most, and the most of its height

# From blue over pink to pale yellow: the lightness rises evenly, so it also reads in grey.
_HEAT = ((40, 26, 120), (126, 30, 140), (208, 52, 112), (250, 112, 62), (255, 184, 60), (255, 250, 190))
_OPACITY = (0.0, 0.35, 0.6, 0.7, 0.78, 0.85)  # of the heat
_GREY = 0.75  # of the colour of a picture that goes where a map lies over it


def boxed(frame: np.ndarray, box: Sequence[float] | None, colour: str) -> str:
    """Encode a picture (H, W, 3) as a JPEG data URI, with box x1, y1, x2, y2 drawn in ``colour``."""
    image, scale = _resized(frame)
    return _jpeg(image if box is None else _outlined(image, [side * scale for side in box], colour))


def localised(found: Localisation, name: str, colour: str) -> dict[str, Any]:
    """What the page shows of a localisation.

    Contrast is stretched between the smallest and the largest value of all its maps.

    Returns:
        ``pictures``, in the order of time: of each the ``time`` in seconds, the ``source`` as a data URI and the
        ``alt`` text; ``low`` and ``high``, the values at the ends of the colours.
    """
    low, high = float(found.maps.min()), float(found.maps.max())
    pictures = []
    for number in sorted(found.pictures):
        heat = (found.maps[number].astype(np.float64) - low) / max(high - low, 1e-6)
        pictures.append(
            {
                "time": float(found.times[number]),
                "source": _heated(found.pictures[number], found.regions[number].tolist(), heat, colour),
                "alt": f"Picture of the sound at {found.times[number]:.1f} s. {_in_words(heat, name)}",
            }
        )
    return {"pictures": pictures, "low": low, "high": high}


def heat_bar() -> str:
    """Return the colours of a map as a CSS gradient, from the smallest to the largest value."""
    stops = (f"rgb({r} {g} {b} / {a})" for (r, g, b), a in zip(_HEAT, _OPACITY, strict=True))
    return f"linear-gradient(to right, {', '.join(stops)})"


def _in_words(heat: np.ndarray, name: str) -> str:
    if heat.max() - heat.min() < 1e-3:
        return f"The map of {name} is the same everywhere in the outlined part."
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    right, down = (column + 0.5) / heat.shape[1], (row + 0.5) / heat.shape[0]
    return (
        f"In the outlined part the map of {name} is highest {100 * right:.0f} % of the way from left to right and "
        f"{100 * down:.0f} % from top to bottom."
    )


def _heated(frame: np.ndarray, region: Sequence[float], heat: np.ndarray, colour: str) -> str:
    """Draw a map (h, w) in [0, 1] over its region of a picture; what of it lies outside is cut off."""
    image, scale = _resized(frame)
    x1, y1, x2, y2 = (side * scale for side in region)
    left, top = max(0, round(x1)), max(0, round(y1))
    right, bottom = min(image.width, round(x2)), min(image.height, round(y2))
    if left < right and top < bottom:
        down = _bilinear((np.arange(top, bottom) + 0.5 - y1) / (y2 - y1), heat.shape[0])
        across = _bilinear((np.arange(left, right) + 0.5 - x1) / (x2 - x1), heat.shape[1])
        values = down @ heat @ across.T
        stops = np.linspace(0, 1, len(_HEAT))
        tint = np.stack([np.interp(values, stops, channel) for channel in np.transpose(_HEAT)], axis=-1)
        opacity = np.interp(values, stops, _OPACITY)[..., None]
        under = np.asarray(image.crop((left, top, right, bottom)), dtype=np.float64)
        under += _GREY * (under @ np.array([[0.299], [0.587], [0.114]]) - under)
        mixed = under + opacity * (tint - under)
        image.paste(Image.fromarray(mixed.round().astype(np.uint8)), (left, top))
    return _jpeg(_outlined(image, (x1, y1, x2, y2), colour))


def _bilinear(places: np.ndarray, size: int) -> np.ndarray:
    """Weights (n, size) of the cells of an axis at places from 0, its beginning, to 1, its end."""
    cells = places * size - 0.5
    return np.stack([np.interp(cells, np.arange(size), row) for row in np.eye(size)], axis=1)


def _resized(frame: np.ndarray) -> tuple[Image.Image, float]:
    """A picture at the size it is shown at, and how many times larger it is now."""
    image = Image.fromarray(np.ascontiguousarray(frame))
    scale = min(min(_WIDTH[1], max(_WIDTH[0], image.width)) / image.width, _HEIGHT / image.height)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale)))), scale


def _outlined(image: Image.Image, box: Sequence[float], colour: str) -> Image.Image:
    """Draw a box x1, y1, x2, y2 in pixels of the image, as far as it lies in it."""
    right, bottom = image.width - 1, image.height - 1
    x1, x2 = (min(max(box[i], 0), right) for i in (0, 2))
    y1, y2 = (min(max(box[i], 0), bottom) for i in (1, 3))
    if x1 >= x2 or y1 >= y2:
        return image
    draw = ImageDraw.Draw(image)
    draw.rectangle((x1, y1, x2, y2), outline="white", width=6)  # the rim shows on any picture
    if x2 - x1 > 4 and y2 - y1 > 4:
        draw.rectangle((x1 + 1, y1 + 1, x2 - 1, y2 - 1), outline=colour, width=4)
    return image


def _jpeg(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85, subsampling=0)  # thin outlines keep their colour
    return data_uri("image/jpeg", buffer.getvalue())
