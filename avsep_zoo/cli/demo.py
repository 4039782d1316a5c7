"""``avsep demo``: separate the duet that comes with the package, and measure how well it went."""

from __future__ import annotations

import itertools
import json
import time
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avsep_zoo.cli import stems
from avsep_zoo.cli.terminal import busy, console, cue_warnings, print_table, seconds_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from avsep_zoo.separation import Separation

__all__ = ["demo"]


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="DIR",
            help="Folder for the stems (default: avsep-demo, or the next free name).",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="A method, a variant, the folder of a weights card, or hf://org/name@commit."
        ),
    ] = "iquery",
    open_report: Annotated[bool, typer.Option("--open/--no-open", help="Open the report in the browser.")] = False,
) -> None:
    """Separate the bundled duet by what is seen in its picture, or else by name, and measure the result.

    The stems are compared with the true sources (SDR, BSS Eval v3).
    """
    folder = out if out is not None else _fresh_folder("avsep-demo")
    stems.check_folder(folder, overwrite=False)
    with as_file(files("avsep_zoo") / "demo") as clip:
        about: dict[str, Any] = json.loads((clip / "duet.json").read_text(encoding="utf-8"))
        with busy(f"Loading {model}"):
            from avsep_zoo.cue import Cue
            from avsep_zoo.load import load

            loaded = load(model)
        if loaded.encoder.reads & {"frames", "detections"}:
            cues = [Cue(name=source["label"], boxes=source["boxes"]) for source in about["sources"]]
        else:
            cues = [Cue(label=source["label"]) for source in about["sources"]]
        started = time.monotonic()
        with cue_warnings() as told, seconds_bar("Separating") as advance:
            result = loaded.separate(clip / about["media"], cues, progress=advance)
        seconds = time.monotonic() - started
        with busy("Comparing with the true sources"):
            result.scores = _scores(result, [clip / source["file"] for source in about["sources"]])
    saved = stems.save(result, folder, report=True)
    screen = console()
    screen.print(
        f"{loaded.name} separated {result.seconds:.1f} s of a duet ({' and '.join(c.title for c in cues)}) "
        f"in {seconds:.1f} s.\n",
        soft_wrap=True,
    )
    rows = [
        (name, _decibel(s["before"]), _decibel(s["after"]), f"{round(s['after'] - s['before'], 1) + 0:+.1f}")
        for name, s in result.scores.items()
    ]
    print_table(("Source", "SDR of the mixture", "SDR after", "Improvement, dB"), rows, numbers=(1, 2, 3))
    screen.print()
    saved.show(told)
    if open_report and saved.report is not None:
        typer.launch(saved.report.resolve().as_uri())


def _decibel(value: float) -> str:
    return f"{round(value, 1) + 0:.1f}"  # adding 0 turns -0.0 into 0.0


def _fresh_folder(name: str) -> Path:
    """Return ``name``, or ``name-2``, ``name-3``, ... whichever is free in the current folder."""
    names = itertools.chain([name], (f"{name}-{n}" for n in itertools.count(2)))
    return next(Path(n) for n in names if not Path(n).exists())


def _scores(result: Separation, sources: Sequence[Path]) -> dict[str, dict[str, float]]:
    """SDR in dB of mixture and stems against the true sources, at the rate of the sources, mono."""
    import numpy as np

    from avsep_zoo.evaluation import bss_eval
    from avsep_zoo.media import read_audio, resample

    def mono(waveform: np.ndarray, rate: int) -> np.ndarray:
        return resample(np.asarray(waveform).mean(axis=0, keepdims=True), rate, rates[0])[0]

    true, rates = zip(*(read_audio(source) for source in sources), strict=True)
    references = [mono(waveform, rate) for waveform, rate in zip(true, rates, strict=True)]
    mixture = mono(result.mixture, result.rate)
    estimates = [mono(stem.waveform, result.rate) for stem in result.stems]
    samples = min(len(signal) for signal in (*references, *estimates, mixture))
    signals = [[mixture] * len(references), estimates]
    scores = bss_eval(
        np.stack([reference[:samples] for reference in references]),
        np.stack([[signal[:samples] for signal in group] for group in signals]),
    )
    before, after = scores.sdr.tolist()
    return {stem.name: {"before": before[n], "after": after[n]} for n, stem in enumerate(result.stems)}
