"""A tiny iQuery of the real classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from avsep_zoo import SeparationModel, compose
from avsep_zoo.contracts import CueBatch

TinyModel = Callable[..., SeparationModel]


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test draws the same weights, on one thread: sums are the same everywhere."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def tiny_model() -> TinyModel:
    """Build a model of three classes; keyword arguments are settings of the encoder."""

    def build(*, queries: int = 5, classes: tuple[str, ...] = ("cello", "flute", "tuba"), **encoder: Any) -> Any:
        settings = {"classes": list(classes), "spare_queries": queries - len(classes), "width": 4, "frames": 2}
        settings |= {"object_features": 8, "image_size": 32, **encoder}
        model = compose(
            encoder={"name": "iquery.cues", **settings},
            conditioner={
                "name": "iquery.queries", "queries": queries, "heads": 2, "feedforward": 32, "decoder_layers": 2,
            },
            separator={"name": "mask_unet", "width": 4, "levels": 4, "mask_features": 8},
            front_end={
                "name": "stft", "rate": 8000, "length": 1023, "n_fft": 126, "hop_length": 64, "warp_rows": 32,
            },
        )  # fmt: skip
        model.parts["objective"] = {"name": "iquery.masks", "learning_rate": 1e-3}
        return model

    return build


@pytest.fixture
def tiny_batch() -> dict[str, Any]:
    """Two mixtures of two sources with frames and labels, for a model without motion."""
    generator = torch.Generator().manual_seed(1)
    sources = 0.1 * torch.randn(2, 2, 1023, generator=generator)
    frames = torch.randn(2, 2, 3, 2, 32, 32, generator=generator)
    cues = CueBatch({"frames": frames, "label": torch.tensor([[0, 1], [2, 0]])})
    return {"sources": sources, "mixture": sources.sum(dim=1), "cues": cues}
