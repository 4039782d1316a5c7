"""The moving picture of a clip: sprites that jump, tilt and sway with the notes over a varied background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from avsep_zoo.synth.sprites import make_sprite

__all__ = [
    "FPS",
    "SIDE",
    "Actor",
    "Player",
    "Pose",
    "Scene",
    "background",
    "occluder",
    "pose",
    "render_scene",
    "stage_scene",
]

FPS = 8
"""Video frames per second."""
SIDE = 192
"""Pixels per side of the picture."""

_MARGIN = 24  # pixels of background beyond each edge, for camera drift


@dataclass(frozen=True)
class Player:
    """What moves a picture: note onsets as (seconds, strength 0..1) and the loudness 0..1 of every frame."""

    onsets: list[tuple[float, float]]
    loudness: np.ndarray  # [frames]


@dataclass(frozen=True)
class Actor:
    """One instrument of a scene: its class, its player, and the part of the width it lives in (0..1)."""

    class_name: str
    player: Player
    left: float = 0.0
    right: float = 1.0


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return red, green, blue


def background(rng: np.random.Generator, width: int) -> Image.Image:
    """A random still, larger than the picture by the drift margin: gradient, stripes, checks or shapes."""
    side = max(SIDE, width) + 2 * _MARGIN
    kind = int(rng.integers(5))
    ramp = np.linspace(0, 1, side)[None, :, None]
    first, second = np.array(_colour(rng), float), np.array(_colour(rng), float)
    canvas = np.broadcast_to(first * (1 - ramp) + second * ramp, (side, side, 3)).copy()
    if kind == 1:
        period, slope = int(rng.integers(10, 60)), float(rng.uniform(-1.5, 1.5))
        rows, columns = np.mgrid[:side, :side]
        canvas[((columns + slope * rows) // period % 2) == 0] *= float(rng.uniform(0.4, 0.9))
    elif kind == 2:
        period = int(rng.integers(12, 50))
        rows, columns = np.mgrid[:side, :side]
        canvas[((columns // period + rows // period) % 2) == 0] *= float(rng.uniform(0.4, 0.9))
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)).rotate(90 * int(rng.integers(4)))
    if kind >= 3:
        pencil = ImageDraw.Draw(image)
        for _ in range(int(rng.integers(4, 22))):
            x, y = rng.uniform(-20, side, 2)
            w, h = rng.uniform(10, 120, 2)
            shape = (pencil.ellipse, pencil.rectangle)[int(rng.integers(2))]
            shape([x, y, x + w, y + h], fill=_colour(rng))
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1) ** 2 * 14)))
    if rng.random() < 0.5:
        coarse = rng.normal(0, float(rng.uniform(3, 28)), (side // 4, side // 4))
        grain = np.asarray(Image.fromarray(coarse.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC))
        image = Image.fromarray(np.clip(np.asarray(image) + grain[..., None], 0, 255).astype(np.uint8))
    return image


def occluder(rng: np.random.Generator, width: int) -> Image.Image | None:
    """In every fourth scene, an opaque shape beside the middle that hides a part of what is behind it."""
    if rng.random() >= 0.25:
        return None
    image = Image.new("RGBA", (width, SIDE))
    pencil = ImageDraw.Draw(image)
    angle, distance = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.24, 0.42)) * SIDE
    x, y = width / 2 + distance * np.cos(angle), SIDE / 2 + distance * np.sin(angle)
    w, h = rng.uniform(12, 34, 2)
    shape = (pencil.ellipse, pencil.rectangle)[int(rng.integers(2))]
    shape([x - w, y - h, x + w, y + h], fill=(*_colour(rng), 255))
    return image


class _Motion:
    """Position, tilt and size of one actor over time; everything random is drawn at the start."""

    def __init__(self, rng: np.random.Generator, actor: Actor, size: float, width: int) -> None:
        self._player = actor.player
        span = (actor.right - actor.left) * width
        room = max(2.0, (span - size) / 2)
        self._x = (actor.left + actor.right) / 2 * width + float(rng.uniform(-0.5, 0.5)) * room
        self._y = SIDE / 2 + float(rng.uniform(-0.5, 0.5)) * max(2.0, (SIDE - size) / 2)
        self._lean = float(rng.uniform(-40, 40))
        jump = float(rng.uniform(0.05, 0.14)) * size
        heading = float(rng.normal(-np.pi / 2, 0.7))
        self._jump = (jump * np.cos(heading), jump * np.sin(heading))
        self._tilt = float(rng.uniform(5, 18)) * (1 if rng.random() < 0.5 else -1)
        self._pulse = float(rng.uniform(0.0, 0.12))
        self._decay = float(rng.uniform(0.1, 0.3))
        self._sway = (
            float(rng.uniform(0.015, 0.06)) * size,
            float(rng.uniform(0.8, 2.2)),
            float(rng.uniform(0, 6)),
        )
        alternate = bool(rng.random() < 0.5)
        self._signs = [(-1 if alternate and i % 2 else 1) for i in range(len(actor.player.onsets))]

    def at(self, frame: int) -> tuple[float, float, float, float]:
        """(x, y, degrees, scale) of a frame."""
        time, kick, turn = (frame + 0.5) / FPS, 0.0, 0.0
        for (start, strength), sign in zip(self._player.onsets, self._signs, strict=True):
            if start > time:
                break
            push = strength * np.exp(-(time - start) / self._decay)
            kick, turn = max(kick, push), turn + sign * push
        width, rate, phase = self._sway
        sway = width * float(self._player.loudness[frame]) * np.sin(2 * np.pi * rate * time + phase)
        x = self._x + self._jump[0] * kick + sway
        y = self._y + self._jump[1] * kick + 0.4 * sway
        return (
            x,
            y,
            self._lean + self._tilt * float(np.clip(turn, -1.2, 1.2)) + 0.8 * sway,
            1 + self._pulse * kick,
        )


@dataclass(frozen=True)
class Pose:
    """A turned picture and where its upper left corner lies."""

    picture: Image.Image
    left: int
    top: int

    def extent(self, width: int) -> tuple[float, float, float, float]:
        """What is visible of it (x1, y1, x2, y2), cut to a picture of ``width`` x SIDE pixels."""
        inner = self.picture.getchannel("A").point([0] * 64 + [255] * 192).getbbox()
        inner = inner or (0, 0, *self.picture.size)
        x1, x2 = (min(max(self.left + value, 0), width) for value in (inner[0], inner[2]))
        y1, y2 = (min(max(self.top + value, 0), SIDE) for value in (inner[1], inner[3]))
        return x1, y1, x2, y2


def pose(sprite: Image.Image, x: float, y: float, degrees: float, scale: float = 1.0) -> Pose:
    """A sprite turned, scaled, and centred at (x, y)."""
    if abs(scale - 1) > 0.01:
        size = (max(2, round(sprite.width * scale)), max(2, round(sprite.height * scale)))
        sprite = sprite.resize(size, Image.Resampling.BILINEAR)
    turned = sprite.rotate(degrees, Image.Resampling.BILINEAR, expand=True)
    return Pose(turned, round(x - turned.width / 2), round(y - turned.height / 2))


@dataclass(frozen=True)
class Scene:
    """A moving picture that is decided but not drawn: background with drift, occluder, and a pose per frame and actor.

    ``boxes`` is float32 [frames, actors, 4] in pixels: the tight extent of the whole instrument cut to the picture,
    hidden parts included.
    """

    scenery: Image.Image
    drift: np.ndarray  # [2]
    mask: Image.Image | None
    width: int
    poses: list[list[Pose]]  # [frames][actors]
    boxes: np.ndarray

    def draw(self, behind: Sequence[Pose] = (), before: Sequence[Pose] = ()) -> np.ndarray:
        """The video, uint8 [frames, SIDE, width, 3], with things that stand still behind and before the actors."""
        video = np.empty((len(self.poses), SIDE, self.width, 3), np.uint8)
        for frame, actors in enumerate(self.poses):
            along = 2 * frame / max(1, len(self.poses) - 1) - 1
            left, top = (round(_MARGIN + along * float(value)) for value in self.drift)
            canvas = self.scenery.crop((left, top, left + self.width, top + SIDE))
            for thing in (*behind, *actors, *before):
                canvas.paste(thing.picture, (thing.left, thing.top), thing.picture)
            if self.mask is not None:
                canvas.paste(self.mask, (0, 0), self.mask)
            video[frame] = np.asarray(canvas)
        return video


def stage_scene(rng: np.random.Generator, actors: list[Actor], frames: int, width: int = SIDE) -> Scene:
    """Decide everything about a scene of the actors; a single actor may be partly hidden, several are not.

    DataError where the emoji font is missing and needed.
    """
    scenery = background(rng, width)
    mask = occluder(rng, width) if len(actors) == 1 else None
    drift = rng.normal(0, 1, 2) * (rng.random() < 0.4)
    drift = drift / max(1.0, float(np.abs(drift).max())) * (_MARGIN - 1)
    spans = [min(float(SIDE), (actor.right - actor.left) * width) for actor in actors]
    sizes = [float(rng.uniform(0.5, 0.86)) * span for span in spans]
    sprites = [make_sprite(rng, actor.class_name, size) for actor, size in zip(actors, sizes, strict=True)]
    motions = [_Motion(rng, actor, size, width) for actor, size in zip(actors, sizes, strict=True)]
    moved = list(zip(sprites, motions, strict=True))
    poses = [[pose(sprite, *motion.at(frame)) for sprite, motion in moved] for frame in range(frames)]
    boxes = np.array([[one.extent(width) for one in row] for row in poses], np.float32)
    return Scene(scenery, drift, mask, width, poses, boxes)


def render_scene(
    rng: np.random.Generator, actors: list[Actor], frames: int, width: int = SIDE
) -> tuple[np.ndarray, np.ndarray]:
    """Video of the actors, uint8 [frames, SIDE, width, 3]; boxes, float32 [frames, actors, 4] (see ``Scene``)."""
    scene = stage_scene(rng, actors, frames, width)
    return scene.draw(), scene.boxes
