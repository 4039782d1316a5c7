"""Parts of BiModalSep with those of other methods: built, run, and trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from avsep_zoo import SeparationModel, compose
from avsep_zoo.contracts import CueBatch
from avsep_zoo.errors import CompositionError

FRONT_END = {
    "name": "stft", "rate": 8000, "length": 2047, "n_fft": 126, "hop_length": 64, "warp_rows": 32, "log_scale": 0.15,
}  # fmt: skip
WORDS = {"name": "bimodal_sep.words", "naming": ["cello", "flute"], "other": ["the"], "width": 8, "heads": 2, "ear": 2}
ATTENTION = {"name": "bimodal_sep.attention", "heads": 2}
UNET = {"name": "bimodal_sep.unet", "width": 2, "levels": 5, "mask_features": 4}
MASK_UNET = {"name": "mask_unet", "width": 4, "levels": 4, "mask_features": 4}
AVSGS_UNET = {"name": "avsgs.unet", "width": 4, "levels": 3}
IAL_UNET = {"name": "ial_cms.unet", "width": 4, "levels": 3}
DAVIS_UNET = {
    "name": "davis.unet", "width": 8, "multipliers": [1, 2], "rows": 32, "groups": 4, "heads": 2, "head_channels": 4,
    "time_heads": 2, "time_features": 16,
}  # fmt: skip
DAVIS = {
    "name": "davis.resnet", "width": 2, "frames": 2, "image_size": 32, "heads": 2, "feedforward": 16,
    "encoder_layers": 1, "first_frame": False, "frozen": False,
}  # fmt: skip
IQUERY = {
    "name": "iquery.cues", "classes": ["cello", "flute"], "width": 4, "object_features": 8, "frames": 2,
    "image_size": 32, "frozen": False,
}  # fmt: skip
DEEPLAB = {
    "name": "ial_cms.deeplab", "width": 2, "pyramid": 3, "details": 2, "space": 8, "frozen": False, "image_size": 32,
}  # fmt: skip


def texts() -> CueBatch:
    return CueBatch({"words": torch.tensor([[[2, 0], [4, 3]], [[3, 0], [2, 2]]])})


def pictures() -> CueBatch:
    return CueBatch({"frames": torch.randn(2, 2, 3, 2, 32, 32), "label": torch.tensor([[0, 1], [1, 0]])})


def one_picture() -> CueBatch:
    return CueBatch({"frames": torch.randn(2, 2, 3, 32, 32)})


def learns(model: SeparationModel, prediction: Tensor) -> None:
    """Most parameters of every part that has any get a gradient; of the encoder of words not the ear."""
    (prediction * torch.randn_like(prediction)).sum().backward()
    for slot, part in model.named_children():
        trained = [p for name, p in part.named_parameters() if p.requires_grad and not name.startswith("ear.")]
        got = [p for p in trained if p.grad is not None and torch.isfinite(p.grad).all()]
        assert not trained or len(got) > 0.5 * len(trained), slot


@pytest.mark.parametrize("separator", [UNET, MASK_UNET, AVSGS_UNET, IAL_UNET], ids=lambda part: part["name"])
def test_the_attention_in_every_unet(separator: dict[str, Any]) -> None:
    """It acts at every bottleneck, and at the head where there is one; masks of different texts differ."""
    model = compose(encoder=WORDS, conditioner=ATTENTION, separator=separator, front_end=FRONT_END)
    mixture = torch.randn(2, 2047)
    with torch.no_grad():
        estimate = model({"mixture": mixture, "cues": texts()})
    assert estimate.values.shape == (2, 2, 32, 32) and torch.isfinite(estimate.values).all()
    assert not torch.equal(estimate.values[:, 0], estimate.values[:, 1])
    model.train()
    learns(model, model({"mixture": mixture, "cues": texts()}).values)


@pytest.mark.parametrize(
    ("encoder", "conditioner", "cues"),
    [
        (DAVIS, ATTENTION, pictures),
        (IQUERY, ATTENTION, pictures),
        (DEEPLAB, ATTENTION, one_picture),
        (WORDS, {"name": "tiled_concat"}, texts),
        (IQUERY, {"name": "tiled_concat"}, pictures),
        (WORDS, {"name": "avsgs.unroll", "width": 6}, texts),
    ],
    ids=["frames", "objects", "maps", "words-tiled", "objects-tiled", "words-unroll"],
)
@pytest.mark.parametrize("levels", [5, 6])
def test_the_unet_with_other_cues(levels: int, encoder: dict[str, Any], conditioner: dict[str, Any], cues: Any) -> None:
    """Also with several places to act at, whose features may become wider there."""
    front = {**FRONT_END, "length": 4095, "warp_rows": 64} if levels == 6 else FRONT_END
    model = compose(
        encoder=encoder, conditioner=conditioner, separator={**UNET, "levels": levels}, front_end=front
    ).train()
    estimate = model({"mixture": torch.randn(2, front["length"]), "cues": cues()})  # type: ignore[arg-type]
    assert estimate.values.shape == (2, 2, 8 * 2 ** (levels - 3), 8 * 2 ** (levels - 3))
    assert ((estimate.values > 0) & (estimate.values < 1)).all()
    learns(model, estimate.values)


@pytest.mark.parametrize("separator", [{**MASK_UNET, "driven": True}, DAVIS_UNET], ids=lambda part: part["name"])
def test_a_text_for_a_generative_network(separator: dict[str, Any]) -> None:
    """Of a U-Net that a driver calls step by step."""
    model = compose(
        encoder=WORDS, conditioner=ATTENTION, separator=separator, driver={"name": "flow", "steps": 2},
        front_end=FRONT_END,
    )  # fmt: skip
    with torch.no_grad():
        estimate = model({"mixture": torch.randn(2, 2047), "cues": texts()})
    assert estimate.kind == "features" and torch.isfinite(estimate.values).all()


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        (
            {"encoder": WORDS, "conditioner": "ial_cms.attention", "separator": UNET},
            r"wants map and the encoder 'bimodal_sep\.words' gives tokens, vector; encoders that fit: ",
        ),
        (
            {"encoder": DEEPLAB, "conditioner": "ial_cms.attention", "separator": UNET},
            r"acts at bottleneck, decoder and the separator 'bimodal_sep\.unet' has bottleneck, head; separators that",
        ),
        (
            {"encoder": WORDS, "conditioner": {**ATTENTION, "heads": 3}, "separator": UNET},
            r"'bimodal_sep\.attention' cannot be built with these settings: 3 heads do not divide 16 channels",
        ),
        (
            {"encoder": WORDS, "conditioner": {**ATTENTION, "layer": "film"}, "separator": UNET},
            r"The condition layer is 'film'; give one of sa, ca, sca, cat, sca_cat, identity",
        ),
        (
            {"encoder": WORDS, "conditioner": ATTENTION, "separator": {**UNET, "levels": 4}},
            r"The U-Net has 4 levels, width 2, 4 mask features and 1 layers per residual block; give at least 5",
        ),
        (
            {"encoder": {**WORDS, "other": ["cello"]}, "conditioner": ATTENTION, "separator": UNET},
            r"'bimodal_sep\.words' cannot be built with these settings: A word is twice in the vocabulary",
        ),
    ],
)
def test_parts_that_do_not_fit(parts: Mapping[str, Any], why: str) -> None:
    """The message names both and what would fit."""
    with pytest.raises(CompositionError, match=why):
        compose(**parts, front_end=FRONT_END)
