"""The folded U-Net gives what the U-Net gives."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_avsgs import folded as module
from avsep_avsgs.fast_conv import FastConv, FastTransposed, SmallTransposed
from avsep_avsgs.folded import FoldedUNet, foldable, folded
from avsep_avsgs.separator import CoSeparationUNet
from avsep_zoo.blocks.tiled_concat import TiledConcat
from avsep_zoo.contracts import Bound, Embedding, Spectrum


def unet_of(width: int, levels: int) -> tuple[CoSeparationUNet, TiledConcat]:
    sites = CoSeparationUNet.plan(width=width, levels=levels).sites
    conditioner = TiledConcat(views={"vector": 6}, sites=sites)
    unet = CoSeparationUNet(width=width, levels=levels, widths=conditioner.widths()).eval()
    for layer in unet.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.5, 1.5)  # type: ignore[arg-type]
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, (1.0 / layer.weight[0].numel()) ** 0.5)
    return unet, conditioner


def bound(conditioner: TiledConcat, batch: int, sources: int, dtype: torch.dtype = torch.float32) -> Bound:
    return conditioner.bind(Embedding(vector=torch.randn(batch, sources, 6, dtype=dtype)))


def spectrum(features: Tensor) -> Spectrum:
    return Spectrum(features, features, features)


@pytest.mark.parametrize("size", [(8, 8), (6, 10), (2, 14), (32, 16)])
def test_fast_convolution(size: tuple[int, int]) -> None:
    """Sizes that tiles fit into and others."""
    x, weight, bias = torch.randn(2, 5, *size), 0.2 * torch.randn(7, 5, 4, 4), torch.randn(7)
    found = FastConv(weight, bias)(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, F.conv2d(x, weight, bias, stride=2, padding=1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [FastTransposed, SmallTransposed])
@pytest.mark.parametrize("size", [(8, 8), (1, 5), (7, 2)])
def test_transposed_convolution_of_parts(size: tuple[int, int], kind: type[Any]) -> None:
    """The sum of what parts contribute, with and without ReLU; of the fast one and of the one for small maps."""
    x, weight, bias = torch.randn(2, 5, *size), 0.2 * torch.randn(5, 7, 4, 4), torch.randn(7)
    transposed = kind(weight, bias, [2, 3])
    plain = F.conv_transpose2d(x, weight, bias, stride=2, padding=1)
    parts = x.permute(0, 2, 3, 1).split([2, 3], dim=3)
    for lowest, expected in ((None, plain), (0.0, F.relu(plain))):
        lifted = transposed.lift(parts[0], 0) + transposed.lift(parts[1], 1)
        found = transposed.drop(lifted, *size, lowest)
        torch.testing.assert_close(found.permute(0, 3, 1, 2), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("numbers", [2**21, 2**14])
@pytest.mark.parametrize(("width", "levels", "batch", "sources"), [(4, 3, 3, 2), (4, 5, 2, 3), (64, 4, 1, 2)])
def test_equals_the_network(
    monkeypatch: pytest.MonkeyPatch, width: int, levels: int, batch: int, sources: int, numbers: int
) -> None:
    """Narrow and wide networks, all maps at once or a few at a time."""
    monkeypatch.setattr(module, "_MAP", numbers)
    unet, conditioner = unet_of(width, levels)
    features, cue = torch.randn(batch, 1, 64, 32), bound(conditioner, batch, sources)
    with torch.no_grad():
        expected = unet.logits(features, cue)
        found = FoldedUNet(unet, 64, 32)(features, cue)
    scale = expected.std()
    torch.testing.assert_close(found / scale, expected / scale, atol=2e-5, rtol=0)


def test_double_precision() -> None:
    """What is left of the difference is rounding."""
    unet, conditioner = unet_of(64, 3)
    unet.double()
    features, cue = torch.randn(1, 1, 64, 64).double(), bound(conditioner, 1, 2, torch.float64)
    with torch.no_grad():
        found = FoldedUNet(unet, 64, 64)(features, cue)
        torch.testing.assert_close(found, unet.logits(features, cue), atol=1e-12, rtol=0)


def test_an_unconditioned_network() -> None:
    """All sources get the same masks."""
    unet = CoSeparationUNet(width=4, levels=3).eval()

    class Nothing(Bound):
        sources = 2

        def __call__(self, site: str, features: Tensor) -> Tensor:
            return features

    features = torch.randn(3, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            FoldedUNet(unet, 16, 16)(features, Nothing()), unet.logits(features, Nothing()), atol=1e-6, rtol=0
        )


def test_masks_without_gradients_are_those_with() -> None:
    """The network folds itself where no gradient is asked for."""
    unet, conditioner = unet_of(4, 3)
    features, cue = torch.randn(2, 1, 32, 32), bound(conditioner, 2, 2)
    with torch.no_grad():
        assert foldable(unet, features)
        found = unet(spectrum(features), cue).values
    assert not foldable(unet, features)
    torch.testing.assert_close(found, unet(spectrum(features), cue).values, atol=1e-6, rtol=0)


def test_new_weights_are_noticed() -> None:
    """After a step, after loading, and after a change that only training announces."""
    unet, conditioner = unet_of(4, 3)
    features, cue = torch.randn(1, 1, 16, 16), bound(conditioner, 1, 1)
    last: Any = unet.up[-1].get_submodule("conv")
    other = copy.deepcopy(unet.state_dict())
    other["up.2.conv.bias"] += 3.0

    def step() -> None:
        last.bias += 1.0

    def load() -> None:
        unet.load_state_dict(other)

    def behind_the_back() -> None:
        last.bias.data.add_(1.0)
        unet.train().eval()

    with torch.no_grad():
        for change in (step, load, behind_the_back):
            before = unet(spectrum(features), cue).logits
            change()
            after = unet(spectrum(features), cue).logits
            assert (after - before).abs().max() > 0.5
            torch.testing.assert_close(after, unet.logits(features, cue), atol=1e-5, rtol=0)


def test_folded_network_is_kept_and_let_go() -> None:
    """It is built once for the same weights, and does not hold the network."""
    unet, _ = unet_of(4, 3)
    with torch.no_grad():
        assert folded(unet, 16, 16) is folded(unet, 16, 16)
    known = len(module._cache)
    del unet
    assert len(module._cache) == known - 1


@pytest.mark.parametrize("reason", ["training", "hook", "half", "site"])
def test_what_is_not_folded(reason: str) -> None:
    """Where the network does more or other than its weights say."""
    widths: Mapping[str, int] = {"decoder3": 8} if reason == "site" else {}
    unet = CoSeparationUNet(width=4, levels=3, widths=widths).eval()
    features = torch.randn(1, 1, 16, 16)
    if reason == "training":
        unet.train()
    elif reason == "hook":
        unet.down[0].register_forward_hook(lambda *_: None)
    elif reason == "half":
        unet.half()
    with torch.no_grad():
        assert not foldable(unet, features)
