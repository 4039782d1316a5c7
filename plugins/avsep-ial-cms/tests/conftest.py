"""A tiny IAL-CMS of the real classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from avsep_zoo import SeparationModel, compose

TinyModel = Callable[..., SeparationModel]
Constants = Callable[[int], dict[str, Tensor]]


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test draws the same weights, on one thread: sums are the same everywhere."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def tiny_model() -> TinyModel:
    """Build a model for pictures of 32 pixels and segments of 0.26 s; arguments are settings of its parts.

    Statistics of batch norms are as uneven as after training, and cues count for more than in a fresh network.
    """

    def build(
        *,
        attention: Mapping[str, Any] | None = None,
        separator: Mapping[str, Any] | None = None,
        front_end: Mapping[str, Any] | None = None,
        **encoder: Any,
    ) -> SeparationModel:
        small = {"width": 4, "pyramid": 6, "details": 5, "space": 8, "frozen": False, "image_size": 32}
        model = compose(
            encoder={"name": "ial_cms.deeplab", **small, **encoder},
            conditioner={"name": "ial_cms.attention", "width": 6, "hidden": 10, **(attention or {})},
            separator={"name": "ial_cms.unet", "width": 4, "levels": 3, **(separator or {})},
            front_end={
                "name": "stft", "rate": 8000, "length": 2047, "n_fft": 126, "hop_length": 64, "warp_rows": 32,
                "pad_mode": "reflect", "align_corners": True, "log_offset": 1e-8, **(front_end or {}),
            },
            name="ial_cms.tiny",
        )  # fmt: skip
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                    assert module.running_mean is not None and module.running_var is not None
                    module.running_mean.normal_(0.0, 0.1)
                    module.running_var.uniform_(0.5, 2.0)
            for name, parameter in model.named_parameters():
                if name.startswith("encoder.") and parameter.ndim > 1:
                    parameter.mul_(3.0)
                elif name.startswith("conditioner.style_"):
                    parameter.mul_(2.0)
        return model.eval()

    return build


@pytest.fixture(scope="session")
def constants() -> Constants:
    """Entries of an official file that are constants of the Fourier transform, written out, by ``n_fft``."""

    def written(n_fft: int) -> dict[str, Tensor]:
        n = np.arange(n_fft)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / n_fft)
        angle = 2 * np.pi * n[:, None] * n / n_fft
        half = n_fft // 2 + 1
        values = {
            "kernel_sin_inv": np.sin(angle)[:, None, :, None],
            "kernel_cos_inv": np.cos(angle)[:, None, :, None],
            "wsin": (hann * np.sin(angle[:half]))[:, None],
            "wcos": (hann * np.cos(angle[:half]))[:, None],
            "window_mask": hann[None, :, None],
        }
        place = "net_wrapper.av_separator.separator_w_v.stftMelModule.stftLayer."
        return {place + name: torch.from_numpy(value.astype(np.float32)) for name, value in values.items()}

    return written
