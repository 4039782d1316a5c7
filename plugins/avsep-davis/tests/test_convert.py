"""Official checkpoints in this project's names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import avsep_zoo
from avsep_davis.convert import convert_official, load_official, official_entries, official_view, target
from avsep_zoo.contracts import Embedding, Spectrum
from avsep_zoo.errors import WeightsError
from avsep_zoo.parity.case import Case, load_case
from avsep_zoo.parity.compare import compare

CASES = Path(__file__).parents[3] / "tests" / "parity" / "davis"
State = dict[str, Tensor]
HEAD = "net_unet.downs.1.2.fn.attn_conv_{}.0.weight"


def layout(case: str, part: str) -> State:
    """A state dict in the official layout, on the meta device."""
    entries = json.loads((CASES / f"{case}.json").read_text())["weights"]["parts"][part]
    return {k: torch.empty(s, dtype=getattr(torch, d), device="meta") for k, s, d in entries}


@pytest.fixture(scope="module")
def case() -> Case:
    """Whole official U-Net, with inputs and outputs."""
    case = load_case(CASES / "unet_sharp.json")
    assert case is not None
    return case


@pytest.fixture(scope="module")
def official(case: Case) -> State:
    return case.state_dicts["unet"]


@pytest.fixture
def music() -> Any:
    """The published network, untrained and without storage."""
    with torch.device("meta"):
        return avsep_zoo.load("davis.music", weights=None)


def averaged(state: State) -> State:
    """What a moving average of ``state`` could be."""
    return {key: value + 1 for key, value in state.items()}


def test_official_layout_fills_the_model(music: Any) -> None:
    """Every entry is filled once, with its shape; the rest is what the forward pass never uses."""
    parts = {"unet": layout("unet_music", "unet"), "frame": layout("frame_encoder", "frame")}
    state, unused = convert_official(parts)
    expected = music.state_dict()
    assert {name: value.shape for name, value in state.items()} == {n: v.shape for n, v in expected.items()}
    idle = [key.removeprefix("unet.") for key in unused if key.startswith("unet.")]
    assert len(idle) == 10
    assert sum(parts["unet"][key].numel() for key in idle) == 871_936
    assert not any(key.startswith(("frame.model.visual", "frame.temporal_transformer")) for key in unused)


def test_there_and_back(official: State) -> None:
    """Every used official entry can be read back out of the converted ones, value by value."""
    state, unused = convert_official({"unet": official})
    for key, value in official.items():
        if target("unet", key) is None:
            assert f"unet.{key}" in unused
            with pytest.raises(KeyError, match=key):
                official_view(state, "unet", key, value.shape)
        else:
            assert torch.equal(official_view(state, "unet", key, value.shape), value), key


def test_heads_are_rows(official: State) -> None:
    """Queries of all heads, keys of all heads, values of all heads."""
    state, _ = convert_official({"unet": official})
    rows = torch.cat([official[HEAD.format(f"{kind}_{head}")] for kind in "QKV" for head in range(4)])
    assert torch.equal(state["separator.downs.1.frames.project.weight"], rows)


@torch.no_grad()
def test_a_file_is_loaded_and_gives_the_golden_numbers(case: Case, official: State, tmp_path: Path) -> None:
    """From an official-layout file on disk to the published recipe to the official output."""
    torch.save(official, tmp_path / "unet_best.pth")
    model = avsep_zoo.load("davis.music", weights=None)
    unused = load_official(model, {"unet": torch.load(tmp_path / "unet_best.pth", weights_only=True)})
    assert len(unused) == 10
    noisy, mixture, cue, time = (torch.as_tensor(case.inputs[n]) for n in ("x_t", "log_mag_mix", "visual_feat", "t"))
    inject = model.conditioner.bind(Embedding(vector=cue.mean(dim=2)[:, None]))
    spectrum = Spectrum(mixture, mixture, mixture)
    network = model.separator.bind(spectrum, inject)  # type: ignore[attr-defined]
    errors = compare(case, {"out": network(noisy, time)})
    assert [error.name for error in errors] == ["out"]
    assert errors[0].passed, errors


def test_names_of_a_data_parallel_checkpoint(official: State) -> None:
    plain, _ = convert_official({"unet": official})
    state, _ = convert_official({"unet": {f"module.{key}": value for key, value in official.items()}})
    assert state.keys() == plain.keys()


SMALL: State = {"net_unet.final_conv.weight": torch.ones(1, 64, 1, 1), "net_unet.final_conv.bias": torch.zeros(1)}


def prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


WRAPPERS: dict[str, Callable[[State], dict[str, Any]]] = {
    "wrapper": lambda s: {"model": s, "ema": averaged(s), "step": 7, "opt": {"state": {}, "param_groups": []}},
    "data-parallel wrapper": lambda s: {"model": prefixed("module.", s), "ema": prefixed("module.", averaged(s))},
    "swa": lambda s: {"state_dict": s, "ema": prefixed("module.", averaged(s)) | {"n_averaged": torch.tensor(9)}},
    "wrapped pair": lambda s: {
        "model": s,
        "ema": prefixed("online_model.", s) | prefixed("ema_model.", averaged(s)) | {"initted": torch.tensor(True)},
    },
    "pair": lambda s: prefixed("online_model.", s) | prefixed("ema_model.", averaged(s)) | {"step": torch.tensor(3)},
    "beside": lambda s: s | prefixed("ema.ema_model.", averaged(s)) | {"ema.initted": torch.tensor(True)},
    "data-parallel beside": lambda s: prefixed("module.", s | prefixed("ema_model.", averaged(s))),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=list(WRAPPERS))
def test_the_moving_average_is_taken(wrap: Callable[[State], dict[str, Any]]) -> None:
    """It, or on request the trained copy; what is left out is reported."""
    checkpoint = wrap(SMALL)
    state, unused = convert_official({"unet": checkpoint})
    assert state.keys() == {"separator.last.weight", "separator.last.bias"}
    assert torch.equal(state["separator.last.bias"], torch.ones(1))
    assert any(key.endswith("final_conv.bias") for key in unused)
    state, unused = convert_official({"unet": checkpoint}, ema=False)
    assert torch.equal(state["separator.last.bias"], torch.zeros(1))
    assert any(key.startswith("unet.") and "ema" in key for key in unused)


def test_a_wrapper_without_moving_average() -> None:
    entries, left_out = official_entries({"model": SMALL, "ema": None, "epoch": 3})
    assert entries == SMALL
    assert left_out == ["ema", "epoch"]


def test_a_bare_file_has_nothing_left_out() -> None:
    """The entries ``model.*`` of a frame file are CLIP, no wrapper."""
    clip = {"model.visual.proj": torch.zeros(768, 512)}
    assert official_entries(clip) == (clip, [])


def test_only_a_moving_average() -> None:
    with pytest.raises(WeightsError, match="another value of ema"):
        official_entries(prefixed("ema_model.", SMALL) | {"step": torch.tensor(3)}, ema=False)


def test_an_empty_file() -> None:
    with pytest.raises(WeightsError, match="no weights"):
        convert_official({"unet": {}})


def test_a_file_that_is_no_state_dict() -> None:
    with pytest.raises(WeightsError, match="type list"):
        convert_official({"unet": [torch.zeros(1)]})  # type: ignore[dict-item]


def test_an_entry_that_is_no_tensor() -> None:
    with pytest.raises(WeightsError, match=r"net_unet\.final_conv\.bias.* type list"):
        convert_official({"unet": SMALL | {"net_unet.final_conv.bias": [0.0]}})


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("unet", "net_unet.downs.5.0.res_conv.weight"),
        ("unet", "net_unet.downs.0.2.fn.attn_conv_Q_4.0.weight"),
        ("unet", "net_unet.downs.0.3.weight"),
        ("unet", "net_unet.ups.4.3.1.weight"),
        ("unet", "net_unet.mid_attn.fn.fn.to_out.0.weight"),
        ("unet", "net_unet.init_conv.scale"),
        ("unet", "net_unet.time_mlp.2.weight"),
        ("unet", "unet.init_conv.weight"),
        ("unet", "net_unet"),
        ("frame", "temporal.weight"),
    ],
)
def test_an_unknown_entry_is_refused(part: str, key: str) -> None:
    with pytest.raises(KeyError, match=f"{part}.{key}"):
        convert_official({part: {key: torch.zeros(1)}})


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(KeyError, match="sound"):
        convert_official({"sound": SMALL})


@pytest.mark.parametrize("missing", ["Q_0", "K_3", "V_3"])
def test_a_missing_head_is_named(missing: str) -> None:
    """Also the last one, without which the rest would be an entry too."""
    heads = [f"{kind}_{head}" for kind in "QKV" for head in range(4)]
    entries = {HEAD.format(head): torch.zeros(16 if "V" in head else 4, 64, 1, 1) for head in heads if head != missing}
    with pytest.raises(KeyError, match=f"unet.{HEAD.format(missing)}"):
        convert_official({"unet": entries})


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        (HEAD.format("K_1"), (5, 64, 1, 1)),
        ("net_unet.downs.0.2.fn.attn_concat_proj.2.gamma", (1, 256, 1, 64)),
        ("net_unet.downs.0.2.fn.attn_concat_proj.2.gamma", (3,)),
    ],
)
def test_a_shape_that_was_never_published(official: State, key: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(WeightsError, match=key.replace(".", r"\.")):
        convert_official({"unet": official | {key: torch.zeros(shape)}})


def test_a_missing_entry_is_named_and_nothing_is_loaded(music: Any) -> None:
    """``music`` has no storage: loading anything into it would fail in another way."""
    entries = layout("unet_music", "unet")
    del entries["net_unet.final_conv.bias"], entries["net_unet.mid_attn.fn.norm.g"]
    with pytest.raises(WeightsError, match=r"lacks separator\.last\.bias, separator\.middle_attention\.norm\.gain;"):
        load_official(music, {"unet": entries})


def test_another_network_is_refused(tiny_model: Callable[..., Any], official: State) -> None:
    """One with other levels, with other widths, and one that lacks a layer; none is changed."""
    five = {"width": 8, "multipliers": [1, 2, 4, 4, 8], "rows": 256, "time_features": 512}
    without = tiny_model(separator=five)
    del without.separator.last
    for model, message in (
        (tiny_model(), r"checkpoint lacks separator\.downs\.1\.resample\.bias, .* and 1 more;"),
        (tiny_model(separator=five), "shapes of .* are not the model's"),
        (without, r"no place for separator\.last\.bias, separator\.last\.weight;"),
    ):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(WeightsError, match=message):
            load_official(model, {"unet": official})
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
