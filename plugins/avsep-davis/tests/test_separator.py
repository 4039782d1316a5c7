"""The DAVIS U-Net: shapes, errors, its names, and inference against training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from avsep_davis.folded import FoldedUNet
from avsep_davis.separator import DavisUNet, Down, StandardisedConv, Up
from avsep_zoo.blocks.tiled_concat import TiledConcat
from avsep_zoo.contracts import Bound, Embedding, Spectrum
from avsep_zoo.errors import CompositionError

SIZE = {"width": 8, "multipliers": (1, 2, 2), "rows": 16, "groups": 4, "heads": 2, "head_channels": 4}
SIZE |= {"time_heads": 2, "time_features": 16}
VECTOR = 6
CLOSE = {"rtol": 1e-4, "atol": 1e-4}

Build = Callable[..., DavisUNet]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def build() -> Build:
    def make(**changes: Any) -> DavisUNet:
        settings: dict[str, Any] = SIZE | changes
        plan = DavisUNet.plan(**settings)
        unet = DavisUNet(**settings, widths=TiledConcat(views={"vector": VECTOR}, sites=plan.sites).widths())
        for parameter in unet.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        return unet.eval()

    return make


def bound(unet: DavisUNet, batch: int = 1, sources: int = 2) -> Bound:
    conditioner = TiledConcat(views={"vector": VECTOR}, sites=unet.sites)
    return conditioner.bind(Embedding(vector=torch.randn(batch, sources, VECTOR)))


def spectrum(batch: int = 1, rows: int = 16, frames: int = 8) -> Spectrum:
    return Spectrum(*[torch.rand(batch, 1, rows, frames)] * 3)


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("batch", [1, 3])
def test_inference_is_training_without_gradients(build: Build, patch: int, batch: int) -> None:
    """The folded network gives what the plain one gives."""
    unet, mixture = build(patch=patch, rows=16), spectrum(batch)
    inject, noisy, time = bound(unet, batch), torch.randn(2 * batch, 1, 16, 8), torch.tensor([500.0])
    plain = unet.bind(mixture, inject)(noisy, time)
    with torch.inference_mode():
        network = unet.bind(mixture, inject)
        assert isinstance(network, FoldedUNet)
        torch.testing.assert_close(network(noisy, time), plain.detach(), **CLOSE)


@pytest.mark.parametrize("items", [1, 4])
def test_large_maps_are_worked_on_one_by_one(build: Build, items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of the groups changes nothing."""
    unet, mixture = build(), spectrum(3)
    inject, noisy, time = bound(unet, 3), torch.randn(6, 1, 16, 8), torch.tensor([3.0])
    with torch.inference_mode():
        whole = unet.bind(mixture, inject)(noisy, time)
        monkeypatch.setattr("avsep_davis.folded._MAP", items * 8 * 16 * 8)
        torch.testing.assert_close(unet.bind(mixture, inject)(noisy, time), whole, **CLOSE)


@pytest.mark.parametrize("largest", [1, 2**22])
def test_sources_of_one_noise_share_the_way_down(build: Build, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What two sources start with is computed once, and they part at the bottleneck."""
    monkeypatch.setattr("avsep_davis.folded._MAP", largest)
    unet, mixture = build(), spectrum(2)
    inject, time = bound(unet, 2), torch.tensor([0.0])
    noisy = torch.randn(2, 1, 16, 8).repeat_interleave(2, dim=0)
    plain = unet.bind(mixture, inject)(noisy, time).detach()
    with torch.inference_mode():
        network = unet.bind(mixture, inject)
        assert isinstance(network, FoldedUNet)
        assert network._origins(noisy) == [0, 0, 2, 2]
        torch.testing.assert_close(network(noisy, time), plain, **CLOSE)
    assert not torch.allclose(plain[0], plain[1], atol=1e-3)


def test_mixtures_of_one_noise_do_not_share(build: Build) -> None:
    """Equal noise of two mixtures is not an equal input."""
    unet, mixture = build(), spectrum(2)
    inject, time = bound(unet, 2, sources=1), torch.tensor([0.0])
    noisy = torch.randn(1, 1, 16, 8).repeat(2, 1, 1, 1)
    plain = unet.bind(mixture, inject)(noisy, time).detach()
    with torch.no_grad():
        torch.testing.assert_close(unet.bind(mixture, inject)(noisy, time), plain, **CLOSE)


@pytest.mark.parametrize("grad", [True, False])
def test_one_time_is_that_time_for_all(build: Build, grad: bool) -> None:
    """A time of shape (1,) equals its repetition."""
    unet, mixture = build(), spectrum()
    inject, noisy = bound(unet), torch.randn(2, 1, 16, 8)
    with torch.set_grad_enabled(grad):
        network = unet.bind(mixture, inject)
        one, each = network(noisy, torch.tensor([70.0])), network(noisy, torch.tensor([70.0, 70.0]))
    torch.testing.assert_close(one, each, **CLOSE)


@pytest.mark.parametrize("grad", [True, False])
def test_items_do_not_see_each_other(build: Build, grad: bool) -> None:
    """A source of a batch of mixtures gets what it gets alone, at its own time."""
    unet, mixture = build(), spectrum(2)
    vectors, noisy, time = torch.randn(2, 2, VECTOR), torch.randn(4, 1, 16, 8), torch.tensor([0.0, 9.0, 500.0, 999.0])
    conditioner = TiledConcat(views={"vector": VECTOR}, sites=unet.sites)
    with torch.set_grad_enabled(grad):
        together = unet.bind(mixture, conditioner.bind(Embedding(vector=vectors)))(noisy, time)
        for item in range(4):
            inject = conditioner.bind(Embedding(vector=vectors[item // 2, item % 2][None, None]))
            one = Spectrum(*[mixture.features[item // 2][None]] * 3)
            alone = unet.bind(one, inject)(noisy[item][None], time[item][None])
            torch.testing.assert_close(together[item][None], alone, **CLOSE)


def test_new_weights_are_seen_by_the_next_bind(build: Build) -> None:
    """Nothing that was folded outlives its network."""
    unet, mixture = build(), spectrum()
    inject, noisy, time = bound(unet), torch.randn(2, 1, 16, 8), torch.tensor([1.0])
    with torch.no_grad():
        before = unet.bind(mixture, inject)(noisy, time)
        for parameter in unet.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        after = unet.bind(mixture, inject)(noisy, time)
    assert not torch.allclose(before, after, atol=1e-2)
    torch.testing.assert_close(after, unet.bind(mixture, inject)(noisy, time).detach(), **CLOSE)


def test_layers_that_are_watched_or_adapted_run(build: Build) -> None:
    """A forward hook is called without gradients too: the plain network runs."""
    unet, seen = build(), []
    unet.downs[0].frames.out.register_forward_hook(lambda *_: seen.append(1))  # type: ignore[union-attr]
    with torch.no_grad():
        unet.bind(spectrum(), bound(unet))(torch.randn(2, 1, 16, 8), torch.tensor([1.0]))
    assert seen


def test_adapters_act_without_gradients(build: Build) -> None:
    """LoRA changes what layers do, not their weights."""
    peft = pytest.importorskip("peft")
    unet, mixture = build(), spectrum()
    inject, noisy, time = bound(unet), torch.randn(2, 1, 16, 8), torch.tensor([1.0])
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["qkv", "project"]), unet)
    for name, parameter in unet.named_parameters():
        if "lora" in name:
            parameter.data += torch.randn_like(parameter)
    plain = unet.bind(mixture, inject)(noisy, time).detach()
    with torch.no_grad():
        torch.testing.assert_close(unet.bind(mixture, inject)(noisy, time), plain, **CLOSE)


def test_half_precision_is_near(build: Build) -> None:
    """Autocast works without gradients."""
    unet, mixture = build(), spectrum()
    inject, noisy, time = bound(unet), torch.randn(2, 1, 16, 8), torch.tensor([1.0])
    with torch.no_grad():
        network = unet.bind(mixture, inject)
        whole = network(noisy, time)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(noisy, time)
    assert (half.float() - whole).square().mean() < 0.01 * whole.var()


def test_gradient_reaches_every_parameter(build: Build) -> None:
    """Nothing is left out of training."""
    unet = build()
    out = unet.bind(spectrum(2), bound(unet, 2))(torch.randn(4, 1, 16, 8), torch.rand(4))
    out.square().mean().backward()
    missing = [name for name, p in unet.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []


@pytest.mark.parametrize("frames", [4, 12, 20])
def test_any_multiple_of_frames(build: Build, frames: int) -> None:
    """T' is free in multiples of 2 ** (levels - 1)."""
    unet = build()
    with torch.no_grad():
        out = unet.bind(spectrum(frames=frames), bound(unet))(torch.randn(2, 1, 16, frames), torch.tensor([1.0]))
    assert out.shape == (2, 1, 16, frames)


@pytest.mark.parametrize(("rows", "frames"), [(16, 6), (8, 8)])
def test_points_that_do_not_fit(build: Build, rows: int, frames: int) -> None:
    """The error says what arrives and what is needed."""
    unet = build()
    with pytest.raises(CompositionError, match=rf"gives {rows} x {frames} points .* 16 rows and a multiple of 4"):
        unet.bind(spectrum(rows=rows, frames=frames), bound(unet))


def test_patch_needs_more_frames(build: Build) -> None:
    """Patches of 2 make the multiple twice as large."""
    unet = build(patch=2)
    with pytest.raises(CompositionError, match="multiple of 8 frames"):
        unet.bind(spectrum(frames=12), bound(unet))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"rows": 18}, "rows is 18"), ({"multipliers": ()}, "rows is 16 with 0 levels"), ({"groups": 3}, "8 channels")],
)
def test_sizes_that_cannot_be(change: dict[str, Any], message: str) -> None:
    """The plan refuses them before anything is built."""
    with pytest.raises(ValueError, match=message):
        DavisUNet.plan(**(SIZE | change))


def test_without_a_driver(build: Build) -> None:
    """The separator alone estimates nothing."""
    unet = build()
    with pytest.raises(CompositionError, match="needs a driver"):
        unet(spectrum(), bound(unet))


def test_standardised_weight_ignores_level_and_scale() -> None:
    """Mean 0 and variance 1 per output channel, whatever the stored weight's."""
    conv = StandardisedConv(4, 6)
    before = conv.standardised()
    torch.testing.assert_close(before.mean((1, 2, 3)), torch.zeros(6), atol=1e-6, rtol=0)
    conv.weight.data.mul_(50).add_(3)
    torch.testing.assert_close(conv.standardised(), before, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("module", [Down, Up])
def test_folded_resampling_is_the_plain_one(module: type[Down] | type[Up]) -> None:
    """One strided convolution instead of two operations."""
    resample, x = module(5, 7), torch.randn(2, 5, 8, 12)
    with torch.no_grad():
        torch.testing.assert_close(resample.folded()(x), resample(x), rtol=1e-4, atol=1e-5)


def test_down_orders_channels_row_column() -> None:
    """Space to depth: channel slowest, then row, then column of the 2 x 2 points."""
    down, x = Down(3, 12), torch.randn(1, 3, 4, 6)
    nn.init.dirac_(down.conv.weight)
    nn.init.zeros_(down.conv.bias)  # type: ignore[arg-type]
    expected = torch.stack([x[:, c, i::2, j::2] for c in range(3) for i in range(2) for j in range(2)], dim=1)
    torch.testing.assert_close(down(x), expected)


def test_names_and_shapes_of_weights(build: Build) -> None:
    """Weights of published models keep fitting."""
    found = {name: tuple(value.shape) for name, value in build().state_dict().items()}
    block = {
        "film.linear.weight": 0, "film.linear.bias": 0, "conv1.weight": 0, "conv1.bias": 0, "norm1.weight": 0,
        "norm1.bias": 0, "conv2.weight": 0, "conv2.bias": 0, "norm2.weight": 0, "norm2.bias": 0,
    }  # fmt: skip
    shortcut = ("shortcut.weight", "shortcut.bias")
    points = (
        "norm.gain", "film.linear.weight", "film.linear.bias", "qkv.weight", "out.weight", "out.bias", "out_norm.gain",
    )  # fmt: skip
    frames = (
        "film.linear.weight", "film.linear.bias", "project.weight", "project.bias", "slope", "gain", "bias",
        "out.weight", "out.bias", "out_slope", "out_gain", "out_bias",
    )  # fmt: skip
    names = {f"{part}.{end}" for part in ("first", "last", "time.mlp.0", "time.mlp.2") for end in ("weight", "bias")}
    for depth in range(3):
        for way in ("downs", "ups"):
            level = f"{way}.{depth}"
            ending = depth == 2
            names |= {f"{level}.block.{name}" for name in (*block, *(shortcut if way == "ups" else ()))}
            names |= {f"{level}.points.{name}" for name in points} | {f"{level}.frames.{name}" for name in frames}
            names |= {f"{level}.resample.{'' if ending else 'conv.'}{end}" for end in ("weight", "bias")}
    plain = [name for name in block if "film" not in name]
    names |= {f"{part}.{name}" for part in ("middle_in", "middle_out") for name in plain}
    names |= {f"middle_in.{name}" for name in shortcut}
    names |= {f"last_block.{name}" for name in (*block, *shortcut)}
    names |= {f"middle_attention.{name}" for name in ("norm.gain", "qkv.weight", "out.weight", "out.bias")}
    assert set(found) == names
    assert found["first.weight"] == (8, 2, 1, 1)
    assert found["middle_in.conv1.weight"] == (16, VECTOR + 16, 3, 3)
    assert found["downs.1.frames.project.weight"] == (2 * 2 * 2 + 8, 8, 1, 1)
    assert found["ups.0.frames.gain"] == (2 * 4 * 2 + 16, 4)
    assert found["downs.0.points.qkv.weight"] == (24, 8, 1, 1)


def test_published_size() -> None:
    """36,549,603 parameters, of which the published forward never uses 789,504."""
    with torch.device("meta"):
        unet = DavisUNet(widths={"bottleneck": 1024})
    assert sum(p.numel() for p in unet.parameters()) == 36_549_603 - 871_936 + 82_432
