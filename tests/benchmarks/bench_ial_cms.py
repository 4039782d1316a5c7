"""Time IAL-CMS' published inference against the plain way: python tests/benchmarks/bench_ial_cms.py [--help].

A recording of two sources is separated by overlapping windows, whose estimates are averaged. The plain way is the
procedure as it is described: for every window the visual network on every picture, the STFT, the U-Net as its modules
are written down, its last layer as upsampling then convolution, and the inverse STFT. Ours is
``avsep_zoo.sliding.slide``. Weights are random. The two ways take turns; printed are, one line per setting, the
medians, the ratio of medians and, of the ratios of turns, the smallest and the largest. Ends with status 1 where
outputs differ by more than 1e-6.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

RATE, HOP = 11025, 2205
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Size:
    """Settings of the parts, and samples of a window."""

    encoder: dict[str, Any]
    conditioner: dict[str, Any]
    separator: dict[str, Any]
    length: int


SIZES = {
    "official": Size({}, {}, {}, 65535),
    "small": Size(
        {"width": 16, "pyramid": 32, "details": 16, "space": 64, "image_size": 112},
        {"width": 160, "hidden": 256},
        {"width": 20},
        32767,
    ),
}


def build(size: Size) -> Any:
    """A model with the statistics of batch norms uneven, and more sensitive to the cue than an untrained one."""
    import torch

    from avsep_zoo.compose import compose

    torch.manual_seed(0)
    model = compose(
        encoder={"name": "ial_cms.deeplab", **size.encoder},
        conditioner={"name": "ial_cms.attention", **size.conditioner},
        separator={"name": "ial_cms.unet", **size.separator},
        front_end={
            "name": "stft", "rate": RATE, "length": size.length, "n_fft": 1022, "hop_length": 256, "warp_rows": 256,
            "pad_mode": "reflect", "align_corners": True, "log_offset": 1e-8,
        },
    )  # fmt: skip
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
            elif name.endswith("running_mean"):
                buffer.normal_(0.0, 0.1)
        for parameter in model.encoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2.0)
    return model.eval()


def plain(model: Any, mixture: Tensor, pictures: Tensor, starts: list[int]) -> Tensor:
    """Estimates (N, L): every window on its own, everything anew."""
    import torch
    from torch.nn import functional as F

    from avsep_zoo.contracts import Embedding

    front, unet = model.front_end, model.separator
    length, sources = front.length, len(pictures)
    total, count = mixture.new_zeros(sources, len(mixture)), mixture.new_zeros(len(mixture))
    for start in starts:
        bound = model.conditioner.bind(Embedding(map=model.encoder.network(pictures)[None]))
        spectrum = front.stft(mixture[None, start : start + length])[:, None]
        x = unet.stem(unet.input_norm((front.warp(spectrum.abs()) + 1e-8).log()))
        skips = [x]
        for stage in unet.down:
            x = stage(x)
            skips.append(x)
        x = bound("bottleneck", skips.pop())
        for number, up in enumerate(unet.up):
            skip = skips.pop().expand(sources, -1, -1, -1)
            x = torch.cat((skip, bound(f"decoder{unet.levels - number}", up(x))), dim=1)
        x = unet.mask_conv(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))
        mask = (x * unet.scale + unet.bias + unet.mask_offset).relu()
        estimate = torch.polar(front.unwarp(mask) * spectrum.abs(), spectrum.angle().expand(sources, -1, -1, -1))
        total[:, start : start + length] += front.istft(estimate[:, 0], length=length)
        count[start : start + length] += 1
    return total / count


def measure(repeats: int, device: str, calls: list[Callable[[], object]]) -> list[list[tuple[float, float]]]:
    """Of each call, by turn: seconds of the processor and of the clock; a first turn is for warmth."""
    import torch

    records: list[list[tuple[float, float]]] = [[] for _ in calls]
    for _ in range(repeats + 1):
        for call, record in zip(calls, records, strict=True):
            processor, clock = time.process_time(), time.perf_counter()
            call()
            if device != "cpu":
                torch.cuda.synchronize()
            record.append((time.process_time() - processor, time.perf_counter() - clock))
    return [record[1:] for record in records]


def compare(title: str, size: Size, arguments: argparse.Namespace) -> float:
    """Print one line about a setting; return the largest difference of outputs."""
    import torch

    from avsep_zoo.contracts import CueBatch
    from avsep_zoo.sliding import slide, window_starts

    device = arguments.device
    model = build(size).to(device)
    samples = size.length + (arguments.windows - 1) * HOP
    mixture = 0.02 * torch.randn(samples, device=device)
    side = model.encoder.image_size
    pictures = torch.randn(arguments.sources, 3, side, side, device=device)
    cues = CueBatch({"frames": pictures[None]})
    starts = window_starts(samples, size.length, HOP)

    def slow() -> Tensor:
        return plain(model, mixture, pictures, starts)

    def fast() -> Tensor:
        return slide(model, mixture, cues, hop=HOP, batch=arguments.batch)

    with torch.inference_mode():
        expected = slow()
        worst = (expected - fast()).abs().max().item()
        plains, ours = measure(arguments.repeats, device, [slow, fast])
    which = 0 if device == "cpu" else 1  # other work on the machine counts less for the processor's time
    ratios = [p[which] / o[which] for p, o in zip(plains, ours, strict=True)]
    before, after = (statistics.median(turn[which] for turn in record) for record in (plains, ours))
    apart = (expected[0] - expected[-1]).std().item() if len(expected) > 1 else 0.0
    print(
        f"{title}, {len(starts)} windows, {len(expected)} sources, batches of {arguments.batch}, {device}: "
        f"plain {before:.2f} s  ours {after:.2f} s  ratio {before / after:.2f} ({min(ratios):.2f} to "
        f"{max(ratios):.2f}); largest difference {worst:.1e} (deviation of estimates {expected.std():.1e}, of the "
        f"difference of two {apart:.1e})"
    )
    return worst


def main() -> None:
    """Print a line per setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=(*SIZES, "all"), default="official")
    parser.add_argument("--windows", type=int, default=22, help="22 are those of 10 s at the official size")
    parser.add_argument("--sources", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)  # read once, when NumPy and PyTorch are imported
    import torch

    torch.set_num_threads(arguments.threads)
    if arguments.device == "cuda":
        if not torch.cuda.is_available():
            print("no CUDA device here")
            return
        torch.backends.cudnn.allow_tf32 = False
    chosen = SIZES if arguments.size == "all" else {arguments.size: SIZES[arguments.size]}
    worst = [compare(title, size, arguments) for title, size in chosen.items()]
    sys.exit(max(worst) > TOLERANCE)


if __name__ == "__main__":
    main()
