"""``avsep evaluate``: SDR, SIR and SAR of a model on a list of test mixtures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from avsep_zoo.cli.terminal import busy, console, print_json, print_table

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = ["evaluate"]


def evaluate(
    model: Annotated[str, typer.Argument(help="Method, variant, or folder of a weights card.")],
    data: Annotated[Path, typer.Option(help="Data folder in the MUSIC layout, e.g. written by 'avsep synth'.")],
    lists: Annotated[
        list[str] | None, typer.Option("--list", help="Mixture list in the data folder; repeatable.")
    ] = None,
    use: Annotated[
        Literal["both", "label", "frames"], typer.Option(help="Which part of the cues the model is given.")
    ] = "both",
    consistency: Annotated[
        bool, typer.Option(help="Share the mixture out between stems and residual, as 'separate' does.")
    ] = True,
    limit: Annotated[int | None, typer.Option(min=1, help="Score only the first mixtures of each list.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Score a model: mean SDR, SIR, SAR in dB and the improvement over the mixture, per list.

    One segment from the middle of each mixture, at the model's rate, BSS Eval v3 without permutation search.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with busy(f"Loading {model}"):
        from avsep_zoo.evaluation.mixtures import Scores, score_list
        from avsep_zoo.load import load

        loaded = load(model)
    modalities = frozenset({"label", "frames"}) if use == "both" else frozenset({use})
    results: dict[str, Scores] = {}
    screen = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        for name in lists or ["testsep"]:
            task = bar.add_task(name, total=None)

            def show(done: int, total: int, task: TaskID = task) -> None:
                bar.update(task, completed=done, total=total)

            results[name] = score_list(
                loaded, data, name, use=modalities, consistency=consistency, limit=limit, progress=show
            )
    if as_json:
        lists_scored = {name: scores.to_dict() for name, scores in results.items()}
        print_json({"model": loaded.name, "use": use, "consistency": consistency, "lists": lists_scored})
        return
    console().print(f"{loaded.name}, cues: {use}; means in dB, with the 95 % interval of the improvement\n")
    headers = ("List", "Mixtures", "Mixture", "SDR", "SIR", "SAR", "Improvement")
    rows = [
        (
            name,
            str(s.mixtures),
            *(f"{v:.2f}" for v in (s.mixture_sdr, s.sdr, s.sir, s.sar)),
            f"{s.improvement:.2f} ± {s.interval:.2f}",
        )
        for name, s in results.items()
    ]
    print_table(headers, rows, numbers=range(1, 7))
