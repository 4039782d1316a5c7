"""Golden cases of the published code.

The largest networks are left to ``avsep parity tests/parity``, as each of them repeats at another size what smaller
cases show: the U-Net on 256 frames (``unet_music``; ``unet_sharp`` has 64), whole methods of two sources
(``end_to_end_music_ddim``, ``train_wrapper_ddpm``) and CLIP with its text tower (``frame_encoder``; ``clip_visual`` and
``temporal_transformer`` are its parts). ``end_to_end_music_flow`` runs in ``test_convert_files.py``. The others take
about 30 s of one core, each at most 8 s.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from avsep_zoo.parity.case import Case, load_case
from avsep_zoo.parity.compare import OutputError, compare
from avsep_zoo.registry import registry

CASES = Path(__file__).parents[3] / "tests" / "parity" / "davis"
NAMES = sorted(path.stem for path in CASES.glob("*.json"))
LEFT_OUT = {
    "end_to_end_music_ddim": 15, "end_to_end_music_flow": 7, "frame_encoder": 4, "train_wrapper_ddpm": 7,
    "unet_music": 3,
}  # fmt: skip
"""With their seconds."""


def read(name: str) -> Case:
    case = load_case(CASES / f"{name}.json")
    assert case is not None
    return case


def errors(case: Case) -> list[OutputError]:
    adapter = registry().adapter("davis", case.adapter)
    assert adapter is not None, case.adapter
    return compare(case, adapter(case))


def test_every_case_has_an_adapter() -> None:
    """Also those that are left out here."""
    assert len(NAMES) == 32
    assert all(registry().adapter("davis", read(name).adapter) for name in NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LEFT_OUT])
def test_golden_case(name: str) -> None:
    found = errors(read(name))
    assert found
    assert all(error.passed for error in found), [error for error in found if not error.passed]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("time_embedding", "net_unet.time_mlp.3.bias"),
        ("resnet_block", "net_unet.ups.1.0.mlp.1.bias"),
        ("resample", "net_unet.downs.2.3.1.weight"),
        ("linear_attention", "net_unet.downs.1.1.fn.fn.to_out.1.g"),
        ("full_attention", "net_unet.mid_attn.fn.fn.to_qkv.weight"),
        ("time_attention_sharp", "net_unet.downs.3.2.fn.attn_conv_K_2.0.weight"),
        ("time_attention_sharp", "net_unet.downs.3.2.fn.attn_conv_V_3.1.weight"),
        ("time_attention_sharp", "net_unet.downs.0.2.fn.attn_concat_proj.2.beta"),
    ],
)
def test_a_wrong_weight_fails(name: str, key: str) -> None:
    """Cases are sensitive: one entry that is a tenth too large is noticed."""
    case = read(name)
    case.state_dicts["unet"][key].mul_(1.1)
    assert not all(error.passed for error in errors(case))


def test_heads_in_another_order_fail() -> None:
    """The queries of two heads are swapped, and their keys are not."""
    case = read("time_attention_sharp")
    state = case.state_dicts["unet"]
    stem = "net_unet.downs.3.2.fn.attn_conv_"
    for rest in ("0.weight", "0.bias", "1.weight", "2.gamma", "2.beta"):
        first, second = f"{stem}Q_0.{rest}", f"{stem}Q_1.{rest}"
        state[first], state[second] = state[second], state[first]
    failed = {error.name for error in errors(case) if not error.passed}
    assert failed == {"downs3", "downs3_branch"}


def test_taps_say_where_a_network_goes_wrong() -> None:
    """What runs before the wrong weight passes, what runs after it does not."""
    case = read("unet_small_taps")
    case.state_dicts["unet"]["net_unet.mid_attn.fn.fn.to_out.bias"].add_(0.1)
    passed = {error.name: error.passed for error in errors(case)}
    assert passed["mid_block1"] and passed["down4_out"] and passed["time_mlp"]
    assert not any(passed[name] for name in ("mid_attn", "mid_block2", "up0_out", "out"))
