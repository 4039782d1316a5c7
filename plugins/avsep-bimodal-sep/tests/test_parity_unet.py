"""Parity adapters of the U-Net and of its condition layers with settings that no golden case covers.

The network is written down here once more, by its official entries.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from avsep_bimodal_sep.parity import conditioning_block, unet
from avsep_zoo.errors import AvsepError
from avsep_zoo.parity.case import Case


def case_of(part: str, entries: dict[str, list[int]], config: dict[str, Any], **inputs: Tensor) -> Case:
    rows = [[key, shape, "int64" if key.endswith("tracked") else "float32"] for key, shape in entries.items()]
    case = Case(Path(part), {"case": part, "config": config, "weights": {"parts": {part: rows}}})
    case.inputs.update(inputs)
    return case


def official_layer(layer: str, c: int, d: int) -> dict[str, list[int]]:
    """Names and shapes of a condition layer's entries."""
    norms = {f"norm{n}.{e}": [c] for n in (1, 2) for e in ("weight", "bias")}
    sizes = {"attn.proj": (c, c), "mlp.fc1": (2 * c, c), "mlp.fc2": (c, 2 * c)}
    sizes |= {"attn.qkv": (3 * c, c)} if layer == "sa" else {"attn.q": (c, c), "attn.kv": (2 * c, d)}
    if layer == "sca":
        parts = {f"{kind}_block.{k}": v for kind in ("sa", "ca") for k, v in official_layer(kind, c, d).items()}
        return {name: shape for name, shape in norms.items() if name.startswith("norm1")} | parts
    if layer == "cat":
        norms = {f"conv{n}.weight": [c, n * c, 3, 3] for n in (1, 2)} | {f"conv{n}.bias": [c] for n in (1, 2)}
        sizes = {"lin": (c, d)}
    weights = {f"{name}.weight": list(size) for name, size in sizes.items()}
    return norms | weights | {f"{name}.bias": [size[0]] for name, size in sizes.items()}


def official_norm(name: str, c: int) -> dict[str, list[int]]:
    counted: dict[str, list[int]] = {f"{name}.num_batches_tracked": []}
    return counted | {f"{name}.{e}": [c] for e in ("weight", "bias", "running_mean", "running_var")}


def official_unet(config: dict[str, Any]) -> dict[str, list[int]]:
    """Names and shapes of the U-Net's entries, written down level by level."""
    out = config["out_dim"]
    levels, n = max(5, config["num_downs"]), config["ngf"]
    inner = [n * min(2**level, 8) for level in range(levels)]
    entries = official_norm("bn0", 1)
    for level, c in enumerate(inner):
        at = "unet_block." + "submodule." * level
        over = inner[level - 1] if level else 1
        up = c if level == levels - 1 else 2 * c
        back = inner[level - 1] if level else out
        entries |= {f"{at}downconv.weight": [c, over, 4, 4], f"{at}upconv.weight": [back, up, 3, 3]}
        entries |= official_norm(f"{at}downnorm", c)
        entries |= official_norm(f"{at}upnorm", back) if level else {f"{at}upconv.bias": [out]}
        for way, channels in (("down", c), ("up", up)):
            for i in range(config["num_res_layers"]):
                layer = f"{at}{way}resblock.res_layers.{i}"
                entries |= {f"{layer}.0.weight": [channels, channels, 3, 3], f"{layer}.0.bias": [channels]}
                entries |= official_norm(f"{layer}.1", channels)
        if level > 3 and config["cond_layer"] != "identity":
            for j in range(config["num_cond_blocks"]):
                made = official_layer(config["cond_layer"], c, config["cond_dim"])
                entries |= {f"{at}ca_blocks.{j}.{name}": shape for name, shape in made.items()}
    return entries


def small(x: Tensor, cond: Tensor, **config: Any) -> Case:
    """A U-Net with an eighth of the channels."""
    sizes = {"in_dim": 1, "out_dim": 4, "cond_dim": 12, "num_downs": 5, "ngf": 8, "num_head": 4}
    config = {**sizes, "num_res_layers": 1, "num_cond_blocks": 1, "cond_layer": "sca", **config}
    return case_of("net_sound", official_unet(config), config, x=x, cond=cond)


def plainly(state: dict[str, Tensor], x: Tensor, condition: Tensor, config: dict[str, Any], at: str = "") -> Tensor:
    """The U-Net as it is described, by its official entries; one level that holds the next one."""

    def norm(name: str, y: Tensor) -> Tensor:
        mean, var, weight, bias = (state[f"{at}{name}.{e}"] for e in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(y, mean, var, weight, bias)

    def block(way: str, y: Tensor) -> Tensor:
        z = y
        for i in range(config["num_res_layers"]):
            name = f"{way}resblock.res_layers.{i}"
            z = F.leaky_relu(z, 0.2) if i else z
            z = norm(f"{name}.1", F.conv2d(z, state[f"{at}{name}.0.weight"], state[f"{at}{name}.0.bias"], padding=1))
        return F.leaky_relu(y + z, 0.2) if config["num_res_layers"] else y

    if not at:
        x, at = norm("bn0", x), "unet_block."
    h = F.leaky_relu(norm("downnorm", F.conv2d(x, state[f"{at}downconv.weight"], stride=2, padding=1)), 0.2)
    h = block("down", h)
    depth = at.count("submodule.")
    for j in range(config["num_cond_blocks"] if depth > 3 and config["cond_layer"] != "identity" else 0):
        entries = {k.removeprefix(f"{at}ca_blocks.{j}."): v for k, v in state.items() if f"{at}ca_blocks.{j}." in k}
        h = conditioned(entries, h, condition, config["cond_layer"], config["num_head"])
    if f"{at}submodule.downconv.weight" in state:
        h = plainly(state, h, condition, config, f"{at}submodule.")
    h = block("up", F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=True))
    h = F.conv2d(h, state[f"{at}upconv.weight"], state.get(f"{at}upconv.bias"), padding=1)
    return torch.cat((x, norm("upnorm", h).relu()), dim=1) if depth else h


def conditioned(entries: dict[str, Tensor], x: Tensor, condition: Tensor, layer: str, heads: int) -> Tensor:
    """One condition layer as it is described."""
    if layer == "sca":
        for kind in ("sa", "ca"):
            inner = {k.removeprefix(f"{kind}_block."): v for k, v in entries.items() if k.startswith(kind)}
            x = conditioned(inner, x, condition, kind, heads)
        return x

    def linear(name: str, y: Tensor) -> Tensor:
        return F.linear(y, entries[f"{name}.weight"], entries[f"{name}.bias"])

    def normed(name: str, y: Tensor) -> Tensor:
        return F.layer_norm(y, y.shape[-1:], entries[f"{name}.weight"], entries[f"{name}.bias"])

    if layer == "cat":
        h = F.conv2d(x, entries["conv1.weight"], entries["conv1.bias"], padding=1)
        told = linear("lin", condition)[:, :, None, None].expand_as(h)
        return x + F.conv2d(torch.cat((h, told), 1), entries["conv2.weight"], entries["conv2.bias"], padding=1)
    points = x.flatten(2).transpose(1, 2)
    y = normed("norm1", points)
    if layer == "sa":
        query, key, value = linear("attn.qkv", y).chunk(3, dim=-1)
    else:
        tokens = condition[:, None] if condition.ndim == 2 else condition
        query, (key, value) = linear("attn.q", y), linear("attn.kv", tokens).chunk(2, dim=-1)
    query, key, value = (z.unflatten(-1, (heads, -1)).transpose(1, 2) for z in (query, key, value))
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)
    points = points + linear("attn.proj", (scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
    points = points + linear("mlp.fc2", F.gelu(linear("mlp.fc1", normed("norm2", points))))
    return points.transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize(
    ("condition", "settings"),
    [
        ((2, 7, 12), {"num_res_layers": 2, "num_downs": 7, "num_cond_blocks": 2}),
        ((2, 12), {"num_res_layers": 0, "num_downs": 6}),
        ((2, 12), {"cond_layer": "ca", "num_downs": 4, "num_cond_blocks": 2, "num_head": 1}),
        ((2, 7, 12), {"cond_layer": "sa", "num_head": 8}),
        ((2, 12), {"cond_layer": "cat", "num_cond_blocks": 2, "num_downs": 6}),
        ((2, 7, 12), {"cond_layer": "identity", "num_cond_blocks": 2, "ngf": 4}),
        ((2, 12), {"num_cond_blocks": 0}),
    ],
)
def test_unet_of_other_settings(condition: tuple[int, ...], settings: dict[str, Any]) -> None:
    """Against the network as it is described; four levels mean five."""
    size = 2 ** max(5, settings.get("num_downs", 5))
    case = small(torch.randn(2, 1, size, 2 * size).abs(), torch.randn(condition), **settings)
    wanted = plainly(case.state_dicts["net_sound"], case.inputs["x"], case.inputs["cond"], case.config)
    got = unet(case)["feat_sound"]
    assert got.shape == (2, 4, size, 2 * size)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def block(layer: str, *condition: int, **settings: Any) -> Case:
    config = {"cond_layer": layer, "dim": 8, "cond_dim": 12, "num_heads": 2, **settings}
    made = {} if layer in ("identity", "sca_cat", "film") else official_layer(layer, 8, 12)
    return case_of("block", made, config, x=torch.randn(2, 8, 3, 5), cond=torch.randn(2, *condition))


@pytest.mark.parametrize(("layer", "condition"), [("sa", (4, 12)), ("sca", (12,)), ("cat", (12,))])
def test_condition_layers_of_other_sizes(layer: str, condition: tuple[int, ...]) -> None:
    case = block(layer, *condition)
    wanted = conditioned(case.state_dicts["block"], case.inputs["x"], case.inputs["cond"], layer, 2)
    torch.testing.assert_close(conditioning_block(case)["y"], wanted, rtol=1e-4, atol=1e-5)


def test_no_condition_layer() -> None:
    case = block("identity", 12)
    assert torch.equal(conditioning_block(case)["y"], case.inputs["x"])


@pytest.mark.parametrize(
    ("layer", "condition", "settings", "why"),
    [
        ("sca_cat", (12,), {}, "layer 'sca_cat'"),
        ("film", (12,), {}, "layer 'film'"),
        ("cat", (4, 12), {}, "cat takes one vector"),
        ("ca", (4, 11), {}, "cond_dim 11"),
        ("sca", (12,), {"dim": 16}, r"norm1\.weight"),
    ],
)
def test_layers_that_are_not_defined(
    layer: str, condition: tuple[int, ...], settings: dict[str, Any], why: str
) -> None:
    refused(conditioning_block, block(layer, *condition, **settings), why)


@pytest.mark.parametrize(("columns", "settings", "why"), [(32, {"in_dim": 2}, "in_dim 2"), (48, {}, "multiples of 32")])
def test_networks_that_are_not_defined(columns: int, settings: dict[str, Any], why: str) -> None:
    refused(unet, small(torch.randn(1, 1, 32, columns), torch.randn(1, 12), **settings), why)


def refused(adapter: Any, case: Case, why: str) -> None:
    """In one sentence."""
    with pytest.raises(AvsepError, match=why) as error:
        adapter(case)
    assert re.fullmatch(r"[^\n]+\.", str(error.value)) and ". " not in str(error.value)
