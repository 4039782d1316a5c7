"""Props: things that stand around players, make no sound, and overlap them in the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from avsep_zoo.boxes import overlaps
from avsep_zoo.synth.scene import SIDE, Pose, pose
from avsep_zoo.synth.sprites import make_look

__all__ = ["PROPS", "Prop", "place_props"]

PROPS: dict[str, str] = {
    "basket": "🧺",
    "books": "📚",
    "candle": "🕯",
    "cat": "🐈",
    "chair": "🪑",
    "couch": "🛋",
    "cup": "☕",
    "door": "🚪",
    "light_bulb": "💡",
    "mirror": "🪞",
    "potted_plant": "🪴",
    "shoe": "👞",
    "suitcase": "🧳",
    "teapot": "🫖",
    "teddy_bear": "🧸",
    "top_hat": "🎩",
}
"""Character of the colour font of every kind of prop, in alphabetical order."""

_OVERLAP = (0.12, 0.5)  # intersection over union with the player's box, at every moment looked at
_HIDDEN = 0.25  # share of a player that all props before it may hide
_SEEN = 0.4  # share of a prop behind players that must be seen
_SHARED = 0.3  # share of the smaller one of two props that the other may take
_LOOKS, _PLACES = 24, 60  # tries: looks of a prop, and places for each


@dataclass(frozen=True)
class Prop:
    """A prop where it stands: its kind, whose it is, whether before the players, and how sure a detector is."""

    kind: str
    player: int
    before: bool
    score: float
    pose: Pose
    box: tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels


class _Stage:
    """What the players and the props placed so far take of the picture."""

    def __init__(self, moments: Sequence[Sequence[Pose]], width: int) -> None:
        self.width = width
        self.boxes = np.array([[one.extent(width) for one in row] for row in moments])  # [moments, players, 4]
        self._players = np.array([[_mask(one, width) for one in row] for row in moments])  # [moments, players, H, W]
        self._someone = self._players.any(axis=1)
        self._before = np.zeros((SIDE, width), bool)
        self._props: list[np.ndarray] = []

    def takes(self, thing: Pose, before: bool) -> bool:
        """Put a thing on the stage unless it hides too much or is hidden too much."""
        mask = _mask(thing, self.width)
        if any((mask & other).sum() > _SHARED * min(mask.sum(), other.sum()) for other in self._props):
            return False
        if before:
            hidden = (self._players & (self._before | mask)).sum(axis=(2, 3))
            if (hidden > _HIDDEN * self._players.sum(axis=(2, 3))).any():
                return False
            self._before |= mask
        elif ((mask & ~self._someone).sum(axis=(1, 2)) < _SEEN * mask.sum()).any():
            return False
        self._props.append(mask)
        return True


def _mask(thing: Pose, width: int) -> np.ndarray:
    """Where a thing is seen: bool [SIDE, width]."""
    canvas = Image.new("L", (width, SIDE))
    canvas.paste(thing.picture.getchannel("A"), (thing.left, thing.top))
    return np.asarray(canvas) >= 64


def _place(rng: np.random.Generator, stage: _Stage, kind: str, player: int) -> tuple[Pose, bool] | None:
    """A thing beside or across a player, before or behind it; None where no place was found."""
    boxes = stage.boxes[:, player]
    mean = boxes.mean(axis=0)
    middle, extent = (mean[2:] + mean[:2]) / 2, mean[2:] - mean[:2]
    before = bool(rng.random() < 0.5)
    for attempt in range(_LOOKS):
        size = float(np.clip(rng.uniform(0.4, 0.85) * extent.max(), 40, 120))
        sprite = make_look(rng, PROPS[kind], size)
        turned = pose(sprite, 0, 0, float(rng.uniform(-10, 10)))
        sides = np.array(turned.picture.size)
        if attempt == _LOOKS // 2:
            before = not before
        for _ in range(_PLACES):
            x, y = middle + rng.uniform(-0.5, 0.5, 2) * (extent + sides)
            thing = Pose(turned.picture, round(x - sides[0] / 2), round(y - sides[1] / 2))
            corner = np.array((thing.left, thing.top), float)
            if (corner < 0).any() or (corner + sides > (stage.width, SIDE)).any():
                continue
            shares = overlaps(np.concatenate((corner, corner + sides)), boxes)
            if shares.max() < _OVERLAP[0]:  # the visible extent, inside of this, is dearer to find
                continue
            shares = overlaps(np.array(thing.extent(stage.width)), boxes)
            if _OVERLAP[0] <= shares.min() and shares.max() <= _OVERLAP[1] and stage.takes(thing, before):
                return thing, before
    return None


def place_props(rng: np.random.Generator, moments: Sequence[Sequence[Pose]], width: int) -> list[Prop]:
    """One or two props for every player, all of different kinds.

    ``moments`` are poses of the players [moments][players] in a picture of ``width`` pixels. At every one of them the
    box of a prop overlaps that of its player by 0.12 to 0.5 (intersection over union), a quarter of a player at most is
    hidden by props, and at least two fifths of a prop behind players are seen. A prop that finds no such place is left
    out.
    """
    stage = _Stage(moments, width)
    kinds = list(rng.permutation(list(PROPS)))
    props: list[Prop] = []
    for player in [p for turn in range(2) for p in range(len(moments[0])) if turn == 0 or rng.random() < 0.5]:
        kind, score = str(kinds.pop()), float(rng.uniform(0.3, 1.0))
        found = _place(rng, stage, kind, player)
        if found is not None:
            thing, before = found
            props.append(Prop(kind, player, before, score, thing, thing.extent(width)))
    return props
