"""Published inference: overlapping windows, averaged, against a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from avsep_zoo import SeparationModel
from avsep_zoo.contracts import CueBatch
from avsep_zoo.sliding import slide, window_starts

TinyModel = Callable[..., SeparationModel]
LENGTH = 1023
FRONT_END = {"length": LENGTH, "hop_length": 32}
CLOSE = 2e-5


@torch.no_grad()
def loop(model: Any, mixture: Tensor, frames: Tensor, hop: int) -> Tensor:
    """Every window and every source on its own, each time from the picture on, the last layer as it is published."""
    front, unet, conditioner = model.front_end, model.separator, model.conditioner
    total, count = torch.zeros(len(frames), len(mixture)), torch.zeros(len(mixture))
    starts, start = [], 0
    while start + LENGTH < len(mixture):
        starts.append(start)
        start += hop
    for start in [*starts, len(mixture) - LENGTH]:
        window = mixture[None, start : start + LENGTH]
        for source, picture in enumerate(frames):
            bound = conditioner.bind(model.encoder(CueBatch({"frames": picture[None, None]})))
            transformed = front.stft(window)[:, None]
            x = unet.stem(unet.input_norm((front.warp(transformed.abs()) + 1e-8).log()))
            skips = [x]
            for stage in unet.down:
                x = stage(x)
                skips.append(x)
            x = bound("bottleneck", skips.pop())
            for number, up in enumerate(unet.up):
                x = torch.cat((skips.pop(), bound(f"decoder{unet.levels - number}", up(x))), dim=1)
            x = unet.mask_conv(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))
            mask = (x * unet.scale + unet.bias + 0.5).relu()
            masked = front.unwarp(mask) * transformed
            total[source, start : start + LENGTH] += front.istft(masked, length=LENGTH)[0, 0]
        count[start : start + LENGTH] += 1
    return total / count


@pytest.mark.parametrize("sources", [1, 2, 3])
def test_equals_a_plain_loop(tiny_model: TinyModel, sources: int) -> None:
    """Windows in batches and sources together change nothing; sources differ far more than the tolerance."""
    model, frames, mixture = tiny_model(front_end=FRONT_END), torch.randn(sources, 3, 32, 32), 0.1 * torch.randn(1900)
    found = slide(model, mixture, CueBatch({"frames": frames[None]}), hop=150, batch=3)
    torch.testing.assert_close(found, loop(model, mixture, frames, 150), atol=CLOSE, rtol=0)
    assert sources == 1 or (found[0] - found[1]).abs().max() > 1e-3


@pytest.mark.parametrize("samples", [LENGTH, LENGTH + 1, LENGTH + 150, LENGTH + 151])
def test_any_length(tiny_model: TinyModel, samples: int) -> None:
    """Also where the last window is one of the regular ones."""
    model, frames, mixture = tiny_model(front_end=FRONT_END), torch.randn(2, 3, 32, 32), 0.1 * torch.randn(samples)
    found = slide(model, mixture, CueBatch({"frames": frames[None]}), hop=150)
    torch.testing.assert_close(found, loop(model, mixture, frames, 150), atol=CLOSE, rtol=0)


def test_published_starts() -> None:
    """10 s at 11025 Hz have 21 windows and the last one."""
    starts = window_starts(110250, 65535, 2205)
    assert (len(starts), starts[:2], starts[-2:]) == (22, [0, 2205], [20 * 2205, 110250 - 65535])


def test_pictures_are_looked_at_once(tiny_model: TinyModel) -> None:
    """However many windows there are."""
    model = tiny_model(front_end=FRONT_END)
    seen: list[int] = []
    model.encoder.network.register_forward_hook(  # type: ignore[union-attr]
        lambda _, given, __: seen.append(len(given[0]))
    )
    slide(model, 0.1 * torch.randn(3000), CueBatch({"frames": torch.randn(1, 2, 3, 32, 32)}), hop=150, batch=4)
    assert seen == [2]
