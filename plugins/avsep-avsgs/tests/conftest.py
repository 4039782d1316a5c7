"""A tiny AVSGS of the real classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from avsep_zoo import SeparationModel, compose

TinyModel = Callable[..., SeparationModel]


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test draws the same weights, on one thread: sums are the same everywhere."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def tiny_model() -> TinyModel:
    """Build a model on features of 16 numbers; arguments are settings of the graph, the separator and the encoder."""

    def build(
        *, graph: Mapping[str, Any] | None = None, separator: Mapping[str, Any] | None = None, **encoder: Any
    ) -> SeparationModel:
        return compose(
            encoder={"name": "avsgs.detections", "features": 16, "hidden": 12, "width": 8, **encoder},
            conditioner={"name": "avsgs.scene_graph", "width": 8, "hidden": 8, "heads": 2, **(graph or {})},
            separator={"name": "avsgs.unet", "width": 4, "levels": 3, **(separator or {})},
            front_end={
                "name": "stft", "rate": 8000, "length": 1023, "n_fft": 126, "hop_length": 64, "warp_rows": 32,
                "pad_mode": "reflect", "log_offset": 0.0,
            },
        )  # fmt: skip

    return build
