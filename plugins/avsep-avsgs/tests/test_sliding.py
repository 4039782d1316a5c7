"""Published inference: overlapping windows, averaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from avsep_avsgs.sliding import separate_sliding
from avsep_zoo import SeparationModel
from avsep_zoo.contracts import CueBatch
from avsep_zoo.sliding import window_starts

TinyModel = Callable[..., SeparationModel]
LENGTH, FEATURES = 1023, 16
CLOSE = 1e-4  # the end of a window is divided by the last of its STFT's window, which is nearly 0


def cues(sources: int) -> CueBatch:
    """Nodes of graphs of 1, 2, ... nodes."""
    shown = torch.randn(1, sources, FEATURES, sources)
    mask = torch.full((1, sources, sources), torch.inf)
    for source in range(sources):
        mask[0, source, : source + 1] = 0.0
    return CueBatch({"detections": shown, "detections_mask": mask})


def trained_like(model: SeparationModel) -> SeparationModel:
    """Weights that make masks differ between points and between sources."""
    with torch.no_grad():
        for name, parameter in model.separator.named_parameters():
            if name.endswith("conv.weight"):
                parameter.mul_(4.0)
    return model.eval()


@torch.no_grad()
def loop(model: Any, mixture: Tensor, batch: CueBatch, hop: int) -> Tensor:
    """Every window and every source on its own, the cue anew each time, with the modules as they are written down."""
    front, unet = model.front_end, model.separator
    shown, mask = batch.values["detections"], batch.values["detections_mask"]
    sources = shown.shape[1]
    total, count = torch.zeros(sources, len(mixture)), torch.zeros(len(mixture))
    starts = []
    start = 0
    while start + LENGTH < len(mixture):
        starts.append(start)
        start += hop
    for start in [*starts, len(mixture) - LENGTH]:
        window = mixture[None, start : start + LENGTH]
        for source in range(sources):
            features = shown[0, source, :, ~torch.isinf(mask[0, source])].T
            mapped = model.encoder.map(features)
            number = torch.arange(len(mapped))
            pooled = model.conditioner.graph(
                mapped, torch.cartesian_prod(number, number).T, torch.zeros_like(number), 1
            )
            vector = model.conditioner.rnn(pooled[:, None])[0][:, 0]
            spectrum = front.stft(window)[:, None]
            x, skips = front.warp(spectrum.abs() + 1e-10).log(), []
            for down in unet.down:
                x = down(x)
                skips.append(x)
            x = torch.cat((vector[:, :, None, None].expand(-1, -1, *x.shape[2:]), skips.pop()), dim=1)
            for up in unet.up:
                x = up(x)
                x = torch.cat((x, skips.pop()), dim=1) if skips else x
            masked = front.unwarp(torch.sigmoid(x)) * spectrum
            total[source, start : start + LENGTH] += front.istft(masked, length=LENGTH)[0, 0].clamp(-1, 1)
        count[start : start + LENGTH] += 1
    return (sources * total / count).clamp(-1, 1)


@pytest.mark.parametrize("sources", [1, 2, 3])
def test_equals_a_plain_loop(tiny_model: TinyModel, sources: int) -> None:
    """Windows in batches and sources together change nothing."""
    model, batch = trained_like(tiny_model()), cues(sources)
    mixture = 0.3 * torch.randn(1400)
    found = separate_sliding(model, mixture, batch, hop=100, batch=3)
    torch.testing.assert_close(found, loop(model, mixture, batch, 100), atol=CLOSE, rtol=0)


def test_the_test_tells_sources_apart(tiny_model: TinyModel) -> None:
    """Estimates differ far more than the tolerance of the comparisons."""
    found = separate_sliding(trained_like(tiny_model()), 0.3 * torch.randn(1400), cues(2), hop=100)
    assert (found[0] - found[1]).abs().max() > 1e-3


@pytest.mark.parametrize("samples", [LENGTH, LENGTH + 1, LENGTH + 100, LENGTH + 101, 2500])
def test_any_length(tiny_model: TinyModel, samples: int) -> None:
    """Also where the last window is one of the regular ones."""
    model, batch = trained_like(tiny_model()), cues(2)
    mixture = 0.3 * torch.randn(samples)
    found = separate_sliding(model, mixture, batch, hop=100)
    torch.testing.assert_close(found, loop(model, mixture, batch, 100), atol=CLOSE, rtol=0)


@pytest.mark.parametrize("samples", [1, 500, LENGTH - 1])
def test_short_audio_is_padded(tiny_model: TinyModel, samples: int) -> None:
    """The estimate is that of the recording with zeros behind it, cut."""
    model, batch = trained_like(tiny_model()), cues(2)
    mixture = 0.3 * torch.randn(samples)
    found = separate_sliding(model, mixture, batch)
    longer = loop(model, F.pad(mixture, (0, LENGTH - samples)), batch, 400)
    torch.testing.assert_close(found, longer[:, :samples], atol=CLOSE, rtol=0)


def test_published_starts() -> None:
    """10 s at 11025 Hz have 82 windows and the last one."""
    starts = window_starts(110250, 65535, 551)
    assert (len(starts), starts[:2], starts[-2:]) == (83, [0, 551], [81 * 551, 110250 - 65535])


def test_hop_defaults_to_the_published_share(tiny_model: TinyModel) -> None:
    """0.05 s are 400 samples at 8 kHz."""
    model, batch, mixture = trained_like(tiny_model()), cues(2), 0.3 * torch.randn(2000)
    found = separate_sliding(model, mixture, batch)
    torch.testing.assert_close(found, separate_sliding(model, mixture, batch, hop=400), atol=0, rtol=0)


def test_factor_lifts_the_average(tiny_model: TinyModel) -> None:
    """By default it is the number of sources."""
    model, batch, mixture = trained_like(tiny_model()), cues(3), 0.01 * torch.randn(1200)
    found = separate_sliding(model, mixture, batch)
    torch.testing.assert_close(found, 3 * separate_sliding(model, mixture, batch, factor=1.0))


def test_estimates_are_clipped(tiny_model: TinyModel) -> None:
    """Loud audio stays in [-1, 1]."""
    found = separate_sliding(trained_like(tiny_model()), 20.0 * torch.randn(1200), cues(2))
    assert found.abs().max() == 1.0


def test_cue_is_embedded_once(tiny_model: TinyModel) -> None:
    """Encoder, graph and recurrent network run once, however many windows there are."""
    model = trained_like(tiny_model())
    calls: list[str] = []
    parts = {"encoder": model.encoder, "graph": model.conditioner.graph, "rnn": model.conditioner.rnn}
    for name, part in parts.items():
        part.register_forward_hook(lambda *_, name=name: calls.append(name))  # type: ignore[union-attr]
    separate_sliding(model, torch.randn(3000), cues(2), hop=100, batch=2)
    assert sorted(calls) == ["encoder", "graph", "rnn"]


def test_batches_are_bounded(tiny_model: TinyModel) -> None:
    """The network never sees more windows than asked for, so memory does not grow with the length."""
    model = trained_like(tiny_model())
    seen: list[int] = []
    model.separator.register_forward_hook(lambda _, given, __: seen.append(len(given[0].features)))
    separate_sliding(model, torch.randn(6000), cues(2), hop=100, batch=4)
    assert max(seen) == 4 and sum(seen) == len(window_starts(6000, LENGTH, 100))


def test_mode_is_restored(tiny_model: TinyModel) -> None:
    """Separation evaluates; a model in training goes on training."""
    model = trained_like(tiny_model()).train()
    separate_sliding(model, torch.randn(1100), cues(1))
    assert model.training and model.separator.training


@pytest.mark.parametrize(("mixture", "settings"), [((2, 1100), {}), ((1100,), {"hop": 0}), ((1100,), {"batch": 0})])
def test_wrong_arguments(tiny_model: TinyModel, mixture: tuple[int, ...], settings: dict[str, int]) -> None:
    """The message says what to give."""
    with pytest.raises(ValueError, match="numbers from 1"):
        separate_sliding(tiny_model(), torch.zeros(mixture), cues(2), **settings)
