"""A tiny DAVIS of the real classes."""

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
    """Build a model with a ResNet; arguments are settings of the separator, the driver and the encoder."""

    def build(*, driver: str = "flow", separator: Mapping[str, Any] | None = None, **encoder: Any) -> SeparationModel:
        looks = {"width": 4, "frames": 2, "image_size": 32, "heads": 2, "feedforward": 32, "encoder_layers": 1}
        sizes = {"width": 8, "multipliers": [1, 2], "rows": 32, "groups": 4, "head_channels": 4, "time_features": 32}
        return compose(
            encoder={"name": "davis.resnet", **looks, **encoder},
            conditioner={"name": "tiled_concat"},
            separator={"name": "davis.unet", **sizes, **(separator or {})},
            driver={"name": driver, "steps": 2},
            front_end={
                "name": "stft", "rate": 8000, "length": 1023, "n_fft": 126, "hop_length": 64, "warp_rows": 32,
                "align_corners": True, "log_scale": 0.15,
            },
        )  # fmt: skip

    return build
