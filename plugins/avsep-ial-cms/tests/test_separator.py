"""The U-Net: its sizes, its last layer, where it is conditioned, and what it computes once per mixture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_ial_cms.separator import ResidualUNet
from avsep_zoo import SeparationModel
from avsep_zoo.contracts import Bound, Embedding, Spectrum, expand_sources
from avsep_zoo.errors import CompositionError

TinyModel = Callable[..., SeparationModel]

SMALL = {"width": 3, "levels": 3}


class Added(Bound):
    """Adds the number of the source to the features of one site."""

    def __init__(self, where: str, sources: int, batch: int = 2) -> None:
        self.where, self.sources, self.batch = where, sources, batch

    def __call__(self, site: str, features: Tensor) -> Tensor:
        if site != self.where:
            return features
        features = expand_sources(features, self.batch, self.sources)
        return features + torch.arange(self.sources).repeat(self.batch)[:, None, None, None]


def small(**settings: Any) -> ResidualUNet:
    """In evaluation mode, with statistics of batch norms that are not those of a fresh network."""
    unet = ResidualUNet(**{**SMALL, **settings}).eval()
    with torch.no_grad():
        for module in unet.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0.0, 0.2)
                module.running_var.uniform_(0.5, 2.0)
    return unet


def spectrum(features: Tensor) -> Spectrum:
    return Spectrum(features, features, features)


def test_published_size() -> None:
    """With the channels of the published attention at the bottleneck; the layers that style its levels count apart."""
    with torch.device("meta"):
        unet = ResidualUNet(widths={"bottleneck": 1024})
    styles = 2 * 1025 * (512 + 256 + 128 + 64)
    assert sum(p.numel() for p in unet.parameters()) == 22_816_711 - 2_630_146 - styles
    assert list(unet.sites) == ["bottleneck", "decoder5", "decoder4", "decoder3", "decoder2"]
    assert [site.channels for site in unet.sites.values()] == [512, 512, 256, 128, 64]


def test_masks_of_every_source() -> None:
    """A mask is what the network says beside the offset, and never negative."""
    unet = small()
    estimate = unet(spectrum(torch.randn(2, 1, 16, 8)), Added("bottleneck", 3))
    assert estimate.values.shape == (2, 3, 16, 8) and estimate.kind == "mask" and estimate.logits is not None
    torch.testing.assert_close(estimate.values, estimate.logits.clamp_min(0))
    with torch.no_grad():
        unet.scale.fill_(50.0)
    loud = unet(spectrum(torch.randn(2, 1, 16, 8)), Added("bottleneck", 3)).values
    assert loud.min() == 0 and loud.max() > 1


@pytest.mark.parametrize("offset", [0.0, 0.5, 2.0])
def test_a_network_that_says_nothing(offset: float) -> None:
    unet = small(mask_offset=offset)
    with torch.no_grad():
        unet.mask_conv.weight.zero_(), unet.mask_conv.bias.zero_()  # type: ignore[union-attr]
    values = unet(spectrum(torch.randn(2, 1, 8, 8)), Added("nowhere", 2)).values
    torch.testing.assert_close(values, torch.full((2, 2, 8, 8), offset))


def test_scale_and_bias_come_before_the_offset() -> None:
    unet, features = small(), torch.randn(2, 1, 8, 8)
    said = unet.scores(features, Added("bottleneck", 2)) - 0.5
    with torch.no_grad():
        unet.scale.fill_(3.0), unet.bias.fill_(-0.25)
    torch.testing.assert_close(unet.scores(features, Added("bottleneck", 2)), 3 * said - 0.25 + 0.5)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 4, 6), (3, 7, 5), (1, 2, 16)])
def test_the_last_layer_is_upsampling_and_a_convolution(shape: tuple[int, int, int]) -> None:
    """Its taps come before the upsampling, which changes nothing, at the edges neither."""
    unet, x = small(), torch.randn(shape[0], unet_channels(), *shape[1:])
    large = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    wanted = F.conv2d(large, unet.mask_conv.weight, unet.mask_conv.bias, padding=1)
    torch.testing.assert_close(unet._last(x), wanted, atol=1e-6, rtol=1e-5)


def test_the_last_layer_has_the_gradients_of_a_convolution() -> None:
    unet, x = small(), torch.randn(2, unet_channels(), 4, 4, requires_grad=True)
    learned = [*unet.mask_conv.parameters(), x]
    weight = torch.randn(2, 1, 8, 8)
    found = torch.autograd.grad((unet._last(x) * weight).sum(), learned)
    wanted = torch.autograd.grad((last_layer(unet, x) * weight).sum(), learned)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def unet_channels() -> int:
    """That reach the last layer of the small one: two times the width."""
    return 2 * SMALL["width"]


def last_layer(unet: Any, x: Tensor) -> Tensor:
    large = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    made: Tensor = unet.mask_conv(large)
    return made


def test_the_network_as_it_is_written_down() -> None:
    """Level by level for one source: the level's input beside what comes up to it, the skipped features first."""
    unet, features = small(), torch.randn(1, 1, 16, 8)
    parts: Any = unet
    x = F.leaky_relu(parts.stem[1](parts.stem[0](parts.input_norm(features))), 0.2)
    skips = [x]
    for stage in parts.down:
        for block in stage:
            way = F.leaky_relu(block.bn1(block.conv1(x)), 0.2)
            short = x if block.downsample is None else block.downsample[1](block.downsample[0](x))
            x = F.leaky_relu(block.bn2(block.conv2(way)) + short, 0.2)
        skips.append(x)
    assert [s.shape[1:] for s in skips] == [(3, 8, 4), (3, 4, 2), (6, 2, 1)]
    skips.pop()
    for up in parts.up:
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        x = torch.cat((skips.pop(), up.norm(F.leaky_relu(up.conv(x), 0.2))), dim=1)
    wanted = last_layer(unet, x) * parts.scale + parts.bias + 0.5
    torch.testing.assert_close(unet.scores(features, Added("nowhere", 1, 1)), wanted, atol=1e-5, rtol=1e-4)


def test_the_mixture_is_encoded_once() -> None:
    """However many sources there are; from the first site on that needs the cue, every source goes its way."""
    unet = small()
    seen: list[tuple[str, int]] = []
    for name, module in unet.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, given, __, name=name: seen.append((name, len(given[0]))))
    unet.scores(torch.randn(2, 1, 8, 8), Added("bottleneck", 5))
    counts = dict(seen)
    assert len(counts) == len(seen)
    assert {n for name, n in seen if name.startswith(("stem", "down"))} == {2}
    assert {n for name, n in seen if name.startswith("up")} == {10}
    seen.clear()
    unet.scores(torch.randn(2, 1, 8, 8), Added("decoder2", 5))
    assert {n for _, n in seen} == {2}


@pytest.mark.parametrize("site", ["bottleneck", "decoder3", "decoder2"])
def test_every_site_reaches_the_masks(site: str) -> None:
    scores = small().scores(torch.randn(2, 1, 8, 16), Added(site, 3))
    assert scores.shape == (2, 3, 8, 16)
    assert (scores[:, 1] - scores[:, 0]).abs().max() > 1e-6


def test_without_a_cue_all_sources_are_alike() -> None:
    scores = small().scores(torch.randn(2, 1, 8, 8), Added("nowhere", 2))
    assert scores.shape == (2, 2, 8, 8) and torch.equal(scores[:, 0], scores[:, 1])


def test_sites_may_be_widened() -> None:
    unet: Any = small(widths={"bottleneck": 9, "decoder3": 10, "decoder2": 4})
    assert unet.up[0].conv.weight.shape[1] == 9
    assert unet.up[1].conv.weight.shape[1] == 10 + 3
    assert unet.mask_conv.weight.shape[1] == 4 + 3


def test_all_parameters_learn() -> None:
    unet = small().train()
    (unet.scores(torch.randn(2, 1, 8, 8), Added("bottleneck", 2)) * torch.randn(2, 2, 8, 8)).sum().backward()
    assert all(
        p.grad is not None and torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for p in unet.parameters()
    )


@pytest.mark.parametrize("shape", [(12, 8), (8, 12), (4, 8), (8, 4)])
def test_sizes_that_do_not_fit(shape: tuple[int, int]) -> None:
    why = rf"gives {shape[0]} x {shape[1]} points and a U-Net of 3 levels needs multiples of 8; change length, hop_le"
    with pytest.raises(CompositionError, match=why):
        small().scores(torch.randn(1, 1, *shape), Added("bottleneck", 2, 1))


@pytest.mark.parametrize(
    ("settings", "error", "why"),
    [
        ({"levels": 1}, ValueError, "width 64 and 1 levels; give at least 1 and 2"),
        ({"width": 0}, ValueError, "width 0 and 5 levels"),
        ({"depth": 3}, TypeError, r"has no setting \['depth'\]; it takes width, levels and mask_offset"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        ResidualUNet.plan(**settings)


# with the attention it was made for


def maps(batch: int, sources: int) -> Embedding:
    return Embedding(map=F.normalize(torch.randn(batch, sources, 8, 4, 4), dim=2))


def test_mixtures_and_sources_do_not_see_each_other(tiny_model: TinyModel) -> None:
    model, embedding, features = tiny_model(), maps(2, 3), torch.randn(2, 1, 32, 16)
    unet: Any = model.separator
    both = unet.scores(features, model.conditioner.bind(embedding))
    assert embedding.map is not None
    alone = Embedding(map=embedding.map[1:, 2:])
    torch.testing.assert_close(unet.scores(features[1:], model.conditioner.bind(alone))[0, 0], both[1, 2])
    assert (both[:, 0] - both[:, 1]).abs().max() > 1e-3


def test_half_precision(tiny_model: TinyModel) -> None:
    """Masks are in full precision under autocast, near those without it, and gradients are finite."""
    model, embedding, features = tiny_model(), maps(2, 2), torch.randn(2, 1, 32, 32)
    wanted = model.separator(spectrum(features), model.conditioner.bind(embedding)).values
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model.separator(spectrum(features), model.conditioner.bind(embedding)).values
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, wanted, atol=0.1, rtol=0)
    mixed.square().sum().backward()
    parts = [*model.separator.parameters(), *model.conditioner.parameters()]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in parts)


@pytest.mark.parametrize("level", [-1e6, -18.0, 0.0, 1e6])
def test_extreme_input_gives_masks(tiny_model: TinyModel, level: float) -> None:
    """Silence is about -18 everywhere."""
    model = tiny_model()
    inject = model.conditioner.bind(maps(1, 2))
    values = model.separator(spectrum(torch.full((1, 1, 32, 32), level)), inject).values
    assert torch.isfinite(values).all() and values.min() >= 0


def test_state_survives_saving(tiny_model: TinyModel) -> None:
    one, other, embedding, features = tiny_model(), tiny_model(), maps(1, 2), torch.randn(1, 1, 32, 32)
    other.load_state_dict(one.state_dict())
    first, second = (m.separator(spectrum(features), m.conditioner.bind(embedding)).values for m in (one, other))
    torch.testing.assert_close(first, second)
