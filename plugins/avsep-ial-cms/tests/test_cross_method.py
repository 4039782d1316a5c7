"""Parts of IAL-CMS with those of other methods: built, run, and trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from avsep_ial_cms.conditioner import CrossModal
from avsep_zoo import SeparationModel, compose
from avsep_zoo.contracts import CueBatch
from avsep_zoo.errors import CompositionError

FRONT_END = {
    "name": "stft", "rate": 8000, "length": 2047, "n_fft": 126, "hop_length": 64, "warp_rows": 32, "log_scale": 0.15,
}  # fmt: skip
DEEPLAB = {
    "name": "ial_cms.deeplab", "width": 2, "pyramid": 3, "details": 2, "space": 8, "frozen": False, "image_size": 32,
}  # fmt: skip
ATTENTION = {"name": "ial_cms.attention", "width": 6, "hidden": 8}
UNET = {"name": "ial_cms.unet", "width": 4, "levels": 3}
MASK_UNET = {"name": "mask_unet", "width": 4, "levels": 4, "mask_features": 4}
AVSGS_UNET = {"name": "avsgs.unet", "width": 4, "levels": 3}
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
CROPS = {"name": "avsgs.crops", "width": 2, "image_size": 32, "reduced": 3, "features": 8, "scene": False}
QUERIES = {"name": "iquery.queries", "queries": 4, "heads": 2, "feedforward": 16, "decoder_layers": 2}


def one_picture() -> CueBatch:
    return CueBatch({"frames": torch.randn(2, 2, 3, 32, 32)})


def pictures() -> CueBatch:
    return CueBatch({"frames": torch.randn(2, 2, 3, 2, 32, 32), "label": torch.tensor([[0, 1], [1, 0]])})


def crops() -> CueBatch:
    """Three nodes and two."""
    mask = torch.zeros(2, 2, 3)
    mask[:, 1, 2:] = torch.inf
    return CueBatch({"frames": torch.randn(2, 2, 3, 32, 32, 3), "detections_mask": mask})


def learns(model: SeparationModel, prediction: Tensor) -> None:
    """Nearly every parameter of every part gets a gradient: the first picture alone may count, say."""
    (prediction * torch.randn_like(prediction)).sum().backward()
    for slot, part in model.named_children():
        trained = [p for p in part.parameters() if p.requires_grad]
        got = [p for p in trained if p.grad is not None and torch.isfinite(p.grad).all()]
        assert not trained or len(got) > 0.5 * len(trained), slot


@pytest.mark.parametrize("separator", [UNET, MASK_UNET, AVSGS_UNET], ids=lambda part: part["name"])
def test_the_attention_in_every_unet(separator: dict[str, Any]) -> None:
    """It acts at the bottleneck and at each decoder level, and finds where the sound comes from."""
    model = compose(encoder=DEEPLAB, conditioner=ATTENTION, separator=separator, front_end=FRONT_END)
    mixture, batch = torch.randn(2, 2047), one_picture()
    with torch.no_grad():
        estimate = model({"mixture": mixture, "cues": batch})
        bound = model.conditioner.bind(model.encode(batch))
        model.separator(model.front_end.analyse(mixture), bound)
    assert estimate.values.shape == (2, 2, 32, 32) and torch.isfinite(estimate.values).all()
    assert isinstance(bound, CrossModal) and bound.localisation is not None
    assert bound.localisation.shape == (2, 2, 4, 4)
    model.train()
    learns(model, model({"mixture": mixture, "cues": batch}).values)


@pytest.mark.parametrize(
    ("encoder", "conditioner", "cues"),
    [
        (DAVIS, {"name": "tiled_concat"}, pictures),
        (IQUERY, {"name": "tiled_concat"}, pictures),
        (DAVIS, {"name": "avsgs.unroll", "width": 6}, pictures),
        (IQUERY, {"name": "avsgs.unroll", "width": 6}, pictures),
        (DEEPLAB, {"name": "tiled_concat"}, one_picture),
        (CROPS, {"name": "avsgs.scene_graph", "hidden": 8, "heads": 2, "width": 8}, crops),
    ],
    ids=["davis-tiled", "iquery-tiled", "davis-unroll", "iquery-unroll", "deeplab-tiled", "avsgs-graph"],
)
def test_the_unet_with_other_cues(encoder: dict[str, Any], conditioner: dict[str, Any], cues: Any) -> None:
    model = compose(encoder=encoder, conditioner=conditioner, separator=UNET, front_end=FRONT_END)
    mixture, batch = torch.randn(2, 2047), cues()
    with torch.no_grad():
        estimate = model({"mixture": mixture, "cues": batch})
    assert estimate.values.shape == (2, 2, 32, 32) and estimate.values.min() >= 0
    assert torch.isfinite(estimate.values).all()
    model.train()
    learns(model, model({"mixture": mixture, "cues": batch}).values)


def test_the_picture_for_iquery() -> None:
    """The vector of a map tells the queries which sound to take."""
    model = compose(encoder=DEEPLAB, conditioner=QUERIES, separator=MASK_UNET, front_end=FRONT_END).train()
    learns(model, model({"mixture": torch.randn(2, 2047), "cues": one_picture()}).values)


@pytest.mark.parametrize("driver", ["flow", "diffusion"])
def test_the_attention_in_a_generative_network(driver: str) -> None:
    """Of a U-Net that a driver calls step by step; at its bottleneck and its decoder levels."""
    model = compose(
        encoder=DEEPLAB, conditioner=ATTENTION, separator={**MASK_UNET, "driven": True},
        driver={"name": driver, "steps": 2}, front_end=FRONT_END,
    )  # fmt: skip
    mixture, batch = torch.randn(2, 2047), one_picture()
    with torch.no_grad():
        estimate = model({"mixture": mixture, "cues": batch})
    assert estimate.kind == "features" and estimate.values.shape == (2, 2, 32, 32)
    assert torch.isfinite(estimate.values).all()


def test_waveforms_of_a_composition() -> None:
    """Those of the recording's length."""
    model = compose(encoder=DEEPLAB, conditioner=ATTENTION, separator=AVSGS_UNET, front_end=FRONT_END)
    with torch.no_grad():
        waves = model.waveforms({"mixture": torch.randn(2, 2047), "cues": one_picture()}, length=2047)
    assert waves.shape == (2, 2, 2047) and torch.isfinite(waves).all()


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        (
            {"encoder": DAVIS, "conditioner": ATTENTION, "separator": UNET},
            r"The conditioner 'ial_cms\.attention' wants map and the encoder 'davis\.resnet' gives tokens, vector; "
            r"encoders that fit: ial_cms\.deeplab\.",
        ),
        (
            {"encoder": IQUERY, "conditioner": ATTENTION, "separator": MASK_UNET},
            r"and the encoder 'iquery\.cues' gives .*vector; encoders that fit: ial_cms\.deeplab\.",
        ),
        (
            {"encoder": IQUERY, "conditioner": QUERIES, "separator": UNET},
            r"'iquery\.queries' acts at head, latent and the separator 'ial_cms\.unet' has bottleneck, decoder; "
            r"separators that fit: mask_unet\.",
        ),
        (
            {"encoder": DEEPLAB, "conditioner": ATTENTION, "separator": UNET, "driver": "flow"},
            r"The driver 'flow' drives nothing: the separator 'ial_cms\.unet' reads no noise; separators that fit: ",
        ),
        (
            {"encoder": DEEPLAB, "conditioner": {**ATTENTION, "width": 0}, "separator": UNET},
            r"'ial_cms\.attention' cannot be built with these settings: The attention has width 0 and hidden 8; give",
        ),
        (
            {"encoder": DEEPLAB, "conditioner": ATTENTION, "separator": {**UNET, "octaves": 3}},
            r"'ial_cms\.unet' has no setting 'octaves'; it has width, levels, mask_offset\.",
        ),
        (
            {"encoder": {**DEEPLAB, "image_size": 100}, "conditioner": ATTENTION, "separator": UNET},
            r"'ial_cms\.deeplab' cannot be built with these settings: image_size is 100; give a multiple of 16\.",
        ),
    ],
)
def test_parts_that_do_not_fit(parts: Mapping[str, Any], why: str) -> None:
    """The message names both and what would fit."""
    with pytest.raises(CompositionError, match=why):
        compose(**parts, front_end=FRONT_END)


def test_a_front_end_that_does_not_fit() -> None:
    """Said when the first sound arrives, with the numbers to change."""
    model = compose(encoder=DEEPLAB, conditioner=ATTENTION, separator=UNET, front_end={**FRONT_END, "warp_rows": 36})
    with pytest.raises(CompositionError, match=r"gives 36 x 32 points and a U-Net of 3 levels needs multiples of 8"):
        model({"mixture": torch.randn(1, 2047), "cues": CueBatch({"frames": torch.randn(1, 2, 3, 32, 32)})})
