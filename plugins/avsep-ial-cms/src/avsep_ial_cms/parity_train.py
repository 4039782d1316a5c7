"""Parity adapter of training: official order of updates, schedules and optimisers, run by this plugin's objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from avsep_ial_cms.convert import CRITIC, target
from avsep_ial_cms.encoder import DeepLabEncoder
from avsep_ial_cms.objective import IndependencyObjective
from avsep_ial_cms.parity import load, only, stft, tensor
from avsep_ial_cms.parity_critic import norm, only_published
from avsep_ial_cms.parity_method import composed_model
from avsep_zoo.contracts import CueBatch
from avsep_zoo.errors import DataError

if TYPE_CHECKING:
    from avsep_zoo.model import SeparationModel
    from avsep_zoo.parity.case import Case

__all__ = ["train_step"]

Outputs = dict[str, Any]
_NEVER = 2**62
_TWICE = "common_space_mlp.2.num_batches_tracked"  # that network runs twice in a step of the official code, here once


def train_step(case: Case) -> Outputs:
    """Some steps on one batch: what they log; gradients, changes and statistics after the first; weights of losses."""
    steps = _Steps(case)
    run = case.config["batches_run"]
    outputs = steps.take(run[0])
    outputs |= steps.state()
    for index in run[1:]:
        outputs |= steps.take(index)
    steps.objective.step = run[-1] + 1
    return outputs | {
        "lambda_avc_after": steps.objective.correspondence_weight,
        "lambda_ind_after": steps.objective.independence_weight,
    }


class _Steps:
    """A model, its objective and optimisers as they are at the start of a case, and its batch."""

    def __init__(self, case: Case) -> None:
        only(case.config, volumn_normalize=False)
        if not torch.as_tensor(case.inputs["valid_nums"]).all():
            raise DataError("The case trains with objects that are not there; the published loaders give all of them.")
        self.official = case.state_dicts["checkpoint"]
        self.model = _model(case)
        self.objective = _objective(case)
        self.optimisers = _optimisers(case, self.model, self.objective)
        cues = CueBatch({"frames": tensor(case, "objects").flatten(1, 2)})
        self.batch = {"sources": tensor(case, "mixtures"), "cues": cues}
        self.sounds = cues.get("frames").shape[:2].numel()
        self.rows, self.partners = tensor(case, "bank_index").tolist(), tensor(case, "dep_draw").tolist()
        self.before = {name: value.detach().clone() for name, value in self._entries().items()}

    def take(self, index: int) -> Outputs:
        """The turns of the batch of this index, and what they log."""
        objective, values = self.objective, dict[str, Any]()
        turns = objective.turns(index)
        mixture, sources = objective.mix_batch(self.batch)
        for turn in turns:
            with torch.set_grad_enabled(turn == "model"):
                separated = objective.separate(self.model, mixture, self.batch)
            if turn == "critic":
                losses = objective.critic_losses(separated.magnitudes, **self._drawn())
                values |= {"c_loss": losses["loss"], "c_est_dist_d": losses["distance"]}
            else:
                losses = objective.model_losses(separated, sources, self.batch, **self._drawn())
                values |= self._logged(losses)
            for optimiser in self.optimisers[turn]:
                optimiser.zero_grad()  # so that gradients of the model's turn stay in the critic until its own
            losses["loss"].backward()
            for optimiser in self.optimisers[turn]:
                optimiser.step()
        return {f"batch{index}:{name}": value for name, value in values.items()}

    def state(self) -> Outputs:
        """Gradients, changes and statistics by official entry."""
        outputs: Outputs = {}
        now = self._entries()
        for key in self.official:
            name = target(key)
            if name is None:
                continue
            value = now.get(name)
            if value is None or isinstance(value, torch.nn.Parameter):  # a critic that is not trained is not there
                outputs[f"grad_norm:{key}"] = norm(None if value is None else value.grad)
                outputs[f"delta_norm:{key}"] = norm(None if value is None else (value.detach() - self.before[name]))
            else:
                outputs[f"buffer:{key}"] = value.clone() * (2 if key.endswith(_TWICE) else 1)
        return outputs

    def _drawn(self) -> dict[str, Any]:
        """The numbers that a pass of the critic draws, as long as there is one."""
        if self.objective.critic is None:
            return {}
        rows, self.rows = self.rows[: self.sounds], self.rows[self.sounds :]
        partners, self.partners = self.partners[: self.sounds], self.partners[self.sounds :]
        return {"bank_rows": rows, "partners": partners}

    def _logged(self, losses: dict[str, Tensor]) -> Outputs:
        values: Outputs = {
            "sep_loss": losses["separation"],
            "total_g_loss": losses["loss"],
            "SIR": losses["interference"],
            "SAR": losses["artifacts"],
            "lambda_avc": self.objective.correspondence_weight,
        }
        if "correspondence" in losses:
            values["avc_loss"] = losses["correspondence"]
        if "independence" in losses:
            values |= {"ind_loss": losses["independence"], "g_est_dist_d": losses["independence"]}
            values["lambda_ind"] = self.objective.independence_weight
        return values

    def _entries(self) -> dict[str, Tensor]:
        """Parameters and buffers of the model and of the critic."""
        entries: dict[str, Tensor] = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        if self.objective.critic is not None:
            for named in (self.objective.critic.named_parameters(), self.objective.critic.named_buffers()):
                entries |= {CRITIC + name: value for name, value in named}
        return entries


def _model(case: Case) -> SeparationModel:
    config = case.config["av_separator"]
    model = composed_model(case, stft(config["separate_net"], case.inputs["mixtures"].shape[-1]))
    assert isinstance(model.encoder, DeepLabEncoder)
    model.encoder.network.features.requires_grad_(not config["visual_net"]["deeplab"]["freeze"])
    return model


def _objective(case: Case) -> IndependencyObjective:
    config = case.config
    loss, rates, gan = config["av_separator"]["loss"], config["optimizer"], config["critics"]["gan_train_algorithm"]
    contrast = loss["avc_contrastive"]
    only(loss["sep_loss_opt"], sep_loss_type="wav")
    only(contrast["positive_weight"], turn_on=False)
    only(contrast, contrasted_feature="fusion", dropout=0)
    only_published(config["critics"]["critics_model"], gan)
    every = config["train_generator_interval"]
    independent, agreeing = config["lambda_independence_incresing_step"], config["lambda_avc_incresing_step"]
    batches = config["batches_run"]
    bank = tensor(case, "bank")
    with torch.device("meta"):
        objective = IndependencyObjective(
            most=float(loss["sep_loss_opt"]["max_sisnr"]),
            correspondence=loss["lambda_avc"] * 10 ** len(agreeing),
            correspondence_steps=_passed(agreeing, [index // every for index in batches if index % every == 0]),
            temperature=contrast["t"],
            discarded=contrast["hard_sampling"]["discard_K"],
            independence=config["lambda_ind"] * 10 ** len(independent),
            independence_steps=_passed(independent, batches),
            margin=gan.get("C", 1),
            bank=len(bank),
            model_every=every,
            critic_every=config["train_critics_interval"],
            learning_rate=rates["av_separator"]["a_lr"],
            encoder_learning_rate=rates["av_separator"]["v_lr"],
            critic_learning_rate=rates["critics"]["lr"],
            critic_weight_decay=rates["critics"]["weight_decay"],
        )
    objective.bank.restore({"rows": bank, "pointer": 0})
    if objective.critic is not None:
        load(objective.critic, CRITIC, case)
    return objective.train(case.mode == "train")


def _passed(milestones: Sequence[int], steps: Sequence[int]) -> list[int]:
    """Milestones in steps of a run that takes some of its steps: official counters count those it takes."""
    return [steps[milestone] if milestone < len(steps) else _NEVER for milestone in milestones]


def _optimisers(
    case: Case, model: SeparationModel, objective: IndependencyObjective
) -> dict[str, list[torch.optim.Optimizer]]:
    """Those of the objective, with the moments and the decay of the case."""
    rates = case.config["optimizer"]
    only(rates["av_separator"], algorithm="Adam", lr_adjust_strategy=False)
    optimisers = objective.optimisers(model)
    for turn, given in (("model", rates["av_separator"]), ("critic", rates["critics"])):
        for optimiser in optimisers.get(turn, ()):
            for group in optimiser.param_groups:
                group |= {"betas": (given["b1"], given["b2"]), "weight_decay": given["weight_decay"]}
    return optimisers
