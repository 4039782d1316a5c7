"""Golden cases of the published code, and configurations of it that no golden case covers.

The largest ones are left to ``avsep parity tests/parity``: the whole method, with gradients or without, and the losses
of the critic, at their official size. Here the method runs with a 32nd of the channels; the others take about 15 s of
one core.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from avsep_ial_cms.parity import organise
from avsep_zoo.errors import DataError
from avsep_zoo.parity.case import Case, load_case
from avsep_zoo.parity.compare import OutputError, compare
from avsep_zoo.registry import registry

CASES = Path(__file__).parents[3] / "tests" / "parity" / "ial_cms"
NAMES = sorted(path.stem for path in CASES.glob("*.json"))
LEFT_OUT = {"e2e_sup", "e2e_unsup", "gan_losses", "sliding_window", "train_step_sup", "train_step_unsup"}
SAMPLES = 4095  # of a small case: 64 frames
SIGNAL = {"n_fft": 126, "hop_length": 64, "sr": 8000, "mel_dim": 64}
Outputs = dict[str, Any]


def read(name: str) -> Case:
    case = load_case(CASES / f"{name}.json")
    assert case is not None
    return case


def outputs(case: Case) -> Outputs:
    adapter = registry().adapter("ial_cms", case.adapter)
    assert adapter is not None, case.adapter
    return dict(adapter(case))


def errors(case: Case) -> list[OutputError]:
    return compare(case, outputs(case))


def test_every_case_has_an_adapter() -> None:
    """Also those that are left out here."""
    assert len(NAMES) == 17
    assert all(registry().adapter("ial_cms", read(name).adapter) for name in NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LEFT_OUT])
def test_golden_case(name: str) -> None:
    found = errors(read(name))
    assert found
    assert all(error.passed for error in found), [error for error in found if not error.passed]


@pytest.mark.parametrize(
    ("name", "part", "key"),
    [
        ("av_module", "av_module", "sigmoid.w"),
        ("av_module", "av_module", "weight_mlp.2.running_var"),
        ("av_module", "av_module", "a_common_mlp.3.bias"),
        ("visual_net", "visual_net", "basenet.aspp.aspp3.model.0.weight"),
        ("visual_net", "visual_net", "common_space_mlp.2.running_mean"),
        ("separator_2mix", "separator", "unet_block.submodule.submodule.style_mlp_b.0.bias"),
    ],
)
def test_a_wrong_weight_fails(name: str, part: str, key: str) -> None:
    """Cases are sensitive: one entry that is a tenth too large is noticed."""
    case = read(name)
    case.state_dicts[part][key].mul_(1.1)
    assert not all(error.passed for error in errors(case))


def size(channels: int) -> int:
    """Of a layer in a small case: a 32nd, and kernels as they are."""
    return {48: 3, 560: 19}.get(channels, channels // 32 if channels > 16 else channels)


def small(
    name: str, inputs: dict[str, Any], *, without: tuple[str, ...] = (), mode: str = "eval", **config: dict[str, Any]
) -> Case:
    """A golden case with fewer channels, other inputs, some entries less, and other settings in groups of them."""
    spec = copy.deepcopy(read(name).spec)
    for part, entries in spec["weights"]["parts"].items():
        kept = [entry for entry in entries if not any(word in entry[0] for word in without)]
        spec["weights"]["parts"][part] = [[key, [size(n) for n in shape], dtype] for key, shape, dtype in kept]
    spec |= {"mode": mode, "inputs": {}}
    for group, values in config.items():
        settings = spec["config"]
        for step in group.split("__") if group != "top" else ():
            settings = settings[step]
        settings |= values
    case = Case(CASES / f"{name}.json", spec)
    case.inputs.update(inputs)
    return case


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def attention(valid: Any, **settings: Any) -> Case:
    """The conditioner on 3 x 5 points and maps of 4 x 6."""
    there = torch.tensor(valid)
    maps = torch.nn.functional.normalize(normal(int(there.sum()), 16, 4, 6), dim=1)
    return small(
        "av_module", {"fa_mix": normal(len(there), 16, 3, 5), "fv_common_valid": maps, "valid_nums": there}, **settings
    )


def method(valid: Any, *, name: str = "e2e_unsup", **settings: Any) -> Case:
    """The whole method on pictures of 64 pixels and 4095 samples; B M O objects of which some may not be there."""
    there = torch.tensor(valid)
    batch, mixtures, objects = there.shape
    solos = 0.1 * normal(batch, mixtures, objects, SAMPLES)
    draws = {"bank_index": torch.arange(int(there.sum())) % 5, "dep_draw": torch.zeros(int(there.sum())).long()}
    inputs = {
        "objects": normal(batch, mixtures, objects, 3, 64, 64),
        "mixtures": solos.mean(dim=2),
        "mixed_mixture": solos.mean(dim=2).sum(dim=1),
        "valid_nums": there.float(),
        "bank": normal(5, 64, 64).abs(),
        **draws,
    }
    case = small(name, inputs, av_separator__separate_net=SIGNAL, **settings)
    case.state_dicts["checkpoint"]["net_wrapper.av_separator.separator_w_v.bias"].fill_(0.3)
    return case


@pytest.mark.parametrize("without", [(), ("sigmoid",)])
def test_attention_without_places(without: tuple[str, ...]) -> None:
    """Whether its parameters are there or not: the largest values of the map, and no places."""
    case = attention([[1, 1]], top={"spatial_attention": False}, without=without)
    got = outputs(case)
    assert torch.equal(got["sp_att_fv_com"][0], case.inputs["fv_common_valid"].amax(dim=(2, 3)))
    assert not got["cos_map"].any() and got["cos_map"].shape == got["sound_localization"].shape == (1, 2, 4, 6)


@pytest.mark.parametrize("without", [(), ("weight_mlp",)])
def test_attention_without_gates(without: tuple[str, ...]) -> None:
    got = outputs(attention([[1, 0, 1]], top={"channel_attention": "no"}, without=without))
    assert torch.equal(got["visual_related_srcs_att_fa"], got["visual_related_srcs_fa"])
    assert got["y"].shape == (2, 32, 3, 5) and not got["channel_attention_weight"].any()


def test_attention_in_training_counts_valid_objects_only() -> None:
    """Places that are not valid are zeros, and change no statistics."""
    gaps, full = attention([[1, 0, 1], [0, 1, 1]], mode="train"), attention([[1, 1], [1, 1]], mode="train")
    with_gaps, without = outputs(gaps), outputs(full)
    for name, values in without.items():
        if values.shape[:2] == (2, 2):
            there = gaps.inputs["valid_nums"].bool()
            torch.testing.assert_close(with_gaps[name][there], values.flatten(0, 1))
            assert name == "contrast_fa_mix" or not with_gaps[name][~there].any()
        else:
            torch.testing.assert_close(with_gaps[name], values)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_separator_of_objects_that_are_not_there(mode: str) -> None:
    """The others come out the same; their own scores are what scale and bias make of nothing."""
    maps = torch.nn.functional.normalize(normal(4, 16, 4, 4), dim=1)
    found = []
    for valid in ([[1, 0, 1], [0, 1, 1]], [[1, 1], [1, 1]]):
        inputs = {"mixture": 0.1 * normal(2, SAMPLES), "fv_valid": maps, "valid_nums": torch.tensor(valid)}
        found.append(outputs(small("separator_2mix", inputs, mode=mode, separate_net=SIGNAL)))
    gaps, full = found
    there = torch.tensor([[1, 0, 1], [0, 1, 1]]).bool()
    for name in ("est_score_map", "est_mel_mask", "est_mel_mag", "est_components", "cos_map"):
        torch.testing.assert_close(gaps[name][there], full[name].flatten(0, 1), rtol=1e-4, atol=1e-4)
    for name in ("block1", "up4", "up0", "av_context_feature"):
        torch.testing.assert_close(gaps[name], full[name], rtol=1e-4, atol=1e-4)
    assert gaps["block4"].shape == (4, 24, 4, 4)
    torch.testing.assert_close(gaps["est_score_map"][~there], torch.full((2, 64, 64), -0.9))


def test_masks_that_start_from_nothing() -> None:
    """Without the constant that is added to the masks."""
    inputs = {"mixture": 0.1 * normal(1, SAMPLES), "fv_valid": normal(1, 16, 4, 4), "valid_nums": torch.ones(1, 1)}
    plain, lower = (
        outputs(small("separator_2mix", inputs, separate_net={**SIGNAL, "IRM_bias": bias}))["est_score_map"]
        for bias in (True, False)
    )
    torch.testing.assert_close(lower, plain - 0.5)


def test_dilations() -> None:
    """That of the first branch does not count, as its convolution is one point."""
    images = {"imgs": normal(1, 3, 96, 64)}
    usual, first, others = (
        outputs(small("visual_net", images, deeplab__aspp={"dilations": dilations}))
        for dilations in ([1, 3, 6, 9], [5, 3, 6, 9], [1, 1, 2, 3])
    )
    assert usual["fv_common"].shape == (1, 16, 12, 8)
    assert torch.equal(first["aspp"], usual["aspp"]) and torch.equal(others["backbone_conv5"], usual["backbone_conv5"])
    assert not torch.allclose(others["aspp"], usual["aspp"])


def test_layers_have_the_sizes_of_their_entries() -> None:
    """The pyramid's last layer has 5 channels here, and the others what they had."""
    case = small("visual_net", {"imgs": normal(2, 3, 64, 64)})
    state = case.state_dicts["visual_net"]
    state["basenet.aspp.conv1.weight"] = state["basenet.aspp.conv1.weight"][:5]
    for name in ("weight", "bias", "running_mean", "running_var"):
        state[f"basenet.aspp.bn1.{name}"] = state[f"basenet.aspp.bn1.{name}"][:5]
    state["basenet.decoder.0.weight"] = state["basenet.decoder.0.weight"][:, :8]
    got = outputs(case)
    assert got["aspp"].shape == (2, 5, 4, 4) and got["fv_common"].shape == (2, 16, 8, 8)


def test_method_of_objects_that_are_not_there() -> None:
    """Objects are separated as with all of them; losses and scores are of those that are there."""
    valid = [[[1, 1], [0, 1]], [[1, 0], [1, 1]]]
    case, whole = method(valid), method(np.ones_like(valid))
    got, full = outputs(case), outputs(whole)
    there = torch.tensor(valid).bool()
    for name in ("fv", "est_mel_mask", "est_components", "visual_related_srcs_fa_com", "sound_localization"):
        torch.testing.assert_close(got[name][there], full[name][there], rtol=1e-4, atol=1e-5)
    assert not got["fv"][~there].any()
    torch.testing.assert_close(got["est_mel_mask"][~there], torch.full((2, 64, 64), 0.8))
    mixed = case.inputs["mixed_mixture"]
    torch.testing.assert_close(got["est_components"][0, 1, 0], 0.8 * mixed[0], rtol=1e-3, atol=1e-5)
    summed = (got["est_components"] * there[..., None]).sum(dim=2)
    centred, truth = (x - x.mean(dim=-1, keepdim=True) for x in (summed, case.inputs["mixtures"]))
    part = (centred * truth).sum(-1, keepdim=True) / truth.square().sum(-1, keepdim=True) * truth
    power, rest = part.square().sum(-1), (centred - part).square().sum(-1)
    ratio = 10 * torch.log10(power / (rest + 1e-3 * power))
    torch.testing.assert_close(got["sep_loss"], -ratio.mean(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(got["separator_loss"], got["sep_loss"] + 0.05 * got["avc_loss"])
    assert got["independent_score"].shape == got["dependent_score"].shape == (6, 1)
    torch.testing.assert_close(got["ind_loss"], got["independent_score"].mean() - got["dependent_score"].mean())


def test_no_limit_of_the_ratio() -> None:
    """Is at least as good as any, and there is no critic to ask."""
    valid = np.ones((2, 2, 1), dtype=int).tolist()
    capped = outputs(method(valid, name="e2e_sup"))
    free = outputs(method(valid, name="e2e_sup", av_separator__loss__sep_loss_opt={"max_sisnr": "inf"}))
    assert free["sep_loss"] < capped["sep_loss"] and torch.equal(free["avc_loss"], capped["avc_loss"])
    assert "ind_loss" not in free


def test_one_window_is_the_method() -> None:
    """A recording of the window's length, an object that is not there, and one silent recording that is not scored."""
    valid = [[[1, 0], [1, 1]], [[1, 1], [1, 1]]]
    case = method(valid, name="sliding_window", top={"samples_per_window": SAMPLES, "hop_size": 100})
    got, parts = outputs(case), outputs(method(valid))["est_components"]
    torch.testing.assert_close(got["separated"], parts.sum(dim=2), rtol=1e-3, atol=1e-4)
    case.inputs["mixtures"][1, 0] = 0.0
    first = method(valid[:1], name="sliding_window", top={"samples_per_window": SAMPLES, "hop_size": 100})
    first.inputs.update({k: case.inputs[k][:1] for k in ("objects", "mixtures", "mixed_mixture")})
    scored, alone = outputs(case), outputs(first)
    for name in ("sdr", "sir", "sar", "sdri", "siri"):
        assert scored[name] == pytest.approx(alone[name], abs=1e-3) and scored[name] != got[name]


def test_windows_overlap() -> None:
    """Three windows: what is heard once, twice and three times is the mean of what they say."""
    case = method([[[1], [1]]], name="sliding_window", top={"samples_per_window": 2047, "hop_size": 1024})
    got = outputs(case)["separated"][0]
    total, count = torch.zeros_like(got), torch.zeros(SAMPLES)
    for start in (0, 1024, SAMPLES - 2047):
        window = method([[[1], [1]]], name="e2e_sup")
        window.inputs["mixed_mixture"] = case.inputs["mixed_mixture"][:, start : start + 2047]
        window.inputs["mixtures"] = case.inputs["mixtures"][..., start : start + 2047]
        total[:, start : start + 2047] += outputs(window)["est_components"][0, :, 0]
        count[start : start + 2047] += 1
    torch.testing.assert_close(got, total / count, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("case", "setting"),
    [
        (lambda: attention([[1]], top={"sigmoid": "constant"}), "sigmoid"),
        (lambda: attention([[1]], a_common_mlp={"hidden_layer": 2}), "hidden_layer"),
        (lambda: small("visual_net", {}, deeplab__shallow={"layer": 2}), "layer"),
        (lambda: small("visual_net", {}, top={"dropout": 0.5}), "dropout"),
        (lambda: method([[[1]]], av_separator={"normalization": "instancenorm"}), "normalization"),
        (lambda: method([[[1]]], top={"volumn_normalize": True}), "volumn_normalize"),
        (lambda: method([[[1]]], av_separator__loss__avc_contrastive={"contrasted_feature": "audio"}), "contrasted"),
        (lambda: attention([[1]], without=("a_common_mlp.0.bias",)), "common.0.bias"),
    ],
)
def test_what_the_method_cannot_have(case: Any, setting: str) -> None:
    """Settings, and weights without an entry."""
    with pytest.raises(DataError, match=setting):
        outputs(case())


def test_organise() -> None:
    rows = torch.tensor([[1.0], [2.0]])
    valid = torch.tensor([[False, True], [True, False]])
    assert organise(rows, valid).tolist() == [[[0.0], [1.0]], [[2.0], [0.0]]]
