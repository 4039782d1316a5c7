"""The encoder with CLIP."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from avsep_davis.clip import TOWER, ClipEncoder
from avsep_zoo import compose
from avsep_zoo.contracts import CueBatch
from avsep_zoo.cue import Cue
from avsep_zoo.errors import CompositionError, WeightsError
from avsep_zoo.load import methods
from avsep_zoo.pictures import CLIP_MEAN, CLIP_STD
from avsep_zoo.registry import registry
from avsep_zoo.training.start import starting_model
from avsep_zoo.weights.cards import write_card

SMALL = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
    "projection_dim": 8,
}


def small(**settings: Any) -> ClipEncoder:
    torch.manual_seed(0)
    return ClipEncoder(**{"tower": SMALL, "frames": 3, "heads": 2, "feedforward": 16, "encoder_layers": 1, **settings})


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder as on the Hub: a whole CLIP, whose image tower is a small one with other weights."""
    tmp_path = tmp_path / "clip"
    tmp_path.mkdir()
    torch.manual_seed(1)
    tower = ClipEncoder(tower=SMALL, heads=2, feedforward=16).clip
    whole = {**tower.state_dict(), "vision_model.embeddings.position_ids": torch.arange(5)[None]}
    texts = {"text_model.final_layer_norm.bias": torch.zeros(8), "text_projection.weight": torch.zeros(8, 8)}
    save_file({**whole, **texts, "logit_scale": torch.zeros(())}, tmp_path / "model.safetensors")
    config = {"model_type": "clip", "vision_config": {"hidden_act": "quick_gelu", "num_attention_heads": 2}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_views_and_their_width() -> None:
    """Tokens are one per frame, the vector is their mean, both as wide as the projection."""
    encoder = small().eval()
    embedding = encoder(CueBatch({"frames": torch.randn(2, 3, 3, 3, 32, 32)}))
    assert embedding.tokens is not None and embedding.vector is not None
    assert embedding.tokens.shape == (2, 3, 3, 8) and encoder.gives == {"vector": 8, "tokens": 8}
    assert torch.equal(embedding.vector, embedding.tokens.mean(dim=2))


def test_features_are_not_normalised() -> None:
    features = small().image_features(10 * torch.randn(4, 3, 32, 32))
    assert features.norm(dim=1).std() > 1e-3


def test_pictures_in_chunks_are_what_they_are_alone() -> None:
    encoder = small().eval()
    images = torch.randn(300, 3, 32, 32)
    assert torch.allclose(encoder.image_features(images)[[0, 256, 299]], encoder.image_features(images[[0, 256, 299]]))


def test_attention_is_the_same_in_both_implementations() -> None:
    images = torch.randn(2, 3, 32, 32)
    one, other = (small(attention=kind).eval().image_features(images) for kind in ("sdpa", "eager"))
    assert torch.allclose(one, other, atol=1e-6)


def test_the_tower_stays_frozen_and_in_eval_mode() -> None:
    encoder = small().train()
    assert encoder.training and encoder.temporal.training
    assert not any(module.training for module in encoder.clip.modules())
    encoder(CueBatch({"frames": torch.randn(1, 1, 3, 3, 32, 32)})).vector.sum().backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in encoder.clip.parameters())
    assert all(p.grad is not None for p in encoder.temporal.parameters())


def test_statistics_of_pixels() -> None:
    grey = Cue(frames=np.full((40, 40, 3), 100, dtype=np.uint8))
    frames = small(statistics="clip").prepare([grey], video=None, time=0.0).values["frames"]
    assert frames.shape == (1, 1, 3, 3, 32, 32)
    assert np.allclose(frames[0, 0, :, 0, 5, 5], (100 / 255 - CLIP_MEAN) / CLIP_STD, atol=1e-6)


def test_default_is_the_published_tower() -> None:
    """By its plan and sizes alone; the weights are pinned to a commit."""
    assert ClipEncoder.plan().gives == {"vector": 512, "tokens": 512}
    assert dict(TOWER)["patch_size"] == 32
    with torch.device("meta"):
        encoder = ClipEncoder()
    assert sum(p.numel() for p in encoder.clip.parameters()) == 87_849_216
    assert sum(p.numel() for p in encoder.temporal.parameters()) == 13_663_232
    assert encoder.image_size == 224


@pytest.mark.parametrize("method", ["davis", "davis_flow"])
def test_recipes(method: str) -> None:
    """MUSIC sees a frame every two seconds, AVE every second with CLIP's statistics; ResNet-18 is a variant."""
    parts = {variant: methods()[method].parts(variant)["encoder"] for variant in ("music", "ave", "resnet18", "mini")}
    assert [parts[v].name for v in parts] == ["davis.clip", "davis.clip", "davis.resnet", "davis.resnet"]
    music, ave = parts["music"].config, parts["ave"].config
    assert (music["frame_rate"], music["statistics"], music["vary"]) == (0.5, "imagenet", True)
    assert (ave["frame_rate"], ave["statistics"], ave["vary"]) == (1.0, "clip", False)
    assert "first_frame" not in parts["resnet18"].config
    assert registry().part("encoder", "davis.clip") is ClipEncoder


def test_published_weights(published: Path) -> None:
    """A whole CLIP gives its image tower; nothing else changes."""
    encoder = small(clip_weights=str(published))
    before = {name: value.clone() for name, value in encoder.temporal.state_dict().items()}
    encoder.load_pretrained()
    stored = load_file(published / "model.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in encoder.clip.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in encoder.temporal.state_dict().items())
    assert not any(p.requires_grad for p in encoder.clip.parameters())


def test_weights_that_transformers_saved(tmp_path: Path) -> None:
    source = ClipEncoder(tower=SMALL, heads=2, feedforward=16)
    source.clip.save_pretrained(tmp_path)  # type: ignore[operator]
    encoder = small(clip_weights=str(tmp_path))
    encoder.load_pretrained()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(encoder.image_features(images), source.image_features(images))


def test_a_run_starts_from_published_weights(published: Path, tmp_path: Path) -> None:
    """A card holds them: a run that starts from it, or goes on, fetches nothing."""
    changes = {
        "encoder": {"tower": SMALL, "heads": 2, "feedforward": 16, "clip_weights": str(published)},
        "separator": {"width": 8, "multipliers": [1, 2], "head_channels": 4, "time_features": 16},
    }
    model = starting_model("davis_flow", overrides=changes)
    stored = load_file(published / "model.safetensors")
    name = "visual_projection.weight"
    assert torch.equal(model.encoder.clip.get_parameter(name), stored[name])  # type: ignore[union-attr]
    write_card(tmp_path / "card", model)
    (published / "model.safetensors").unlink()
    for again in (
        starting_model(None, card=tmp_path / "card"),
        starting_model("davis", card=tmp_path / "card", overrides=changes),
    ):
        assert torch.equal(again.encoder.clip.get_parameter(name), stored[name])  # type: ignore[union-attr]
    starting_model("davis_flow", overrides=changes, pretrained=False)
    with pytest.raises(WeightsError, match=r"holds no \.safetensors"):
        starting_model("davis_flow", overrides=changes)


@pytest.mark.parametrize(
    ("tower", "config", "message"),
    [
        ({}, {"hidden_act": "gelu"}, "has hidden_act 'gelu' and this one 'quick_gelu'"),
        ({}, {"vision_config": {"num_attention_heads": 4}}, "has num_attention_heads 4 and this one 2"),
        ({}, {"vision_config": 3}, "has vision_config 3"),
        ({"num_hidden_layers": 2}, {}, r"do not fit this CLIP image tower: 16 entries .* 'vision_model\.encoder"),
        ({"projection_dim": 16}, {}, r"do not fit .* first is 'visual_projection\.weight'"),
    ],
)
def test_weights_of_another_tower(published: Path, tower: dict[str, int], config: Any, message: str) -> None:
    (published / "config.json").write_text(json.dumps(config))
    encoder = small(tower={**SMALL, **tower}, clip_weights=str(published))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        encoder.load_pretrained()
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (None, r"name a folder of them, or org/name@commit, by the encoder's setting clip_weights\."),
        ("openai/clip-vit-base-patch32", "40 hexadecimal digits"),
        ("no/such/folder", "do not exist"),
    ],
)
def test_weights_that_cannot_be_had(weights: str | None, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        small(clip_weights=weights).load_pretrained()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tower": {"depth": 3}}, "no size 'depth'; it has hidden_size"),
        ({"tower": {"patch_size": 0}}, "patch_size is 0"),
        ({"tower": {"patch_size": 16.5}}, "patch_size is 16.5"),
        ({"heads": 3}, "choose heads"),
        ({"statistics": "cilp"}, "give one of imagenet, clip"),
        ({"frames": 0}, "give at least one of each"),
        ({"frame_rate": float("nan")}, "give at least one of each"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    if "tower" in settings:
        settings = {"tower": {**SMALL, **settings["tower"]}}
    with pytest.raises(ValueError, match=message):
        small(**settings)


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence says what to install, also where a model is composed."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    message = r"davis\.clip needs transformers; install it: pip install transformers\.$"
    with pytest.raises(CompositionError, match=f"^{message}"):
        small()
    with pytest.raises(CompositionError, match=message):
        compose(
            encoder={"name": "davis.clip", "tower": SMALL, "heads": 2},
            conditioner="tiled_concat",
            separator={"name": "davis.unet", "width": 8, "multipliers": [1, 2], "rows": 16},
            driver="flow",
        )
