"""The Sound of Pixels: its synthesiser, its optimiser, and the whole method on made-up and bundled sounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import avsep_zoo
from avsep_sop.objective import SoundOfPixelsObjective
from avsep_sop.plugin import RECIPE
from avsep_sop.synthesiser import Synthesiser
from avsep_zoo import Cue, SeparationModel, compose
from avsep_zoo.contracts import Embedding, Site
from avsep_zoo.errors import CueError
from avsep_zoo.example_cues import example_cue_batch, example_sources
from avsep_zoo.training.config import TrainingConfig

SITES = {"bottleneck": Site("bottleneck", 6), "head": Site("head", 3)}
DEMO = Path(avsep_zoo.__file__).with_name("demo")


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test draws the same weights, on one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


def small() -> SeparationModel:
    """The method with 8 components, of 1 s at 8 kHz."""
    return compose(
        encoder={"name": "frames", "width": 2, "object_features": 8, "frames": 2, "image_size": 32},
        conditioner="sound_of_pixels.synthesiser",
        separator={"name": "mask_unet", "width": 4, "levels": 5, "mask_features": 8},
        front_end={"name": "stft", "rate": 8000, "length": 8191, "n_fft": 254, "hop_length": 64, "warp_rows": 128},
    )


@pytest.mark.parametrize("per_source", [False, True])
def test_the_mask_is_a_weighted_sum_of_components(per_source: bool) -> None:
    synthesiser = Synthesiser(views={"vector": 3}, sites=SITES)
    torch.nn.init.normal_(synthesiser.scale)
    torch.nn.init.constant_(synthesiser.bias, 0.5)
    vector, components = torch.rand(2, 2, 3), torch.randn(4 if per_source else 2, 3, 5, 7)
    bound = synthesiser.bind(Embedding(vector=vector))
    assert bound("bottleneck", components) is components
    got = bound("head", components)
    each = components if per_source else components.repeat_interleave(2, dim=0)
    by_hand = sum(synthesiser.scale[k] * vector.flatten(0, 1)[:, k, None, None] * each[:, k] for k in range(3)) + 0.5
    torch.testing.assert_close(got, by_hand[:, None])


def test_a_vector_of_another_width_is_projected() -> None:
    synthesiser = Synthesiser(views={"vector": 20}, sites=SITES)
    assert Synthesiser(views={"vector": 3}, sites=SITES).project is None
    logits = synthesiser.bind(Embedding(vector=torch.randn(2, 2, 20)))("head", torch.randn(2, 3, 5, 7))
    assert logits.shape == (4, 1, 5, 7)
    with pytest.raises(ValueError, match="needs an embedding with a vector"):
        synthesiser.bind(Embedding(index=torch.zeros(1, 1).long()))


def test_published_sizes() -> None:
    """Seven levels, 32 components, 256 rows by 256 frames, 14 by 14 places in the picture."""
    model = avsep_zoo.load("sound_of_pixels", weights=None)
    assert sum(p.numel() for p in model.conditioner.parameters()) == 32 + 1
    assert model.encoder.feature_map(torch.zeros(1, 3, 1, 224, 224)).shape == (1, 32, 1, 14, 14)
    assert model.front_end.analyse(torch.zeros(1, model.front_end.length)).features.shape == (1, 1, 256, 256)
    assert sum(p.numel() for p in model.separator.parameters()) > 3e7


def test_masks_of_a_batch_follow_the_pictures() -> None:
    model = small()
    cues = example_cue_batch(model.encoder, batch=2, sources=3)
    masks = model({"mixture": example_sources(8191, rate=8000, batch=2).sum(dim=1), "cues": cues}).values
    assert masks.shape == (2, 3, 128, 128) and masks.min() >= 0 and masks.max() <= 1
    assert not torch.equal(masks[:, 0], masks[:, 1])


@pytest.mark.parametrize(("binary", "loss", "rate"), [(True, "bce", 0.03), (False, "l1", 0.3)])
def test_training_lowers_the_loss(binary: bool, loss: Any, rate: float) -> None:
    model = small().train()
    objective = SoundOfPixelsObjective(binary=binary, loss=loss, learning_rate=rate, encoder_learning_rate=rate / 10)
    batch = {"sources": example_sources(8191, rate=8000, batch=2), "cues": example_cue_batch(model.encoder, batch=2)}
    (optimiser,) = objective.optimisers(model)["model"]
    losses = []
    for _ in range(16):
        optimiser.zero_grad()
        value = objective.loss(model, batch)["loss"]
        value.backward()
        optimiser.step()
        losses.append(value.item())
    assert losses[-1] < 0.9 * losses[0]


def test_the_image_network_learns_at_a_tenth_of_the_rate() -> None:
    model = small()
    (optimiser,) = SoundOfPixelsObjective().optimisers(model)["model"]
    assert isinstance(optimiser, torch.optim.SGD)
    assert [(g["lr"], g["momentum"]) for g in optimiser.param_groups] == [(1e-3, 0.9), (1e-3, 0.9), (1e-4, 0.9)]
    (faster,) = SoundOfPixelsObjective().optimisers(model, learning_rate=1e-2)["model"]
    assert [g["lr"] for g in faster.param_groups] == pytest.approx([1e-2, 1e-2, 1e-3])
    model.encoder.requires_grad_(False)
    (without,) = SoundOfPixelsObjective().optimisers(model)["model"]
    assert len(without.param_groups) == 2


def test_the_demo_clip_is_separated_by_its_boxes() -> None:
    """The mini variant, untrained: stems and residual add up to the recording."""
    model = avsep_zoo.load("sound_of_pixels.mini", weights=None)
    sources = json.loads((DEMO / "duet.json").read_text())["sources"]
    result = model.separate(DEMO / "duet.mp4", [Cue(boxes=s["boxes"], name=s["label"]) for s in sources])
    assert [stem.name for stem in result.stems] == ["mandolin", "cello"]
    assert result.adds_up and all(np.isfinite(stem.waveform).all() for stem in result.stems)


@pytest.mark.parametrize("cue", [Cue(text="a cello"), Cue(label="cello"), Cue(box=(0, 0, 8, 8))])
def test_sound_alone_needs_pictures_of_each_source(cue: Cue) -> None:
    shown = Cue(frames=np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(CueError, match=r"has only .*reads frames; give|has no frames and this model needs them"):
        small().separate(np.zeros(8000, np.float32), [shown, cue], rate=8000)


def test_two_sources_of_a_video_need_boxes() -> None:
    with pytest.raises(CueError, match="neither frames nor a box"):
        small().separate(DEMO / "duet.mp4", [Cue(label="cello"), Cue(label="mandolin")])


def test_the_training_preset_is_one() -> None:
    config = TrainingConfig.from_mapping(RECIPE.training["mini"])
    assert config.steps > 1000 and config.augmenting() is not None
