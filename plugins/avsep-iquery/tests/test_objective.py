"""Mixture rule, targets, weights, loss and optimisers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from avsep_iquery.objective import IQueryObjective
from avsep_zoo.contracts import CueBatch, Estimate, Spectrum
from avsep_zoo.errors import DataError


def test_mixture_rules() -> None:
    sources = torch.randn(2, 3, 100)
    mixture, truth = IQueryObjective(mixture="mean").mix(sources)
    torch.testing.assert_close(mixture, sources.mean(dim=1))
    torch.testing.assert_close(truth, sources / 3)
    mixture, truth = IQueryObjective(mixture="sum").mix(sources)
    torch.testing.assert_close(mixture, sources.sum(dim=1))
    assert torch.equal(truth, sources)


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_loss_by_hand(tiny_model: Any, tiny_batch: dict[str, Any], kind: Any) -> None:
    """Half the sum over sources of mean(w |p - g|), w = clamp(log(1 + m), 1e-3, 10), g = clamp(s / m, 0, 5)."""
    model, objective = tiny_model(), IQueryObjective(mixture="mean", loss=kind)
    got = objective.loss(model, tiny_batch)["loss"]
    front = model.front_end
    truth = tiny_batch["sources"] / 2
    mixture = front.warp(front.stft(truth.sum(dim=1)).abs()[:, None] + 1e-10)
    sources = front.warp(front.stft(truth).abs())
    prediction = model({"mixture": truth.sum(dim=1), "cues": tiny_batch["cues"]}).values
    distance = (prediction - (sources / mixture).clamp(0, 5)).abs() ** {"l1": 1, "l2": 2}[kind]
    weighted = distance * torch.log(1 + mixture).clamp(1e-3, 10)
    torch.testing.assert_close(got, 0.5 * (weighted[:, 0].mean() + weighted[:, 1].mean()))


def spectrum(warped: torch.Tensor) -> Spectrum:
    return Spectrum(torch.log1p(warped), warped, warped)


def test_binary_targets(tiny_model: Any) -> None:
    front = tiny_model().front_end
    linear = torch.rand(1, 1, 64, 16)
    mixture = front.warp(linear)
    sources = torch.cat((0.6 * linear, 0.4 * linear), dim=1)
    binary = IQueryObjective(loss="bce", binary=True).targets(front, spectrum(mixture), sources)
    assert binary[:, 0].min() == 1 and binary[:, 1].max() == 0
    ratio = IQueryObjective().targets(front, spectrum(mixture), 3 * sources)
    torch.testing.assert_close(ratio[:, 0], torch.full_like(ratio[:, 0], 1.8))
    limited = IQueryObjective(loss="bce", target_limit=1.0).targets(front, spectrum(mixture), 3 * sources)
    assert limited[:, 0].max() == 1
    with pytest.raises(ValueError, match="use bce"):
        IQueryObjective(binary=True)
    with pytest.raises(ValueError, match="set target_limit to 1"):
        IQueryObjective(loss="bce")


def test_targets_follow_the_gain_of_the_front_end(tiny_model: Any) -> None:
    front, linear = tiny_model().front_end, torch.rand(1, 1, 64, 16)
    plain = IQueryObjective().targets(front, spectrum(front.warp(linear)), 0.5 * linear)
    scaled = spectrum(front.warp(4 * linear))
    scaled.gain = torch.full((1, 1, 1, 1), 4.0)
    torch.testing.assert_close(IQueryObjective().targets(front, scaled, 0.5 * linear), plain)


@pytest.mark.parametrize(("weighting", "wanted"), [("log", [1e-3, 10.0]), ("magnitude", [0.0, 1e6]), ("none", None)])
def test_weights(weighting: Any, wanted: list[float] | None) -> None:
    weight = IQueryObjective(weighting=weighting).weight(spectrum(torch.tensor([0.0, 1e6])))
    assert (weight if weight is None else weight.tolist()) == (wanted and pytest.approx(wanted))


def test_background_is_in_the_mixture_only(tiny_model: Any, tiny_batch: dict[str, Any]) -> None:
    """Noise nobody asks for changes the loss, and a silent background does not."""
    model, objective = tiny_model(), IQueryObjective()
    plain = objective.loss(model, tiny_batch)["loss"]
    silent = objective.loss(model, {**tiny_batch, "background": torch.zeros(2, 1023)})["loss"]
    noisy = objective.loss(model, {**tiny_batch, "background": torch.randn(2, 1023)})["loss"]
    torch.testing.assert_close(silent, plain)
    assert not torch.allclose(noisy, plain)


def losses_of(objective: IQueryObjective, model: Any, batch: dict[str, Any]) -> list[float]:
    """Losses of twelve steps."""
    optimisers, losses = objective.optimisers(model)["model"], []
    for _ in range(12):
        loss = objective.loss(model, batch)["loss"]
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
        losses.append(float(loss.detach()))
    return losses


def test_two_optimisers_lower_the_loss(tiny_model: Any, tiny_batch: dict[str, Any]) -> None:
    model, objective = tiny_model().train(), IQueryObjective(learning_rate=3e-3)
    optimisers = objective.optimisers(model)["model"]
    assert [type(optimiser) for optimiser in optimisers] == [torch.optim.Adam, torch.optim.AdamW]
    assert optimisers[1].param_groups[0]["weight_decay"] == 1e-4
    losses = losses_of(objective, model, tiny_batch)
    assert losses[-1] < 0.9 * losses[0]


def test_optimisers_take_what_is_trained(tiny_model: Any) -> None:
    """Every trainable parameter once, the frozen ResNet never; a part without any has no optimiser."""
    model = tiny_model()
    groups = [g for o in IQueryObjective().optimisers(model, learning_rate=0.5)["model"] for g in o.param_groups]
    taken = [id(p) for group in groups for p in group["params"]]
    assert sorted(taken) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert {group["lr"] for group in groups} == {0.5}
    model.separator.requires_grad_(False)
    model.encoder.requires_grad_(False)
    assert [type(o) for o in IQueryObjective().optimisers(model)["model"]] == [torch.optim.AdamW]


def recordings(batch: dict[str, Any], classes: list[list[int]]) -> dict[str, Any]:
    """Two recordings per mixture, each of two sounds of its own."""
    generator = torch.Generator().manual_seed(2)
    frames = torch.randn(2, 4, 3, 2, 32, 32, generator=generator)
    return {"sources": batch["sources"], "cues": CueBatch({"frames": frames, "label": torch.tensor(classes)})}


def test_masks_of_one_recording_are_added(tiny_model: Any, tiny_batch: dict[str, Any]) -> None:
    """The loss of four masks of two recordings is that of their sums, by hand."""
    model, objective = tiny_model(), IQueryObjective(mixture="sum")
    batch = recordings(tiny_batch, [[0, 1, 2, 0], [1, 2, 0, 1]])
    got = objective.loss(model, batch)["loss"]
    front = model.front_end
    mixture, truth = objective.mix(batch["sources"])
    masks = model({"mixture": mixture, "cues": batch["cues"]}).values
    sums = torch.stack((masks[:, 0] + masks[:, 1], masks[:, 2] + masks[:, 3]), dim=1)
    wanted = objective.mask_loss(front, front.analyse(mixture), front.stft(truth).abs(), Estimate(sums))
    assert torch.equal(got, wanted)


def test_learning_from_mixtures_only(tiny_model: Any, tiny_batch: dict[str, Any]) -> None:
    """The loss falls, and every one of the four sounds learns."""
    model, objective = tiny_model().train(), IQueryObjective(learning_rate=3e-3)
    assert objective.mixtures_only
    batch = recordings(tiny_batch, [[0, 1, 2, 0], [1, 2, 0, 1]])
    losses = losses_of(objective, model, batch)
    assert losses[-1] < 0.9 * losses[0]
    assert (model.conditioner.query_embed.weight.grad[:3].abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize(
    ("settings", "classes", "message"),
    [
        ({"loss": "bce", "binary": True}, [[0, 1, 2, 0]] * 2, "set loss to l1 or l2"),
        ({}, [[0, 1, 2]] * 2, "3 cues cannot be shared out to 2 recordings"),
    ],
)
def test_recordings_that_cannot_be_learned_from(
    tiny_model: Any, tiny_batch: dict[str, Any], settings: Any, classes: list[list[int]], message: str
) -> None:
    batch = recordings(tiny_batch, classes)
    batch["cues"].values["frames"] = batch["cues"].values["frames"][:, : len(classes[0])]
    with pytest.raises(DataError, match=message):
        IQueryObjective(**settings).loss(tiny_model(), batch)
