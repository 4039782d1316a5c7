"""The objective of generative models."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from avsep_zoo.compose import compose
from avsep_zoo.contracts import CueBatch, Embedding
from avsep_zoo.errors import CompositionError
from avsep_zoo.generative.objective import GenerativeObjective
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig


@pytest.fixture
def model(tiny_parts: dict[str, PartConfig]) -> SeparationModel:
    """A small driven U-Net."""
    torch.manual_seed(0)
    return compose(
        encoder=tiny_parts["encoder"],
        conditioner="tiled_concat",
        separator={"name": "mask_unet", "width": 4, "levels": 5, "mask_features": 4, "driven": True},
        driver={"name": "flow", "predicts": "clean"},
        front_end=PartConfig("stft", {**tiny_parts["front_end"].config, "log_scale": 0.15}),
    )


def sources(batch: int = 2) -> Tensor:
    return 0.1 * torch.randn(batch, 3, 8191, generator=torch.Generator().manual_seed(1))


class Silent(torch.nn.Module):
    """A network that answers with silence, to know the errors of."""

    def __init__(self) -> None:
        super().__init__()
        self.mixtures: list[Tensor] = []

    def bind(self, spectrum: Any, inject: Any) -> Any:
        self.mixtures.append(spectrum.features)
        return lambda noisy, time: torch.zeros_like(noisy)


def loss_of(objective: GenerativeObjective, model: SeparationModel, cues: CueBatch, **batch: Tensor) -> Tensor:
    return objective.loss(model, {"sources": sources(), "cues": cues, **batch})["loss"]


def test_the_mean_of_the_sources_is_the_mixture() -> None:
    truth = sources()
    mixture, parts = GenerativeObjective(mixture="mean").mix(truth)
    torch.testing.assert_close(mixture, truth.mean(dim=1))
    torch.testing.assert_close(parts.sum(dim=1), mixture)
    mixture, parts = GenerativeObjective(mixture="sum").mix(truth)
    torch.testing.assert_close(mixture, truth.sum(dim=1))
    torch.testing.assert_close(parts, truth)


@pytest.mark.parametrize("full_level", [True, False])
def test_targets_are_sources_as_loud_as_the_driver_says(
    full_level: bool, model: SeparationModel, tiny_cues: CueBatch
) -> None:
    """Silence is off by twice the features; they are summed over sources and averaged over all else."""
    model.separator = Silent()  # type: ignore[assignment]
    model.driver.full_level = full_level  # type: ignore[union-attr]
    front: Any = model.front_end
    truth = sources() if full_level else sources() / 3
    want = 5 * 2 * front.features(front.stft(truth).abs()).mean(dim=(0, 2, 3)).sum()
    torch.testing.assert_close(loss_of(GenerativeObjective(scale=5.0), model, tiny_cues), want)


def test_background_is_heard_in_the_mixture_only(model: SeparationModel, tiny_cues: CueBatch) -> None:
    model.separator = silent = Silent()  # type: ignore[assignment]
    plain, noisy = (
        loss_of(GenerativeObjective(), model, tiny_cues, **more) for more in ({}, {"background": sources()[:, 0]})
    )
    torch.testing.assert_close(plain, noisy)
    assert not torch.allclose(silent.mixtures[0], silent.mixtures[1])


def test_only_audible_points_count(model: SeparationModel, tiny_cues: CueBatch) -> None:
    """Those where the logarithm of 1 + magnitude of the mixture is above 1e-3."""
    model.separator = Silent()  # type: ignore[assignment]
    front: Any = model.front_end
    warped = torch.tensor([0.0, 1e-4, 1.0004e-3, 1.1e-3, 0.5, 3.0]).repeat(2, 1, 128, 1)
    spectrum = front.from_magnitude(torch.zeros(2, 1, 128, 6))
    spectrum.warped = warped
    clean = torch.ones(2, 3, 128, 6)
    embedding = Embedding(vector=torch.zeros(2, 3, 8))
    time, noise = torch.zeros(6), torch.zeros_like(clean)
    losses = {
        weighting: float(
            GenerativeObjective(scale=1.0, weighting=weighting).generative_loss(
                model, spectrum, clean, embedding, noise, time
            )
        )
        for weighting in ("none", "audible", "log")
    }
    assert losses["none"] == pytest.approx(3 * 2)
    assert losses["audible"] == pytest.approx(3 * 2 * 3 / 6)
    logs = [1e-3, 1e-3, 1e-3, math.log(1.0011), math.log(1.5), math.log(4)]
    assert losses["log"] == pytest.approx(3 * 2 * sum(logs) / 6, rel=1e-4)


def test_the_seed_of_the_step_says_it_all(model: SeparationModel, tiny_cues: CueBatch) -> None:
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(float(loss_of(GenerativeObjective(), model, tiny_cues).detach()))
    assert losses[0] == losses[1] != losses[2]


def test_training_lowers_the_loss(model: SeparationModel, tiny_cues: CueBatch) -> None:
    objective, embedding = GenerativeObjective(scale=1.0, learning_rate=1e-2), model.encode(tiny_cues)
    embedding.vector = embedding.vector.detach()  # type: ignore[union-attr]
    (optimiser,) = objective.optimisers(model.train())["model"]
    losses = []
    for _ in range(8):
        torch.manual_seed(0)
        loss = objective.loss(model, {"sources": sources(), "cues": embedding})["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_optimisers_hold_what_is_trained(model: SeparationModel) -> None:
    model.encoder.requires_grad_(False)
    (optimiser,) = GenerativeObjective().optimisers(model, learning_rate=0.5)["model"]
    held = [p for group in optimiser.param_groups for p in group["params"]]
    assert len(held) == len(list(model.separator.parameters()))
    assert optimiser.param_groups[0]["lr"] == 0.5
    assert optimiser.param_groups[0]["weight_decay"] == 0.01
    model.requires_grad_(False)
    assert GenerativeObjective().optimisers(model) == {"model": []}


def test_a_model_without_a_driver(tiny_model: SeparationModel, tiny_cues: CueBatch) -> None:
    with pytest.raises(CompositionError, match=r"iquery\.tiny has no driver and the generative objective needs one"):
        loss_of(GenerativeObjective(), tiny_model, tiny_cues)


def test_classes_that_no_encoder_recognises(model: SeparationModel, tiny_cues: CueBatch) -> None:
    model.encoder = torch.nn.Module()  # type: ignore[assignment]
    embedding: Any = Embedding(vector=torch.zeros(2, 3, 8))
    with pytest.raises(CompositionError, match=r"recognition is 0\.1 and the encoder Module recognises no classes"):
        loss_of(GenerativeObjective(recognition=0.1), model, embedding)


def test_recognised_classes_add_to_the_loss(model: SeparationModel, tiny_cues: CueBatch) -> None:
    torch.manual_seed(0)
    losses = GenerativeObjective(recognition=0.5).loss(model, {"sources": sources(), "cues": tiny_cues})
    assert losses.keys() == {"loss", "errors", "recognition"}
    torch.testing.assert_close(losses["loss"], losses["errors"] + 0.5 * losses["recognition"])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"mixture": "average"}, "mixture is 'average'; choose one of mean, sum"),
        ({"weighting": "loud"}, "weighting is 'loud'; choose one of none, audible, log"),
        ({"scale": 0.0}, r"scale is 0\.0; give a number above 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"recognition": -1.0}, r"recognition is -1\.0; give a number from 0 on"),
        ({"weight_decay": -0.1}, r"weight_decay is -0\.1"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        GenerativeObjective(**settings)
