"""Parts of AVSGS with those of other methods: built, run, and trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from avsep_zoo import SeparationModel, compose
from avsep_zoo.contracts import CueBatch

FRONT_END = {
    "name": "stft", "rate": 8000, "length": 2047, "n_fft": 126, "hop_length": 64, "warp_rows": 32, "log_scale": 0.15,
}  # fmt: skip
UNET = {"name": "avsgs.unet", "width": 4, "levels": 3}
GRAPH = {"name": "avsgs.scene_graph", "hidden": 8, "heads": 2, "width": 8}
DETECTIONS = {"name": "avsgs.detections", "features": 6, "hidden": 5, "width": 8}
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


def pictures() -> CueBatch:
    return CueBatch({"frames": torch.randn(2, 2, 3, 2, 32, 32), "label": torch.tensor([[0, 1], [1, 0]])})


def nodes() -> CueBatch:
    mask = torch.zeros(2, 2, 3)
    mask[:, 1, 1:] = torch.inf
    return CueBatch({"detections": torch.randn(2, 2, 6, 3), "detections_mask": mask})


def learns(model: SeparationModel, prediction: torch.Tensor) -> None:
    """Every part gets a gradient."""
    prediction.square().mean().backward()
    for slot, part in model.named_children():
        trained = [p for p in part.parameters() if p.requires_grad]
        if not trained:
            continue
        got = [p for p in trained if p.grad is not None and torch.isfinite(p.grad).all()]
        assert len(got) > 0.5 * len(trained), slot


@pytest.mark.parametrize(
    ("encoder", "conditioner", "separator", "cues"),
    [
        (DAVIS, {"name": "avsgs.unroll", "width": 6}, UNET, pictures),
        (IQUERY, {"name": "avsgs.unroll", "width": 6}, UNET, pictures),
        (DAVIS, {"name": "tiled_concat"}, UNET, pictures),
        (IQUERY, {"name": "tiled_concat"}, UNET, pictures),
        (DETECTIONS, GRAPH, {"name": "mask_unet", "width": 4, "levels": 4, "mask_features": 4}, nodes),
        (DAVIS, GRAPH, UNET, pictures),
    ],
)
def test_masks(encoder: dict[str, Any], conditioner: dict[str, Any], separator: dict[str, Any], cues: Any) -> None:
    model = compose(encoder=encoder, conditioner=conditioner, separator=separator, front_end=FRONT_END)
    mixture, batch = torch.randn(2, 2047), cues()
    with torch.no_grad():
        estimate = model({"mixture": mixture, "cues": batch})
    assert estimate.values.shape == (2, 2, 32, 32) and torch.isfinite(estimate.values).all()
    model.train()
    learns(model, model({"mixture": mixture, "cues": batch}).values)


def test_a_generative_separator() -> None:
    """The graph in the network that a driver calls step by step."""
    model = compose(
        encoder=DETECTIONS, conditioner=GRAPH, separator=DAVIS_UNET, driver={"name": "flow", "steps": 2},
        front_end=FRONT_END,
    )  # fmt: skip
    mixture, batch = torch.randn(2, 2047), nodes()
    with torch.no_grad():
        estimate = model({"mixture": mixture, "cues": batch})
    assert estimate.kind == "features" and estimate.values.shape == (2, 2, 32, 32)
    model.train()
    learns(model, model({"mixture": mixture, "cues": batch}).values)


@pytest.mark.parametrize("encoder", [DAVIS, IQUERY])
def test_unrolled_training_of_other_encoders(encoder: dict[str, Any]) -> None:
    """One vector per recording becomes several sounds."""
    model = compose(encoder=encoder, conditioner={"name": "avsgs.unroll", "width": 6}, separator=UNET)
    bound = model.conditioner.bind(model.encoder(pictures()), unroll=3)  # type: ignore[call-arg]
    assert bound.sources == 6
    logits = model.separator.logits(torch.randn(2, 1, 16, 16), bound)  # type: ignore[operator]
    assert logits.shape == (2, 6, 16, 16)
