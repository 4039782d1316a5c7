"""Time BSS Eval against mir_eval in one run, one thread each: python tests/benchmarks/bench_bss.py.

Both score 2 sources of 65280 samples (5.9 s at 11025 Hz) without permutation search; then the same together
with the mixture as estimate, for which mir_eval needs a second call.
"""

from __future__ import annotations

import os
import statistics
import time
import warnings
from collections.abc import Callable

REPEATS = 15


def median_seconds(*calls: Callable[[], object]) -> list[float]:
    """Return the median time of each call; they take turns, so that a busy machine slows all of them."""
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(REPEATS + 1):
        for call, record in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            record.append(time.perf_counter() - start)
    return [statistics.median(record[1:]) for record in seconds]


def main() -> None:
    """Print the largest difference of the scores, then medians and their ratio."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"  # read once, when NumPy and SciPy are imported
    warnings.simplefilter("ignore")  # mir_eval marks its module as deprecated
    import numpy as np
    from mir_eval.separation import bss_eval_sources

    from avsep_zoo.evaluation import bss_eval

    rng = np.random.default_rng(0)
    references = rng.standard_normal((2, 65280))
    estimates = references + 0.3 * references[::-1] + 0.1 * rng.standard_normal(references.shape)
    both = np.stack([estimates, np.broadcast_to(references.sum(0), references.shape)])

    theirs = np.stack(bss_eval_sources(references, estimates, compute_permutation=False)[:3])
    ours = np.stack(bss_eval(references, estimates)[:3])
    print(f"largest difference {np.abs(ours - theirs).max():.1e} dB")
    seconds = median_seconds(
        lambda: bss_eval_sources(references, estimates, compute_permutation=False),
        lambda: bss_eval(references, estimates),
        lambda: [bss_eval_sources(references, e, compute_permutation=False) for e in both],
        lambda: bss_eval(references, both),
    )
    for name, slow, fast in (("estimates", *seconds[:2]), ("with mixture", *seconds[2:])):
        print(f"{name:14s} mir_eval {1e3 * slow:6.1f} ms  ours {1e3 * fast:6.1f} ms  ratio {slow / fast:.1f}")


if __name__ == "__main__":
    main()
