"""Parity adapters of the critic and of the losses: golden cases of the official code, run through this plugin's own.

Each adapter is a function of a case (configuration, official state dicts, inputs) and returns named outputs. Official
objects may be missing, which ``*valid_nums`` say; here all of them are there, so the adapters leave them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from avsep_ial_cms.convert import CRITIC, target
from avsep_ial_cms.critic import PairCritic, critic_loss, independence_loss
from avsep_ial_cms.losses import artifact_ratio, correspondence_loss, interference_ratio, signal_ratio
from avsep_ial_cms.objective import IndependencyObjective
from avsep_ial_cms.parity import load, only, tensor

if TYPE_CHECKING:
    from avsep_zoo.parity.case import Case

__all__ = ["critic", "gan_losses", "losses", "norm", "only_published"]

Outputs = dict[str, Any]


@torch.no_grad()
def critic(case: Case) -> Outputs:
    """Features and scores of pairs, call after call, and then without the power iteration."""
    config, official = case.config, case.state_dicts["critic"]
    only_published(config)
    with torch.device("meta"):
        network = PairCritic()
    load(network, CRITIC, case).train()
    first, second = tensor(case, "pairs_a"), tensor(case, "pairs_b")
    for _ in range(config.get("warmup_forwards", 0)):
        network(first)
    outputs: Outputs = {}
    for name, pairs in (("feature_a", first), ("feature_b", second)):
        outputs |= _features(network, pairs, name)
    buffers = dict(network.named_buffers())
    for key in official:
        entry = _entry(config["checkpoint_prefix"] + key)
        if entry in buffers:
            outputs[f"u_after:{key}"] = buffers[entry].clone()
    network.eval()
    outputs |= {f"eval_{name}": value for name, value in _features(network, first, "feature_a").items()}
    return outputs | {"g_feature_a_eval": network.sounds(first.flatten(0, 1)[:, None])}


def gan_losses(case: Case) -> Outputs:
    """A turn of the critic and a turn of the model: pairs, scores, losses, gradients and the memory bank."""
    config, official = case.config, case.state_dicts["critics"]
    only_published(config["critics_model"], config["gan_train_algorithm"])
    bank = tensor(case, "bank")
    with torch.device("meta"):
        objective = IndependencyObjective(
            independence=1.0, margin=config["gan_train_algorithm"].get("C", 1), bank=len(bank)
        )
    network = objective.critic
    assert network is not None
    load(network, CRITIC, case).train()
    objective.bank.restore({"rows": bank, "pointer": config.get("bank_pointer", 0)})
    magnitudes = tensor(case, "est_mel_mag").requires_grad_()
    outputs: Outputs = {}
    pairs: list[Tensor] = []
    scores: list[Tensor] = []
    hooks = (
        network.register_forward_pre_hook(lambda _, given: pairs.append(given[0])),
        network.register_forward_hook(lambda _, given, out: scores.append(out)),
    )
    drawn: dict[str, Any] = {"valid": tensor(case, "components_valid_nums").flatten(1) > 0}
    values = objective.critic_losses(
        magnitudes.detach().flatten(1, 2), **drawn, **_draws(case, "bank_index_critic", "dep_draw_critic")
    )
    values["loss"].backward()
    outputs |= {"c_loss": values["loss"], "c_est_dist_d": values["distance"]}
    outputs |= dict(zip(("independent_pair", "dependent_pair"), pairs, strict=True))
    outputs |= dict(zip(("c_independent_score", "c_dependent_score"), scores, strict=True))
    parameters = dict(network.named_parameters())
    for key in official:
        entry = _entry(config["checkpoint_prefix"] + key)
        if entry in parameters:
            outputs[f"c_grad_norm:{key}"] = norm(parameters[entry].grad)

    scores.clear()
    objective.requires_grad_(False)
    independent, dependent = objective.scores(
        magnitudes.flatten(1, 2), **drawn, **_draws(case, "bank_index_generator", "dep_draw_generator")
    )
    for hook in hooks:
        hook.remove()
    loss = independence_loss(independent, dependent)
    return outputs | {
        "g_loss": loss,
        "g_independent_score": independent,
        "g_dependent_score": dependent,
        "grad_g_loss_wrt_est_mel_mag": torch.autograd.grad(loss, magnitudes)[0],
        "bank_after": objective.bank.rows,
    }


def losses(case: Case) -> Outputs:
    """Losses of waveforms, of maps and sounds, and of scores; and the diagnostics."""
    config = case.config
    only(config, positive_weight=False)
    components, mixtures = tensor(case, "est_components").requires_grad_(), tensor(case, "mixtures")
    maps, heard = tensor(case, "fv_used").requires_grad_(), tensor(case, "fa_com").requires_grad_()
    there = tensor(case, "components_valid_nums")
    estimates = (components * there[..., None]).sum(dim=2)
    capped = signal_ratio(estimates, mixtures, most=float(config["max_sisnr"]))
    separation = -capped.mean()
    correspondence = correspondence_loss(
        maps[there > 0], heard[there > 0], temperature=config["t"], discarded=config["discard_K"]
    )
    independent, dependent = tensor(case, "independent_score"), tensor(case, "dependent_score")
    margin = config.get("C", 1)
    grad_heard, grad_maps = torch.autograd.grad(correspondence, (heard, maps))
    return {
        "sep_loss": separation,
        "avc_loss": correspondence,
        "sisnr_capped": capped,
        "sisnr_uncapped": signal_ratio(estimates, mixtures, most=float("inf")),
        "sisnr_perfect_capped": signal_ratio(mixtures, mixtures, most=float(config["max_sisnr"])),
        "grad_sep": torch.autograd.grad(separation, components)[0],
        "grad_fa": grad_heard,
        "grad_fv": grad_maps,
        "SIR": interference_ratio(components.flatten(1, 2)),
        "SAR": artifact_ratio(components.sum(dim=2), mixtures),
        "gan_c_loss": critic_loss(independent, dependent, tensor(case, "critic_w"), margin_weight=margin),
        "gan_g_loss": independence_loss(independent, dependent),
    }


def only_published(critic: Mapping[str, Any], losses: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Refuse settings that the published critic and its losses cannot have.

    Raises:
        DataError: one has another value.
    """
    only(critic, n_extra_layers=0, normalization="spectralnorm", use_memory_bank=True, sample_2_from_bank=False)
    only(losses, lambda_gp=0, asymmetric=False)


def norm(gradient: Tensor | None) -> Tensor:
    """Its L2 norm in double precision; 0 where there is none."""
    return torch.zeros((), dtype=torch.float64) if gradient is None else gradient.double().norm()


def _draws(case: Case, rows: str, partners: str) -> dict[str, Any]:
    return {"bank_rows": tensor(case, rows).tolist(), "partners": tensor(case, partners).tolist()}


def _entry(key: str) -> str:
    """The critic's entry that an official one becomes."""
    return str(target(key)).removeprefix(CRITIC)


def _features(network: PairCritic, pairs: Tensor, name: str) -> Outputs:
    """Features as they go into the last layer, and scores, of one call."""
    seen: list[Tensor] = []
    hook = network.score.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    scores = network(pairs)
    hook.remove()
    return {name: seen[0], name.replace("feature", "score"): scores}
