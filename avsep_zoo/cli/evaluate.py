"""``avsep evaluate``: scores of models and baselines on lists of test mixtures."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from avsep_zoo.cli.scores import show_results
from avsep_zoo.cli.separate import Device, choose_device
from avsep_zoo.cli.terminal import busy, console, count_bar, print_json, warn
from avsep_zoo.errors import DataError

__all__ = ["evaluate"]

Use = Literal["both", "label", "frames", "text", "audio"]

_SEEN = frozenset({"frames", "detections"})
_MEANT = {"both": _SEEN | {"label", "text", "audio"}, "frames": _SEEN}


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="Methods, variants or folders of weights cards; or mixture, ideal_ratio_mask, ideal_binary_mask, "
            "which need no training.",
            show_default=False,
        ),
    ],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Data folder.", show_default=False)],
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the folder holds (default: what it looks like).")
    ] = None,
    protocol: Annotated[
        str, typer.Option(metavar="NAME", help="How: own, common, or that of a paper, as in iquery.music.")
    ] = "own",
    lists: Annotated[
        list[str] | None,
        typer.Option("--list", metavar="NAME", help="A list of mixtures of the data; repeatable.", show_default=False),
    ] = None,
    use: Annotated[
        Use,
        typer.Option(
            help="Which cues the models are given; frames come with what was detected in them, audio is an example: "
            "another clip of the class, both is all there are."
        ),
    ] = "both",
    consistency: Annotated[
        bool | None,
        typer.Option(
            "--consistency/--no-consistency",
            metavar="",
            help="Share the mixture out between stems and residual, or leave the masks as they are (default: as the "
            "protocol does).",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Steps of generative models: more take longer (default: their own).", show_default=False
        ),
    ] = None,
    solver: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Solver of generative models; 'avsep info' lists them.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise that generative models start from.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Score only the first mixtures of each list.")] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes; each computes on one thread and holds the model.")
    ] = 1,
    device: Annotated[Device, typer.Option(help="Where to compute; auto takes a GPU where there is one.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="DIR",
            help="Folder for results.json, report.html and sounds; one that a stopped run left goes on.",
            show_default=False,
        ),
    ] = None,
    write_card: Annotated[
        bool, typer.Option("--write-card", help="Write the scores into the model-index of the models' cards.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Show classes, worst and skipped mixtures too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Score models on test mixtures: SDR, SIR, SAR (BSS Eval v3), SI-SDR and the improvement over the mixture.

    Several models give one comparison.

    [bold]avsep evaluate iquery ideal_ratio_mask --data music --protocol common -o scores[/bold]
    """
    if write_card and limit is not None:
        raise DataError(f"--write-card with --limit {limit} would publish a part of the lists; leave one of them out.")
    with busy("Loading"):
        from avsep_zoo.evaluation.contender import find_contenders
        from avsep_zoo.evaluation.protocols import find_protocol
        from avsep_zoo.evaluation.run import evaluate as run

        rules = find_protocol(protocol)
        contenders = find_contenders(models)
        cards = [contender.card for contender in contenders if contender.card is not None]
        if write_card and not cards:
            raise DataError(f"--write-card needs a model with a card and {', '.join(models)} has none; leave it out.")
    with count_bar("mixtures") as advance:
        results = run(
            contenders,
            data,
            protocol=rules,
            dataset=dataset,
            lists=lists or (),
            use=_MEANT.get(use, frozenset({use})),
            consistency=consistency,
            seed=seed,
            steps=steps,
            solver=solver,
            limit=limit,
            workers=workers,
            device=choose_device(device),
            out=out,
            progress=lambda model, name, done, total: advance(done, total, f"{model}, {name}"),
        )
    for note in results["notes"]:
        warn(note)
    if as_json:
        print_json(_without_items(results))
    else:
        show_results(results, verbose=verbose)
    said = console(stderr=True)
    if out is not None:
        said.print(f"Written to {out}: results.json, report.html and sounds.", soft_wrap=True)
    if write_card:
        from avsep_zoo.evaluation.model_index import write_results

        command = _command(
            models, data, dataset, protocol, lists or (), use, consistency, seed=seed, steps=steps, solver=solver
        )
        for contender in contenders:
            if contender.card is not None:
                own = next(model for model in results["models"] if model["name"] == contender.name)
                only = {**results, "models": [{**own, "name": contender.card.name}]}
                write_results(contender.card.folder, only, command)
                said.print(f"Written to the card {contender.card.folder / 'README.md'}.", soft_wrap=True)


def _command(
    models: Sequence[str],
    data: Path,
    dataset: str | None,
    protocol: str,
    lists: Sequence[str],
    use: Use,
    consistency: bool | None,
    *,
    seed: int,
    steps: int | None,
    solver: str | None,
) -> str:
    """The command that gives the same scores; it names folders without their place."""
    named = [Path(model).resolve().name if Path(model).is_dir() else model for model in models]
    words = ["avsep", "evaluate", *named, "--data", data.resolve().name]
    words += ["--dataset", dataset] if dataset else []
    words += ["--protocol", protocol] if protocol != "own" else []
    words += [word for name in lists for word in ("--list", name)]
    words += ["--use", use] if use != "both" else []
    words += [] if consistency is None else ["--consistency" if consistency else "--no-consistency"]
    words += ["--steps", str(steps)] if steps is not None else []
    words += ["--solver", solver] if solver is not None else []
    words += ["--seed", str(seed)] if seed else []
    return shlex.join(words)


def _without_items(results: Mapping[str, Any]) -> dict[str, Any]:
    models = [
        {**model, "lists": [{k: v for k, v in entry.items() if k != "items"} for entry in model["lists"]]}
        for model in results["models"]
    ]
    return {**results, "models": models}
