"""``avsep train``: train a method on a data folder, and go on where a run stopped."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avsep_zoo.cli.terminal import busy, console
from avsep_zoo.errors import DataError
from avsep_zoo.registry import registry

if TYPE_CHECKING:
    from avsep_zoo.recipe import Recipe

__all__ = ["train"]


def train(
    method: Annotated[
        str,
        typer.Argument(
            metavar="METHOD",
            help="A method (iquery) or one of its variants (iquery.mini).",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder in the MUSIC layout; 'avsep synth' writes one.", show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="RUN",
            help="Folder of the run; a run that is there goes on.",
            show_default=False,
        ),
    ],
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Settings of the method (default: those named as the variant)."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps in all.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Mixtures per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0, help="Peak learning rate.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Data-loading processes.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Decides weights, data and augmentation.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of the trainer, e.g. augmentation.room=0.5; repeatable.",
        ),
    ] = None,
) -> None:
    """Train a method, or go on with a run.

    The run folder is a weights card of the best model so far.

    [bold]avsep train iquery --preset mini --data music -o run --set clip_norm=1[/bold]
    """
    recipe = registry().method(method.partition(".")[0])
    variant, settings = choose_preset(recipe, method.partition(".")[2] or None, preset)
    given = {"steps": steps, "batch": batch, "learning_rate": learning_rate, "workers": workers, "seed": seed}
    settings |= {name: value for name, value in given.items() if value is not None}
    assign(settings, assignments or [])
    parts = recipe.parts(variant)
    from avsep_zoo.data.augment import Augmentation
    from avsep_zoo.training.config import TrainingConfig

    check_kinds(settings, TrainingConfig)
    check_kinds(settings.get("augmentation") or {}, Augmentation, "augmentation.")
    config = TrainingConfig.from_mapping(settings)
    name = f"{recipe.name}.{variant}"
    with busy(f"Building {name}"):
        import torch

        from avsep_zoo.compose import compose_recipe
        from avsep_zoo.training.loop import train as run_loop

        torch.manual_seed(config.seed)
        model = compose_recipe(parts, name)
    screen = console(stderr=True)
    screen.print(f"Training {name} for {config.steps} steps of {config.batch} mixtures into {out}", soft_wrap=True)
    with _steps_bar(config.steps) as advance:
        try:
            run_loop(model, data, out, config, progress=advance)
        except torch.OutOfMemoryError as error:
            raise DataError(f"A batch of {config.batch} does not fit the device; lower --batch.") from error
    console().print(_summary(out), soft_wrap=True)


def choose_preset(recipe: Recipe, variant: str | None, preset: str | None) -> tuple[str, dict[str, Any]]:
    """Return the variant to train and the settings of its preset.

    Raises:
        DataError: the method has no such preset.
        CompositionError: the method has no such variant.
    """
    if preset is not None and preset not in recipe.training:
        known = ", ".join(recipe.training) or "none"
        raise DataError(f"{recipe.name} has no preset {preset!r}; it has {known}.")
    if variant is None:
        variant = preset if preset in recipe.variant_names else recipe.default_variant
    recipe.parts(variant)
    return variant, copy.deepcopy(dict(recipe.training.get(preset or variant, {})))


def assign(settings: dict[str, Any], assignments: Sequence[str]) -> None:
    """Read ``KEY=VALUE`` or ``KEY.KEY=VALUE`` texts into ``settings``; a value that is no JSON is a text.

    Raises:
        typer.BadParameter: there is no ``=``, or the first key of two is no mapping.
    """
    for text in assignments:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"{text!r} is no setting; give KEY=VALUE, as in clip_norm=1.", param_hint="--set")
        outer, dot, inner = key.partition(".")
        place = settings.setdefault(outer, {}) if dot else settings
        if not isinstance(place, dict):
            raise typer.BadParameter(f"{text!r} has a dot and {outer} is no mapping; leave it out.", param_hint="--set")
        try:
            place[inner or key] = json.loads(value)
        except json.JSONDecodeError:
            place[inner or key] = value


_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    int | float: "a number",
    str: "a text",
    dict: "a mapping in JSON",
}


def check_kinds(settings: Mapping[str, Any], kind: Any, prefix: str = "") -> None:
    """Make sure that every setting is of the kind that the dataclass has as default.

    Raises:
        DataError: one is not, or has no field.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    for name, value in settings.items():
        if name not in defaults:
            raise DataError(f"The trainer has no {prefix}{name}; it has {', '.join(sorted(defaults))}.")
        default = defaults[name]
        wanted: Any = type(default) if isinstance(default, int | str) else int | float
        wanted = dict if name == "augmentation" else wanted
        wrong = not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool)
        if value is not default and wrong:
            raise DataError(f"The training setting {prefix}{name} is {value!r}; give {_KINDS[wanted]}.")


@contextmanager
def _steps_bar(steps: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
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

    def joined(*texts: str) -> str:
        return "  ".join(filter(None, texts))

    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("", total=steps)

        def advance(record: Mapping[str, Any]) -> None:
            nonlocal first, loss, speed, sdr
            step = int(record["step"])
            if "loss" in record:
                if first is None:
                    first = (step, record["seconds"])
                    if step > 1:
                        screen.print(f"Going on from the checkpoint of step {step - 1}.")
                done = step - first[0]
                loss = f"loss {record['loss']:.4f}"
                speed = f"{(record['seconds'] - first[1]) / done:.2f} s/step" if done else ""
            if "validation_sdr" in record:
                sdr = f"SDR {record['validation_sdr']:.2f} dB"
                screen.print(joined(f"step {step} of {steps}", loss, speed, f"validation {sdr}"))
            bar.update(task, completed=step, description=joined(loss, speed, sdr))

        yield advance
    if first is None:
        screen.print(f"The run has its {steps} steps already; give more --steps to go on.")


def _summary(run: Path) -> str:
    from avsep_zoo.cards import read_card

    card = read_card(run)
    training = card.manifest["training"]
    return (
        f"{run} holds {card.name} of step {training['step']}, the best one, validation SDR "
        f"{training['validation_sdr']:.2f} dB.\nUse it: avsep separate FILE --cue CLASS --model {run}"
    )
