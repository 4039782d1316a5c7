"""``avsep train``: train or fine-tune a method on a data set, and go on where a run stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from avsep_zoo.cli.terminal import busy, console
from avsep_zoo.cli.train_options import Task, adapter_settings, names, planned
from avsep_zoo.errors import DataError
from avsep_zoo.training.processes import finish, is_main, together

__all__ = ["train"]


def train(
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="RUN",
            help="Folder of the run; a run that is there goes on, and needs no other option for it.",
            show_default=False,
        ),
    ],
    method: Annotated[
        str | None,
        typer.Argument(
            metavar="METHOD",
            help="A method (iquery) or one of its variants (iquery.mini); not needed with --from or --config.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of a data set with the lists train and val.", show_default=False),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Reader of the data set (default: the one that knows it).")
    ] = None,
    card: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="CARD",
            help="Fine-tune the weights of a card: its folder or name; also one of another method, if they fit METHOD.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings in YAML; the training.yaml of a run repeats it."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Settings of the method (default: those named as the variant or card)."),
    ] = None,
    add_class: Annotated[
        list[str] | None,
        typer.Option("--add-class", metavar="NAMES", help="New classes, with commas between; repeatable."),
    ] = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Do not train this part, e.g. attention or separator; repeatable."),
    ] = None,
    lora: Annotated[
        str | None,
        typer.Option(metavar="r=8[,alpha=16]", help="Train low-rank adapters instead; cards have them merged."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps in all.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Mixtures per step, over all processes.")] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(min=0.0, help="Peak learning rate; to fine-tune, a tenth of the method's own is a start."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Data-loading processes.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Decides weights, data and augmentation.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of the trainer, e.g. augmentation.room=0.5, or of a part, e.g. objective.loss=l2; "
            "repeatable.",
        ),
    ] = None,
) -> None:
    """Train a method, fine-tune a card, or go on with a run.

    The run folder is a weights card of the best model so far. What decides: preset, then the config file, then
    the options, then --set. Several processes and mixed precision: [bold]accelerate launch -m avsep_zoo train[/bold].

    [bold]avsep train iquery --preset mini --data music -o run --set clip_norm=1[/bold]

    [bold]avsep train --from run --data mine --add-class theremin --freeze attention -o tuned[/bold]
    """
    with together():
        from avsep_zoo.training.plan import Plan, read_plan

        if config is None and method is None and card is None and (out / "training.yaml").is_file():
            config = out / "training.yaml"
        given = {
            "method": method, "card": card, "data": None if data is None else str(data), "dataset": dataset,
            "add_classes": names(add_class),
        }  # fmt: skip
        training = {
            "steps": steps, "batch": batch, "learning_rate": learning_rate, "workers": workers, "seed": seed,
            "freeze": names(freeze), "lora": None if lora is None else adapter_settings(lora),
        }  # fmt: skip
        plan = Plan() if config is None else read_plan(config)
        task = planned(plan, given=given, training=training, sets=assignments or [], preset=preset)
        model = _built(task, pretrained=not (out / "checkpoint.pt").exists())
    import torch

    from avsep_zoo.training.loop import train as run_loop

    settings = task.config
    _say(f"Training {model.name} for {settings.steps} steps of {settings.batch} mixtures into {out}")
    try:
        with _steps_bar(settings.steps, settings.patience) as advance:
            run_loop(
                model,
                Path(str(task.plan.data)),
                out,
                settings,
                dataset=task.plan.dataset,
                origin=task.origin,
                told=task.told,
                progress=advance,
            )
    except torch.OutOfMemoryError as error:
        raise DataError(
            f"A batch of {settings.batch} does not fit the device; lower --batch, or set accumulate."
        ) from error
    except KeyboardInterrupt:
        where = "its last checkpoint" if (out / "checkpoint.pt").exists() else "the start"
        goes_on = f"; 'avsep train -o {out}' goes on from {where}" if (out / "training.yaml").exists() else ""
        _say(f"Stopped{goes_on}.")
        raise typer.Exit(130) from None
    if is_main():
        _tell(out)
    finish()


def _built(task: Task, *, pretrained: bool) -> Any:
    name = task.plan.method if task.card is None else task.card.name
    with busy(f"Building {name}") if is_main() else nullcontext():
        import torch

        from avsep_zoo.training.start import starting_model

        torch.manual_seed(task.config.seed)
        plan = task.plan
        return starting_model(
            plan.method,
            card=plan.card,
            overrides=plan.parts,
            add_classes=plan.add_classes,
            pretrained=pretrained,
        )


def _say(text: str) -> None:
    if is_main():
        console(stderr=True).print(text, soft_wrap=True)


@contextmanager
def _steps_bar(steps: int, patience: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Show a bar with loss and speed on a terminal, and a line per validation everywhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    screen = console(stderr=True)
    columns = (
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    first: tuple[int, float] | None = None
    loss = speed = sdr = ""
    step = 0

    def joined(*texts: str) -> str:
        return "  ".join(filter(None, texts))

    with Progress(*columns, console=screen, transient=True, disable=not (screen.is_terminal and is_main())) as bar:
        task = bar.add_task("", total=steps)

        def advance(record: Mapping[str, Any]) -> None:
            nonlocal first, loss, speed, sdr, step
            step = int(record["step"])
            if "seconds" in record:  # a step, in which the model may have had no turn
                if first is None:
                    first = (step, record["seconds"])
                    if step > 1:
                        screen.print(f"Going on from the checkpoint of step {step - 1}.")
                done = step - first[0]
                loss = f"loss {record['loss']:.4f}" if "loss" in record else loss
                speed = f"{(record['seconds'] - first[1]) / done:.2f} s/step" if done else ""
            if "validation_sdr" in record:
                sdr = f"SDR {record['validation_sdr']:.2f} dB"
                screen.print(joined(f"step {step} of {steps}", loss, speed, f"validation {sdr}"))
            bar.update(task, completed=step, description=joined(loss, speed, sdr))

        yield advance
    if first is None:
        over = f"its {steps} steps, or its patience," if patience else f"its {steps} steps"
        _say(f"The run has {over} already; give more --steps to go on.")
    elif step < steps:
        _say(f"Stopped at step {step}, with no better validation for {patience} in a row.")


def _tell(run: Path) -> None:
    """Say what the run has become."""
    from avsep_zoo.training.logs import read_skipped
    from avsep_zoo.weights.cards import read_card

    skipped = len(read_skipped(run))
    if skipped:
        files = "1 file was" if skipped == 1 else f"{skipped} files were"
        _say(f"{files} skipped, see {run / 'skipped.jsonl'}")
    card = read_card(run)
    training = card.manifest["training"]
    console().print(
        f"{run} holds {card.name} of step {training['step']}, the best one, validation SDR "
        f"{training['validation_sdr']:.2f} dB.\nUse it: avsep separate FILE --cue CUE --model {run}",
        soft_wrap=True,
    )
