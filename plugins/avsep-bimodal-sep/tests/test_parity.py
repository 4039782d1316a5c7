"""Golden cases of the published networks, front end and losses, and what they are sensitive to.

The largest are left to ``avsep parity tests/parity``: the U-Net at its official width, recordings, and the training
step, whose networks take 6 GB. The whole method is in ``test_convert_files.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from avsep_zoo.errors import DataError
from avsep_zoo.parity.case import Case
from avsep_zoo.parity.compare import OutputError, compare
from avsep_zoo.registry import registry

LIGHT = [
    "block_ca_tokens", "block_ca_vector", "block_cat", "block_sa", "block_sca", "istft_inverse", "losses", "mask_head",
    "resblock_1", "resblock_2", "stft_front_end",
]  # fmt: skip
LARGE = [
    "demo_sample1", "separate_mixture", "train_objective", "unet_ca", "unet_cat", "unet_identity", "unet_sa",
    "unet_sca_tokens", "unet_sca_vector",
]  # fmt: skip
Golden = Callable[[str], Case]


def outputs(case: Case) -> Mapping[str, Any]:
    adapter = registry().adapter("bimodal_sep", case.adapter)
    assert adapter is not None, case.adapter
    return adapter(case)


def off(case: Case) -> list[OutputError]:
    """Outputs that are not within their tolerances."""
    errors = compare(case, outputs(case))
    assert errors
    return [error for error in errors if not error.passed]


@pytest.mark.parametrize("name", LARGE)
def test_every_large_case_has_an_adapter(golden: Golden, name: str) -> None:
    assert registry().adapter("bimodal_sep", golden(name).adapter)


@pytest.mark.parametrize("name", LIGHT)
def test_golden_case(golden: Golden, name: str) -> None:
    assert not off(golden(name))


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
def test_a_wrong_weight_fails(golden: Golden, name: str, key: str) -> None:
    """Cases are sensitive: one entry that is a tenth too large is noticed."""
    case = golden(name)
    (state,) = case.state_dicts.values()
    state[key].mul_(1.1)
    assert off(case)


@pytest.mark.parametrize(("name", "given"), [("stft_front_end", "wav"), ("istft_inverse", "mask")])
def test_a_wrong_input_fails(golden: Golden, name: str, given: str) -> None:
    """Of cases without weights."""
    case = golden(name)
    case.inputs[given] = 1.01 * case.inputs[given]
    assert off(case)


def test_the_norm_that_is_never_applied(golden: Golden) -> None:
    case = golden("block_sca")
    case.state_dicts["block"]["norm1.weight"].mul_(2.0)
    assert not off(case)


def test_statistics_in_training_are_those_of_the_batch(golden: Golden) -> None:
    case = golden("resblock_1")
    case.spec["mode"] = "train"
    x, state = torch.as_tensor(case.inputs["x"]), dict(case.state_dicts["resblock"])
    y = F.conv2d(x, state["res_layers.0.0.weight"], state["res_layers.0.0.bias"], padding=1)
    y = F.batch_norm(y, None, None, state["res_layers.0.1.weight"], state["res_layers.0.1.bias"], training=True)
    torch.testing.assert_close(outputs(case)["y"], F.leaky_relu(x + y, 0.2), rtol=1e-4, atol=1e-5)


def test_a_block_without_layers(golden: Golden) -> None:
    case = golden("resblock_1")
    case.spec["config"]["num_res_layers"] = 0
    case.spec["weights"]["parts"]["resblock"] = []
    assert torch.equal(outputs(case)["y"], torch.as_tensor(case.inputs["x"]))


def test_weights_that_are_not_there(golden: Golden) -> None:
    case = golden("resblock_2")
    del case.state_dicts["resblock"]["res_layers.1.1.weight"]
    with pytest.raises(DataError, match=r"do not both have norms\.1\.weight"):
        outputs(case)
