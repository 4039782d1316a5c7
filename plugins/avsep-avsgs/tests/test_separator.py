"""The U-Net: its sizes, where it is conditioned, and what it computes once per mixture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from avsep_avsgs.separator import CoSeparationUNet
from avsep_zoo.blocks.tiled_concat import TiledConcat
from avsep_zoo.contracts import Bound, Embedding, Spectrum, expand_sources
from avsep_zoo.errors import CompositionError


class Added(Bound):
    """Adds the number of the source to the features of one site."""

    def __init__(self, where: str, sources: int) -> None:
        self.where, self.sources = where, sources

    def __call__(self, site: str, features: Tensor) -> Tensor:
        if site != self.where:
            return features
        features = expand_sources(features, 2, self.sources)
        return features + torch.arange(self.sources).repeat(2)[:, None, None, None]


def tiled(unet_settings: Mapping[str, int], vectors: Tensor) -> tuple[CoSeparationUNet, Bound]:
    """A U-Net in evaluation mode that vectors (B, N, D) are concatenated to."""
    sites = CoSeparationUNet.plan(**unet_settings).sites
    conditioner = TiledConcat(views={"vector": vectors.shape[-1]}, sites=sites)
    unet = CoSeparationUNet(**unet_settings, widths=conditioner.widths()).eval()
    return unet, conditioner.bind(Embedding(vector=vectors))


def spectrum(features: Tensor) -> Spectrum:
    return Spectrum(features, features, features)


SMALL = {"width": 3, "levels": 3}


@pytest.mark.parametrize(("levels", "parameters"), [(7, 46_022_785), (5, 20_850_817)])
def test_published_sizes(levels: int, parameters: int) -> None:
    with torch.device("meta"):
        unet = CoSeparationUNet(levels=levels, widths={"bottleneck": 1024})
    assert sum(p.numel() for p in unet.parameters()) == parameters
    assert list(unet.sites) == ["bottleneck", *(f"decoder{k}" for k in range(levels, 1, -1))]
    assert unet.down[0].conv.weight.shape == (64, 1, 4, 4) and unet.up[0].conv.weight.shape == (1024, 512, 4, 4)


def test_masks_of_every_source() -> None:
    unet, bound = tiled(SMALL, torch.randn(2, 3, 4))
    estimate = unet(spectrum(torch.randn(2, 1, 16, 8)), bound)
    assert estimate.values.shape == (2, 3, 16, 8) and estimate.kind == "mask" and estimate.logits is not None
    torch.testing.assert_close(estimate.values, torch.sigmoid(estimate.logits))
    assert (estimate.values[:, 0] - estimate.values[:, 1]).abs().max() > 1e-6


def test_mixtures_and_sources_do_not_see_each_other() -> None:
    vectors, features = torch.randn(2, 3, 4), torch.randn(2, 1, 16, 8)
    unet, bound = tiled(SMALL, vectors)
    conditioner = TiledConcat(views={"vector": 4}, sites=unet.sites)
    alone = unet.logits(features[1:], conditioner.bind(Embedding(vector=vectors[1:, 2:])))
    torch.testing.assert_close(alone[0, 0], unet.logits(features, bound)[1, 2])


def test_the_mixture_is_encoded_once() -> None:
    unet, bound = tiled(SMALL, torch.randn(2, 5, 4))
    seen: list[tuple[int, int]] = []
    for layer in (unet.down[2].conv, unet.up[0].conv):
        layer.register_forward_hook(lambda _, given, out: seen.append((len(given[0]), len(out))))
    unet.logits(torch.randn(2, 1, 8, 8), bound)
    assert seen == [(2, 2), (10, 10)]


@pytest.mark.parametrize("site", ["bottleneck", "decoder3", "decoder2"])
def test_every_site_reaches_the_masks(site: str) -> None:
    unet = CoSeparationUNet(**SMALL).eval()
    logits = unet.logits(torch.randn(2, 1, 8, 16), Added(site, 3))
    assert logits.shape == (2, 3, 8, 16)
    assert (logits[:, 1] - logits[:, 0]).abs().max() > 1e-6


def test_without_a_cue_all_sources_are_alike() -> None:
    logits = CoSeparationUNet(**SMALL).eval().logits(torch.randn(2, 1, 8, 8), Added("nowhere", 2))
    assert logits.shape == (2, 2, 8, 8) and torch.equal(logits[:, 0], logits[:, 1])


def test_sites_may_be_widened() -> None:
    """A decoder level that more channels leave."""
    unet = CoSeparationUNet(**SMALL, widths={"decoder3": 10})
    assert unet.up[1].conv.weight.shape[0] == 10 + 6
    assert unet.up[2].conv.weight.shape[0] == 3 + 3


def test_all_parameters_learn() -> None:
    unet, bound = tiled(SMALL, torch.randn(2, 2, 4))
    unet.train()(spectrum(torch.randn(2, 1, 8, 8)), bound).values.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in unet.parameters())


def test_half_precision() -> None:
    unet, bound = tiled(SMALL, torch.randn(2, 2, 4))
    features = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        wanted = unet(spectrum(features), bound).values
        with torch.autocast("cpu", torch.bfloat16):
            mixed = unet(spectrum(features), bound).values
        whole = unet.bfloat16()(spectrum(features.bfloat16()), bound).values
    for values in (mixed, whole):
        torch.testing.assert_close(values.float(), wanted, atol=0.02, rtol=0)


def test_extreme_input_gives_masks() -> None:
    unet, bound = tiled(SMALL, torch.randn(1, 2, 4))
    for level in (-1e6, 0.0, 1e6):
        values = unet(spectrum(torch.full((1, 1, 8, 8), level)), bound).values
        assert torch.isfinite(values).all() and values.min() >= 0 and values.max() <= 1


def test_state_survives_saving() -> None:
    one, bound = tiled(SMALL, torch.randn(1, 2, 4))
    other, features = CoSeparationUNet(**SMALL, widths={"bottleneck": 16}).eval(), torch.randn(1, 1, 8, 8)
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(other.logits(features, bound), one.logits(features, bound))


@pytest.mark.parametrize("shape", [(12, 8), (8, 12), (4, 8)])
def test_sizes_that_do_not_fit(shape: tuple[int, int]) -> None:
    unet, bound = tiled(SMALL, torch.randn(1, 2, 4))
    with pytest.raises(CompositionError, match=rf"gives {shape[0]} x {shape[1]} points and a U-Net of 3 levels"):
        unet.logits(torch.randn(1, 1, *shape), bound)


@pytest.mark.parametrize(
    ("settings", "error", "why"),
    [
        ({"levels": 1}, ValueError, "width 64 and 1 levels; give at least 1 and 2"),
        ({"width": 0}, ValueError, "width 0 and 7 levels"),
        ({"depth": 3}, TypeError, r"has no setting \['depth'\]"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        CoSeparationUNet.plan(**settings)
