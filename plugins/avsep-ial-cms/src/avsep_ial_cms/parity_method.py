"""Parity adapters of the whole method: golden cases of the official implementation, run through composed models.

Each adapter is a function of a case (configuration, official state dict, inputs) and returns named outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from avsep_ial_cms.conditioner import CrossModalAttention
from avsep_ial_cms.convert import CRITIC
from avsep_ial_cms.critic import independence_loss
from avsep_ial_cms.encoder import DeepLabEncoder
from avsep_ial_cms.losses import correspondence_loss, signal_ratio
from avsep_ial_cms.objective import IndependencyObjective
from avsep_ial_cms.parity import (
    ValidObjects,
    attended,
    attention_settings,
    load,
    network_settings,
    only,
    organise,
    scores,
    separated,
    separator_settings,
    stft,
    tensor,
    unused,
)
from avsep_ial_cms.separator import ResidualUNet
from avsep_zoo.compose import compose
from avsep_zoo.contracts import Embedding, Estimate, Spectrum
from avsep_zoo.evaluation.score import score_batch
from avsep_zoo.front_end import StftFrontEnd
from avsep_zoo.model import SeparationModel
from avsep_zoo.sliding import slide

if TYPE_CHECKING:
    from avsep_zoo.parity.case import Case

__all__ = ["composed_model", "heard", "method", "waveform"]

Outputs = dict[str, Any]


def method(case: Case) -> Outputs:
    """Pictures and mixtures to masks, waveforms and losses."""
    settings, length = case.config["av_separator"]["separate_net"], case.inputs["mixed_mixture"].shape[-1]
    return heard(composed_model(case, stft(settings, length)), case)


@torch.no_grad()
def heard(model: SeparationModel, case: Case) -> Outputs:
    """What a model makes of the pictures and mixtures of a case of the adapter ``method``."""
    config = case.config["av_separator"]
    mixture, recordings = tensor(case, "mixed_mixture"), tensor(case, "mixtures")
    there = tensor(case, "valid_nums").bool()
    valid = there.flatten(1)
    front, separator = model.front_end, model.separator
    assert isinstance(front, StftFrontEnd) and isinstance(separator, ResidualUNet)
    maps = _maps(case, model)
    assert isinstance(model.conditioner, CrossModalAttention)
    bound = ValidObjects(model.conditioner, maps, valid)
    spectrum = front.analyse(mixture)
    outputs = separated(front, spectrum, scores(separator, spectrum, bound), mixture.shape[-1])
    magnitudes = outputs["est_mel_mag"]
    outputs = {"fv": organise(maps, valid), **outputs, **attended(bound)}
    outputs = {
        name: value.unflatten(1, there.shape[1:]) if value.shape[1:2] == valid.shape[1:] else value
        for name, value in outputs.items()
    }
    loss = config["loss"]
    only(loss["sep_loss_opt"], sep_loss_type="wav")
    contrast = loss["avc_contrastive"]
    only(contrast, contrasted_feature="fusion", dropout=0)
    only(contrast["positive_weight"], turn_on=False)
    sounds = (outputs["est_components"] * there[..., None]).sum(dim=2)
    separation = -signal_ratio(sounds, recordings, most=float(loss["sep_loss_opt"]["max_sisnr"])).mean()
    correspondence = correspondence_loss(
        maps, bound.inner.heard[:, 0], temperature=contrast["t"], discarded=contrast["hard_sampling"]["discard_K"]
    )
    outputs |= {
        "sep_loss": separation,
        "avc_loss": correspondence,
        "separator_loss": separation + loss["lambda_avc"] * correspondence,
    }
    return outputs | (_judged(case, magnitudes, valid) if case.config.get("run_critic") else {})


@torch.no_grad()
def waveform(case: Case) -> Outputs:
    """Whole recordings, window by window, and their scores."""
    config = case.config
    mixture, recordings = tensor(case, "mixed_mixture"), tensor(case, "mixtures")
    there = tensor(case, "valid_nums").bool()
    valid = there.flatten(1)
    settings = config["av_separator"]["separate_net"]
    model = composed_model(case, stft(settings, config["samples_per_window"], _Unclipped))
    maps = organise(_maps(case, model), valid)
    separator = model.separator
    assert isinstance(separator, ResidualUNet)
    estimates = torch.stack([
        slide(model, mixed, Embedding(map=seen[None]), hop=config["hop_size"])
        for mixed, seen in zip(mixture, maps, strict=True)
    ])  # fmt: skip
    missing = (separator.bias + separator.mask_offset).relu() * mixture  # the mask of an object that is not there
    estimates = torch.where(valid[..., None], estimates, missing[:, None])
    found = estimates.unflatten(1, there.shape[1:]).sum(dim=2)
    blind = mixture[:, None].expand_as(recordings)
    reached, before = (_mean_scores(recordings, given, mixture) for given in (found, blind))
    return {
        "separated": found,
        **reached,
        "sdri": reached["sdr"] - before["sdr"],
        "siri": reached["sir"] - before["sir"],
    }


def composed_model(case: Case, front_end: StftFrontEnd) -> SeparationModel:
    """The method with the official weights of the case, in its mode."""
    config = case.config["av_separator"]
    only(case.config, volumn_normalize=False)
    only(config, normalization="batchnorm")
    with torch.device("meta"):
        model = compose(
            encoder={"name": "ial_cms.deeplab", **network_settings(config["visual_net"])},
            conditioner={"name": "ial_cms.attention", **attention_settings(config["av_module"])},
            separator={"name": "ial_cms.unet", **separator_settings(config["separate_net"])},
            front_end=front_end,
        )
    assert isinstance(model.conditioner, CrossModalAttention)
    return load(model, "", case, unused=tuple(f"conditioner.{name}" for name in unused(model.conditioner)))


class _Unclipped(StftFrontEnd):
    """Waveforms as they come: the published code clips none."""

    def synthesise(self, estimate: Estimate, spectrum: Spectrum, *, length: int | None = None) -> Tensor:
        assert spectrum.phase is not None
        return self.istft(self.linear_magnitude(estimate, spectrum) * spectrum.phase, length)


def _maps(case: Case, model: SeparationModel) -> Tensor:
    """Maps of the objects that are there (N, D, h, w)."""
    assert isinstance(model.encoder, DeepLabEncoder)
    maps: Tensor = model.encoder.network(tensor(case, "objects")[tensor(case, "valid_nums").bool()])
    return maps


def _judged(case: Case, magnitudes: Tensor, valid: Tensor) -> Outputs:
    """What the critic, in training, says of magnitudes (B, K, F', T'), with the given draws."""
    bank = tensor(case, "bank")
    with torch.device("meta"):
        objective = IndependencyObjective(independence=1.0, bank=len(bank))
    assert objective.critic is not None
    load(objective.critic, CRITIC, case).train()
    objective.bank.restore({"rows": bank, "pointer": 0})
    rows, partners = tensor(case, "bank_index").tolist(), tensor(case, "dep_draw").tolist()
    independent, dependent = objective.scores(magnitudes, valid=valid, bank_rows=rows, partners=partners)
    return {
        "independent_score": independent,
        "dependent_score": dependent,
        "ind_loss": independence_loss(independent, dependent),
    }


def _mean_scores(truth: Tensor, estimates: Tensor, mixture: Tensor) -> dict[str, float]:
    """SDR, SIR and SAR: means over sources, then over mixtures; one with a silent source has none."""
    scored = score_batch(truth, estimates, mixture, silence=1e-5, silent_estimate="zero")
    rows = [row for row in scored if not isinstance(row, str)]
    return {
        name: float(np.mean([np.mean(row[name]) for row in rows])) if rows else 0.0 for name in ("sdr", "sir", "sar")
    }
