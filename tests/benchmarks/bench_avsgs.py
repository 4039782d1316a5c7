"""Time AVSGS' published inference against the plain way: python tests/benchmarks/bench_avsgs.py [--help].

A clip of 10 s of two sources is separated with equal weights. The plain way is the procedure as it is described: for
every window and every source the cue's map, graph and recurrent network, the STFT, the U-Net as its modules are written
down, and the inverse STFT. The published script runs the classifier of sounds there, too, although nothing reads what
it says; that is timed as well. Weights are random. The two ways take turns; printed are the medians, the ratio of
medians and, of the ratios of turns, the smallest and the largest. Ends with status 1 where outputs differ by more than
1e-5.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

RATE, LENGTH, HOP = 11025, 65535, 551
NODES = (5, 7)
TOLERANCE = 1e-5


def build() -> Any:
    """The model of the published size."""
    import torch

    from avsep_zoo.compose import compose

    torch.manual_seed(0)
    model = compose(
        encoder={"name": "avsgs.detections"},
        conditioner={"name": "avsgs.scene_graph"},
        separator={"name": "avsgs.unet"},
        front_end={
            "name": "stft", "rate": RATE, "length": LENGTH, "n_fft": 1022, "hop_length": 256, "warp_rows": 256,
            "pad_mode": "reflect", "log_offset": 0.0,
        },
    )  # fmt: skip
    with torch.no_grad():
        for name, buffer in model.separator.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
            elif name.endswith("running_mean"):
                buffer.normal_(0.0, 0.1)
        ups: Any = model.separator.up
        ups[0].conv.weight[:512] *= 500.0  # an untrained network hardly reacts to the cue
    return model.eval()


def plain(
    model: Any, mixture: Tensor, nodes: list[Tensor], starts: list[int], classifier: Any = None
) -> tuple[Tensor, Tensor]:
    """Sums of estimates (N, L) and how many there are at each sample (L,)."""
    import torch

    front, conditioner, unet = model.front_end, model.conditioner, model.separator
    total, count = mixture.new_zeros(len(nodes), len(mixture)), mixture.new_zeros(len(mixture))
    for start in starts:
        window = mixture[None, start : start + LENGTH]
        for source, features in enumerate(nodes):
            mapped = model.encoder.map(features)
            number = torch.arange(len(mapped), device=mixture.device)
            edges = torch.cartesian_prod(number, number).T
            pooled = conditioner.graph(mapped, edges, torch.zeros_like(number), 1)
            vector = conditioner.rnn(pooled[:, None])[0][:, 0]
            spectrum = front.stft(window)[:, None]
            magnitude = spectrum.abs()
            warped = front.warp(magnitude + 1e-10)
            x, skips = warped.log(), []
            for down in unet.down:
                x = down(x)
                skips.append(x)
            skips.pop()
            x = torch.cat((vector[:, :, None, None].expand(-1, -1, *x.shape[2:]), x), dim=1)
            for up in unet.up:
                x = up(x)
                if skips:
                    x = torch.cat((x, skips.pop()), dim=1)
            mask = torch.sigmoid(x)
            if classifier is not None:
                classifier((mask * warped + 1e-10).log())
            estimate = torch.polar(front.unwarp(mask) * magnitude, spectrum.angle())
            total[source, start : start + LENGTH] += front.istft(estimate, length=LENGTH)[0, 0].clamp(-1.0, 1.0)
        count[start : start + LENGTH] += 1
    return total, count


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


def main() -> None:
    """Print the largest difference, medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=83, help="83 are those of 10 s")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)  # read once, when NumPy and PyTorch are imported
    import torch

    from avsep_avsgs.classifier import SpectrogramClassifier
    from avsep_avsgs.sliding import separate_sliding
    from avsep_zoo.contracts import CueBatch
    from avsep_zoo.sliding import window_starts

    torch.set_num_threads(arguments.threads)
    device = arguments.device
    if device == "cuda":
        if not torch.cuda.is_available():
            print("no CUDA device here")
            return
        torch.backends.cudnn.allow_tf32 = False
    model, classifier = build().to(device), SpectrogramClassifier(classes=15).eval().to(device)
    samples = min(10 * RATE, LENGTH + (arguments.windows - 1) * HOP)
    mixture = 0.1 * torch.randn(samples, device=device)
    nodes = [torch.randn(number, 2048, device=device).abs() for number in NODES]
    shown = torch.zeros(1, len(nodes), 2048, max(NODES))
    mask = torch.full((1, len(nodes), max(NODES)), torch.inf)
    for number, rows in enumerate(nodes):
        shown[0, number, :, : len(rows)], mask[0, number, : len(rows)] = rows.mT, 0.0
    cues = CueBatch({"detections": shown, "detections_mask": mask}).to(device)
    starts = window_starts(samples, LENGTH, HOP)

    def slow() -> Tensor:
        total, count = plain(model, mixture, nodes, starts)
        return (2.0 * total / count).clamp(-1.0, 1.0)

    def fast() -> Tensor:
        return separate_sliding(model, mixture, cues, batch=arguments.batch)

    with torch.inference_mode():
        expected, found = slow(), fast()
        worst = (expected - found).abs().max().item()
        print(f"{len(starts)} windows, batches of {arguments.batch}, {arguments.threads} threads, {device}")
        print(f"largest difference {worst:.1e} (deviation of the estimates {expected.std():.3f}, of their difference "
              f"{(expected[0] - expected[1]).std():.1e})")  # fmt: skip
        published = measure(1, device, [lambda: plain(model, mixture, nodes, starts[:2], classifier)])[0][0]
        records = measure(arguments.repeats, device, [slow, fast])
    for kind, which in (("processor", 0), ("clock", 1)):
        plains, ours = ([turn[which] for turn in record] for record in records)
        ratios = [p / o for p, o in zip(plains, ours, strict=True)]
        before, after = statistics.median(plains), statistics.median(ours)
        with_classifier = published[which] / min(2, len(starts)) * len(starts)
        print(
            f"{kind}: plain {before:.2f} s  ours {after:.2f} s  ratio {before / after:.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}); with the classifier, from 2 windows, about "
            f"{with_classifier:.2f} s  ratio {with_classifier / after:.2f}"
        )
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
