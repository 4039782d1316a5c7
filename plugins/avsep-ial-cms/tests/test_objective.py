"""The objective: turns and schedules, what a turn changes, what adds up to a loss, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from avsep_ial_cms.losses import correspondence_loss, signal_ratio
from avsep_ial_cms.objective import IndependencyObjective
from avsep_zoo import SeparationModel, compose
from avsep_zoo.compose import build_part
from avsep_zoo.contracts import CueBatch
from avsep_zoo.errors import CompositionError, DataError
from avsep_zoo.recipe import PartConfig

TinyModel = Callable[..., SeparationModel]
LARGE = {"front_end": {"length": 4095, "warp_rows": 64}}  # what the critic sees is 64 by 64 points
SMALL: dict[str, Any] = {"critic_width": 2, "bank": 6}


@pytest.fixture
def model(tiny_model: TinyModel) -> SeparationModel:
    return tiny_model(**LARGE).train()


def objective_of(**settings: Any) -> IndependencyObjective:
    return IndependencyObjective(**{"independence": 0.1, **SMALL, **settings})


def batch_of(batch: int = 2, sources: int = 2, members: int = 2, **cues: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(batch, sources * members, 3, 32, 32, generator=generator)
    waves = 0.3 * torch.randn(batch, sources, 4095, generator=generator)
    return {"sources": waves, "cues": CueBatch({"frames": frames, **cues})}


def gradients(module: torch.nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def test_turns_at_their_steps() -> None:
    """The critic first; steps without any turn are possible."""
    objective = objective_of(model_every=3, critic_every=2)
    turns = [objective.turns(step) for step in range(5)]
    assert turns == [("critic", "model"), (), ("critic",), ("model",), ("critic",)]
    alone = objective_of(independence=0.0, model_every=2)
    assert alone.critic is None
    assert [alone.turns(step) for step in range(3)] == [("model",), (), ("model",)]


def test_schedules_at_their_edges() -> None:
    """One counts steps of the model, the other those of the run; the step of a milestone has the smaller weight."""
    objective = objective_of(
        model_every=3, correspondence=0.05, correspondence_steps=[4, 8], independence=0.01, independence_steps=[8]
    )

    def weights(step: int) -> list[float]:
        objective.turns(step)
        return [objective.correspondence_weight, objective.independence_weight]

    assert weights(0) == pytest.approx([5e-4, 1e-3])
    assert weights(8) == pytest.approx([5e-4, 1e-3])
    assert weights(9) == pytest.approx([5e-4, 1e-2])
    assert weights(12) == pytest.approx([5e-4, 1e-2])  # the fifth step of the model
    assert weights(15) == pytest.approx([5e-3, 1e-2])
    assert weights(24)[0] == pytest.approx(5e-3)
    assert weights(27)[0] == 0.05


def test_parts_of_a_step_have_one_weight(model: SeparationModel) -> None:
    """Losses are called more often than turns where a step is taken in parts; only the bank goes on."""
    objective = objective_of(independence_steps=[2], bank=100)
    for step, weight in ((2, 0.01), (3, 0.1)):
        assert objective.turns(step) == ("critic", "model")
        for turn in ("critic", "critic", "model", "model"):
            objective.loss(model, batch_of(), turn)
            assert objective.independence_weight == pytest.approx(weight)
    assert objective.bank.pointer == 2 * 4 * 8


def test_critic_turn_reaches_the_critic_alone(model: SeparationModel) -> None:
    objective = objective_of()
    before = model.separator.input_norm.running_mean.clone()  # type: ignore[union-attr,operator]
    losses = objective.loss(model, batch_of(), "critic")
    losses["loss"].backward()
    assert not gradients(model)
    assert len(gradients(objective)) == len(list(objective.critic.parameters()))  # type: ignore[union-attr]
    assert not torch.equal(model.separator.input_norm.running_mean, before)  # type: ignore[union-attr,arg-type]
    assert set(losses) == {"loss", "distance"}


def test_model_turn_reaches_the_model_alone(model: SeparationModel) -> None:
    """The opinion of the critic alone gets to every part, and to the critic only if it is let."""
    objective = objective_of(correspondence=0.0, independence=1.0, independence_steps=[])
    objective.requires_grad_(False)
    losses = objective.loss(model, batch_of())
    (losses["loss"] - losses["separation"]).backward()
    assert not gradients(objective)
    for part in (model.encoder, model.conditioner, model.separator):
        assert any(gradient.any() for gradient in gradients(part))
    assert all(gradient.isfinite().all() for gradient in gradients(model))


def test_losses_add_up(model: SeparationModel) -> None:
    """Estimates of the sounds of a recording are summed and compared with it, in the order of the cues."""
    objective = objective_of(correspondence=0.05, correspondence_steps=[], independence_steps=[], discarded=2)
    batch = batch_of(members=3)
    mixture, sources = objective.mix_batch(batch)
    assert torch.equal(mixture, batch["sources"].sum(dim=1))
    separated = objective.separate(model.eval(), mixture, batch)
    assert separated.waveforms.shape == (2, 6, 4095) and separated.magnitudes.shape == (2, 6, 64, 64)
    objective.turns(0)
    values = objective.model_losses(separated, sources, batch)
    summed = separated.waveforms.unflatten(1, (2, 3)).sum(dim=2)
    torch.testing.assert_close(values["separation"], -signal_ratio(summed, sources).mean())
    assert separated.embedding.map is not None and separated.heard is not None
    seen, heard = separated.embedding.map.flatten(0, 1), separated.heard.flatten(0, 1)
    torch.testing.assert_close(values["correspondence"], correspondence_loss(seen, heard, discarded=2))
    total = values["separation"] + 0.05 * values["correspondence"] + 0.1 * values["independence"]
    torch.testing.assert_close(values["loss"], total)
    assert values["interference"].isfinite() and values["artifacts"].isfinite()


def test_given_draws_are_used(model: SeparationModel) -> None:
    """The same ones give the same scores, whatever the generator would have drawn."""
    magnitudes = torch.rand(2, 3, 64, 64)
    given: dict[str, Any] = {"bank_rows": [0, 1, 2, 3, 4, 5], "partners": [0, 1, 0, 1, 1, 0]}
    found = []
    for seed in (1, 2):
        torch.manual_seed(0)
        objective = objective_of().eval()
        torch.manual_seed(seed)
        found.append(objective.scores(magnitudes, **given))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    torch.manual_seed(1)
    first = objective.scores(magnitudes)[1]
    assert not torch.equal(first, objective.scores(magnitudes)[1])


def test_the_critic_hears_louder() -> None:
    """The gain is that of the spectrograms, in the bank, too."""
    magnitudes = torch.rand(2, 2, 64, 64)
    drawn: dict[str, Any] = {"bank_rows": [0, 1, 2, 3], "partners": [0, 0, 0, 0]}
    plain, louder = objective_of().eval(), objective_of(critic_gain=8.0).eval()
    louder.load_state_dict(plain.state_dict())
    for one, other in zip(plain.scores(8 * magnitudes, **drawn), louder.scores(magnitudes, **drawn), strict=True):
        torch.testing.assert_close(one, other)
    assert plain.bank.rows is not None and louder.bank.rows is not None
    torch.testing.assert_close(plain.bank.rows, louder.bank.rows)


def test_sounds_that_are_not_there() -> None:
    """They are neither scored nor kept; the others go in the order of mixtures."""
    objective = objective_of().eval()
    magnitudes = torch.rand(3, 2, 64, 64)
    valid = torch.tensor([[True, True], [False, True], [True, True]])
    drawn: dict[str, Any] = {"bank_rows": [5] * 5, "partners": [0] * 5}
    independent, dependent = objective.scores(magnitudes, valid=valid, **drawn)
    assert len(independent) == 5 and len(dependent) == 4
    assert objective.bank.rows is not None and torch.equal(objective.bank.rows[:5], magnitudes[valid])
    pair = torch.stack((magnitudes[2, 1], magnitudes[2, 0]))[None]
    assert objective.critic is not None
    torch.testing.assert_close(dependent[3:], objective.critic(pair))


def test_mixtures_of_one_sound() -> None:
    """They give no dependent pair; a batch of nothing else is refused, before a mean over nothing is not a number."""
    objective = objective_of()
    magnitudes = torch.rand(2, 2, 64, 64)
    losses = objective.critic_losses(magnitudes, valid=torch.tensor([[True, False], [True, True]]))
    assert losses["loss"].isfinite() and losses["distance"].isfinite()
    cases: tuple[dict[str, Any], ...] = (
        {"magnitudes": magnitudes[:, :1]},
        {"magnitudes": magnitudes, "valid": torch.eye(2).bool()},
    )
    for alone in cases:
        pointer = objective.bank.pointer
        with pytest.raises(DataError, match="no mixture of this batch has two; give 2 or more sources, or set indep"):
            objective.scores(**alone)
        assert objective.bank.pointer == pointer


def test_spectrograms_too_small_for_the_critic(tiny_model: TinyModel) -> None:
    batch = batch_of()
    batch["sources"] = batch["sources"][..., :2047]
    with pytest.raises(CompositionError, match="needs spectrograms of 64 x 64 points or more and the model gives 32 x"):
        objective_of().loss(tiny_model().train(), batch, "critic")


def test_bank_of_another_front_end(model: SeparationModel) -> None:
    objective = objective_of()
    objective.bank.restore({"rows": torch.zeros(6, 80, 64), "pointer": 0})
    with pytest.raises(DataError, match="holds spectrograms of 80 x 64 points and the model gives those of 64 x 64"):
        objective.loss(model, batch_of(), "critic")


def test_everything_is_finite_in_half_precision(model: SeparationModel) -> None:
    """Losses and diagnostics are float32; what is computed of given estimates is the same with and without it."""
    objective, batch = objective_of(discarded=1, independence_steps=[]), batch_of()
    objective.turns(0)
    with torch.autocast("cpu", torch.bfloat16):
        for turn in ("critic", "model"):
            losses = objective.loss(model, batch, turn)
            assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
            losses["loss"].backward()
        separated = objective.separate(model, batch["sources"].sum(dim=1), batch)
        assert separated.waveforms.dtype == separated.magnitudes.dtype == torch.float32
    assert all(gradient.isfinite().all() for gradient in (*gradients(model), *gradients(objective)))
    drawn = {"bank_rows": [0] * 8, "partners": [0] * 8}
    state = objective.bank.state()
    objective.eval()
    found = []
    for enabled in (False, True):
        objective.bank.restore(state)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled), torch.no_grad():
            found.append(objective.model_losses(separated, batch["sources"], batch, **drawn))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_state_goes_on(tmp_path: Path) -> None:
    """Critic with its power iteration, bank and pointer, through a file without pickled objects."""
    objective, magnitudes = objective_of(), torch.rand(2, 4, 64, 64)
    objective.critic_losses(magnitudes)
    torch.save(objective.state_dict(), tmp_path / "state.pt")
    torch.manual_seed(5)
    other = objective_of()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    drawn = {"bank_rows": [3, 2, 1, 0, 5, 4, 3, 2], "partners": [0, 1, 2, 0, 1, 2, 0, 1]}
    values = [each.critic_losses(magnitudes, **drawn) for each in (objective, other)]
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)
    assert other.bank.pointer == objective.bank.pointer == 16 % 6


def test_learning_rates_and_moments(model: SeparationModel) -> None:
    """That of the encoder is scaled with the other one, that of the critic is its own."""
    objective = objective_of(learning_rate=1e-4, encoder_learning_rate=1e-3, critic_learning_rate=2e-4)
    turns = objective.optimisers(model, learning_rate=1e-5)
    [adam], [critic] = turns["model"], turns["critic"]
    assert [group["lr"] for group in adam.param_groups] == pytest.approx([1e-5, 1e-4])
    [group] = critic.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (2e-4, (0.0, 0.9), 1e-3)
    trained = {id(p) for group in adam.param_groups for p in group["params"]}
    assert trained == {id(p) for p in model.parameters()}


def test_classes_that_are_unknown_do_not_count(tiny_model: TinyModel) -> None:
    model = tiny_model(**LARGE, classes=["a", "b", "c"]).eval()
    objective = objective_of(independence=0.0, recognition=2.0, classes=3, recognised=8).eval()
    labels = torch.tensor([[0, -1, 2, -1], [-1, -1, -1, -1]])
    values = objective.loss(model, batch_of(label=labels))
    other = objective.loss(model, batch_of(label=torch.full((2, 4), -1)))
    assert values["recognition"] > 0 and other["recognition"] == 0
    torch.testing.assert_close(values["loss"] - other["loss"], 2 * values["recognition"])
    trained = {id(p) for group in objective.optimisers(model)["model"][0].param_groups for p in group["params"]}
    assert trained >= {id(p) for p in objective.recogniser.parameters()}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"mixture": "max"}, "The mixture is 'max'; give sum or mean"),
        ({"bank": 0}, "bank is 0; give a whole number from 1"),
        ({"model_every": 1.5}, "model_every is 1.5; give a whole number"),
        ({"critic_every": -1}, "critic_every is -1"),
        ({"critic_width": 0}, "critic_width is 0"),
        ({"temperature": 0.0}, "temperature, critic_gain or a learning rate is not above 0"),
        ({"critic_gain": 0.0}, "temperature, critic_gain or a learning rate is not above 0"),
        ({"learning_rate": 0.0}, "temperature, critic_gain or a learning rate is not above 0"),
        ({"recognition": 1.0}, "needs classes and there are 0"),
        ({"independance": 1.0}, "independance"),
    ],
)
def test_settings_it_cannot_have(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(CompositionError, match=why):
        build_part("objective", PartConfig("ial_cms.independency", settings))


def test_models_it_cannot_train(tiny_model: TinyModel) -> None:
    """Without cross-modal attention while pictures and sounds are compared; with other classes; generative ones."""
    encoder = {"name": "davis.resnet", "width": 2, "frames": 2, "image_size": 32, "heads": 2, "feedforward": 16}
    other = compose(
        encoder=encoder,
        conditioner="tiled_concat",
        separator={"name": "ial_cms.unet", "width": 4, "levels": 3},
        name="other",
    )
    with pytest.raises(CompositionError, match=r"needs the conditioner ial_cms\.attention and other has another one"):
        objective_of().optimisers(other)
    assert objective_of(correspondence=0.0).optimisers(other)["critic"]
    with pytest.raises(CompositionError, match=r"2 classes in maps of 8 channels and ial_cms\.tiny has 0 and 8"):
        objective_of(recognition=1.0, classes=2, recognised=8).optimisers(tiny_model())
    generative = compose(
        encoder=encoder,
        conditioner="tiled_concat",
        separator={
            "name": "davis.unet", "width": 8, "multipliers": [1, 2], "rows": 32, "groups": 4, "heads": 2,
            "head_channels": 4, "time_heads": 2, "time_features": 16,
        },
        driver="flow",
        front_end={"name": "stft", "n_fft": 126, "hop_length": 64, "length": 8191, "warp_rows": 32, "log_scale": 0.15},
        name="drawn",
    )  # fmt: skip
    with pytest.raises(CompositionError, match="drawn is generative; take the objective generative"):
        objective_of().optimisers(generative)
