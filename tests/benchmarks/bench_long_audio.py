"""Measure memory and speed of a long separation: python tests/benchmarks/bench_long_audio.py [MINUTES].

A WAV file of noise is separated into two stems and a residual, which are then saved. Printed are the memory
along the way (anonymous memory is what the process holds itself; the rest of its resident memory is files
that the system can drop), and how many seconds of sound are separated in a second. Linux only.
"""

from __future__ import annotations

import argparse
import re
import resource
import tempfile
import time
from pathlib import Path

MIB = 2**20


def memory() -> tuple[float, float]:
    """Return anonymous and resident memory of this process in MiB (Linux)."""
    status = Path("/proc/self/status").read_text()
    found = [re.search(rf"{name}:\s+(\d+) kB", status) for name in ("RssAnon", "VmRSS")]
    anonymous, resident = (int(match.group(1)) / 1024 for match in found if match)
    return anonymous, resident


def write_noise(path: Path, minutes: float, rate: int, channels: int) -> None:
    """Write a second of silence, a second of noise, and so on."""
    import numpy as np
    import soundfile

    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", rate, channels, "PCM_16", format="RF64") as file:
        for second in range(round(60 * minutes)):
            loud = 0.1 * (second % 2)
            file.write(loud * rng.standard_normal((rate, channels), dtype=np.float32))


def main() -> None:
    """Print a line per tenth of the sound, then the totals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", nargs="?", type=float, default=60)
    parser.add_argument("--rate", type=int, default=44100)
    parser.add_argument("--channels", type=int, default=2)
    parser.add_argument("--model", default="iquery.mini", help="method or card; untrained where it has no weights")
    arguments = parser.parse_args()

    from avsep_zoo import load
    from avsep_zoo.errors import WeightsError

    try:
        model, weights = load(arguments.model), "trained"
    except WeightsError:
        model, weights = load(arguments.model, weights=None), "untrained"
    cues = list(model.classes[:2])
    seconds = 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_noise(folder / "long.wav", arguments.minutes, arguments.rate, arguments.channels)
        size = (folder / "long.wav").stat().st_size / MIB
        print(f"{weights} {model.name}; {arguments.minutes:g} min, {size:.0f} MiB of 16-bit sound")
        before = memory()
        print(f"before: {before[0]:.0f} MiB anonymous, {before[1]:.0f} MiB resident")
        highest, tenth = 0.0, 0

        def progress(done: float, total: float | None) -> None:
            nonlocal highest, tenth
            anonymous, resident = memory()
            highest = max(highest, anonymous)
            if done * 10 >= (tenth + 1) * seconds:
                tenth = int(done * 10 / seconds)
                print(
                    f"{done / 60:6.1f} min: {anonymous:.0f} MiB anonymous, {resident:.0f} MiB resident",
                    flush=True,
                )

        wall, processor = time.perf_counter(), time.process_time()
        result = model.separate(folder / "long.wav", cues, progress=progress)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        after = memory()
        result.save(folder / "stems")
        saved = memory()
    for when, (anonymous, resident) in (("separated", after), ("saved", saved)):
        print(f"{when}: {anonymous:.0f} MiB anonymous, {resident:.0f} MiB resident")
    print(f"highest anonymous memory: {highest:.0f} MiB, {highest - before[0]:.0f} MiB more than before")
    print(f"highest resident memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    print(f"{seconds / wall:.1f} times real time by the clock, {seconds / processor:.1f} by processor time")


if __name__ == "__main__":
    main()
