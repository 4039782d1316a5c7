"""Training by texts through the trainer: solos, recordings of two sounds, a judge; and going on exactly.

The data are solos of four classes, tones of different pitches.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from typer.testing import CliRunner

from avsep_bimodal_sep.clap_audio import ClapSound
from avsep_bimodal_sep.plugin import RECIPE
from avsep_zoo import Cue, load
from avsep_zoo.cli import app
from avsep_zoo.compose import compose_recipe
from avsep_zoo.errors import CompositionError, WeightsError
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig
from avsep_zoo.synth.files import write_clip
from avsep_zoo.training.config import TrainingConfig
from avsep_zoo.training.loop import train

PARTS: dict[str, dict[str, Any]] = {
    "encoder": {"width": 8, "heads": 2, "ear": 2, "rate": 8000},
    "conditioner": {"heads": 2},
    "separator": {"width": 2, "mask_features": 3},
    "front_end": {"rate": 8000, "length": 2047, "n_fft": 126, "hop_length": 64, "warp_rows": 32},
}
# No map is one frame wide then, of which kernels in half precision would read what is not there (torch, on CPUs).
WIDE = {"rate": 8000, "length": 8191, "n_fft": 254, "hop_length": 128, "warp_rows": 64}
SMALL: dict[str, Any] = {
    "steps": 4, "batch": 4, "validate_every": 2, "validation_mixtures": 1, "workers": 0, "validate_first": False,
    "precision": "no",
}  # fmt: skip
TEXT_TOWER = {
    "vocab_size": 300, "hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 40, "projection_dim": 8,
}  # fmt: skip
SOUND_TOWER = {
    "patch_embeds_hidden_size": 4, "depths": [1, 1], "num_attention_heads": [1, 2], "projection_dim": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def solos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip to train with, another one for examples, and one to validate with, of four classes."""
    root, rng = tmp_path_factory.mktemp("solos"), np.random.default_rng(0)
    time = np.arange(50000) / 44100
    video, boxes = np.zeros((4, 32, 32, 3), np.uint8), np.tile(np.array([4, 4, 28, 28], np.float32), (4, 1))
    for number, (label, pitch) in enumerate({"cello": 110, "tuba": 300, "flute": 800, "oboe": 1900}.items(), 1):
        for name, split in (("a", "train"), ("b", "train"), ("c", "val")):
            sound = 0.2 * np.sin(2 * np.pi * pitch * time) + 0.02 * rng.standard_normal(len(time))
            write_clip(root, label, number, name, video, boxes, sound.astype(np.float32))
            with (root / f"{split}.csv").open("a") as rows:
                rows.write(f"/{label}/{name}.wav,/{label}/{name}.mp4,4\n")
    return root


def changed(variant: str, **parts: Mapping[str, Any]) -> dict[str, PartConfig]:
    made = {slot: part.changed(PARTS.get(slot, {})) for slot, part in RECIPE.parts(variant).items()}
    return {slot: part.changed(parts.get(slot, {})) for slot, part in made.items()}


def mini(seed: int = 0, *, front_end: Mapping[str, Any] = PARTS["front_end"], **objective: Any) -> SeparationModel:
    torch.manual_seed(seed)
    return compose_recipe(changed("mini", objective=objective, front_end=front_end), "bimodal_sep.tiny")


def config(**change: Any) -> TrainingConfig:
    return TrainingConfig.from_mapping({**SMALL, **change})


def read_log(run: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in ("seconds", "items_per_second")} for record in records]


def steps(run: Path) -> list[dict[str, Any]]:
    return [record for record in read_log(run) if "validation_sdr" not in record]


def differences(a: Any, b: Any, name: str = "") -> list[str]:
    """Names of what is not equal to the bit in two trees of tensors."""
    if isinstance(a, dict):
        lone = [f"{name}.{k}" for k in a.keys() ^ b.keys()]
        return lone + [d for k in a.keys() & b.keys() for d in differences(a[k], b[k], f"{name}.{k}")]
    if isinstance(a, list):
        return [d for k, (v, w) in enumerate(zip(a, b, strict=True)) for d in differences(v, w, f"{name}.{k}")]
    same = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    return [] if same else [name]


def assert_same_run(run: Path, whole: Path) -> None:
    assert read_log(run) == read_log(whole)
    assert not differences(*(torch.load(r / "checkpoint.pt", weights_only=True) for r in (run, whole)))
    for name in ("model.safetensors", "last/model.safetensors"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()


def test_the_preset_from_the_command_line(solos: Path, tmp_path: Path) -> None:
    """A run becomes a card that separates by texts and by examples."""
    plan, run = tmp_path / "plan.yaml", tmp_path / "run"
    training = {name: value for name, value in SMALL.items() if name != "precision"} | {"steps": 2, "batch": 2}
    plan.write_text(yaml.safe_dump({"parts": {**PARTS, "front_end": WIDE}, "training": training}))
    words = ["train", "bimodal_sep", "--preset", "mini", "--config", plan, "--data", solos, "-o", run]
    settings = {"COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"}
    result = CliRunner().invoke(app, [str(word) for word in words], env=settings)
    assert result.exit_code == 0, result.output
    first, second = steps(run)
    assert {"loss", "separation", "alignment"} <= first.keys()
    assert all(np.isfinite(value) for value in (*first.values(), *second.values()))
    model = load(run)
    assert model.parts["encoder"]["rate"] == 8000
    noise = 0.1 * np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    example = Cue(audio=noise, audio_rate=8000, name="like this")
    done = model.separate(noise, [Cue(text="a cello is bowed"), example], rate=8000)
    assert [stem.name for stem in done.tracks] == ["a cello is bowed", "like this", "residual"]


def test_two_and_two_steps_are_four(solos: Path, tmp_path: Path) -> None:
    """To the bit: texts, examples and forgotten words are drawn by step, not by what was drawn before."""
    change = {"members": 2, "solos": 0.5, "ema": 0.9, "augmentation": {"factor": 0.5, "noise": 0.3}, "accumulate": 2}
    settings = {"consistency": 1.0, "contrastive": 0.5, "together": False}
    whole = train(mini(**settings), solos, tmp_path / "whole", config(**change))
    halves = train(mini(**settings), solos, tmp_path / "halves", config(**change, steps=2))
    assert differences(*(torch.load(r / "checkpoint.pt", weights_only=True) for r in (whole, halves)))
    train(mini(seed=7, **settings), solos, halves, config(**change))
    assert_same_run(halves, whole)
    assert all({"separation", "alignment", "consistency", "contrastive"} <= step.keys() for step in steps(whole))


def test_two_sounds_per_recording_in_half_precision(solos: Path, tmp_path: Path) -> None:
    model = mini(front_end=WIDE, consistency=1.0, contrastive=0.5)
    run = train(model, solos, tmp_path / "run", config(steps=2, members=2, solos=0.5, precision="bf16"))
    assert all(np.isfinite(value) for record in steps(run) for value in record.values())


@pytest.fixture
def judge_file(tmp_path: Path) -> Path:
    """Weights of a small sound tower, as transformers stores CLAP."""
    torch.manual_seed(3)
    sound = ClapSound(tower=SOUND_TOWER)
    for weight in sound.parameters():
        weight.add_(0.1 * torch.randn_like(weight))
    entries = sound.clap.state_dict()
    save_file({**entries, "logit_scale_a": torch.tensor(1.5)}, tmp_path / "clap.safetensors")
    return tmp_path / "clap.safetensors"


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    """A folder with a vocabulary of bytes and one merge."""
    from tokenizers.pre_tokenizers import ByteLevel

    words = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), "og"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: row for row, word in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\no g\n")
    return str(tmp_path)


def music(judge: Path, tokenizer: str, seed: int = 0) -> SeparationModel:
    """The published variant with small towers."""
    torch.manual_seed(seed)
    small: dict[str, dict[str, Any]] = {
        **PARTS,
        "encoder": {"tokenizer": tokenizer, "tower": TEXT_TOWER, "length": 24},
        "separator": {"width": 2, "levels": 5, "mask_features": 3},
        "objective": {"judge": {"rate": 8000, "tower": SOUND_TOWER, "clap_weights": str(judge)}},
    }
    parts = {slot: part.changed(small[slot]) for slot, part in RECIPE.parts("music").items()}
    return compose_recipe(parts, "bimodal_sep.music")


def test_a_run_starts_with_the_weights_of_the_judge(
    solos: Path, tmp_path: Path, judge_file: Path, tokenizer: str
) -> None:
    """They stay as they are, the checkpoint has them, and no file is needed to go on."""
    settings = {"members": 2, "batch": 2, "validate_every": 1}
    whole = train(music(judge_file, tokenizer), solos, tmp_path / "whole", config(**settings, steps=2))
    saved = torch.load(whole / "checkpoint.pt", weights_only=True)["objective"]
    assert saved["judge.logit_scale_a"].item() == 1.5
    halves = train(music(judge_file, tokenizer), solos, tmp_path / "halves", config(**settings, steps=1))
    judge_file.unlink()
    train(music(judge_file, tokenizer, seed=5), solos, halves, config(**settings, steps=2))
    assert_same_run(halves, whole)
    assert all({"separation", "consistency", "contrastive"} <= step.keys() for step in steps(whole))


def test_a_run_without_a_judge_does_not_begin(solos: Path, tmp_path: Path, tokenizer: str) -> None:
    """Nothing is written."""
    with pytest.raises(WeightsError, match=r"nowhere\.safetensors"):
        train(music(tmp_path / "nowhere.safetensors", tokenizer), solos, tmp_path / "run", config(members=2))
    assert not (tmp_path / "run").exists()


def test_a_model_that_works_at_another_rate_than_its_ear(solos: Path, tmp_path: Path) -> None:
    model = compose_recipe(changed("mini", encoder={"rate": 11025}), "bimodal_sep.tiny")
    with pytest.raises(CompositionError, match=r"set encoder\.rate to 8000"):
        train(model, solos, tmp_path / "run", config())
    assert not (tmp_path / "run").exists()
