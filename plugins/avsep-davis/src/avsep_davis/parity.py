"""Parity adapters of the U-Net: golden cases of the official implementation, run through this plugin's own modules.

Each adapter is a function of a case (configuration, official state dicts, inputs) and returns named outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_davis.attention import FullAttention, LinearAttention, TimeAttention
from avsep_davis.convert import convert_official
from avsep_davis.convert_unet import module_name
from avsep_davis.separator import DavisUNet, Down, ResnetBlock, Up
from avsep_zoo.blocks.tiled_concat import TiledConcat
from avsep_zoo.blocks.time_embedding import TimeEmbedding, sinusoids
from avsep_zoo.contracts import Embedding, Spectrum

if TYPE_CHECKING:
    from avsep_zoo.parity.case import Case

Outputs = dict[str, Any]
Module = TypeVar("Module", bound=nn.Module)


@torch.no_grad()
def time_embedding(case: Case) -> Outputs:
    """Sinusoids of steps and flow times, and the network behind them."""
    width = case.config["dim"]
    embedding = _loaded(TimeEmbedding(width, case.config["time_dim"]), "net_unet.time_mlp", case)
    outputs: Outputs = {}
    for kind in ("int", "float"):
        time = torch.as_tensor(case.inputs[f"t_{kind}"])
        outputs |= {f"sin_{kind}": sinusoids(time, width), f"mlp_{kind}": embedding(time)}
    return outputs


@torch.no_grad()
def resnet_block(case: Case) -> Outputs:
    """Residual blocks, with and without time."""
    clock = _clock(case)
    outputs: Outputs = {}
    for name, spec in case.config["blocks"].items():
        width = case.config["time_dim"] if spec["time"] else None
        block = ResnetBlock(spec["dim_in"], spec["dim_out"], groups=case.config["groups"], time_width=width)
        outputs[name] = _loaded(block, spec["key"], case)(_x(case, name), clock if spec["time"] else None)
    return outputs


@torch.no_grad()
def resample(case: Case) -> Outputs:
    """Ways between resolutions."""
    kinds: dict[str, Callable[[int, int], nn.Module]] = {
        "space_to_depth_conv1": Down,
        "nearest_conv3": Up,
        "conv3": lambda incoming, outgoing: nn.Conv2d(incoming, outgoing, 3, padding=1),
    }
    return {
        name: _loaded(kinds[spec["kind"]](spec["dim_in"], spec["dim_out"]), spec["key"], case)(_x(case, name))
        for name, spec in case.config["blocks"].items()
    }


@torch.no_grad()
def attention(case: Case) -> Outputs:
    """Linear and full attention over points."""
    config, clock = case.config, _clock(case)
    sizes = {"heads": config["heads"], "head_channels": config["dim_head"]}
    outputs: Outputs = {}
    for name, spec in config["blocks"].items():
        x = _x(case, name)
        if spec["kind"] == "full":
            full = _loaded(FullAttention(spec["dim"], **sizes), spec["key"], case)
            outputs |= {name: full(x), f"{name}_branch": full.branch(x)}
        else:
            linear = _loaded(LinearAttention(spec["dim"], config["time_dim"], **sizes), spec["key"], case)
            outputs |= {name: linear(x, clock), f"{name}_branch": linear.branch(x, clock)}
    return outputs


@torch.no_grad()
def time_attention(case: Case) -> Outputs:
    """Attention over frames, at several levels."""
    config, clock = case.config, _clock(case)
    sizes = {"heads": config["n_head"], "features": config["approx_qk_dim"]}
    outputs: Outputs = {}
    for name, spec in config["blocks"].items():
        module = TimeAttention(spec["dim"], spec["n_freqs"], config["time_dim"], **sizes)
        module, x = _loaded(module, spec["key"], case), _x(case, name)
        outputs |= {name: module(x, clock), f"{name}_branch": module.branch(x, clock)}
    return outputs


@torch.no_grad()
def unet(case: Case) -> Outputs:
    """The denoiser as it runs in inference, item by item; what leaves its modules is noted as it runs in training."""
    separator, conditioner = configured_unet(case)
    separator.load_state_dict(_entries(case, "separator."))
    separator.eval()
    noisy, mixture, time = (torch.as_tensor(case.inputs[name]) for name in ("x_t", "log_mag_mix", "t"))
    vector = torch.as_tensor(case.inputs["visual_feat"]).mean(dim=2)[:, None]
    outputs: Outputs = {}
    taps = {name: module_name(key) for name, key in case.config["taps"].items() if name != "out"}
    for name, module in taps.items():
        # The features of a level are what arrives at its resampling.
        incoming = module.endswith(".frames")
        _note(separator.get_submodule(module.replace(".frames", ".resample")), name, outputs, incoming=incoming)
    if taps:
        separator.predict(mixture, noisy, time, conditioner.bind(Embedding(vector=vector)))
    outs = []
    for item in range(len(noisy)):
        one = slice(item, item + 1)
        network = separator.bind(Spectrum(*[mixture[one]] * 3), conditioner.bind(Embedding(vector=vector[one])))
        outs.append(network(noisy[one], time[one]))
    return outputs | {"out": torch.cat(outs)}


def configured_unet(case: Case) -> tuple[DavisUNet, TiledConcat]:
    """The network of the case, without its weights, and the conditioner at its bottleneck."""
    config = case.config
    bottom = config["dim"] * config["dim_mults"][-1]
    separator = DavisUNet(
        width=config["dim"],
        multipliers=config["dim_mults"],
        rows=config["N_freqs"][0],
        groups=config["resnet_block_groups"],
        heads=config["attn_heads"],
        head_channels=config["attn_dim_head"],
        time_heads=config["time_attn_heads"],
        time_features=config["time_attn_approx_qk_dim"],
        widths={"bottleneck": config["visual_dim"] + bottom},
    )
    return separator, TiledConcat(views={"vector": config["visual_dim"]}, sites=separator.sites)


def _note(module: nn.Module, name: str, seen: Outputs, *, incoming: bool) -> None:
    """Keep what arrives at ``module`` or leaves it the next time it runs, as ``name``."""

    def keep(_: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        seen.setdefault(name, given[0] if incoming else out)

    module.register_forward_hook(keep)


def _entries(case: Case, prefix: str) -> dict[str, Tensor]:
    state, _ = convert_official(case.state_dicts)
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _loaded(module: Module, key: str, case: Case) -> Module:
    """Load the official module ``key`` of the case."""
    module.load_state_dict(_entries(case, f"separator.{module_name(key)}."))
    return module.eval()


def _x(case: Case, name: str) -> Tensor:
    return torch.as_tensor(case.inputs[f"x_{name}"])


def _clock(case: Case) -> Tensor:
    """The time as blocks get it: activated."""
    return F.silu(torch.as_tensor(case.inputs["time_emb"]))
