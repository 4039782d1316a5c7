"""Files in the authors' layout become a card whose model gives the official numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import avsep_zoo
from avsep_davis.parity_driver import sampled
from avsep_davis.parity_frames import looked
from avsep_davis.parity_sound import separated
from avsep_zoo.errors import WeightsError
from avsep_zoo.parity.case import Case, load_case
from avsep_zoo.parity.compare import compare
from avsep_zoo.parity.recipe import fill
from avsep_zoo.registry import registry
from avsep_zoo.weights.conversion import convert

CASES = Path(__file__).parents[3] / "tests" / "parity" / "davis"
TOWER = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 1}
TOWER |= {"image_size": 32, "patch_size": 16}
SHORT = {"front_end": {"length": 8191}}  # a quick self-check; golden cases bring sounds of their own length
HISTORY = {"train": {"epoch": [1], "err": [0.5]}, "val": {"epoch": [1], "sdr": [1.0], "sir": [2.0], "sar": [3.0]}}


def golden(name: str) -> Case:
    case = load_case(CASES / f"{name}.json")
    assert case is not None
    return case


def run_folder(folder: Path, parts: Mapping[str, Mapping[str, Tensor]], *, prefix: str = "") -> list[Path]:
    """What a training run leaves: two bare state dicts and a history."""
    folder.mkdir()
    for part, state in parts.items():
        torch.save({f"{prefix}{key}": value for key, value in state.items()}, folder / f"{part}_best.pth")
    torch.save(HISTORY, folder / "history_latest.pth")
    return [folder / "unet_best.pth", folder / "frame_best.pth"]


def small_clip() -> dict[str, Tensor]:
    """The entries of CLIP in a frame file, of a small tower, and of its text tower the first block."""
    width, inner = TOWER["hidden_size"], TOWER["intermediate_size"]
    sizes = {768: width, 3 * 768: 3 * width, 3072: inner, 50: 5, 32: TOWER["patch_size"], 49408: 8}
    state = {}
    for key, shape, _ in json.loads((CASES / "frame_encoder.json").read_text())["weights"]["parts"]["frame"]:
        block = re.search(r"resblocks\.(\d+)\.", key)
        layers = TOWER["num_hidden_layers"] if key.startswith("model.visual.") else 1
        if key.startswith("model.") and not (block and int(block[1]) >= layers):
            state[key] = torch.from_numpy(fill(key, [sizes.get(size, size) for size in shape])).float()
    return state


def test_clip_and_flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variant is told by the files, and every output of the whole method is within its tolerance.

    The image tower is a small one; at full size its golden case is ``clip_visual``.
    """
    monkeypatch.setitem(registry().method("davis_flow").variants, "small", {"encoder": {"tower": TOWER}, **SHORT})
    case = golden("end_to_end_music_flow")
    parts = {**case.state_dicts, "frame": {**small_clip(), **case.state_dicts["frame"]}}
    done = convert("davis_flow", run_folder(tmp_path / "run", parts), tmp_path / "card")
    assert done.card.name == "davis_flow.small"
    assert [(file.name, file.part) for file in done.files] == [("unet_best.pth", "unet"), ("frame_best.pth", "frame")]
    texts = [name for name in done.unused if name.startswith("frame.")]
    assert len(done.unused) == 10 + len(texts)
    assert {"frame.model.logit_scale", "frame.model.transformer.resblocks.0.attn.in_proj_bias"} < set(texts)
    assert not any(name.startswith(("frame.model.visual.", "frame.temporal")) for name in texts)
    model = avsep_zoo.load(tmp_path / "card")
    errors = compare(case, separated(model, case))
    assert len(errors) == len(case.expected)
    assert all(error.passed for error in errors), [error for error in errors if not error.passed]
    projection = model.state_dict()["encoder.clip.visual_projection.weight"]
    assert torch.equal(projection, parts["frame"]["model.visual.proj"].T)


@pytest.mark.filterwarnings("ignore::avsep_zoo.errors.LicenceWarning")
def test_resnet_and_diffusion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder and the sampler, with the settings of the variant that the files are told to be."""
    variants = registry().method("davis").variants
    monkeypatch.setitem(variants, "resnet18", {**variants["resnet18"], **SHORT})
    sampler, encoder = golden("ddim_music"), golden("frame_encoder_resnet18")
    rules = encoder.spec["weights"]
    counters = {key: torch.tensor(292) for key in rules["kept"]["frame"]}
    parts = {"unet": sampler.state_dicts["unet"], "frame": encoder.state_dicts["frame"] | counters}
    assert parts["frame"].keys() == {key for key, _, _ in rules["parts"]["frame"]}
    done = convert("davis", run_folder(tmp_path / "run", parts, prefix="module."), tmp_path / "card")
    assert done.card.name == "davis.resnet18"
    assert len(done.unused) == 10
    model: Any = avsep_zoo.load(tmp_path / "card")
    errors = [*compare(sampler, sampled(model, sampler)), *compare(encoder, looked(model.encoder, encoder))]
    assert len(errors) == 3
    assert all(error.passed for error in errors), [error for error in errors if not error.passed]


def test_music_and_ave_are_not_told_apart(tmp_path: Path) -> None:
    """Nothing in their files differs, so the user has to say; here all entries of a layout share one number."""
    parts = {}
    for part, name in {"unet": "unet_music", "frame": "frame_encoder"}.items():
        entries = json.loads((CASES / f"{name}.json").read_text())["weights"]["parts"][part]
        parts[part] = {key: torch.ones(()).expand(shape) for key, shape, _ in entries}
    with pytest.raises(WeightsError, match=r"fit davis\.music and davis\.ave alike; .* 'avsep convert davis\.music'"):
        convert("davis", run_folder(tmp_path / "run", parts), tmp_path / "card")
    assert not (tmp_path / "card").exists()


def test_the_encoder_of_another_method(tmp_path: Path) -> None:
    """A ResNet with a classifier is known by its first entries, and the entry that DAVIS has no place for is named."""
    unet = {"net_unet.final_conv.weight": torch.ones(1, 64, 1, 1)}
    frame = {"features.0.weight": torch.ones(64, 3, 7, 7), "fc.weight": torch.ones(32, 512, 3, 3)}
    with pytest.raises(WeightsError, match=r"The entry frame\.fc\.weight is none of davis's"):
        convert("davis", run_folder(tmp_path / "run", {"unet": unet, "frame": frame}), tmp_path / "card")
