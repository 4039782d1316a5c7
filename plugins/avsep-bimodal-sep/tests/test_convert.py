"""Official checkpoints in this project's names."""

from __future__ import annotations

import json
import math
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avsep_bimodal_sep.clap_audio import ClapSound
from avsep_bimodal_sep.clap_text import ClapTextEncoder
from avsep_bimodal_sep.convert import JUDGE, convert_official, load_official, read_official
from avsep_bimodal_sep.objective import BiModalObjective
from avsep_bimodal_sep.official_keys import CLAP, OfficialSettings, recognise, target
from avsep_zoo import SeparationModel, compose
from avsep_zoo.errors import WeightsError
from avsep_zoo.parity.recipe import fill

CASE = Path(__file__).parents[3] / "tests" / "parity" / "bimodal_sep" / "separate_mixture.json"
LAYOUT = [key for key, *_ in json.loads(CASE.read_text())["weights"]["parts"]["model"]]
TEXT = {
    "vocab_size": 20, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 10, "projection_dim": 4,
}  # fmt: skip
SOUND = {"patch_embeds_hidden_size": 4, "depths": [1, 1], "num_attention_heads": [1, 2], "projection_dim": 4}
N_FFT = 254
DEEPEST = "net_sound.unet_block." + "submodule." * 6
UNUSED = 5 + 6 + 3 + 2  # constants, norms that are never applied, the text tower's and the scales of similarities
State = dict[str, Tensor]


def built(**settings: Any) -> SeparationModel:
    """As deep as the official one; arguments are settings of the separator and the conditioner."""
    conditioner = {name: settings.pop(name) for name in ("layer", "blocks") if name in settings}
    return compose(
        encoder={"name": "bimodal_sep.clap_text", "tower": TEXT, "length": 4},
        conditioner={"name": "bimodal_sep.attention", "heads": 2, **conditioner},
        separator={"name": "bimodal_sep.unet", "width": 2, "mask_features": 3, **settings},
        front_end={"name": "stft", "length": 16383, "n_fft": N_FFT, "hop_length": 128, "warp_rows": 0},
    )


@pytest.fixture
def model() -> SeparationModel:
    return built()


@pytest.fixture
def objective() -> BiModalObjective:
    return BiModalObjective(judge={"tower": SOUND})


def laion(name: str) -> str:
    """transformers' name of an entry that both have alone, in LAION's."""
    for old, new in (
        ("text_model.", "text_branch."), ("text_projection.linear1", "text_projection.0"),
        ("text_projection.linear2", "text_projection.2"),
    ):  # fmt: skip
        name = name.replace(old, new)
    return CLAP + name


def heard() -> State:
    """LAION's entries of a small sound tower, query, key and value being one."""
    entries = ClapSound(tower=SOUND).clap.state_dict()
    state: State = {}
    for name, value in entries.items():
        name = name.replace("audio_model.audio_encoder.", "audio_branch.").replace("batch_norm.", "bn0.")
        for old, new in (
            ("layernorm_before", "norm1"), ("layernorm_after", "norm2"), ("attention.output.dense", "attn.proj"),
            ("attention.self", "attn"), ("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"),
            ("projection.linear1", "projection.0"), ("projection.linear2", "projection.2"),
        ):  # fmt: skip
            name = name.replace(old, new)
        if ".attn.query." in name:
            name, shape = name.replace("query", "qkv"), (3 * len(value), *value.shape[1:])
        elif ".attn.key." in name or ".attn.value." in name:
            continue
        else:
            shape = value.shape
        filled = torch.from_numpy(fill(CLAP + name, shape))
        state[CLAP + name] = filled if value.is_floating_point() else torch.tensor(3)
    return state | {f"{CLAP}logit_scale_a": torch.tensor(2.5), f"{CLAP}logit_scale_t": torch.tensor(1.5)}


def constants(n: int = N_FFT) -> State:
    rows = n // 2 + 1
    stft = {f"stft.conv_{part}.weight": torch.zeros(rows, 1, n) for part in ("real", "imag")}
    back = {f"istft.conv_{part}.weight": torch.zeros(n, n, 1) for part in ("real", "imag")}
    return {**stft, "istft.ola_window": torch.zeros(n), **back}


def official(model: nn.Module) -> State:
    """Every entry of an official file, by the recipe, with the sizes of a small model."""
    ours = {k: v for k, v in model.state_dict().items() if not k.startswith("encoder.")}
    settings, state = recognise(LAYOUT), State()
    for key in LAYOUT:
        if (name := target(key, settings)) is not None:
            shape = ours[name].shape
        elif "norm1" in key:
            shape = torch.Size([16])
        else:
            continue
        state[key] = torch.tensor(3) if key.endswith("tracked") else torch.from_numpy(fill(key, shape))
    for name, value in model.encoder.clap.state_dict().items():  # type: ignore[union-attr,operator]
        state[laion(name)] = torch.from_numpy(fill(laion(name), value.shape))
    state |= {f"{CLAP}text_branch.embeddings.position_ids": torch.arange(10)[None]}
    state |= {f"{CLAP}text_transform.sequential.{n}.weight": torch.zeros(4, 4) for n in (0, 3)}
    return state | heard() | constants()


def saved(path: Path, state: State) -> Path:
    """As the official training saves a run."""
    wrapped = {f"module.{key}": value for key, value in state.items()}
    optimiser = torch.optim.Adam([torch.zeros(2, requires_grad=True)]).state_dict()
    scheduler = {"step_size": 15, "gamma": 0.1, "last_epoch": 7}
    history = {"train": {"epoch": [0.5], "err": [0.1]}, "val": {"sdr": [7.9]}}
    rest = {"epoch": 7, "best_sdr": 7.9, "optimizer": optimiser, "scheduler": scheduler, "history": history}
    torch.save({"state_dict": wrapped, **rest}, path)
    return path


def copied(module: nn.Module) -> State:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def refused(given: Any, match: str, model: SeparationModel, objective: BiModalObjective | None = None) -> None:
    """In one sentence, and nothing is loaded."""
    before = copied(model), None if objective is None else copied(objective)
    with pytest.raises(WeightsError, match=match) as error:
        load_official(model, given, objective=objective)
    assert re.fullmatch(r"[^\n]+\.", str(error.value)) and ". " not in str(error.value)
    assert same(copied(model), before[0])
    assert before[1] is None or (objective is not None and same(copied(objective), before[1]))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("net_sound.bn0.running_var", "separator.input_norm.running_var"),
        ("net_sound.unet_block.downconv.weight", "separator.down.0.conv.weight"),
        ("net_sound.unet_block.upconv.bias", "separator.up.6.conv.bias"),
        ("net_sound.unet_block.submodule.upnorm.bias", "separator.up.5.norm.bias"),
        (f"{DEEPEST}upresblock.res_layers.0.1.weight", "separator.up.0.residual.norms.0.weight"),
        (f"{DEEPEST}downresblock.res_layers.0.0.bias", "separator.down.6.residual.convs.0.bias"),
        (f"{DEEPEST}ca_blocks.0.sa_block.attn.qkv.bias", "conditioner.layers.bottleneck.0.qkv.bias"),
        (f"{DEEPEST[:-10]}ca_blocks.0.ca_block.mlp.fc2.weight", "conditioner.layers.deep6.1.mlp.2.weight"),
        (f"{DEEPEST[:-20]}ca_blocks.1.ca_block.attn.kv.weight", "conditioner.layers.deep5.3.kv.weight"),
        (f"{DEEPEST}ca_blocks.0.norm1.weight", None),
        ("net_clap.fc.weight", "conditioner.heads.head.fc.weight"),
        ("net_synthesizer.scale", "conditioner.heads.head.scale"),
        (f"{CLAP}text_branch.pooler.dense.bias", "encoder.clap.text_model.pooler.dense.bias"),
        (f"{CLAP}text_branch.embeddings.position_ids", None),
        (f"{CLAP}audio_projection.0.weight", None),
        ("istft.ola_window", None),
    ],
)
def test_places(key: str, name: str | None) -> None:
    settings = OfficialSettings(7, 1, "sca", 2)
    assert target(key, settings) == target(f"module.{key}", settings) == name


def test_a_file_fills_the_model(model: SeparationModel, tmp_path: Path) -> None:
    """Every entry; constants, unused norms and the sound tower are left."""
    state = official(model)
    unused = load_official(model, saved(tmp_path / "model_best.pth.tar", state))
    settings = recognise(state)
    placed = {target(key, settings): value for key, value in state.items()}
    got = model.state_dict()
    assert got.keys() == placed.keys() - {None}
    assert all(torch.equal(value, placed[name]) for name, value in got.items())
    assert len(unused) == UNUSED + len(heard()) - 2 and "istft.ola_window" in unused


def test_the_sound_tower_goes_to_the_judge(model: SeparationModel, objective: BiModalObjective, tmp_path: Path) -> None:
    state = official(model)
    unused = load_official(model, saved(tmp_path / "a.pth.tar", state), objective=objective)
    assert isinstance(objective.judge, ClapSound) and objective.judge.logit_scale_a == 2.5
    assert len(unused) == UNUSED - 1
    got, key = objective.judge.clap.state_dict(), "layers.0.blocks.0.attn"
    rows = torch.stack([v for k, v in got.items() if ".layers.0.blocks.0.attention.self." in k and k.endswith("bias")])
    torch.testing.assert_close(rows.flatten(), state[f"{CLAP}audio_branch.{key}.qkv.bias"])


def test_an_objective_with_an_ear_of_its_own_takes_none(model: SeparationModel) -> None:
    state = official(model)
    assert len(load_official(model, state, objective=BiModalObjective())) == UNUSED + len(heard()) - 2


def test_towers_start_from_an_official_checkpoint(model: SeparationModel, tmp_path: Path) -> None:
    """It holds CLAP: no other file has to be fetched."""
    state = official(model)
    file = str(saved(tmp_path / "a.pth.tar", state))
    words = ClapTextEncoder(clap_weights=file, tower=TEXT, length=4)
    ear = ClapSound(clap_weights=file, tower=SOUND)
    words.load_pretrained()
    ear.load_pretrained()
    load_official(model, state)
    assert same(dict(words.clap.state_dict()), dict(model.encoder.clap.state_dict()))  # type: ignore[union-attr]
    assert float(ear.scale) == pytest.approx(math.exp(2.5))


@pytest.mark.parametrize("name", sorted(constants()))
def test_constants_of_another_transform_are_refused(model: SeparationModel, name: str) -> None:
    refused(official(model) | {name: constants(256)[name]}, rf"constant {name} .* of a Fourier transform of 254", model)


def test_constants_need_not_be_there(model: SeparationModel) -> None:
    state = official(model)
    assert len(load_official(model, {k: v for k, v in state.items() if k not in constants()})) < UNUSED + len(heard())


FC, QKV = "net_clap.fc.bias", f"{DEEPEST}ca_blocks.0.sa_block.attn.qkv.bias"
POOLER = f"{CLAP}text_branch.pooler.dense.bias"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({FC: None}, r"lacks conditioner\.heads\.head\.fc\.bias;"),
        ({"net_synthesizer.bias": None}, r"lacks conditioner\.heads\.head\.bias;"),
        ({"net_sound.bn0.weight": None}, r"lacks separator\.input_norm\.weight;"),
        ({POOLER: None}, r"lacks encoder\.clap\.text_model\.pooler\.dense\.bias;"),
        ({f"{CLAP}text_branch.more.bias": torch.zeros(1)}, r"no place for encoder\.clap\.text_model\.more\.bias;"),
        ({f"{CLAP}vision.bias": torch.zeros(1)}, "vision.bias is none of BiModalSep"),
        ({"net_sound.extra": torch.zeros(1)}, "net_sound.extra is none of BiModalSep"),
        ({"net_sound.unet_block.ca_blocks.0.sa_block.norm1.bias": torch.zeros(2)}, "is none of BiModalSep"),
        ({"net_sound.unet_block.upnorm.bias": torch.zeros(2)}, "upnorm.bias is none of BiModalSep"),
        ({f"{DEEPEST}ca_blocks.0.attn.q.bias": torch.zeros(2)}, "layers of the kinds ca, sca; give"),
        (
            {FC: torch.zeros(2)},
            r"shape of .*fc\.bias, the first of 1 .* is \(2,\) in the checkpoint and \(3,\) in the model;",
        ),
        ({FC: torch.full((3,), torch.nan)}, "fc.bias holds numbers that are not finite"),
        ({FC: 6.0}, "fc.bias is of the type float"),
        ({FC: torch.zeros(3).to_sparse()}, "give a state dict of dense tensors"),
        ({f"module.{FC}": torch.zeros(3)}, "mean the same"),
    ],
)
def test_a_wrong_entry_is_named(
    model: SeparationModel, objective: BiModalObjective, change: dict[str, Any], match: str
) -> None:
    state: dict[str, Any] = official(model) | change
    refused({key: value for key, value in state.items() if value is not None}, match, model, objective)


def test_a_judge_needs_all_of_the_sound_tower(model: SeparationModel, objective: BiModalObjective) -> None:
    state = official(model)
    del state[f"{CLAP}audio_projection.0.bias"]
    refused(state, rf"lacks {re.escape(JUDGE)}clap\.audio_projection\.linear1\.bias;", model, objective)
    assert load_official(model, state)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"levels": 6}, "has levels 7 and the model 6;"),
        ({"res_layers": 2}, "has res_layers 1 and the model 2;"),
        ({"layer": "ca"}, "has layer sca and the model ca;"),
        ({"layer": "identity"}, "has layer sca and the model identity;"),
        ({"blocks": 2}, "has blocks 1 and the model 2;"),
        ({"width": 4}, "The shape of"),
        ({"mask_features": 4}, "The shape of"),
    ],
)
def test_another_variant_is_refused(model: SeparationModel, settings: dict[str, Any], match: str) -> None:
    refused(official(model), f"{match}.*take the variant the checkpoint was made with", built(**settings))


@pytest.mark.parametrize("layer", ["sa", "ca", "cat"])
def test_layers_are_recognised(layer: str) -> None:
    """By what their entries are called, in whatever level."""
    entry = {"sa": "attn.qkv.weight", "ca": "attn.q.bias", "cat": "lin.bias"}[layer]
    keys = [f"net_sound.unet_block.submodule.submodule.submodule.submodule.ca_blocks.{n}.{entry}" for n in (0, 1)]
    assert recognise(keys) == OfficialSettings(5, 0, layer, 2)
    assert recognise(["net_sound.unet_block.downconv.weight"]) == OfficialSettings(1, 0, "identity", 1)


def test_other_parts_are_refused(tmp_path: Path, model: SeparationModel) -> None:
    state = official(model)
    model.separator = nn.Identity()  # type: ignore[assignment]
    with pytest.raises(WeightsError, match=r"^The model has Identity and TextAttention; [^\n]+\.$"):
        load_official(model, state)


def test_what_is_no_state_dict(model: SeparationModel) -> None:
    with pytest.raises(WeightsError, match="of the type list"):
        convert_official([torch.zeros(1)])  # type: ignore[arg-type]
    refused({}, "has levels 1 and the model 7", model)


def test_objects_in_a_file_are_not_unpickled(tmp_path: Path, model: SeparationModel) -> None:
    touched = tmp_path / "touched"

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (touched,))

    (tmp_path / "trap.pth.tar").write_bytes(pickle.dumps({"state_dict": Trap()}))
    torch.save({"state_dict": official(model), "history": Trap()}, tmp_path / "run.pth.tar")
    for name in ("trap", "run"):
        refused(tmp_path / f"{name}.pth.tar", rf"{name}\.pth\.tar' cannot be read as tensors", model)
    assert not touched.exists()


@pytest.mark.parametrize("content", [b"", b"<html>", None])
def test_a_file_that_is_none(tmp_path: Path, model: SeparationModel, content: bytes | None) -> None:
    """Empty, of another kind, or cut off."""
    file = saved(tmp_path / "a.pth.tar", official(model))
    file.write_bytes(file.read_bytes()[:5000] if content is None else content)
    refused(file, r"a\.pth\.tar' cannot be read as tensors", model)


def test_which_file_of_a_folder(tmp_path: Path, model: SeparationModel) -> None:
    """The best one; of others just one; or none."""
    refused(tmp_path, r"holds no \.pth\.tar or", model)
    refused(tmp_path / "absent.pth.tar", "There is no file", model)
    state = official(model)
    saved(tmp_path / "model_latest.pth.tar", state)
    assert read_official(tmp_path).keys() == state.keys()
    saved(tmp_path / "model_epoch4.pth.tar", {})
    refused(tmp_path, r"holds 2 \.pth\.tar files, the first is 'model_epoch4\.pth\.tar'; name the one to use", model)
    saved(tmp_path / "model_best.pth.tar", state)
    assert read_official(tmp_path).keys() == state.keys()
