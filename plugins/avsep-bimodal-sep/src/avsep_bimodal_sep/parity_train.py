"""Parity adapters of training: golden cases of the official losses, run through this plugin's objective."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from avsep_bimodal_sep.convert import convert_official
from avsep_bimodal_sep.objective import BiModalObjective, summed
from avsep_bimodal_sep.official_keys import CLAP, recognise, target
from avsep_bimodal_sep.parity import attention_settings, only, separator_settings, tensor
from avsep_bimodal_sep.parity_clap import load_clap, sound_settings, text_encoder
from avsep_bimodal_sep.parity_method import stft
from avsep_bimodal_sep.tokeniser import PADDING
from avsep_zoo.blocks.mask_loss import loudness_weight, mask_loss
from avsep_zoo.compose import compose
from avsep_zoo.contracts import CueBatch
from avsep_zoo.errors import DataError

if TYPE_CHECKING:
    from avsep_zoo.model import SeparationModel
    from avsep_zoo.parity.case import Case

__all__ = ["losses", "objective"]

Outputs = dict[str, Any]


@torch.no_grad()
def losses(case: Case) -> Outputs:
    """The losses of given masks and vectors, and official alternatives to them."""
    config, mixture = case.config, tensor(case, "mag_mix")
    recordings, masks = tensor(case, "mag_src")[:, :, 0], tensor(case, "mask_mix")[:, :, 0]
    phrases, shares = tensor(case, "mask_src").flatten(1, 2), tensor(case, "source_weights").flatten(1)
    heard, texts = tensor(case, "audio_embed"), tensor(case, "text_embed")
    settings = {"reconstruction": config["recons_weight"], "scale": config["logit_scale_a"]}
    published = BiModalObjective(**settings)
    estimates = mixture * masks
    apart = {
        "unsup": published.distances(estimates, recordings, mixture),
        "cns": published.distances(mixture * summed(phrases, shares, recordings.shape[1]), recordings, recordings),
        "cnt": published.doubts(heard, texts),
    }
    official = {"separation": "unsup", "consistency": "cns", "contrastive": "cnt"}
    total = published.total({name: apart[theirs].sum() for name, theirs in official.items()})
    outputs = _numbered(apart) | {"total": total, "l1_list": apart["unsup"].mean()}
    for distance in ("l1", "l2"):
        for weighting, title in (("log", "weighted"), ("none", "unweighted")):
            one = BiModalObjective(loss=distance, weighting=weighting, **settings)  # type: ignore[arg-type]
            outputs[f"{distance}_{title}"] = one.distances(estimates[:, :1], recordings[:, :1], mixture)[0]
    outputs |= _unused(case, config["logit_scale_a"] * heard[0] @ texts[0].T)
    return {name: value.reshape(1) for name, value in outputs.items()}


def objective(case: Case) -> Outputs:
    """One forward and backward pass: losses, what the judge hears and reads, statistics, and gradients."""
    config = case.config
    only(config, weight_min=1e-3, weight_max=10.0)
    only(config, cond_activation="sigmoid", sound_activation="no", output_activation="sigmoid")
    judge = {"rate": config["audRate"], "tower": sound_settings(config["clap"]["audio"])}
    scale = float(config["logit_scale_a"])
    trained = BiModalObjective(reconstruction=config["recons_weight"], scale=scale, judge=judge)
    model, official = _model(case), case.official_state_dict("model")
    model.load_state_dict(convert_official(official)[0])
    assert trained.judge is not None
    load_clap(trained.judge.clap, official, CLAP, "audio")
    model.train(case.mode == "train")
    trained.train(case.mode == "train")

    recordings, spectrum = tensor(case, "audios"), model.front_end.analyse(tensor(case, "mix"))
    cues = _tokens(case, "source_input_ids", "source_attention_mask")
    batch = {"captions": _tokens(case, "input_ids", "attention_mask"), "cues": cues}
    told = trained.separate(model, spectrum, batch)
    shares = tensor(case, "source_weights").flatten(1)
    values = trained.reconstructions(model, spectrum, told, recordings, shares)
    heard, texts = trained.heard(model, spectrum, told, recordings)
    doubts = trained.doubts(heard, texts)
    values["contrastive"] = doubts.sum()
    total = trained.total(values)
    total.backward()
    norm: Any = model.separator.input_norm
    outputs = {
        "total": total.reshape(1),
        "cnt_loss": values["contrastive"].reshape(1),
        "cns_recons_loss": values["consistency"].reshape(1),
        "unsup_recons_loss": values["separation"].reshape(1),
        "bn0_running_mean": norm.running_mean,
        "bn0_running_var": norm.running_var,
        **_numbered({"cnt": doubts[:, None], "audio_embed": heard, "text_embed": texts}),
    }
    return outputs | _gradients(official, model)


def _unused(case: Case, logits: Tensor) -> Outputs:
    """What the official code defines and no official run has."""
    mixture, masks = tensor(case, "mag_mix"), tensor(case, "mask_mix")[:, 0]
    prediction, truth, weight = tensor(case, "bce_pred"), tensor(case, "bce_target"), loudness_weight(mixture)
    undecided = (masks - 0.5).abs().flatten(1).mean(dim=1)
    return {
        "bce_weighted": 2 * mask_loss(prediction, truth, weight, "bce"),
        "bce_unweighted": 2 * mask_loss(prediction, truth, None, "bce"),
        "binary": (1 / (1e-6 + undecided)).mean(),
        "classification_0": F.cross_entropy(logits, tensor(case, "labels")),
    }


def _numbered(values: Mapping[str, Tensor]) -> Outputs:
    """Entries by the number of their recording."""
    return {f"{name}_{n}": value for name, several in values.items() for n, value in enumerate(several)}


def _model(case: Case) -> SeparationModel:
    config = case.config
    return compose(
        encoder=text_encoder(config["clap"]["text"]),
        conditioner={"name": "bimodal_sep.attention", **attention_settings(config, config["num_head"])},
        separator={"name": "bimodal_sep.unet", **separator_settings(config, config["num_channels"])},
        front_end=stft(config, config["audLen"]),
        name="bimodal_sep.case",
    )


def _tokens(case: Case, name: str, mask: str) -> CueBatch:
    """Texts (B, N[, K], length) as cues of (B, N) or (B, N K).

    Raises:
        DataError: something else than padding is masked.
    """
    ids = tensor(case, name)
    if not torch.equal(tensor(case, mask).bool(), ids != PADDING):
        raise DataError("The case masks something else than padding; correct the case.")
    return CueBatch({"token_ids": rearrange(ids, "b ... length -> b (...) length")})


def _gradients(official: Iterable[str], model: SeparationModel) -> Outputs:
    """Gradients by official entry, and the norm of all."""
    settings, parameters = recognise(official), dict(model.named_parameters())
    found = {key: parameters[name].grad for key in official if (name := target(key, settings)) in parameters}
    given = {key: gradient for key, gradient in found.items() if gradient is not None}
    norm = torch.stack([gradient.norm() for gradient in given.values()]).norm()
    return {f"grad_{key}": gradient for key, gradient in given.items()} | {"grad_global_norm": norm}
