"""Official checkpoints in this project's names."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from avsep_ial_cms.convert import CRITIC, convert_official, load_official, read_official, target
from avsep_ial_cms.critic import PairCritic
from avsep_ial_cms.objective import IndependencyObjective
from avsep_zoo import SeparationModel, compose
from avsep_zoo.errors import WeightsError
from avsep_zoo.parity.recipe import fill

CASE = Path(__file__).parents[3] / "tests" / "parity" / "ial_cms" / "e2e_unsup.json"
LAYOUT = json.loads(CASE.read_text())["weights"]["parts"]["checkpoint"]
STFT = "net_wrapper.av_separator.separator_w_v.stftMelModule.stftLayer."
SLOPE = "net_wrapper.av_separator.separator_w_v.unet_block." + "submodule." * 5 + "avmodule.sigmoid.w"
GATE = SLOPE.replace("sigmoid.w", "weight_mlp.0.weight")
N_FFT = 126  # of the tiny model
State = dict[str, Tensor]


@pytest.fixture
def model(tiny_model: Any) -> SeparationModel:
    """As deep as the official one."""
    return tiny_model(separator={"levels": 5, "width": 2})


@pytest.fixture
def objective() -> IndependencyObjective:
    return IndependencyObjective(independence=0.1, critic_width=1, bank=4)


def constants(n_fft: int = N_FFT) -> State:
    """Of the Fourier transform, written out."""
    n = np.arange(n_fft)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / n_fft)
    angle = 2 * np.pi * n[:, None] * n / n_fft
    half = n_fft // 2 + 1
    values = {
        "kernel_sin_inv": np.sin(angle)[:, None, :, None],
        "kernel_cos_inv": np.cos(angle)[:, None, :, None],
        "wsin": (hann * np.sin(angle[:half]))[:, None],
        "wcos": (hann * np.cos(angle[:half]))[:, None],
        "window_mask": hann[None, :, None],
    }
    return {STFT + name: torch.from_numpy(value.astype(np.float32)) for name, value in values.items()}


def official(model: nn.Module, critic: PairCritic | None) -> State:
    """Every entry of an official file, by the recipe, with the sizes of a small model."""
    ours = model.state_dict()
    ours |= {CRITIC + name: value for name, value in (critic or PairCritic(width=1)).state_dict().items()}
    state: State = {}
    for key, full, dtype in LAYOUT:
        name = target(key)
        if name is None:
            continue
        shape = (*ours[name].shape, *(() if len(full) == ours[name].ndim else (1,)))
        count = torch.tensor(3) if dtype == "int64" else None
        state[key] = torch.from_numpy(fill(key, shape)) if count is None else count
    return state | constants()


def saved(path: Path, state: State) -> Path:
    """As Lightning saves a run."""
    content = {"epoch": 7, "global_step": 1234, "pytorch-lightning_version": "1.9.0", "loops": {}, "state_dict": state}
    torch.save(content, path)
    return path


def copied(module: nn.Module) -> State:
    return {name: value.clone() for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def refused(official: Any, match: str, model: SeparationModel, objective: IndependencyObjective | None = None) -> None:
    """In one sentence, and nothing is loaded."""
    before = copied(model), None if objective is None else copied(objective)
    with pytest.raises(WeightsError, match=match) as error:
        load_official(model, official, objective=objective)
    assert re.fullmatch(r"[^\n]+\.", str(error.value)) and ". " not in str(error.value)
    assert same(copied(model), before[0])
    assert before[1] is None or (objective is not None and same(copied(objective), before[1]))


def test_every_official_entry_has_one_place() -> None:
    """With its shape at the official size; only the five constants have none."""
    with torch.device("meta"):
        model = compose(encoder="ial_cms.deeplab", conditioner="ial_cms.attention", separator="ial_cms.unet")
        ours = model.state_dict() | {CRITIC + name: value for name, value in PairCritic().state_dict().items()}
    names = {key: target(key) for key, *_ in LAYOUT}
    placed = {name: shape for key, shape, _ in LAYOUT if (name := names[key]) is not None}
    assert sorted(key for key, name in names.items() if name is None) == sorted(constants())
    assert len(placed) == len(LAYOUT) - 5 == 416
    assert placed.keys() == ours.keys()
    assert {name: shape[: ours[name].ndim] for name, shape in placed.items()} == {
        name: list(value.shape) for name, value in ours.items()
    }


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


def test_a_lightning_file_fills_the_model(model: SeparationModel, tmp_path: Path) -> None:
    """Every entry, without a critic; constants and those of the critic are unused."""
    state = official(model, None)
    unused = load_official(model, saved(tmp_path / "sdr1_state_dict.ckpt", state))
    expected = {target(key): value for key, value in state.items()}
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name].reshape(value.shape)), name
    assert len(unused) == 5 + 28 and "critics.critics_model.h.2.weight_u" in unused


def test_the_critic_goes_to_the_objective(
    model: SeparationModel, objective: IndependencyObjective, tmp_path: Path
) -> None:
    critic = objective.critic
    assert critic is not None
    state = official(model, critic)
    unused = load_official(model, saved(tmp_path / "last.ckpt", state), objective=objective)
    assert len(unused) == 5
    place = "net_wrapper.critics.critics_model."
    torch.testing.assert_close(critic.convolutions[3].right, state[f"{place}g.pyramid3:256-512:conv.weight_v"])
    torch.testing.assert_close(critic.layers[0].left, state[f"{place}h.0.weight_u"])
    torch.testing.assert_close(critic.bias, state[f"{place}b"])


def test_an_objective_without_a_critic_takes_none(model: SeparationModel) -> None:
    assert len(load_official(model, official(model, None), objective=IndependencyObjective())) == 33


@pytest.mark.parametrize("prefix", ["", "module.", "net_wrapper.module.", "module.net_wrapper."])
def test_what_a_network_was_wrapped_in_comes_off(model: SeparationModel, prefix: str) -> None:
    state = official(model, None)
    wrapped = {prefix + key.removeprefix("net_wrapper."): value for key, value in state.items()}
    assert same(convert_official(wrapped, n_fft=N_FFT)[0], convert_official(state, n_fft=N_FFT)[0])


def test_constants_need_not_be_there(model: SeparationModel) -> None:
    state = official(model, None)
    assert len(load_official(model, {key: value for key, value in state.items() if not key.startswith(STFT)})) == 28


@pytest.mark.parametrize("name", ["kernel_sin_inv", "kernel_cos_inv", "wsin", "wcos", "window_mask"])
def test_constants_of_another_transform_are_refused(model: SeparationModel, name: str) -> None:
    """Of another size, of another sign, and of another window."""
    state = official(model, None)
    for wrong in (constants(128)[STFT + name], -state[STFT + name], state[STFT + name] + 0.01):
        refused(state | {STFT + name: wrong}, rf"The constant .*{name} is not that of .* 126 samples", model)


def test_a_file_of_another_front_end_is_refused(tiny_model: Any, model: SeparationModel) -> None:
    other = tiny_model(separator={"levels": 5, "width": 2}, front_end={"n_fft": 128})
    refused(official(model, None), "Hann window of 128 samples", other)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({SLOPE: None}, "lacks conditioner.slope;"),
        ({"net_wrapper.critics.critics_model.b": None}, r"lacks objective\.critic\.bias;"),
        ({"net_wrapper.av_separator.separator_w_v.extra": torch.zeros(1)}, "separator_w_v.extra is none of IAL-CMS"),
        ({"optimizer.lr": torch.zeros(1)}, "optimizer.lr is none of IAL-CMS"),
        ({SLOPE: torch.zeros(2)}, "shapes of conditioner.slope are not the model's"),
        ({GATE: torch.zeros(6, 8)}, r"weight_mlp.0.weight has the shape \(6, 8\), which no official file has"),
        ({GATE: torch.zeros(6, 8, 2)}, r"weight_mlp.0.weight has the shape \(6, 8, 2\)"),
        ({SLOPE: torch.tensor(torch.nan)}, "sigmoid.w holds numbers that are not finite"),
        ({SLOPE: torch.tensor(-torch.inf)}, "sigmoid.w holds numbers that are not finite"),
        ({SLOPE: 6.0}, "sigmoid.w is of the type float"),
        ({SLOPE: torch.zeros(2, 2).to_sparse()}, "sigmoid.w is of the type Tensor; give a state dict of dense tensors"),
        ({SLOPE.removeprefix("net_wrapper."): torch.tensor(1.0)}, "mean the same"),
    ],
)
def test_a_wrong_entry_is_named(
    model: SeparationModel, objective: IndependencyObjective, change: dict[str, Any], match: str
) -> None:
    state: dict[str, Any] = official(model, objective.critic) | change
    refused({key: value for key, value in state.items() if value is not None}, match, model, objective)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"separator": {"levels": 4, "width": 2}}, "has no place for conditioner.style_offset.decoder5"),
        ({"separator": {"levels": 5, "width": 3}}, "shapes of"),
        ({"attention": {"channel": False}}, "has no place for conditioner.gate"),
    ],
)
def test_another_variant_is_refused(tiny_model: Any, model: SeparationModel, settings: Any, match: str) -> None:
    """Also one that would fit in part."""
    other = tiny_model(**{"separator": {"levels": 5, "width": 2}, **settings})
    refused(official(model, None), f"{match}.*take the variant the checkpoint was made with", other)


def test_what_is_no_state_dict(model: SeparationModel) -> None:
    with pytest.raises(WeightsError, match="of the type list"):
        convert_official([torch.zeros(1)])  # type: ignore[arg-type]
    refused({}, "lacks conditioner", model)


def test_objects_in_a_file_are_not_unpickled(tmp_path: Path, model: SeparationModel) -> None:
    touched = tmp_path / "touched"

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (touched,))

    (tmp_path / "trap.ckpt").write_bytes(pickle.dumps({"state_dict": Trap()}))
    torch.save({"state_dict": official(model, None), "callbacks": Trap()}, tmp_path / "run.ckpt")
    for name in ("trap", "run"):
        refused(tmp_path / f"{name}.ckpt", rf"{name}\.ckpt' cannot be read as tensors", model)
    assert not touched.exists()


@pytest.mark.parametrize("content", [b"", b"<html>", None])
def test_a_file_that_is_none(tmp_path: Path, model: SeparationModel, content: bytes | None) -> None:
    """Empty, of another kind, or cut off."""
    file = saved(tmp_path / "a.ckpt", official(model, None))
    file.write_bytes(file.read_bytes()[:5000] if content is None else content)
    refused(file, r"a\.ckpt' cannot be read as tensors", model)


def test_a_file_without_weights(tmp_path: Path, model: SeparationModel) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.ckpt")
    refused(tmp_path / "a.ckpt", "holds no state_dict", model)


def test_a_folder_holds_one_checkpoint(tmp_path: Path, model: SeparationModel) -> None:
    """Or none, or several; a state dict alone beside it does not count."""
    refused(tmp_path, "holds no .ckpt or .pth", model)
    refused(tmp_path / "absent.ckpt", "There is no file", model)
    state = official(model, None)
    torch.save({"other": torch.zeros(1)}, tmp_path / "detector.pth")
    saved(tmp_path / "sdr1_sir2.ckpt", state)
    assert read_official(tmp_path).keys() == state.keys()
    saved(tmp_path / "sdr0_sir2.ckpt", state)
    refused(tmp_path, r"holds 2 \.ckpt files, the first is 'sdr0_sir2.ckpt'; name the one to use", model)


def test_a_loaded_model_separates(model: SeparationModel) -> None:
    """Twice the same, and other than before."""
    batch = {
        "mixture": torch.randn(1, 2047),
        "cues": model.encode(_cues()),
    }
    before = model(batch).values
    load_official(model, official(model, None))
    batch["cues"] = model.encode(_cues())
    after = model(batch).values
    assert torch.isfinite(after).all() and after.shape == (1, 2, 32, 32)
    assert not torch.allclose(after, before)


def _cues() -> Any:
    from avsep_zoo.contracts import CueBatch

    return CueBatch({"frames": torch.randn(1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1))})
