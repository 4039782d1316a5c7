"""Time queries of one mixture, together against one at a time: python tests/benchmarks/bench_bimodal_sep.py [--help].

One at a time is BiModalSep's published inference: the whole network runs for every text. Together, the levels before
the first that needs a text run once. Weights are random; embeddings of texts are given. The two ways take turns;
printed are, one line per size, the medians, the ratio of medians, and the largest difference of masks. Ends with status
1 where they differ by more than 1e-5.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

TOLERANCE = 1e-5
SIZES: dict[str, tuple[dict[str, int], tuple[int, int]]] = {
    "official": ({"width": 64, "levels": 7, "mask_features": 32}, (512, 512)),
    "mini": ({"width": 16, "levels": 5, "mask_features": 16}, (256, 64)),
}


def build(settings: dict[str, int]) -> tuple[Any, Any]:
    """Separator and conditioner, whose statistics of batch norms are uneven."""
    import torch

    from avsep_bimodal_sep.conditioner import TextAttention
    from avsep_bimodal_sep.separator import ConditionalUNet

    torch.manual_seed(0)
    sites = ConditionalUNet.plan(**settings).sites
    conditioner = TextAttention(views={"vector": 512, "tokens": 768}, sites=sites)
    separator = ConditionalUNet(widths=conditioner.widths(), **settings)
    for name, buffer in separator.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
        elif name.endswith("running_mean"):
            buffer.normal_(0.0, 0.1)
    return separator.eval(), conditioner.eval()


def measure(repeats: int, calls: list[Callable[[], object]]) -> list[list[float]]:
    """Of each call, by turn: seconds of the processor; a first turn is for warmth."""
    records: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats + 1):
        for call, record in zip(calls, records, strict=True):
            start = time.process_time()
            call()
            record.append(time.process_time() - start)
    return [record[1:] for record in records]


def compare(title: str, queries: int, repeats: int) -> float:
    """Print one line about a size; return the largest difference of masks."""
    import torch

    from avsep_zoo.contracts import Embedding, Spectrum

    settings, shape = SIZES[title]
    separator, conditioner = build(settings)
    features = torch.randn(1, 1, *shape).abs()
    spectrum = Spectrum(features, features, features)
    vectors, tokens = torch.randn(1, queries, 512), torch.randn(1, queries, 77, 768)

    def masks(first: int, last: int) -> Any:
        cue = Embedding(vector=vectors[:, first:last], tokens=tokens[:, first:last])
        return separator(spectrum, conditioner.bind(cue)).values

    def alone() -> Any:
        return torch.cat([masks(n, n + 1) for n in range(queries)], dim=1)

    def together() -> Any:
        return masks(0, queries)

    with torch.inference_mode():
        worst = (alone() - together()).abs().max().item()
        before, after = (statistics.median(record) for record in measure(repeats, [alone, together]))
    print(
        f"{title}, {queries} queries: one at a time {before:.2f} s  together {after:.2f} s  ratio "
        f"{before / after:.2f}; largest difference {worst:.1e}"
    )
    return float(worst)


def main() -> None:
    """Print a line per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=(*SIZES, "all"), default="official")
    parser.add_argument("--queries", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)  # read once, when NumPy and PyTorch are imported
    import torch

    torch.set_num_threads(arguments.threads)
    chosen = SIZES if arguments.size == "all" else [arguments.size]
    worst = [compare(title, arguments.queries, arguments.repeats) for title in chosen]
    sys.exit(max(worst) > TOLERANCE)


if __name__ == "__main__":
    main()
