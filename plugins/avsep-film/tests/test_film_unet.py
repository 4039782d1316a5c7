"""The class-conditioned U-Net: its encoder, and the whole method on made-up and bundled sounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import avsep_zoo
from avsep_film.encoder import ClassEncoder
from avsep_film.plugin import RECIPE
from avsep_zoo import Cue, SeparationModel, compose
from avsep_zoo.blocks.mask_objective import MaskObjective
from avsep_zoo.contracts import CueBatch
from avsep_zoo.errors import CueError
from avsep_zoo.example_cues import example_cue_batch, example_sources
from avsep_zoo.training.config import TrainingConfig

CLASSES = ["violin", "acoustic_guitar", "drum"]
DEMO = Path(avsep_zoo.__file__).with_name("demo")


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test draws the same weights, on one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


def small() -> SeparationModel:
    """The method with three classes, of 1 s at 8 kHz."""
    return compose(
        encoder={"name": "film_unet.classes", "classes": CLASSES, "width": 8},
        conditioner={"name": "film", "hidden": 16},
        separator={"name": "mask_unet", "width": 4, "levels": 5, "mask_features": 4},
        front_end={"name": "stft", "rate": 8000, "length": 8191, "n_fft": 254, "hop_length": 64, "warp_rows": 128},
    )


def test_a_class_is_a_row_however_it_is_written() -> None:
    encoder = ClassEncoder(classes=CLASSES, width=8)
    cues = encoder.prepare([Cue(label="drum"), Cue(label="Acoustic Guitar")], video=None, time=0.0)
    assert cues.get("label").tolist() == [[2, 1]]
    assert torch.equal(encoder(cues).vector, encoder.table.weight[None, [2, 1]])


@pytest.mark.parametrize(
    ("cue", "message"),
    [
        (Cue(label="cello"), "no class 'cello'; it knows violin, acoustic_guitar, drum"),
        (Cue(label="violins"), "did you mean 'violin'"),
        (Cue(text="a violin"), "has only text, and composed reads label; give"),
        (Cue(box=(0, 0, 8, 8)), "has only box, and composed reads label; give"),
    ],
)
def test_a_known_label_is_needed(cue: Cue, message: str) -> None:
    with pytest.raises(CueError, match=message):
        small().separate(np.zeros(8000, np.float32), [cue], rate=8000)


def test_a_batch_without_labels() -> None:
    with pytest.raises(CueError, match="needs a label of every source"):
        ClassEncoder(classes=CLASSES)(CueBatch({"frames": torch.zeros(1, 2, 3)}))


def test_masks_of_a_batch_follow_the_classes() -> None:
    model = small()
    cues = CueBatch({"label": torch.tensor([[0, 1, 0], [2, 1, 1]])})
    masks = model({"mixture": example_sources(8191, rate=8000, batch=2).sum(dim=1), "cues": cues}).values
    assert masks.shape == (2, 3, 128, 128) and masks.min() >= 0 and masks.max() <= 1
    torch.testing.assert_close(masks[0, 0], masks[0, 2])
    assert not torch.allclose(masks[0, 0], masks[0, 1])


def test_training_lowers_the_loss_and_reaches_every_part() -> None:
    model, objective = small().train(), MaskObjective(mixture="sum", learning_rate=1e-2)
    batch = {"sources": example_sources(8191, rate=8000, batch=2), "cues": example_cue_batch(model.encoder, batch=2)}
    (optimiser,) = objective.optimisers(model)["model"]
    before, losses = model.encoder.table.weight.detach().clone(), []
    for _ in range(12):
        optimiser.zero_grad()
        value = objective.loss(model, batch)["loss"]
        value.backward()
        optimiser.step()
        losses.append(value.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None for p in model.parameters())
    assert not torch.equal(model.encoder.table.weight[:2], before[:2])


def test_the_demo_clip_is_separated_by_name() -> None:
    """The mini variant, untrained, of the sound alone: stems and residual add up to the recording."""
    model = avsep_zoo.load("film_unet.mini", weights=None)
    result = model.separate(DEMO / "duet.mp4", ["mandolin", "cello"])
    assert [stem.name for stem in result.stems] == ["mandolin", "cello"]
    assert result.adds_up and all(np.isfinite(stem.waveform).all() for stem in result.stems)


def test_the_training_preset_is_one() -> None:
    config = TrainingConfig.from_mapping(RECIPE.training["mini"])
    assert config.steps > 1000 and config.augmenting() is not None
