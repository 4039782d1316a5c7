"""Every variant of the recipe: its size as it is published, and all of it at work when made small."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import avsep_zoo
from avsep_ial_cms.plugin import RECIPE
from avsep_zoo.compose import build_part, compose_recipe
from avsep_zoo.contracts import CueBatch
from avsep_zoo.cue import Cue
from avsep_zoo.recipe import PartConfig

VARIANTS = tuple(dict.fromkeys((RECIPE.default_variant, *RECIPE.variants)))
PUBLISHED = ("supervised", "unsupervised")

SMALL: dict[str, dict[str, Any]] = {
    "encoder": {"width": 2, "pyramid": 3, "details": 2, "space": 8, "image_size": 32},
    "conditioner": {"width": 6, "hidden": 8},
    "separator": {"width": 2, "levels": 3},
    "front_end": {"rate": 8000, "length": 4095, "n_fft": 126, "hop_length": 64, "warp_rows": 64},
}


def small(variant: str) -> dict[str, PartConfig]:
    """The parts of a variant with narrow layers, and short segments of 64 x 64 points."""
    parts = {slot: part.changed(SMALL.get(slot, {})) for slot, part in RECIPE.parts(variant).items()}
    narrow: dict[str, Any] = {"critic_width": 2, "bank": 6, "discarded": 1}
    if parts["objective"].config.get("recognition"):
        narrow["recognised"] = SMALL["encoder"]["space"]
    return parts | {"objective": parts["objective"].changed(narrow)}


def cue(label: str, number: int) -> Cue:
    """A player of its own in a picture of its own."""
    frames = np.random.default_rng(number).integers(0, 256, (1, 40, 60, 3), dtype=np.uint8)
    return Cue(label=label, frames=frames, box=(5, 5, 50, 35))


@pytest.mark.parametrize("variant", PUBLISHED)
def test_published_sizes(variant: str) -> None:
    """Visual network, U-Net with its attention, and the critic; what is published to be frozen is."""
    parts = RECIPE.parts(variant)
    with torch.device("meta"):
        model = compose_recipe({**parts, "front_end": small(variant)["front_end"]}, variant)
        objective = build_part("objective", PartConfig("ial_cms.independency", {"independence": 0.01}))
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert count["encoder"] == 18_751_184
    assert count["separator"] + count["conditioner"] == 22_816_711
    assert sum(p.numel() for p in objective.parameters()) == 31_068_161
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith("encoder.network.features.")}


def test_only_the_unsupervised_variant_has_a_critic() -> None:
    built = {variant: build_part("objective", small(variant)["objective"]) for variant in PUBLISHED}
    assert [built[variant].critic is None for variant in PUBLISHED] == [True, False]
    assert built["unsupervised"].mixtures_only and built["unsupervised"].turns(0) == ("critic", "model")


@pytest.mark.parametrize("variant", PUBLISHED)
def test_published_segments_fit_the_network(variant: str) -> None:
    front: Any = build_part("front_end", RECIPE.parts(variant)["front_end"])
    assert front.analyse(torch.zeros(1, front.length)).features.shape == (1, 1, 256, 256)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_of_training(variant: str) -> None:
    """Cues of training items, all turns, and a gradient for every parameter that trains; then waveforms."""
    parts = small(variant)
    model, objective = compose_recipe(parts, f"ial_cms.{variant}"), build_part("objective", parts["objective"])
    labels = model.classes[:2] or ("cello", "flute")
    members = RECIPE.training[variant].get("members", 1)
    model.train()
    rng = np.random.default_rng(0)
    batches = [
        model.encoder.prepare(
            [cue(labels[k % 2], 10 * item + k) for k in range(2 * members)], video=None, time=0.7, rng=rng
        )
        for item in range(3)
    ]
    batch: dict[str, Any] = {
        "sources": 0.1 * torch.randn(3, 2, model.front_end.length),
        "cues": CueBatch.stack(batches),
    }
    optimisers = objective.optimisers(model)
    assert set(objective.turns(0)) == set(optimisers)
    for turn in objective.turns(0):
        losses = objective.loss(model, batch, turn)
        losses["loss"].backward()
        assert all(torch.isfinite(value).all() for value in losses.values())
        learned = [p for optimiser in optimisers[turn] for group in optimiser.param_groups for p in group["params"]]
        unlearned = [p.shape for p in learned if p.grad is None or not torch.isfinite(p.grad).all()]
        assert learned and not [shape for shape in unlearned if not (turn == "critic" and shape == (1,))]
    model.eval()
    cues = model.encoder.prepare([cue(labels[0], 1), cue(labels[1], 2)], video=None, time=0.7)
    mixture, _ = objective.mix(batch["sources"][:1])
    waves = model.waveforms({"mixture": mixture, "cues": cues}, length=model.front_end.length)
    assert waves.shape == (1, 2, model.front_end.length) and torch.isfinite(waves).all()


def test_objective_and_encoder_of_the_mini_have_the_same_classes() -> None:
    parts = RECIPE.parts("mini")
    assert parts["objective"].config["classes"] == len(parts["encoder"].config["classes"])
    assert parts["objective"].config["recognised"] == parts["encoder"].config["space"]


def test_the_mini_is_small() -> None:
    """Under ten million parameters, and segments that fit its U-Net."""
    model = avsep_zoo.load("ial_cms.mini", weights=None)
    assert sum(p.numel() for p in model.parameters()) < 10e6
    front: Any = model.front_end
    warped = front.analyse(torch.zeros(1, front.length)).features
    assert all(size % 2**model.separator.levels == 0 for size in warped.shape[2:])  # type: ignore[operator]
