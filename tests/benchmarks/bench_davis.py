"""Time the DAVIS U-Net against the plain way, one thread: python tests/benchmarks/bench_davis.py [--help].

A clip of two sources is sampled with equal weights, noise and steps. The plain way is the network as it is described:
a 1x1 convolution for each head, softmax attention written out, weights standardised at every call, the sources one
after the other. The cue's vector is given: computing it is the same work in both ways. Weights are random, but all of
them act and attention is decisive. Of DDIM the networks are compared at every step of the plain way, since its first
step multiplies what the network says by 1826.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SIZES: dict[str, dict[str, Any]] = {
    "official": {},
    "mini": {
        "width": 24, "multipliers": (1, 2, 4, 4), "rows": 128, "head_channels": 8, "time_features": 128, "patch": 2,
    },
    "tiny": {
        "width": 16, "multipliers": (1, 2), "rows": 32, "head_channels": 4, "time_features": 32,
    },
}  # fmt: skip
VISUAL = {"official": 512, "mini": 96, "tiny": 24}


class PlainUNet:
    """The network with the weights of a DavisUNet."""

    def __init__(self, unet: Any) -> None:
        self.unet = unet

    def __call__(self, noisy: Tensor, moment: Tensor, mixture: Tensor, visual: Tensor) -> Tensor:
        """(B, 1, F, T), (B,), (B, 1, F, T), (B, D, V) -> (B, 1, F, T)."""
        import torch
        from torch.nn import functional as F

        unet = self.unet
        x = first = unet.first(F.pixel_unshuffle(torch.cat((mixture, noisy), dim=1), unet.patch))
        half = unet.time.sines // 2
        angle = moment[:, None] * torch.exp(torch.arange(half, device=x.device) * (-math.log(10000) / (half - 1)))
        c = unet.time.mlp(torch.cat((angle.sin(), angle.cos()), dim=1))
        skips = []
        for number, level in enumerate(unet.downs):
            x = self.frames(level.frames, self.points(level.points, self.block(level.block, x, c), c), c)
            skips.append(x)
            if number < len(unet.downs) - 1:
                b, channels, rows, frames = x.shape
                x = x.reshape(b, channels, rows // 2, 2, frames // 2, 2).permute(0, 1, 3, 5, 2, 4)
                x = level.resample.conv(x.reshape(b, 4 * channels, rows // 2, frames // 2))
            else:
                x = level.resample(x)
        v = visual.mean(dim=2)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        x = self.block(unet.middle_in, torch.cat((v, x), dim=1))
        x = self.block(unet.middle_out, self.full(unet.middle_attention, x))
        for number, level in enumerate(unet.ups):
            x = self.block(level.block, torch.cat((x, skips.pop()), dim=1), c)
            x = self.frames(level.frames, self.points(level.points, x, c), c)
            if number < len(unet.ups) - 1:
                x = level.resample.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
            else:
                x = level.resample(x)
        x = self.block(unet.last_block, torch.cat((x, first), dim=1), c)
        return F.pixel_shuffle(unet.last(x), unet.patch)

    def block(self, block: Any, x: Tensor, c: Tensor | None = None) -> Tensor:
        from torch.nn import functional as F

        h = block.norm1(self.standardised(block.conv1, x))
        if c is not None:
            h = self.film(block.film, h, c)
        h = F.silu(block.norm2(self.standardised(block.conv2, F.silu(h))))
        return h + block.shortcut(x)

    @staticmethod
    def standardised(conv: Any, x: Tensor) -> Tensor:
        from torch.nn import functional as F

        mean = conv.weight.mean(dim=(1, 2, 3), keepdim=True)
        variance = conv.weight.var(dim=(1, 2, 3), unbiased=False, keepdim=True)
        return F.conv2d(x, (conv.weight - mean) * (variance + 1e-5).rsqrt(), conv.bias, padding=1)

    @staticmethod
    def film(film: Any, x: Tensor, c: Tensor) -> Tensor:
        from torch.nn import functional as F

        scale, shift = film.linear(F.silu(c))[:, :, None, None].chunk(2, dim=1)
        return x * (scale + 1) + shift

    @staticmethod
    def over_channels(x: Tensor, gain: Tensor) -> Tensor:
        variance, mean = x.var(dim=1, unbiased=False, keepdim=True), x.mean(dim=1, keepdim=True)
        return (x - mean) * (variance + 1e-5).rsqrt() * gain[:, None, None]

    def points(self, m: Any, x: Tensor, c: Tensor) -> Tensor:
        import torch
        from torch.nn import functional as F

        b, _, rows, frames = x.shape
        u = self.film(m.film, self.over_channels(x, m.norm.gain), c)
        q, k, v = (s.reshape(b, m.heads, -1, rows * frames) for s in F.conv2d(u, m.qkv.weight).chunk(3, dim=1))
        q, k = q.softmax(dim=2) / math.sqrt(q.shape[2]), k.softmax(dim=3)
        context = torch.einsum("bhdn,bhen->bhde", k, v / (rows * frames))
        out = torch.einsum("bhde,bhdn->bhen", context, q).reshape(b, -1, rows, frames)
        return x + self.over_channels(m.out(out), m.out_norm.gain)

    def full(self, m: Any, x: Tensor) -> Tensor:
        import torch
        from torch.nn import functional as F

        b, _, rows, frames = x.shape
        qkv = F.conv2d(self.over_channels(x, m.norm.gain), m.qkv.weight)
        q, k, v = (s.reshape(b, m.heads, -1, rows * frames) for s in qkv.chunk(3, dim=1))
        weights = torch.einsum("bhdi,bhdj->bhij", q / math.sqrt(q.shape[2]), k).softmax(dim=-1)
        out = torch.einsum("bhij,bhdj->bhdi", weights, v)
        return x + m.out(out.reshape(b, -1, rows, frames))

    def frames(self, m: Any, x: Tensor, c: Tensor) -> Tensor:
        import torch

        u = self.film(m.film, x, c).transpose(2, 3)  # (B, C, T, F)
        heads, start = [], [0, m.sizes[0], 2 * m.sizes[0]]
        for head in range(m.heads):
            parts = []
            for kind in range(3):  # queries, keys, values
                width = m.sizes[kind] // m.heads
                rows = slice(start[kind] + head * width, start[kind] + (head + 1) * width)
                slope = m.slope[kind * m.heads + head]
                parts.append(
                    self.layer(u, m.project.weight[rows], m.project.bias[rows], slope, m.gain[rows], m.bias[rows])
                )
            q, k, v = (part.transpose(1, 2).flatten(2) for part in parts)  # (B, T, channels F)
            weights = (torch.einsum("bif,bjf->bij", q, k) / math.sqrt(q.shape[2])).softmax(dim=-1)
            out = torch.einsum("bij,bjf->bif", weights, v)
            heads.append(out.unflatten(2, (-1, x.shape[2])).transpose(1, 2))
        out = torch.cat(heads, dim=1)
        out = self.layer(out, m.out.weight, m.out.bias, m.out_slope, m.out_gain, m.out_bias)
        return x + out.transpose(2, 3)

    @staticmethod
    def layer(x: Tensor, weight: Tensor, bias: Tensor, slope: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        """Convolution, PReLU, layer norm over channels and rows; (B, C, T, F)."""
        from torch.nn import functional as F

        y = F.prelu(F.conv2d(x, weight, bias), slope.reshape(1))
        mean, variance = y.mean(dim=(1, 3), keepdim=True), y.var(dim=(1, 3), unbiased=False, keepdim=True)
        return (y - mean) * (variance + 1e-5).rsqrt() * gain[:, None] + shift[:, None]


def plain_flow(network: Callable[..., Tensor], noise: Callable[[int], Tensor], mixture: Tensor, steps: int) -> Tensor:
    import torch

    x = noise(0)
    for step in range(steps):
        x = x + network(x, torch.tensor([1000 * step / steps], device=x.device)) / steps
    return x


def plain_ddim(network: Callable[..., Tensor], noise: Callable[[int], Tensor], mixture: Tensor, steps: int) -> Tensor:
    import torch

    u = torch.arange(1001, dtype=torch.float64) / 1000
    end = torch.sigmoid(torch.tensor(3.0))
    f = (end - torch.sigmoid(3 * u)) / (end - 0.5)
    kept = torch.cumprod(1 - (1 - f[1:] / f[:-1]).clip(0, 0.999), dim=0).tolist()
    times = torch.linspace(-1, 999, steps + 1).int().tolist()[::-1]
    silent = mixture < 0.002
    x = noise(0)
    for step, (now, after) in enumerate(itertools.pairwise(times)):
        e = network(x, torch.tensor([float(now)], device=x.device))
        a = kept[now]
        clean = (x / math.sqrt(a) - math.sqrt(1 / a - 1) * e).clamp(-1, 1)
        clean = torch.where(silent, mixture, clean).clamp(0, 1)
        if after < 0:
            return clean
        b = kept[after]
        s = math.sqrt((1 - a / b) * (1 - b) / (1 - a))
        x = math.sqrt(b) * clean + math.sqrt(1 - b - s * s) * e + s * noise(step + 1)
    raise AssertionError("the last time is -1")


def build(size: str, driver: str, steps: int) -> Any:
    """A model without an encoder, and its clip: spectrum and embedding of two cues."""
    import torch

    from avsep_davis.separator import DavisUNet
    from avsep_zoo.blocks.tiled_concat import TiledConcat
    from avsep_zoo.contracts import Embedding, Spectrum
    from avsep_zoo.front_end import StftFrontEnd
    from avsep_zoo.generative.diffusion import Diffusion
    from avsep_zoo.generative.flow import Flow
    from avsep_zoo.model import SeparationModel

    torch.manual_seed(0)
    views = {"vector": VISUAL[size]}
    conditioner = TiledConcat(views=views, sites=DavisUNet.plan(**SIZES[size]).sites)
    unet = DavisUNet(**SIZES[size], widths=conditioner.widths())
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if parameter.ndim == 1 or name.endswith(("gain", "frames.bias")):
                parameter += 0.3 * torch.randn_like(parameter)
            if "qkv" in name or "frames.gain" in name:
                parameter *= 2
    model = SeparationModel(
        front_end=StftFrontEnd(rate=11025, length=65535, n_fft=1022, hop_length=256),  # type: ignore[arg-type]
        encoder=torch.nn.Identity(),  # type: ignore[arg-type]
        conditioner=conditioner,
        separator=unet,
        driver=Flow(steps=steps) if driver == "flow" else Diffusion(steps=steps),
    ).eval()
    rows = unet.rows
    mixture = torch.rand(1, 1, rows, rows)
    return model, Spectrum(mixture, mixture, mixture), Embedding(vector=torch.randn(1, 2, VISUAL[size]))


def median_seconds(repeats: int, device: str, *calls: Callable[[], object]) -> list[float]:
    """Median time of each call: of the processor, or on a GPU of the clock; they take turns, after one for warmth."""
    import torch

    seconds: list[list[float]] = [[] for _ in calls]
    clock = time.process_time if device == "cpu" else time.perf_counter
    for _ in range(repeats + 1):
        for call, record in zip(calls, seconds, strict=True):
            start = clock()
            call()
            if device != "cpu":
                torch.cuda.synchronize()
            record.append(clock() - start)
    return [statistics.median(record[1:]) for record in seconds]


def main() -> None:
    """Print the largest difference, medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="official")
    parser.add_argument("--driver", choices=("flow", "ddim"), default="flow")
    parser.add_argument("--steps", type=int, help="default: 2 of flow, 15 of ddim")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)  # read once, when NumPy and PyTorch are imported
    import torch

    from avsep_zoo.generative.noise import noise_at

    torch.set_num_threads(arguments.threads)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here")
        return
    steps = arguments.steps or {"flow": 2, "ddim": 15}[arguments.driver]
    model, spectrum, embedding = build(arguments.size, arguments.driver, steps)
    device = arguments.device
    model.to(device)
    mixture, vectors = spectrum.features.to(device), embedding.vector.to(device)
    spectrum, embedding = type(spectrum)(mixture, mixture, mixture), type(embedding)(vector=vectors)
    bound = model.separator.bind
    sampler = plain_flow if arguments.driver == "flow" else plain_ddim
    plain_unet = PlainUNet(model.separator)
    states: list[tuple[Tensor, Tensor, Tensor]] = []

    def plain(keep: bool = False) -> Tensor:
        outs = []
        for source in range(2):

            def network(x: Tensor, moment: Tensor, source: int = source) -> Tensor:
                out = plain_unet(x, moment, mixture, vectors[:, source, :, None])
                if keep:
                    states.append((x, moment, out))
                return out

            def noise(draw: int, source: int = source) -> Tensor:
                which = 0 if arguments.driver == "flow" else source
                return noise_at(0, *mixture.shape[2:], seed=0, source=which, draw=draw).to(device)[None, None]

            outs.append(sampler(network, noise, mixture, steps))
        return torch.cat(outs, dim=1)

    def ours() -> Tensor:
        values: Tensor = model.estimate(spectrum, embedding).values
        return values

    def half() -> Tensor:
        with torch.autocast(device, torch.bfloat16):
            return ours()

    with torch.inference_mode():
        expected, found = plain(keep=True), ours()
        both = bound(spectrum, model.conditioner.bind(embedding))
        worst = 0.0
        for (x, moment, out), (y, _, other) in zip(states[:steps], states[steps:], strict=True):
            worst = max(worst, (both(torch.cat((x, y)), moment) - torch.cat((out, other))).abs().max().item())
        print(f"{arguments.size}, {arguments.driver}, {steps} steps, {arguments.threads} threads, {device}")
        print(f"largest difference of the network at equal inputs {worst:.1e}, of estimates in the range of features "
              f"{(expected - found).abs().max():.1e} (their deviation {expected.std():.2f})")  # fmt: skip
        slow, fast = median_seconds(arguments.repeats, device, plain, ours)
        print(f"plain {slow:.3f} s  ours {fast:.3f} s  ratio {slow / fast:.2f}")
        if device == "cuda":
            (fast,) = median_seconds(arguments.repeats, device, half)
            print(f"ours, bfloat16 {fast:.3f} s  ratio {slow / fast:.2f}")
            network, start = torch.compile(both), torch.randn(2, *mixture.shape[1:], device=device)

            def compiled() -> Tensor:
                with torch.autocast(device, torch.bfloat16):
                    return model.driver.sample(network, mixture.expand_as(start), lambda _: start)

            (fast,) = median_seconds(arguments.repeats, device, compiled)
            print(f"ours, bfloat16, compiled {fast:.3f} s  ratio {slow / fast:.2f}")


if __name__ == "__main__":
    main()
