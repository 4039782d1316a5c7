"""The attention blocks of DAVIS: against their definitions, and folded against plain."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from avsep_davis.attention import ChannelNorm, Film, FullAttention, LinearAttention, TimeAttention
from avsep_davis.folded import FoldedFrames, FoldedPoints

CHANNELS, ROWS, FRAMES, CLOCK = 8, 6, 10, 12


def stirred(module: nn.Module, by: float = 0.5) -> nn.Module:
    """Make every parameter act."""
    for parameter in module.parameters():
        parameter.data += by * torch.randn_like(parameter)
    return module.eval()


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def points() -> LinearAttention:
    return stirred(LinearAttention(CHANNELS, CLOCK, heads=2, head_channels=4))  # type: ignore[return-value]


@pytest.fixture
def frames() -> TimeAttention:
    return stirred(TimeAttention(CHANNELS, ROWS, CLOCK, heads=2, features=16))  # type: ignore[return-value]


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, CHANNELS, ROWS, FRAMES)


def test_linear_attention_is_its_definition(points: LinearAttention, x: Tensor) -> None:
    """Queries are normalised over their channels, keys over all points; values are divided by the points."""
    clock = torch.randn(1, CLOCK)
    u = points.film(points.norm(x), clock)
    q, k, v = torch.einsum("oc,bcft->boft", points.qkv.weight[:, :, 0, 0], u).flatten(2).chunk(3, dim=1)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        queries, keys = q[:, head].softmax(dim=1) / 2, k[:, head].softmax(dim=2)
        context = keys @ v[:, head].mT / (ROWS * FRAMES)
        heads.append(context.mT @ queries)
    expected = points.out_norm(points.out(torch.cat(heads, dim=1).unflatten(2, (ROWS, FRAMES))))
    torch.testing.assert_close(points.branch(x, clock), expected)


@pytest.mark.parametrize("gain", [1.0, 40.0])
def test_folded_linear_attention_is_the_plain_one(points: LinearAttention, x: Tensor, gain: float) -> None:
    """Also where scores are so large that a softmax has to subtract their maximum."""
    points.qkv.weight.data *= gain
    clock = torch.randn(1, CLOCK)
    with torch.no_grad():
        torch.testing.assert_close(FoldedPoints(points).at(clock)(x), points(x, clock), rtol=1e-4, atol=1e-4)


def test_folded_linear_attention_in_portions(
    points: LinearAttention, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The softmax over all points is the same when they come in portions, the last of them shorter."""
    clock = torch.randn(1, CLOCK)
    points.qkv.weight.data *= 10
    with torch.no_grad():
        expected = points(x, clock)
        monkeypatch.setattr("avsep_davis.folded._POINTS", 14)  # 7 of each of two items
        torch.testing.assert_close(FoldedPoints(points).at(clock)(x), expected, rtol=1e-4, atol=1e-4)


def test_folded_time_attention_is_the_plain_one(frames: TimeAttention, x: Tensor) -> None:
    """Heads as plain matrices and layer norms behind the attention change nothing but rounding."""
    frames.gain.data *= 3  # decisive attention
    clock = torch.randn(1, CLOCK)
    with torch.no_grad():
        torch.testing.assert_close(FoldedFrames(frames).at(clock)(x), frames(x, clock), rtol=1e-4, atol=1e-4)


def test_time_attention_is_its_definition(frames: TimeAttention, x: Tensor) -> None:
    """Head by head: 1x1 convolution, PReLU, layer norm over channels and rows; attention between frames."""
    clock = torch.randn(1, CLOCK)
    u = frames.film(x, clock)

    def layer(x: Tensor, weight: Tensor, bias: Tensor, slope: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        y = nn.functional.prelu(nn.functional.conv2d(x, weight, bias), slope.reshape(1))
        variance, mean = torch.var_mean(y, dim=(1, 2), correction=0, keepdim=True)
        return (y - mean) * (variance + 1e-5).rsqrt() * gain[..., None] + shift[..., None]

    heads = []
    for head in range(2):
        parts = []
        for kind, (start, width) in enumerate(((0, 3), (6, 3), (12, 4))):
            rows = slice(start + head * width, start + (head + 1) * width)
            p = frames.project
            one = layer(
                u, p.weight[rows], p.bias[rows], frames.slope[2 * kind + head], frames.gain[rows], frames.bias[rows]
            )
            parts.append(one.flatten(1, 2))
        q, k, v = parts  # (B, C F, T)
        weights = (q.mT @ k / q.shape[1] ** 0.5).softmax(dim=-1)
        heads.append((v @ weights.mT).unflatten(1, (-1, ROWS)))
    out = frames.out
    expected = layer(torch.cat(heads, dim=1), out.weight, out.bias, frames.out_slope, frames.out_gain, frames.out_bias)
    torch.testing.assert_close(frames.branch(x, clock), expected, rtol=1e-4, atol=1e-4)


def test_full_attention_is_its_definition(x: Tensor) -> None:
    """Softmax over all points, scaled by the channels of a head."""
    full = stirred(FullAttention(CHANNELS, heads=2, head_channels=4))
    q, k, v = full.qkv(full.norm(x)).flatten(2).chunk(3, dim=1)
    heads = [v[:, h] @ (q[:, h].mT @ k[:, h] / 2).softmax(dim=-1).mT for h in (slice(0, 4), slice(4, 8))]
    expected = full.out(torch.cat(heads, dim=1).unflatten(2, (ROWS, FRAMES)))
    torch.testing.assert_close(full.branch(x), expected, rtol=1e-4, atol=1e-5)


def test_channel_norm_normalises_each_point(x: Tensor) -> None:
    """Mean 0 and variance 1 over channels, then the gain."""
    norm = ChannelNorm(CHANNELS)
    norm.gain.data.fill_(3.0)
    y = norm(5 * x + 2)
    torch.testing.assert_close(y.mean(1), torch.zeros(2, ROWS, FRAMES), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(1, correction=0), torch.full((2, ROWS, FRAMES), 3.0), atol=1e-3, rtol=0)


def test_film_with_zero_weights_changes_nothing(x: Tensor) -> None:
    """Scale is relative to 1."""
    film = Film(CLOCK, CHANNELS)
    nn.init.zeros_(film.linear.weight)
    nn.init.zeros_(film.linear.bias)
    assert torch.equal(film(x, torch.randn(1, CLOCK)), x)


def test_items_have_times_of_their_own(points: LinearAttention, frames: TimeAttention, x: Tensor) -> None:
    """An item of a batch gets what it gets alone at its time."""
    clock = torch.randn(2, CLOCK)
    for module in (points, frames):
        alone = torch.cat([module(x[i : i + 1], clock[i : i + 1]) for i in range(2)])
        torch.testing.assert_close(module(x, clock), alone, rtol=1e-4, atol=1e-5)


def test_gradient_reaches_every_parameter(points: LinearAttention, frames: TimeAttention, x: Tensor) -> None:
    """All of them are used."""
    clock = torch.randn(2, CLOCK)
    for module in (points, frames):
        module(x, clock).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
