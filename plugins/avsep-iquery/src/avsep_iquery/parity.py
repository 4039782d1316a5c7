"""Parity adapters: golden cases of the official implementation, run through this plugin's own modules.

Each adapter is a function of a case (configuration, official state dicts, inputs) and returns named outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from avsep_iquery.conditioner import QueryConditioner
from avsep_iquery.convert import convert_official, rename
from avsep_iquery.encoder import IQueryEncoder
from avsep_iquery.objective import IQueryObjective
from avsep_zoo.blocks.mask_loss import binary_mask, loudness_weight, mask_loss, ratio_mask
from avsep_zoo.blocks.unet import MaskUNet
from avsep_zoo.compose import compose
from avsep_zoo.contracts import Bound, CueBatch, Embedding, Estimate, Site, Spectrum
from avsep_zoo.front_end import StftFrontEnd, warp_grid
from avsep_zoo.model import SeparationModel

if TYPE_CHECKING:
    from avsep_zoo.parity.case import Case

Outputs = dict[str, Any]
_ARCHITECTURES: dict[str, Mapping[str, Any]] = {
    "resnet18dilated": {"stride": 16, "frozen": True},
    "resnet18fc": {"stride": 32, "frozen": False},
}
_POOLING = {"maxpool": "max", "avgpool": "average"}


@torch.no_grad()
def front_end(case: Case) -> Outputs:
    """Waveforms to network input, loss weight and targets."""
    front, objective = configured_front_end(case.config), configured_objective(case.config)
    mixture, sources = objective.mix(_sources(case))
    spectrum, magnitudes = front.analyse(mixture), front.stft(sources).abs()
    targets = objective.targets(front, spectrum, magnitudes)
    reflect = configured_front_end(case.config, pad_mode="reflect")
    phase = spectrum.phase
    assert phase is not None
    weight = objective.weight(spectrum)
    return {
        "mag_mix": spectrum.magnitude,
        "cos_phase_mix": phase.real,
        "sin_phase_mix": phase.imag,
        "warped_mag_mix": spectrum.warped,
        "net_input": spectrum.features,
        "weight": torch.ones_like(spectrum.warped) if weight is None else weight,
        "mag_mix_reflect_pad": reflect.stft(mixture).abs()[:, None],
        **{f"mag_{n}": magnitudes[:, n : n + 1] for n in range(magnitudes.shape[1])},
        **{f"warped_mag_{n}": front.warp(magnitudes[:, n : n + 1]) for n in range(magnitudes.shape[1])},
        **{f"gt_mask_{n}": targets[:, n : n + 1] for n in range(targets.shape[1])},
    }


@torch.no_grad()
def warp(case: Case) -> Outputs:
    """Log-frequency warp, there and back."""
    rows, columns = case.config["HO_warp"], case.config["WO"]
    front = StftFrontEnd(n_fft=2 * (case.config["HO_unwarp"] - 1), warp_rows=rows)
    grid, inverse = warp_grid(rows, columns), warp_grid(case.config["HO_unwarp"], columns, inverse=True)
    return {
        "warped": front.warp(tensor(case.inputs["linear"])),
        "unwarped_mask": front.unwarp(tensor(case.inputs["mask"])),
        "grid_warp_x_row0": grid[0, :, 0],
        "grid_warp_y_col0": grid[:, 1, 1],
        "grid_unwarp_y_col0": inverse[:, 1, 1],
    }


@torch.no_grad()
def inverse(case: Case) -> Outputs:
    """Mask to waveform."""
    front = configured_front_end(case.config)
    spectrum = front.analyse(configured_objective(case.config).mix(_sources(case))[0])
    estimate = Estimate(tensor(case.inputs["pred_mask"]))
    assert spectrum.phase is not None
    return {
        "mask_linear": front.mask(estimate, spectrum),
        "mixture_waveform": front.istft(spectrum.magnitude * spectrum.phase).clamp(-1, 1)[0, 0],
        "estimate_waveform": front.synthesise(estimate, spectrum)[0, 0],
    }


@torch.no_grad()
def unet(case: Case) -> Outputs:
    """The separator alone: mask features and latent."""
    width, features = case.config["ngf"], case.config["fc_dim"]
    separator = MaskUNet(width=width, levels=7, mask_features=features, widths={"head": 1})
    _load(separator, "separator", case)
    tap = _Tap()
    separator.eval().logits(tensor(case.inputs["log_mag"]), tap)
    return {"mask_features": tap.seen["head"], "latent": tap.seen["latent"]}


@torch.no_grad()
def frames_net(case: Case) -> Outputs:
    """The frame encoder alone."""
    encoder = IQueryEncoder(
        classes=["any"],
        object_features=case.config["fc_dim"],
        pooling=_POOLING[case.config["pool_type"]],  # type: ignore[arg-type]
        **_ARCHITECTURES[case.config["arch"]],
    )
    _load(encoder, "encoder", case)
    encoder.eval()
    frames = tensor(case.inputs["frames"])
    pooled = encoder.look(frames)
    return {
        "pooled": pooled,
        "sigmoid": torch.sigmoid(pooled),
        "feature_map": encoder.feature_map(frames),
        "single_frame_pooled": encoder.look(frames[:, :, :1]),
    }


@torch.no_grad()
def predictor(case: Case) -> Outputs:
    """The conditioner alone, with and without motion: one source per mixture."""
    conditioner = _conditioner(case)
    latent, features = tensor(case.inputs["latent"]), tensor(case.inputs["mask_features"])
    vector, classes = tensor(case.inputs["obj_feature"]), tensor(case.inputs["classes"])
    embedding = Embedding(vector=vector[:, None], index=classes[:, None])
    if case.config["motion"]:
        cues = _motion_batch([(case.inputs["motion"], case.inputs["motion_mask"])])
        embedding.tokens = rearrange(cues["motion"], "b n d s -> b n s d")
        embedding.tokens_bias = cues["motion_mask"]
    states = conditioner.read(latent, embedding)
    bound = conditioner.bind(embedding)
    bound("latent", latent)
    logits = bound("head", features)
    return {
        "mask_logits": logits,
        "mask_prob": torch.sigmoid(logits),
        "mask_embed_all": conditioner.mask_embed(states.layers),
        "decoder_states": states.layers,
        "encoder_memory": states.memory,
    }


@torch.no_grad()
def losses(case: Case) -> Outputs:
    """Targets, weights and losses without a warp."""
    logits = rearrange(tensor(case.inputs["logits"]), "n b 1 h w -> b n h w")
    magnitudes = rearrange(tensor(case.inputs["mags"]), "n b 1 h w -> b n h w")
    mixture = tensor(case.inputs["mag_mix"]) + 1e-10
    prediction, weight = torch.sigmoid(logits), loudness_weight(mixture)
    ratio, binary = ratio_mask(magnitudes, mixture), binary_mask(magnitudes, mixture)
    unclamped = magnitudes.clamp(0, 1)
    outputs = {
        "weight": weight,
        "gt_ratio_0": ratio[:, :1],
        "gt_binary_0": binary[:, :1],
        "loss_l1_ratio_weighted": mask_loss(prediction, ratio, weight, "l1"),
        "loss_l1_ratio_unweighted": mask_loss(prediction, ratio, None, "l1"),
        "loss_l2_ratio_weighted": mask_loss(prediction, ratio, weight, "l2"),
        "loss_bce_binary_weighted": mask_loss(prediction, binary, weight, "bce"),
        "criterion_l1_list_no_weight": F.l1_loss(prediction, unclamped),
        "criterion_bn": (1 / (1e-6 + (prediction[:, 0] - 0.5).abs().mean(dim=(1, 2)))).mean(),
    }
    return _scalars(outputs)


def method(case: Case) -> Outputs:
    """The whole method from linear magnitudes and cues."""
    return separated(_model(case), case)


@torch.no_grad()
def separated(model: SeparationModel, case: Case) -> Outputs:
    """What a model makes of the magnitudes and cues of a case of the adapter ``method``."""
    objective = configured_objective(case.config)
    spectrum, magnitudes, cues = _magnitude_batch(model, case)
    tap = _Tap(model.conditioner.bind(embedding := model.encoder(cues)))
    estimate = model.separator(spectrum, tap)
    linear = model.front_end.mask(estimate, spectrum)
    targets = objective.targets(model.front_end, spectrum, magnitudes)
    weight = objective.weight(spectrum)
    assert embedding.vector is not None
    outputs = {
        "weight": torch.ones_like(spectrum.warped) if weight is None else weight,
        "loss": objective.mask_loss(model.front_end, spectrum, magnitudes, estimate),
        "net_input": spectrum.features,
        "latent": tap.seen["latent"],
        "mask_features": tap.seen["head"],
    }
    for n in range(estimate.values.shape[1]):
        outputs[f"pred_mask_{n}"] = estimate.values[:, n : n + 1]
        outputs[f"pred_mask_linear_{n}"] = linear[:, n : n + 1]
        outputs[f"estimate_mag_{n}"] = linear[:, n : n + 1] * spectrum.magnitude
        outputs[f"gt_mask_{n}"] = targets[:, n : n + 1]
        outputs[f"frame_feature_{n}"] = embedding.vector[:, n]
    return _scalars(outputs)


@torch.no_grad()
def waveform(case: Case) -> Outputs:
    """The whole method, waveforms in and out."""
    model, objective = _model(case), configured_objective(case.config)
    mixture, sources = objective.mix(_sources(case))
    cues = _cues(case)
    spectrum = model.front_end.analyse(mixture)
    estimate = model.estimate(spectrum, cues)
    magnitudes = model.front_end.stft(sources).abs()  # type: ignore[operator]
    estimates = model.front_end.synthesise(estimate, spectrum)
    outputs = {"loss": objective.mask_loss(model.front_end, spectrum, magnitudes, estimate)}
    for n in range(estimates.shape[1]):
        outputs[f"pred_mask_{n}"] = estimate.values[:, n : n + 1]
        outputs[f"waveform_{n}"] = estimates[0, n]
    return _scalars(outputs)


def train_step(case: Case) -> Outputs:
    """One official training iteration: gradients, running statistics, losses before and after."""
    model, objective = _model(case).train(), configured_objective(case.config)
    spectrum, magnitudes, cues = _magnitude_batch(model, case)

    def loss() -> Tensor:
        return objective.mask_loss(model.front_end, spectrum, magnitudes, model.estimate(spectrum, cues))

    optimisers = objective.optimisers(model)["model"]
    for optimiser in optimisers:
        optimiser.zero_grad()
    first = loss()
    first.backward()
    for optimiser in optimisers:
        optimiser.step()
    outputs: Outputs = {"loss_step1": first.detach()}
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    for part, entries in case.state_dicts.items():
        for key, value in entries.items():
            name = rename(part, key, motion=case.config["motion"])
            if name in parameters and (gradient := parameters[name].grad) is not None:
                outputs[f"grad.{part}.{key}"] = gradient.reshape(value.shape)
            elif name in buffers:
                outputs[f"after.{part}.{key}"] = buffers[name].clone()
    with torch.no_grad():
        outputs["loss_after_step_train_mode"] = loss()
        model.eval()
        outputs["loss_after_step_eval_mode"] = loss()
    return _scalars(outputs)


class _Tap(Bound):
    """Notes the features that arrive at each site; acts like ``inner``, or not at all on one source."""

    def __init__(self, inner: Bound | None = None) -> None:
        self.sources = inner.sources if inner else 1
        self.inner, self.seen = inner, dict[str, Tensor]()

    def __call__(self, site: str, features: Tensor) -> Tensor:
        self.seen[site] = features
        if self.inner is not None:
            return self.inner(site, features)
        return features[:, :1] if site == "head" else features


def tensor(value: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(value))


def _scalars(outputs: Outputs) -> Outputs:
    return {k: v[None] if isinstance(v, Tensor) and v.ndim == 0 else v for k, v in outputs.items()}


def configured_front_end(config: Mapping[str, Any], pad_mode: str | None = None) -> StftFrontEnd:
    return StftFrontEnd(
        rate=config["audRate"],
        length=config.get("audLen", 65535),
        n_fft=config["stft_frame"],
        hop_length=config["stft_hop"],
        warp_rows=config["warp_rows"] if config.get("log_freq", 1) else 0,
        pad_mode=pad_mode or config.get("stft_pad_mode", "constant"),  # type: ignore[arg-type]
    )


def configured_objective(config: Mapping[str, Any]) -> IQueryObjective:
    return IQueryObjective(
        mixture=config["mixture"],
        loss=config.get("loss", "l1"),
        binary=bool(config.get("binary_mask", 0)),
        weighting="log" if config.get("weighted_loss", 1) else "none",
    )


def _sources(case: Case) -> Tensor:
    """(1, N, L)."""
    return torch.stack([tensor(case.inputs[f"audio_{n}"]).float() for n in range(case.config["num_mix"])])[None]


def _load(module: torch.nn.Module, prefix: str, case: Case) -> None:
    state, _ = convert_official(case.state_dicts)
    module.load_state_dict({k.removeprefix(f"{prefix}."): v for k, v in state.items() if k.startswith(f"{prefix}.")})


def _conditioner(case: Case) -> QueryConditioner:
    config = case.config
    conditioner = QueryConditioner(
        views={"vector": 32, "index": config["num_queries"], **({"tokens": 1024} if config["motion"] else {})},
        sites={"latent": Site("latent", config["hidden_dim"]), "head": Site("head", config["mask_dim"])},
        queries=config["num_queries"],
        heads=config["nheads"],
        feedforward=config["dim_feedforward"],
        encoder_layers=config["enc_layers"],
        decoder_layers=config["dec_layers"],
        dropout=config["dropout"],
    )
    _load(conditioner, "conditioner", case)
    return conditioner.eval()


def _model(case: Case) -> SeparationModel:
    config = case.config
    encoder = {
        "name": "iquery.cues",
        "classes": [str(n) for n in range(config["MASK_FORMER_NUM_OBJECT_QUERIES"] - 1)],
        "object_features": config["num_channels"],
        "pooling": _POOLING[config["img_pool"]],
        "frames": config["num_frames"],
        "motion": 1024 if config["motion"] else 0,
        "motion_padding": "added",
        **_ARCHITECTURES[config["arch_frame"]],
    }
    conditioner = {
        "name": "iquery.queries",
        "queries": config["MASK_FORMER_NUM_OBJECT_QUERIES"],
        "heads": config["MASK_FORMER_NHEADS"],
        "feedforward": config["MASK_FORMER_DIM_FEEDFORWARD"],
        "encoder_layers": config["MASK_FORMER_ENC_LAYERS"],
        "decoder_layers": config["MASK_FORMER_DEC_LAYERS"],
        "dropout": config["MASK_FORMER_DROPOUT"],
    }
    separator = {"name": "mask_unet", "width": 64, "levels": 7, "mask_features": config["num_channels"]}
    front_end = configured_front_end(config)
    model = compose(encoder=encoder, conditioner=conditioner, separator=separator, front_end=front_end)
    state, _ = convert_official(case.state_dicts)
    model.load_state_dict(state)
    return model


def _magnitude_batch(model: SeparationModel, case: Case) -> tuple[Spectrum, Tensor, CueBatch]:
    magnitudes = torch.cat([tensor(case.inputs[f"mags_{n}"]) for n in range(case.config["num_mix"])], dim=1)
    assert isinstance(model.front_end, StftFrontEnd)
    return model.front_end.from_magnitude(tensor(case.inputs["mag_mix"])), magnitudes, _cues(case)


def _cues(case: Case) -> CueBatch:
    sources = range(case.config["num_mix"])
    values = {
        "frames": torch.stack([tensor(case.inputs[f"frames_{n}"]) for n in sources], dim=1),
        "label": torch.stack([tensor(case.inputs[f"classes_{n}"]) for n in sources], dim=1),
    }
    if case.config["motion"]:
        values |= _motion_batch([(case.inputs[f"motions_{n}"], case.inputs[f"motion_masks_{n}"]) for n in sources])
    return CueBatch(values)


def _motion_batch(slots: list[tuple[Any, Any]]) -> dict[str, Tensor]:
    """Motion (B, N, D, S) and mask (B, N, S) of source slots padded to different lengths."""
    longest = max(np.shape(motion)[-1] for motion, _ in slots)
    motions, masks = [], []
    for motion, mask in slots:
        extra = longest - np.shape(motion)[-1]
        motions.append(F.pad(tensor(motion), (0, extra)))
        masks.append(F.pad(tensor(mask).float(), (0, extra), value=torch.inf))
    return {"motion": torch.stack(motions, dim=1), "motion_mask": torch.stack(masks, dim=1)}
