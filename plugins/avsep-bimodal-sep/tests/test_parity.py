"""Golden cases of the published networks and of the method, and what they are sensitive to.

The largest are left to ``avsep parity tests/parity``: the U-Net at its official width, and the method.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from avsep_zoo.errors import DataError
from avsep_zoo.parity.case import Case, load_case
from avsep_zoo.parity.compare import OutputError, compare
from avsep_zoo.registry import registry

CASES = Path(__file__).parents[3] / "tests" / "parity" / "bimodal_sep"
LIGHT = [
    "block_ca_tokens", "block_ca_vector", "block_cat", "block_sa", "block_sca", "istft_inverse", "mask_head",
    "resblock_1", "resblock_2", "stft_front_end",
]  # fmt: skip
LARGE = [
    "demo_sample1", "separate_mixture", "unet_ca", "unet_cat", "unet_identity", "unet_sa", "unet_sca_tokens",
    "unet_sca_vector",
]  # fmt: skip
Outputs = dict[str, Any]


def read(name: str) -> Case:
    case = load_case(CASES / f"{name}.json")
    assert case is not None
    return case


def outputs(case: Case) -> Outputs:
    adapter = registry().adapter("bimodal_sep", case.adapter)
    assert adapter is not None, case.adapter
    return dict(adapter(case))


def errors(case: Case) -> list[OutputError]:
    return compare(case, outputs(case))


@pytest.mark.parametrize("name", [*LIGHT, *LARGE])
def test_every_case_has_an_adapter(name: str) -> None:
    """Also those that are left out here."""
    assert registry().adapter("bimodal_sep", read(name).adapter)


@pytest.mark.parametrize("name", LIGHT)
def test_golden_case(name: str) -> None:
    found = errors(read(name))
    assert found
    assert all(error.passed for error in found), [error for error in found if not error.passed]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("block_sca", "sa_block.attn.qkv.bias"),
        ("block_sca", "ca_block.norm2.weight"),
        ("block_ca_tokens", "attn.q.weight"),
        ("block_ca_vector", "attn.kv.bias"),
        ("block_sa", "mlp.fc1.bias"),
        ("block_cat", "lin.bias"),
        ("resblock_1", "res_layers.0.1.running_var"),
        ("resblock_2", "res_layers.1.0.bias"),
        ("mask_head", "scale"),
        ("mask_head", "bias"),
    ],
)
def test_a_wrong_weight_fails(name: str, key: str) -> None:
    """Cases are sensitive: one entry that is a tenth too large is noticed."""
    case = read(name)
    (state,) = case.state_dicts.values()
    state[key].mul_(1.1)
    assert not all(error.passed for error in errors(case))


@pytest.mark.parametrize(("name", "given"), [("stft_front_end", "wav"), ("istft_inverse", "mask")])
def test_a_wrong_input_fails(name: str, given: str) -> None:
    """Of cases without weights."""
    case = read(name)
    case.inputs[given] = 1.01 * case.inputs[given]
    assert not all(error.passed for error in errors(case))


def test_the_norm_that_is_never_applied() -> None:
    case = read("block_sca")
    case.state_dicts["block"]["norm1.weight"].mul_(2.0)
    assert all(error.passed for error in errors(case))


def activated(x: Tensor, kind: str) -> Tensor:
    known = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "no": lambda y: y}
    return x.softmax(dim=1) if kind == "softmax" else known[kind](x)


@pytest.mark.parametrize(
    ("before", "sound", "after"),
    [
        ("sigmoid", "no", "sigmoid"), ("softmax", "no", "sigmoid"), ("relu", "tanh", "relu"),
        ("no", "softmax", "tanh"), ("tanh", "relu", "softmax"), ("sigmoid", "sigmoid", "no"),
    ],
)  # fmt: skip
def test_activations_of_the_mask_head(before: str, sound: str, after: str) -> None:
    chosen = {"cond_activation": before, "sound_activation": sound, "output_activation": after}
    case = read("mask_head")
    case.spec["config"] |= chosen
    got, given = outputs(case), {name: torch.as_tensor(case.inputs[name]) for name in ("cond_logits", "feat_sound")}
    head = case.state_dicts["net_synthesizer"]
    weights = activated(given["cond_logits"], before) * head["scale"]
    logit = torch.einsum("bc,bcft->bft", weights, activated(given["feat_sound"], sound))[:, None] + head["bias"]
    torch.testing.assert_close(got["logit"], logit, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got["mask"], activated(got["logit"], after))


@pytest.mark.parametrize("length", [1000, 4095, 40950])
def test_inverse_of_other_lengths(length: int) -> None:
    """It ends with the last frame, and then is shorter than asked for."""
    case = read("istft_inverse")
    case.spec["config"] |= {"stft_frame": 126, "stft_hop": 32, "length": length}
    wav = 0.1 * torch.randn(2, 4095)
    case.inputs.update(wav=wav, mask=torch.ones(2, 1, 128, 64))
    got = outputs(case)
    there = min(length, 127 * 32 + 63)
    assert got["wav_out"].shape == (2, there) and got["head"].shape == (2, min(700, there))
    seen = min(there, 4095)
    torch.testing.assert_close(got["roundtrip"][:, :seen], wav[:, :seen], rtol=0.0, atol=1e-5)


def test_silence_has_no_phase() -> None:
    """Cosine and sine are 0 there."""
    case = read("stft_front_end")
    case.spec["config"] |= {"stft_frame": 126, "stft_hop": 32, "weight_min": 0.2, "weight_max": 0.3}
    case.inputs["wav"] = torch.cat((torch.zeros(1, 2048), torch.randn(1, 2047)), dim=1)
    got = outputs(case)
    assert not got["cos"][:, :, :60].any() and not got["sin"][:, :, :60].any()
    assert got["loss_weight"].min() == pytest.approx(0.2) and got["loss_weight"].max() == pytest.approx(0.3)


def test_statistics_in_training_are_those_of_the_batch() -> None:
    case = read("resblock_1")
    case.spec["mode"] = "train"
    x, state = torch.as_tensor(case.inputs["x"]), dict(case.state_dicts["resblock"])
    y = F.conv2d(x, state["res_layers.0.0.weight"], state["res_layers.0.0.bias"], padding=1)
    y = F.batch_norm(y, None, None, state["res_layers.0.1.weight"], state["res_layers.0.1.bias"], training=True)
    torch.testing.assert_close(outputs(case)["y"], F.leaky_relu(x + y, 0.2), rtol=1e-4, atol=1e-5)


def test_a_block_without_layers() -> None:
    case = read("resblock_1")
    case.spec["config"]["num_res_layers"] = 0
    case.spec["weights"]["parts"]["resblock"] = []
    assert torch.equal(outputs(case)["y"], torch.as_tensor(case.inputs["x"]))


def test_weights_that_are_not_there() -> None:
    case = read("resblock_2")
    del case.state_dicts["resblock"]["res_layers.1.1.weight"]
    with pytest.raises(DataError, match=r"do not both have norms\.1\.weight"):
        outputs(case)
