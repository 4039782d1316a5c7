"""Quality against time of a generative model: python tests/benchmarks/bench_sampling.py davis_flow.mini DATA.

Scores the same test mixtures with several solvers and numbers of steps and prints a table in Markdown: SDR in dB (BSS
Eval v3) against network evaluations per source, and seconds per two-source mixture of the model's own length.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

PLANS = {
    "flow": ("euler 1", "euler 2", "euler 4", "euler 8", "ab2 4", "midpoint 2", "heun 2"),
    "diffusion": ("ddim 2", "ddim 4", "ddim 8", "ddim 15", "dpm++ 4", "dpm++ 8", "dpm++ 15"),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--list", default="testsep")
    parser.add_argument("--limit", type=int, default=100, help="mixtures")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--plan", action="append", help="'SOLVER STEPS', repeatable; default: those of its driver")
    args = parser.parse_args()

    import torch

    from avsep_zoo.contracts import CueBatch
    from avsep_zoo.evaluation.contender import find_contenders
    from avsep_zoo.evaluation.protocols import find_protocol
    from avsep_zoo.evaluation.run import evaluate
    from avsep_zoo.generative.noise import Sampling
    from avsep_zoo.load import load

    model = load(args.model)
    assert model.driver is not None, f"{args.model} is not generative"
    size, frames = model.encoder.image_size, model.encoder.frames
    cues = CueBatch({"frames": torch.randn(1, 2, 3, frames, size, size)})  # type: ignore[call-overload]
    batch = {"mixture": torch.randn(1, model.front_end.length) / 10, "cues": cues}
    print(f"{args.model}, first {args.limit} mixtures of {args.list}\n")
    print("| solver | steps | network evaluations | seconds | SDR | SDR improvement |\n|---|---:|---:|---:|---:|---:|")
    for plan in args.plan or PLANS[model.parts["driver"]["name"]]:
        solver, steps = plan.split()
        with torch.inference_mode():
            started = time.perf_counter()
            model.waveforms(batch, sampling=Sampling(steps=int(steps), solver=solver))
            seconds = time.perf_counter() - started
        results = evaluate(
            find_contenders([args.model]),
            args.data,
            protocol=find_protocol("own"),
            lists=[args.list],
            limit=args.limit,
            workers=args.workers,
            steps=int(steps),
            solver=solver,
        )
        mean = results["models"][0]["lists"][0]["mean"]
        sdr, gain = mean["sdr"]["mean"], mean["sdr_improvement"]["mean"]
        evaluations = model.driver.evaluations(int(steps), solver)
        print(f"| {solver} | {steps} | {evaluations} | {seconds:.2f} | {sdr:.2f} | {gain:+.2f} |", flush=True)


if __name__ == "__main__":
    main()
