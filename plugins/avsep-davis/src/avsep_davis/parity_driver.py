"""Parity adapters of the drivers: schedule, formulas, samplers, losses and the objective of the whole method.

Each adapter is a function of a case (configuration, official state dicts, inputs) and returns named outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from avsep_davis.convert import convert_official, official_view
from avsep_zoo.compose import compose
from avsep_zoo.contracts import Embedding, Spectrum
from avsep_zoo.errors import DataError
from avsep_zoo.front_end import StftFrontEnd
from avsep_zoo.generative.contract import Network
from avsep_zoo.generative.diffusion import Diffusion, Step
from avsep_zoo.generative.flow import Flow
from avsep_zoo.generative.objective import GenerativeObjective
from avsep_zoo.model import SeparationModel

if TYPE_CHECKING:
    from avsep_zoo.parity.case import Case

Outputs = dict[str, Any]
_VECTORS = {
    "betas": "beta",
    "alphas_cumprod": "signal",
    "alphas_cumprod_prev": "signal_before",
    "sqrt_alphas_cumprod": "root_signal",
    "sqrt_one_minus_alphas_cumprod": "root_noise",
    "log_one_minus_alphas_cumprod": "log_noise",
    "sqrt_recip_alphas_cumprod": "root_inverse_signal",
    "sqrt_recipm1_alphas_cumprod": "root_inverse_signal_less_one",
    "posterior_variance": "posterior_variance",
    "posterior_log_variance_clipped": "posterior_log_variance",
    "posterior_mean_coef1": "posterior_clean",
    "posterior_mean_coef2": "posterior_noisy",
}
_PREDICTS = {"pred_noise": "noise", "pred_x0": "clean", "pred_v": "velocity", "velocity": "velocity"}


def schedule(case: Case) -> Outputs:
    """The vectors of the schedule, and the steps DDIM visits; the driver weighs all steps of the noise alike."""
    _only(case, objective="pred_noise", p2_gamma=0, min_snr_loss_weight=False)
    vectors = _diffusion(case, schedule=case.config).schedule
    outputs: Outputs = {official: vectors.vectors[name] for official, name in _VECTORS.items()}
    weight = torch.ones(vectors.timesteps)
    outputs |= {"loss_weight": weight, "p2_loss_weight": weight}
    return outputs | {f"ddim_times_{n}": vectors.times(n)[::-1] for n in case.config["ddim_steps"]}


def diffusion_formulas(case: Case) -> Outputs:
    """What follows from noisy data and a prediction, and single ancestral steps."""
    x0, x_t, noise, predicted = (_tensor(case, name) for name in ("x0", "x_t", "noise", "eps_pred"))
    t = _tensor(case, "t")
    driver = _diffusion(case, clip=case.config["p_sample_clip_x0"])
    ddim = _diffusion(case, clip=case.config["prediction_clip_x0"])
    vectors = driver.schedule
    outputs: Outputs = {
        "q_sample": vectors.noisy(x0, noise, t),
        "predict_start_from_noise": vectors.clean_from_noise(x_t, predicted, t),
        "predict_noise_from_start": vectors.noise_from_clean(x_t, x0, t),
        "predict_v": vectors.velocity(x0, noise, t),
        "predict_start_from_v": vectors.clean_from_velocity(x_t, predicted, t),
        "q_posterior_mean": vectors.posterior_mean(x0, x_t, t),
        "q_posterior_variance": vectors.at("posterior_variance", t),
        "q_posterior_log_variance": vectors.at("posterior_log_variance", t),
        "model_predictions_x0_clipped": ddim.predictions(predicted, x_t, t, x0)[1],
    }
    for k in case.config["p_sample_steps"]:
        estimates = driver.predictions(predicted, x_t, torch.tensor([k]), x0)
        step = Step(x_t, *estimates, now=k, then=k - 1)
        outputs[f"p_sample_t{k}"] = driver.advance("ddpm", step, None, lambda: _tensor(case, "p_noise"))
        outputs[f"p_sample_t{k}_x0"] = step.clean
    return outputs


def ddim(case: Case) -> Outputs:
    """DDIM with given noise, and its states on the way."""
    config = case.config
    silence = config["threshold"] if config["silence_mask_sampling"] else None
    driver = _diffusion(case, clip=config["clip_x0"], silence=silence, eta=config["eta"])
    return sampled(composed_model(case, driver=driver), case)


@torch.no_grad()
def sampled(model: SeparationModel, case: Case) -> Outputs:
    """What a model that has its weights and driver already gives for a case of DDIM."""
    driver, network = model.driver, _network(model, case)
    assert driver is not None
    states: list[Tensor] = []

    def watched(noisy: Tensor, time: Tensor) -> Tensor:
        states.append(noisy)
        return network(noisy, time)

    def draw(number: int) -> Tensor:
        return _tensor(case, "step_noise")[number - 1] if number else _tensor(case, "start_noise")

    mixture = _tensor(case, "log_mag_mix")
    final = driver.sample(watched, mixture, draw, steps=case.config["sampling_timesteps"])
    return {"all_steps": torch.stack([*states, final], dim=1), "final": final}


@torch.no_grad()
def flow_sampler(case: Case) -> Outputs:
    """Euler's steps along the flow."""
    _only(case, t_eps=0.0)
    driver = _flow(case)
    network = _network(composed_model(case, driver=driver), case)
    mixture, steps = _tensor(case, "log_mag_mix"), case.config["nfe_steps"]
    return {"x1": driver.sample(network, mixture, lambda _: _tensor(case, "start_noise"), steps=steps, solver="euler")}


def ddpm_loss(case: Case) -> Outputs:
    """The loss of one source and its gradients."""
    _only(case, loss_type="l1", p2_gamma=0)
    return _loss(case, _diffusion(case), _tensor(case, "x0"), _tensor(case, "noise"), _tensor(case, "t"))


def flow_loss(case: Case) -> Outputs:
    """The loss of one source and its gradients, and the point of the path it is computed at."""
    _only(case, loss="l1", t_eps=0.0)
    driver, x1, noise = _flow(case), _tensor(case, "x1"), _tensor(case, "noise_x0")
    tau = _tensor(case, "tau").flatten()
    return _loss(case, driver, x1, noise, tau) | {"x_tau": driver.noisy(x1, noise, tau)}


@torch.no_grad()
def objective(case: Case) -> Outputs:
    """The objective of the whole method, from magnitudes and image features."""
    config, sources = case.config, range(case.config["num_mix"])
    _only(case, warp_base=21, mix_eps=1e-10)
    magnitudes = torch.cat([_tensor(case, f"mag_{n}") for n in sources], dim=1)  # (B, N, F, T)
    rows, columns = config["warped"]
    front = StftFrontEnd(
        n_fft=2 * (magnitudes.shape[2] - 1),
        warp_rows=rows,
        warp_frames=columns,
        align_corners=config["align_corners"],
        log_scale=config["scale_factor"],
    )
    diffusion = config["variant"] == "ddpm"
    model = composed_model(case, driver=_diffusion(case) if diffusion else _flow(case), front_end=front)
    encoder: Any = model.encoder
    tokens = torch.stack([encoder.temporal(_tensor(case, f"clip_features_{n}")) for n in sources], dim=1)
    loss = GenerativeObjective(
        scale=config["loss_factor"], weighting="audible" if diffusion and config["weighted_loss"] else "none"
    ).generative_loss(
        model,
        front.from_magnitude(_tensor(case, "mag_mix")),
        front.features(magnitudes),
        Embedding(vector=tokens.mean(dim=2), tokens=tokens),
        torch.cat([_tensor(case, f"noise_{n}") for n in sources], dim=1),
        torch.stack([_tensor(case, f"time_{n}").flatten() for n in sources], dim=1).flatten(),
    )
    return {"loss": loss[None]}


def composed_model(case: Case, *, driver: Diffusion | Flow, front_end: StftFrontEnd | None = None) -> SeparationModel:
    """The method with the official weights of the case; its image network is not among them."""
    unet, transformer = case.config["unet"], case.config.get("temporal_transformer") or {}
    names = {
        "heads": "nhead",
        "feedforward": "dim_feedforward",
        "encoder_layers": "num_encoder_layers",
        "decoder_layers": "num_decoder_layers",
    }
    model = compose(
        encoder={
            "name": "davis.resnet",
            "width": unet["visual_dim"] // 8,
            **{ours: transformer[theirs] for ours, theirs in names.items() if theirs in transformer},
        },
        conditioner="tiled_concat",
        separator={
            "name": "davis.unet",
            "width": unet["dim"],
            "multipliers": unet["dim_mults"],
            "rows": unet["N_freqs"][0],
            "groups": unet["resnet_block_groups"],
            "heads": unet["attn_heads"],
            "head_channels": unet["attn_dim_head"],
            "time_heads": unet["time_attn_heads"],
            "time_features": unet["time_attn_approx_qk_dim"],
        },
        driver=driver,
        front_end=front_end or StftFrontEnd(align_corners=True, log_scale=0.15),
    )
    state, _ = convert_official(case.state_dicts)
    slots = {"unet": "separator.", "frame": "encoder.temporal."}
    given = tuple(slots[part] for part in case.state_dicts)
    wanted = {name for name in model.state_dict() if name.startswith(given)}
    if state.keys() != wanted:
        raise DataError(f"The case has other weights than the model ({sorted(state.keys() ^ wanted)[0]}); repair it.")
    model.load_state_dict(state, strict=False)
    return model


def _loss(case: Case, driver: Diffusion | Flow, clean: Tensor, noise: Tensor, time: Tensor) -> Outputs:
    model = composed_model(case, driver=driver)
    visual = _tensor(case, "visual_feat").requires_grad_()
    embedding = Embedding(vector=visual.mean(dim=2)[:, None])
    loss = GenerativeObjective(scale=1.0).generative_loss(model, _spectrum(case), clean, embedding, noise, time)
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    official = case.state_dicts["unet"]
    return {
        "loss": loss.detach()[None],
        "grad:visual_feat": visual.grad,
        "grad_total_norm": torch.stack([g.double().norm() for g in gradients.values()]).norm()[None],
        **{
            f"grad:{key}": official_view(gradients, "unet", key, official[key].shape)
            for key in case.config["grad_keys"]
        },
    }


def _network(model: SeparationModel, case: Case) -> Network:
    separator: Any = model.separator
    vector = _tensor(case, "visual_feat").mean(dim=2)[:, None]
    bound: Network = separator.bind(_spectrum(case), model.conditioner.bind(Embedding(vector=vector)))
    return bound


def _spectrum(case: Case) -> Spectrum:
    """Features of a mixture are given; magnitudes, which nothing reads here, stand for themselves."""
    features = _tensor(case, "log_mag_mix")
    return Spectrum(features, features, features)


def _diffusion(
    case: Case,
    *,
    schedule: Mapping[str, Any] | None = None,
    clip: tuple[float, float] = (0.0, 1.0),
    silence: float | None = None,
    eta: float = 1.0,
) -> Diffusion:
    """The driver of a case; what is silenced is clamped to [0, 1] after that."""
    schedule = schedule or case.config["schedule"]
    if schedule["beta_schedule"] != "sigmoid" or clip[1] != 1:
        raise DataError(
            f"The case asks for {schedule['beta_schedule']} and data to {clip[1]}; sigmoid and 1 are known."
        )
    return Diffusion(
        predicts=_PREDICTS[case.config["objective"]],  # type: ignore[arg-type]
        eta=eta,
        lowest=clip[0] if silence is None else max(0.0, clip[0]),
        silence=silence,
        timesteps=schedule["timesteps"],
        start=schedule["start"],
        end=schedule["end"],
        tau=schedule["tau"],
    )


def _flow(case: Case) -> Flow:
    return Flow(floor=case.config["sigma_min"], time_scale=case.config["time_scale"])


def _only(case: Case, **known: Any) -> None:
    for name, value in known.items():
        if case.config.get(name, value) != value:
            raise DataError(f"The case has {name} {case.config[name]!r}; the published method knows {value!r} only.")


def _tensor(case: Case, name: str) -> Tensor:
    return torch.as_tensor(case.inputs[name])
