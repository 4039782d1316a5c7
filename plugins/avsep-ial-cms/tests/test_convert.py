"""Official entries in this project's names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import avsep_zoo
from avsep_ial_cms.convert import CONVERTER, CRITIC, convert_official, target
from avsep_ial_cms.critic import PairCritic
from avsep_zoo import SeparationModel
from avsep_zoo.contracts import CueBatch
from avsep_zoo.errors import WeightsError
from avsep_zoo.parity.recipe import fill
from avsep_zoo.recipe import Recipe
from avsep_zoo.registry import registry

CASE = Path(__file__).parents[3] / "tests" / "parity" / "ial_cms" / "e2e_unsup.json"
LAYOUT = json.loads(CASE.read_text())["weights"]["parts"]["checkpoint"]
STFT = "net_wrapper.av_separator.separator_w_v.stftMelModule.stftLayer."
SLOPE = "net_wrapper.av_separator.separator_w_v.unet_block." + "submodule." * 5 + "avmodule.sigmoid.w"
N_FFT = 126  # of the tiny model
State = dict[str, Tensor]
Constants = Callable[[int], State]


@pytest.fixture
def model(tiny_model: Any) -> SeparationModel:
    """As deep as the official one."""
    return tiny_model(separator={"levels": 5, "width": 2})


@pytest.fixture
def state(model: SeparationModel, constants: Constants) -> State:
    """Every entry of an official file, by the recipe, with the sizes of a small model."""
    ours: State = {**model.state_dict(), **{CRITIC + k: v for k, v in PairCritic(width=1).state_dict().items()}}
    official: State = {}
    for key, full, dtype in LAYOUT:
        if (name := target(key)) is not None:
            shape = (*ours[name].shape, *(() if len(full) == ours[name].ndim else (1,)))
            official[key] = torch.tensor(3) if dtype == "int64" else torch.from_numpy(fill(key, shape))
    return official | constants(N_FFT)


def converted(state: State) -> tuple[State, list[str]]:
    return convert_official({"checkpoint": state}, n_fft=N_FFT)


def part(entries: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in entries.items() if name.startswith(prefix)}


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("variant", ["supervised", "unsupervised"])
def test_every_official_entry_has_one_place(variant: str, constants: Constants) -> None:
    """With its shape and type at the official size; only the five constants have none."""
    recipe = registry().method("ial_cms")
    assert isinstance(recipe, Recipe) and variant in recipe.variant_names
    with torch.device("meta"):
        wanted = dict(avsep_zoo.load(f"ial_cms.{variant}", weights=None).state_dict())
        wanted |= {CRITIC + name: value for name, value in PairCritic().state_dict().items()}
    official = {
        key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for key, shape, dtype in LAYOUT
        if not key.startswith(STFT)
    }
    entries, unused = convert_official({"checkpoint": official})
    assert not unused and len(LAYOUT) == 421
    assert {key for key, *_ in LAYOUT} - official.keys() == constants(N_FFT).keys()
    assert {k: (v.shape, v.dtype) for k, v in entries.items()} == {k: (v.shape, v.dtype) for k, v in wanted.items()}


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("visualNet.basenet.backbone.layer5.1.bn2.bias", "encoder.network.features.layer4.1.bn2.bias"),
        ("visualNet.basenet.aspp.aspp4.model.1.running_var", "encoder.network.branches.3.norm.running_var"),
        ("separator_w_v.unet_block.submodule.down.1.conv2.weight", "separator.down.0.1.conv2.weight"),
        ("separator_w_v.unet_block." + "submodule." * 4 + "up.3.bias", "separator.up.0.norm.bias"),
        ("separator_w_v.unet_block.submodule.up.1.weight", "separator.up.3.conv.weight"),
        ("separator_w_v.unet_block.submodule.style_mlp_b.0.bias", "conditioner.style_offset.decoder2.bias"),
        ("separator_w_v.bias", "separator.bias"),
    ],
)
def test_places(key: str, name: str) -> None:
    assert target(f"net_wrapper.av_separator.{key}") == target(f"av_separator.{key}") == name


def test_every_number_arrives(model: SeparationModel, state: State) -> None:
    """In its shape: 1x1 convolutions of the gate become linear layers; constants are unused."""
    entries, unused = converted(state)
    assert sorted(unused) == sorted(key.removeprefix("net_wrapper.") for key in state if key.startswith(STFT))
    model.load_state_dict({name: value for name, value in entries.items() if not name.startswith(CRITIC)})
    expected = {target(key): value for key, value in state.items()}
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name].reshape(value.shape)), name


def test_the_critic_keeps_its_names(state: State) -> None:
    """Its spectral norms, too; a model does not need them."""
    critic = PairCritic(width=1)
    critic.load_state_dict(part(converted(state)[0], CRITIC))
    place = "net_wrapper.critics.critics_model."
    torch.testing.assert_close(critic.convolutions[3].right, state[f"{place}g.pyramid3:256-512:conv.weight_v"])
    torch.testing.assert_close(critic.layers[0].left, state[f"{place}h.0.weight_u"])
    torch.testing.assert_close(critic.bias, state[f"{place}b"])


@pytest.mark.parametrize("prefix", ["", "module.", "net_wrapper.module.", "module.net_wrapper."])
def test_what_a_network_was_wrapped_in_comes_off(state: State, prefix: str) -> None:
    wrapped = {prefix + key.removeprefix("net_wrapper."): value for key, value in state.items()}
    assert same(converted(wrapped)[0], converted(state)[0])


def test_a_file_without_critic_and_constants(state: State) -> None:
    """As one that was saved of the separator alone."""
    alone = {key: value for key, value in state.items() if not key.startswith((STFT, "net_wrapper.critics."))}
    entries, unused = converted(alone)
    assert unused == [] and same(entries, {k: v for k, v in converted(state)[0].items() if not k.startswith(CRITIC)})


@pytest.mark.parametrize("name", ["kernel_sin_inv", "kernel_cos_inv", "wsin", "wcos", "window_mask"])
def test_constants_of_another_transform_are_refused(state: State, constants: Constants, name: str) -> None:
    """Of another size, of another sign, of another window, and no numbers."""
    right, match = state[STFT + name], rf"^The constant \S*{name} is not that of .* {N_FFT} samples; take .*\.$"
    for wrong in (constants(128)[STFT + name], -right, right + 0.01, torch.full_like(right, torch.nan)):
        with pytest.raises(WeightsError, match=match):
            converted(state | {STFT + name: wrong})


def test_an_entry_twice_is_refused(state: State) -> None:
    """Under the names it has inside and outside of what the network was wrapped in."""
    with pytest.raises(WeightsError, match=r"has av_\S*sigmoid\.w and net_wrapper\.\S*sigmoid\.w, which mean the same"):
        converted(state | {SLOPE.removeprefix("net_wrapper."): torch.tensor(1.0)})


@pytest.mark.parametrize("key", ["av_separator.separator_w_v.extra", "optimizer.lr", "critics.critics_model.b.bias"])
def test_an_unknown_entry_is_named(state: State, key: str) -> None:
    with pytest.raises(KeyError, match=key):
        converted(state | {f"net_wrapper.{key}": torch.zeros(1)})


def test_what_a_file_is_told_by(state: State) -> None:
    """The separator, however it was wrapped; the critic alone is none."""
    start = CONVERTER.parts["checkpoint"]
    for prefix in ("", "net_wrapper.", "net_wrapper.module."):
        assert re.match(start, prefix + "av_separator.separator_w_v.bias")
    assert not re.match(start, "net_wrapper.critics.critics_model.b")
    assert not re.match(start, "layer1.0.conv1.weight")


def test_a_converted_model_separates(model: SeparationModel, state: State) -> None:
    """Otherwise than before."""
    cues = CueBatch({"frames": torch.randn(1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1))})
    mixture = torch.randn(1, 2047)
    before = model({"mixture": mixture, "cues": model.encode(cues)}).values
    model.load_state_dict({name: value for name, value in converted(state)[0].items() if not name.startswith(CRITIC)})
    after = model({"mixture": mixture, "cues": model.encode(cues)}).values
    assert torch.isfinite(after).all() and after.shape == (1, 2, 32, 32)
    assert not torch.allclose(after, before)
