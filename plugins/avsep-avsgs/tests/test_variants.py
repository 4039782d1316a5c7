"""Every variant of the recipe: its size as it is published, and all of it at work when made small."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import avsep_zoo
from avsep_avsgs.plugin import RECIPE
from avsep_zoo.compose import build_part, compose_recipe
from avsep_zoo.contracts import CueBatch
from avsep_zoo.cue import Cue
from avsep_zoo.data.detections import Detections, Sounding
from avsep_zoo.recipe import PartConfig

VARIANTS = tuple(dict.fromkeys((RECIPE.default_variant, *RECIPE.variants)))

SMALL: dict[str, dict[str, Any]] = {
    "avsgs.detections": {"features": 6, "hidden": 5, "width": 8},
    "avsgs.crops": {"width": 2, "image_size": 32, "reduced": 3, "features": 8},
    "conditioner": {"hidden": 8, "heads": 2, "width": 8},
    "separator": {"width": 2},
    "front_end": {"length": 16383, "n_fft": 254, "hop_length": 128, "warp_rows": 128},
    "objective": {"classifier_width": 2, "recognised": [8, 8]},
}


def small(variant: str) -> dict[str, PartConfig]:
    """The parts of a variant with narrow layers, and short segments of 128 x 128 points."""
    parts = dict(RECIPE.parts(variant))
    return {slot: part.changed(SMALL.get(part.name, SMALL.get(slot, {}))) for slot, part in parts.items()}


def cue(*labels: str) -> Cue:
    """A recording of some classes, with a thing that makes no sound."""
    boxes = np.array([[0, 0, 20, 40], [30, 0, 60, 40], [15, 0, 45, 40]], np.float64)
    found = Detections(
        np.ones(3, np.int64), np.arange(1, 4), np.array([0.9, 0.9, 0.8]), boxes,
        features=np.eye(3, 6, dtype=np.float32), sounding=tuple(Sounding(k, label) for k, label in enumerate(labels)),
    )  # fmt: skip
    frames = np.random.default_rng(0).integers(0, 256, (1, 40, 60, 3), dtype=np.uint8)
    return Cue(name="recording", frames=frames, detections=found)


@pytest.mark.parametrize(
    ("variant", "separator", "encoder", "unrolling"),
    [
        ("asiw", 46_022_785, 2_622_976, 1_575_936),
        ("layers5", 20_850_817, 2_622_976, 1_575_936),
        ("crops", 46_022_785, 14_454_208, 1_575_936),
    ],
)
def test_sizes(variant: str, separator: int, encoder: int, unrolling: int) -> None:
    with torch.device("meta"):
        model = compose_recipe({**RECIPE.parts(variant), "front_end": small(variant)["front_end"]}, variant)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert (count["separator"], count["encoder"]) == (separator, encoder)
    assert count["conditioner"] == 263_680 + unrolling
    assert len(model.classes) == 14


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_of_training(variant: str) -> None:
    """Cues of training items, all losses, and a gradient for every parameter; then a mask per recording."""
    parts = small(variant)
    model, objective = compose_recipe(parts, f"avsgs.{variant}"), build_part("objective", parts["objective"])
    known = model.classes
    model.train()
    rng = np.random.default_rng(0)
    batches = [
        model.encoder.prepare([cue(known[0], known[1]), cue(known[k])], video=None, time=0.7, rng=rng) for k in (2, 3)
    ]
    sources = 0.1 * torch.randn(2, 2, model.front_end.length)
    losses = objective.loss(model, {"sources": sources, "cues": CueBatch.stack(batches)})
    losses["loss"].backward()
    learned = [*model.named_parameters(), *objective.named_parameters()]
    assert not [name for name, p in learned if p.grad is None or not torch.isfinite(p.grad).all()]
    assert all(len(o.param_groups) == 2 for o in objective.optimisers(model)["model"])
    model.eval()
    cues = model.encoder.prepare([cue(known[0]), cue(known[1])], video=None, time=0.7)
    mixture, _ = objective.mix(sources[:1])
    with torch.no_grad():
        estimate = model({"mixture": mixture, "cues": cues})
        waves = model.waveforms({"mixture": mixture, "cues": cues}, consistency=True)
    assert estimate.values.shape[:2] == (1, 2) and waves.shape[:2] == (1, 2)
    assert torch.isfinite(waves).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_objective_and_encoder_have_the_same_classes(variant: str) -> None:
    parts = RECIPE.parts(variant)
    assert parts["objective"].config["classes"] == len(parts["encoder"].config["classes"])


def test_the_mini_is_small() -> None:
    """Under ten million parameters, and segments that fit its U-Net."""
    model = avsep_zoo.load("avsgs.mini", weights=None)
    assert sum(p.numel() for p in model.parameters()) < 10e6
    front: Any = model.front_end
    warped = front.analyse(torch.zeros(1, front.length)).features
    assert all(size % 2**model.separator.levels == 0 for size in warped.shape[2:])  # type: ignore[operator]
