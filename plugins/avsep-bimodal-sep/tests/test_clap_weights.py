"""CLAP's published weights, in the layouts they come in."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from avsep_bimodal_sep.clap_audio import ClapAudioEncoder, ClapSound
from avsep_bimodal_sep.clap_text import ClapTextEncoder
from avsep_bimodal_sep.clap_weights import WEIGHTS
from avsep_bimodal_sep.official_keys import CLAP
from avsep_zoo.errors import WeightsError

TEXT = {
    "vocab_size": 20,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 10,
    "projection_dim": 4,
}
SOUND = {"patch_embeds_hidden_size": 4, "depths": [1, 1], "num_attention_heads": [1, 2], "projection_dim": 4}
IDS = torch.tensor([[0, 5, 2, 1], [0, 6, 7, 2]])


def text(weights: Any) -> ClapTextEncoder:
    return ClapTextEncoder(clap_weights=None if weights is None else str(weights), tower=TEXT, length=4)


def sound(weights: Any) -> ClapSound:
    return ClapSound(clap_weights=None if weights is None else str(weights), tower=SOUND)


def whole() -> dict[str, Tensor]:
    """Both towers by transformers' names."""
    scale = {"logit_scale_a": torch.tensor(3.0), "logit_scale_t": torch.tensor(2.0)}
    return {**text(None).clap.state_dict(), **sound(None).clap.state_dict(), **scale}


def laion(entries: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same by LAION's names, with constants and heads that it has besides."""
    renamed: dict[str, Tensor] = {}
    for name, value in entries.items():
        for old, new in (
            ("text_model.", "text_branch."),
            ("audio_model.audio_encoder.", "audio_branch."),
            ("_projection.linear1", "_projection.0"),
            ("_projection.linear2", "_projection.2"),
        ):
            name = name.replace(old, new)
        if name.startswith("audio_branch."):
            for old, new in (
                ("batch_norm", "bn0"),
                ("layernorm_before", "norm1"),
                ("layernorm_after", "norm2"),
                ("attention.output.dense", "attn.proj"),
                ("attention.self", "attn"),
                ("intermediate.dense", "mlp.fc1"),
                ("output.dense", "mlp.fc2"),
            ):
                name = name.replace(old, new)
        renamed[name] = value
    for name in [name for name in renamed if ".attn.query." in name]:
        parts = [renamed.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        renamed[name.replace("query", "qkv")] = torch.cat(parts)
    renamed["audio_branch.head.weight"] = torch.zeros(2, 2)
    renamed["text_branch.embeddings.position_ids"] = torch.arange(10)[None]
    renamed["audio_branch.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(64, 64, dtype=torch.int64)
    return renamed


def checkpoint(path: Path, entries: dict[str, Tensor], inside: str = "") -> Path:
    """As LAION's training program writes them, NumPy's numbers under the module's name of before NumPy 2.

    ``inside`` is what a checkpoint of the method, which holds CLAP, has before LAION's names.
    """
    file = path / "music_audioset_epoch_15_esc_90.14.pt"
    state = {f"module.{inside}{name}": value for name, value in laion(entries).items()}
    state |= {"module.net_synthesizer.bias": torch.zeros(1)} if inside else {}
    optimizer = {"param_groups": [{"lr": np.float64(1e-4), "betas": (0.9, 0.99)}]}
    torch.save({"epoch": 15, "name": "run", "state_dict": state, "optimizer": optimizer}, path / "new.pt")
    with zipfile.ZipFile(path / "new.pt") as new, zipfile.ZipFile(file, "w") as old:
        for entry in new.infolist():
            old.writestr(entry.filename, new.read(entry).replace(b"numpy._core.", b"numpy.core."))
    (path / "new.pt").unlink()
    return file


@pytest.mark.parametrize("layout", ["laion folder", "laion file", "checkpoint of the method", "transformers"])
def test_weights_in_all_layouts(tmp_path: Path, layout: str) -> None:
    """Each tower takes its own, the sound tower the scale as well."""
    entries = whole()
    constants = {"text_model.embeddings.position_ids": torch.arange(10)[None]}
    if layout == "transformers":
        save_file({**entries, **constants}, tmp_path / "model.safetensors")
        config = {"text_config": {"layer_norm_eps": 1e-12, "num_attention_heads": 2}, "audio_config": {}}
        (tmp_path / "config.json").write_text(json.dumps(config))
    else:
        file = checkpoint(tmp_path, entries, CLAP if "method" in layout else "")
    weights = tmp_path if layout in ("laion folder", "transformers") else file
    words, ear = text(weights), sound(weights)
    words.embed(IDS)
    words.load_pretrained()
    ear.load_pretrained()
    loaded = {**words.clap.state_dict(), **ear.clap.state_dict()}
    assert all(torch.equal(value, entries[name]) for name, value in loaded.items())
    assert float(ear.scale) == pytest.approx(np.exp(3.0))
    assert torch.equal(words.embed(IDS)[0], words._views(IDS)[0])  # what the weights before made is forgotten
    assert not any(p.requires_grad for p in [*words.parameters(), *ear.parameters()])


def test_the_encoder_of_examples_takes_the_same(tmp_path: Path) -> None:
    entries = whole()
    encoder = ClapAudioEncoder(clap_weights=str(checkpoint(tmp_path, entries)), tower=SOUND)
    encoder.load_pretrained()
    name = "audio_projection.linear2.weight"
    assert torch.equal(encoder.sound.clap.get_parameter(name), entries[name])


def test_a_checkpoint_that_runs_code(tmp_path: Path) -> None:
    """Nothing in it is run."""
    marker = tmp_path / "ran"

    class Touch:
        def __reduce__(self) -> Any:
            return Path.touch, (marker,)

    torch.save({"state_dict": laion(whole()), "optimizer": Touch()}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match=r"evil\.pt' was not loaded: it asks for "):
        text(tmp_path / "evil.pt").load_pretrained()
    assert not marker.exists()


@pytest.mark.parametrize("kind", [text, sound])
def test_weights_of_another_tower(tmp_path: Path, kind: Any) -> None:
    """Nothing is loaded."""
    entries = whole()
    name = next(name for name in kind(None).clap.state_dict() if name.endswith("linear1.weight"))
    entries[name] = torch.zeros(5, 5)
    model = kind(checkpoint(tmp_path, entries))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=rf"do not fit this (text|audio) tower of CLAP: 1 entries .* {name!r}"):
        model.load_pretrained()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"text_config": {"num_attention_heads": 4}}, "has num_attention_heads 4 and this one 2"),
        ({"text_config": {"hidden_act": "relu"}}, "has hidden_act 'relu' and this one 'gelu'"),
        ({"text_config": 3}, "has text_config 3"),
    ],
)
def test_settings_that_no_shape_tells(tmp_path: Path, config: Any, message: str) -> None:
    save_file(whole(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=message):
        text(tmp_path).load_pretrained()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (None, r"name a file or folder of them, or org/name@commit, by the setting clap_weights\.$"),
        ("laion/larger_clap_music", "40 hexadecimal digits"),
        ("no/such/folder", "do not exist"),
    ],
)
def test_weights_that_cannot_be_had(weights: str | None, message: str) -> None:
    for model in (text(weights), sound(weights)):
        with pytest.raises(WeightsError, match=message):
            model.load_pretrained()


def test_a_folder_of_several(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file(whole(), tmp_path / f"{name}.safetensors")
    with pytest.raises(WeightsError, match="holds 2 files of weights; name the one"):
        text(tmp_path).load_pretrained()


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds no weights; it needs a file config\.json or \*\.safetensors"):
        text(tmp_path).load_pretrained()


def test_the_published_ones_are_pinned() -> None:
    name, _, commit = WEIGHTS.partition("@")
    assert name == "lukewys/laion_clap" and len(commit) == 40
