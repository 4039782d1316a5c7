"""Time BSS Eval against mir_eval in one run, one thread each: python tests/benchmarks/bench_bss.py.

Both score 2 sources of 65280 samples (5.9 s at 11025 Hz) without permutation search; then the same together
with the mixture as estimate, for which mir_eval needs a second call; then the recordings of the demo likewise.
"""

from __future__ import annotations

import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

REPEATS = 15
NOISE_DB = 120  # the mixture has no artifacts: its SAR is the rounding of double precision


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
    import soundfile
    import soxr
    from mir_eval.separation import bss_eval_sources

    import avsep_zoo
    from avsep_zoo.evaluation import bss_eval

    rng = np.random.default_rng(0)
    references = rng.standard_normal((2, 65280))
    estimates = references + 0.3 * references[::-1] + 0.1 * rng.standard_normal(references.shape)
    both = np.stack([estimates, np.broadcast_to(references.sum(0), references.shape)])

    demo = [Path(avsep_zoo.__file__).parent / "demo" / f"{name}.flac" for name in ("mandolin", "cello")]
    recorded = np.stack([soxr.resample(soundfile.read(file)[0], 22050, 11025)[:65280] for file in demo])
    leaks = recorded + 0.3 * recorded[::-1] + 0.001 * rng.standard_normal(recorded.shape)
    recorded_both = np.stack([leaks, np.broadcast_to(recorded.sum(0), recorded.shape)])

    def theirs(truth: np.ndarray, *sets: np.ndarray) -> np.ndarray:
        return np.stack([bss_eval_sources(truth, s, compute_permutation=False)[:3] for s in sets], axis=1)

    def ours(truth: np.ndarray, *sets: np.ndarray) -> np.ndarray:
        return np.stack(bss_eval(truth, np.stack(sets))[:3])

    cases = {
        "estimates": (references, estimates),
        "with mixture": (references, *both),
        "recordings": (recorded, *recorded_both),
    }
    pairs = [(theirs(*case), ours(*case)) for case in cases.values()]
    difference = max(np.abs(a - b)[a < NOISE_DB].max() for a, b in pairs)
    print(f"largest difference {difference:.1e} dB of scores below {NOISE_DB} dB")
    for name, case in cases.items():
        slow, fast = median_seconds(lambda case=case: theirs(*case), lambda case=case: ours(*case))
        print(f"{name:14s} mir_eval {1e3 * slow:6.1f} ms  ours {1e3 * fast:6.1f} ms  ratio {slow / fast:.1f}")


if __name__ == "__main__":
    main()
