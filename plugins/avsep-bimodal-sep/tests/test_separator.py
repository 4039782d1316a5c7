"""The U-Net: its sizes, its sites, the network as it is written down, what it computes once per mixture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_bimodal_sep.conditioner import TextAttention
from avsep_bimodal_sep.separator import ConditionalUNet, ResidualBlock
from avsep_zoo.contracts import Bound, Spectrum, expand_sources
from avsep_zoo.errors import CompositionError

SMALL = {"width": 2, "levels": 5, "mask_features": 3}


class Added(Bound):
    """Adds a number per source, or per row of features, to the features of some sites, and remembers what it saw."""

    def __init__(self, *where: str, batch: int = 2, numbers: tuple[float, ...] = (0.0, 1.0, 2.0)) -> None:
        self.where, self.batch, self.sources, self.numbers = where, batch, len(numbers), torch.tensor(numbers)
        self.seen: list[tuple[str, tuple[int, ...]]] = []

    def __call__(self, site: str, features: Tensor) -> Tensor:
        self.seen.append((site, tuple(features.shape)))
        if site not in self.where:
            return features
        features = expand_sources(features, self.batch, self.sources)
        return features + self.numbers.repeat(self.batch)[:, None, None, None]


def small(**settings: Any) -> ConditionalUNet:
    """In evaluation mode, with statistics of batch norms that are not those of a fresh network."""
    unet = ConditionalUNet(**{**SMALL, **settings}).eval()
    with torch.no_grad():
        for module in unet.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0.0, 0.2)
                module.running_var.uniform_(0.5, 2.0)
    return unet


def spectrum(features: Tensor) -> Spectrum:
    return Spectrum(features, features, features)


@pytest.mark.parametrize(
    ("layer", "count"),
    [("sca", 87_681_250), ("ca", 81_369_826), ("sa", 80_583_394), ("cat", 96_692_962), ("identity", 74_275_042)],
)
def test_published_sizes(layer: Any, count: int) -> None:
    """Without the mask head, and the three norms that the published ``sca`` layers never apply."""
    sites = ConditionalUNet.plan().sites
    with torch.device("meta"):
        attention = TextAttention(views={"vector": 768}, sites=sites, layer=layer)
        unet = ConditionalUNet(widths=attention.widths())
    parameters = [*unet.parameters(), *attention.layers.parameters()]
    assert sum(p.numel() for p in parameters) == count - (3 * 1024 if layer == "sca" else 0)


@pytest.mark.parametrize("levels", [5, 6, 7])
def test_sites_in_forward_order(levels: int) -> None:
    """Deep ones, then the head; each with the channels of its plan."""
    unet, size = small(levels=levels), 2**levels
    bound = Added()
    unet(spectrum(torch.randn(2, 1, size, 2 * size)), bound)
    deep = [f"deep{level}" for level in range(5, levels)]
    assert list(unet.sites) == [*deep, "bottleneck", "head"] == [name for name, _ in bound.seen]
    assert [shape[1] for _, shape in bound.seen] == [site.channels for site in unet.sites.values()]
    assert [shape[2:] for _, shape in bound.seen[:-1]] == [
        (2 ** (levels - level), 2 ** (levels - level + 1)) for level in range(5, levels + 1)
    ]


def written_down(unet: ConditionalUNet, x: Tensor, bound: Bound, level: int = 1) -> Tensor:
    """One level that holds the next one: what it returns ends with what it was given."""
    down, up = unet.down[level - 1], unet.up[unet.levels - level]
    h = F.leaky_relu(down.norm(down.conv(x)), 0.2)
    h = residual(down.residual, h)
    if level > 4:
        h = bound("bottleneck" if level == unet.levels else f"deep{level}", h)
    if level < unet.levels:
        h = written_down(unet, h, bound, level + 1)
    h = residual(up.residual, F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=True))
    h = up.conv(h)
    if level == 1:
        return h
    h = F.relu(up.norm(h))
    return torch.cat((x.repeat_interleave(len(h) // len(x), dim=0), h), dim=1)


def residual(block: ResidualBlock, x: Tensor) -> Tensor:
    y = x
    for number, (conv, norm) in enumerate(zip(block.convs, block.norms, strict=True)):
        y = norm(conv(y))
        y = F.leaky_relu(y, 0.2) if number < len(block.convs) - 1 else y
    return F.leaky_relu(x + y, 0.2) if len(block.convs) else x


@pytest.mark.parametrize("res_layers", [0, 1, 2])
@pytest.mark.parametrize("levels", [5, 6])
def test_the_network_as_it_is_written_down(levels: int, res_layers: int) -> None:
    unet = small(levels=levels, res_layers=res_layers)
    x = torch.randn(2, 1, 64, 64)
    wanted = written_down(unet, unet.input_norm(x), Added("bottleneck"))
    torch.testing.assert_close(unet.mask_features_of(x, Added("bottleneck")), wanted)


def test_masks() -> None:
    """(B, N, F', T) in (0, 1), and the sigmoid of their logits."""
    estimate = small()(spectrum(torch.randn(2, 1, 32, 64)), Added("bottleneck"))
    assert estimate.values.shape == (2, 3, 32, 64) and estimate.kind == "mask" and estimate.logits is not None
    torch.testing.assert_close(estimate.values, estimate.logits.sigmoid())
    assert estimate.values.min() > 0 and estimate.values.max() < 1


@pytest.mark.parametrize("where", [("bottleneck",), ("deep5", "head"), ("head",)])
def test_sources_are_separated_as_if_alone(where: tuple[str, ...]) -> None:
    unet, x = small(levels=6), spectrum(torch.randn(2, 1, 64, 64))
    numbers = (0.0, 20.0, 40.0)
    together = unet(x, Added(*where, numbers=numbers)).values
    alone = [unet(x, Added(*where, numbers=(number,))).values for number in numbers]
    torch.testing.assert_close(together, torch.cat(alone, dim=1), rtol=0.0, atol=1e-5)
    assert not torch.allclose(together[:, 0], together[:, 2], atol=1e-3)


def test_mixtures_are_separated_as_if_alone() -> None:
    unet, x = small(), torch.randn(3, 1, 32, 32)
    together = unet(spectrum(x), Added("bottleneck", batch=3)).values
    alone = [unet(spectrum(row[None]), Added("bottleneck", batch=1)).values for row in x]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0.0, atol=1e-5)


def test_the_way_down_runs_once_per_mixture() -> None:
    """Up to the first site that needs the cue; a level below it runs once per source."""
    unet, rows = small(levels=6), []
    for down in unet.down:
        down.register_forward_hook(lambda _, given, output: rows.append(len(output)))
    unet(spectrum(torch.randn(2, 1, 64, 64)), Added("deep5"))
    assert rows == [2, 2, 2, 2, 2, 6]


def test_a_conditioner_may_change_channels() -> None:
    """Of every site; the next level, the way up and the mask take what comes."""
    unet = small(levels=6, widths={"deep5": 19, "bottleneck": 21, "head": 5})

    class Wider(Added):
        def __call__(self, site: str, features: Tensor) -> Tensor:
            extra = {"deep5": 3, "bottleneck": 5, "head": 2}[site]
            return F.pad(super().__call__(site, features), (0, 0, 0, 0, 0, extra))

    masks = unet(spectrum(torch.randn(2, 1, 64, 64)), Wider("bottleneck")).values
    assert masks.shape == (2, 3, 64, 64) and torch.isfinite(masks).all()


@pytest.mark.parametrize(("head", "kind"), [(1, nn.Identity), (3, nn.Conv2d)])
def test_the_last_layer_is_there_where_the_head_leaves_channels(head: int, kind: type) -> None:
    assert isinstance(small(widths={"head": head}).mask_conv, kind)


def test_gradients_reach_every_parameter() -> None:
    unet = small(levels=6).train()
    unet(spectrum(torch.randn(2, 1, 64, 64)), Added("bottleneck")).values.square().mean().backward()
    grads = {name: p.grad for name, p in unet.named_parameters()}
    constant = {name for name in grads if ".residual.convs." in name and name.endswith(".bias")}  # a norm follows them
    assert all(grad is not None for grad in grads.values()) and len(constant) == 12
    assert all(grad.any() for name, grad in grads.items() if grad is not None and name not in constant)


@pytest.mark.parametrize("shape", [(32, 48), (16, 32), (33, 32), (0, 32)])
def test_sizes_that_do_not_fit(shape: tuple[int, int]) -> None:
    with pytest.raises(CompositionError, match=r"^The front end gives \d+ x \d+ points .* multiples of 32; [^\n]+\.$"):
        small()(spectrum(torch.randn(1, 1, *shape)), Added(batch=1))


@pytest.mark.parametrize("settings", [{"levels": 4}, {"width": 0}, {"mask_features": 0}, {"res_layers": -1}])
def test_settings_that_are_none(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"^The U-Net has [^\n]+; give at least 5, 1, 1 and 0\.$"):
        ConditionalUNet.plan(**{**SMALL, **settings})


def test_an_unknown_setting() -> None:
    with pytest.raises(TypeError, match=r"no setting \['depth'\]; it takes width"):
        ConditionalUNet.plan(depth=7)


def test_a_residual_block_without_layers_has_no_parameters() -> None:
    block, x = ResidualBlock(3, 0), torch.randn(1, 3, 4, 4)
    assert not list(block.parameters()) and torch.equal(block(x), x)
