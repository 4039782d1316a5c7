"""``avsep compose``: put parts of any methods together, see what flows where, and try whether it learns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avsep_zoo.cli.parts import modalities
from avsep_zoo.cli.terminal import busy, console, print_table
from avsep_zoo.cli.train_options import assigned
from avsep_zoo.errors import CompositionError, DataError
from avsep_zoo.recipe import PartConfig
from avsep_zoo.registry import registry

if TYPE_CHECKING:
    from avsep_zoo.contracts import Objective
    from avsep_zoo.model import SeparationModel

__all__ = ["compose"]

_STEPS = 20  # of --train-smoke


def compose(
    encoder: Annotated[str, typer.Option(metavar="NAME", help="What turns cues into views.", show_default=False)],
    conditioner: Annotated[
        str, typer.Option(metavar="NAME", help="What the views do to a separator.", show_default=False)
    ],
    separator: Annotated[str, typer.Option(metavar="NAME", help="The network that separates.", show_default=False)],
    driver: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What calls the network of a generative separator.", show_default=False),
    ] = None,
    front_end: Annotated[str, typer.Option("--front-end", metavar="NAME", help="Waveform to spectrum.")] = "stft",
    objective: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What it learns by (default: one that fits)."),
    ] = None,
    small: Annotated[
        bool, typer.Option("--small", help="Take the small settings of every part, to try what it does in no time.")
    ] = False,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SLOT.KEY=VALUE", help="A setting of a part, e.g. separator.width=32; repeatable."
        ),
    ] = None,
    train_smoke: Annotated[
        bool,
        typer.Option("--train-smoke", help=f"Train {_STEPS} steps on made-up sounds and cues; it is --small."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="CARD", help="Write a card, for 'avsep train --from CARD'.", show_default=False
        ),
    ] = None,
) -> None:
    """Put an encoder, a conditioner and a separator together.

    Names are those of [bold]avsep parts[/bold]. Parts that do not fit are named, and what would fit.

    [bold]avsep compose --encoder bimodal_sep.clap_text --conditioner iquery.queries --separator mask_unet
    --train-smoke[/bold]
    """
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is there already and not an empty folder; give another one with -o.")
    slots = {"encoder": encoder, "conditioner": conditioner, "separator": separator, "front_end": front_end}
    slots |= {} if driver is None else {"driver": driver}
    sets = _sets(assignments or [], {*slots, "objective"})
    small = small or train_smoke
    given = {
        slot: PartConfig(name, {**(registry().get(slot, name).small if small else {}), **sets.get(slot, {})})
        for slot, name in slots.items()
    }
    name = "composed" if out is None else f"composed.{re.sub(r'[^a-z0-9_]+', '_', out.resolve().name.lower())}"
    with busy("Putting parts together"):
        import torch

        from avsep_zoo.compose import compose_recipe
        from avsep_zoo.training.smoke import fitting_objective

        torch.manual_seed(0)
        model = compose_recipe(given, name)
        wanted = {**sets.get("objective", {}), **({} if objective is None else {"name": objective})}
        part, learns = fitting_objective(model, wanted, small=small)
        model.parts["objective"] = part.to_dict()
        if out is not None and not small:
            model.encoder.load_pretrained()
    _show(model)
    if train_smoke:
        _train(model, learns)
    if out is not None:
        _write(out, model, small=small, trained=train_smoke)


def _sets(texts: list[str], slots: set[str]) -> dict[str, dict[str, Any]]:
    """Slot -> settings that ``--set`` gives."""
    read = assigned(texts)
    for key in read["training"]:
        raise typer.BadParameter(
            f"{key!r} is no part; give SLOT.KEY=VALUE, e.g. separator.width=32.", param_hint="--set"
        )
    parts: dict[str, dict[str, Any]] = read["parts"]
    for slot, settings in parts.items():
        if slot not in slots or "name" in settings:
            raise typer.BadParameter(f"Give --{slot.replace('_', '-')} NAME for a {slot}.", param_hint="--set")
    return parts


def _show(model: SeparationModel) -> None:
    """What flows where, and the size of each part; two made-up sources go through it."""
    import torch

    from avsep_zoo.example_cues import example_sources
    from avsep_zoo.generative.noise import Sampling
    from avsep_zoo.training.smoke import example_views

    screen = console()
    front, encoder, conditioner = model.front_end, model.encoder, model.conditioner
    names = {slot: str(part["name"]) for slot, part in model.parts.items()}
    with busy("Separating two made-up sources"), torch.no_grad():
        spectrum = front.analyse(example_sources(front.length, rate=front.rate).sum(1))
        cues = example_views(encoder, rate=front.rate)
        estimate = model.estimate(spectrum, cues, sampling=Sampling(steps=1))
    if not torch.isfinite(estimate.values).all():
        raise CompositionError(f"{model.name} gives numbers that are not finite; change the settings of its parts.")
    rows, frames = spectrum.features.shape[2:]
    gives = ", ".join(f"{view} {width}" for view, width in encoder.gives.items())
    shape = " x ".join(map(str, estimate.values.shape[1:]))
    low, high = float(estimate.values.min()), float(estimate.values.max())
    flow = [
        ("Sound", names["front_end"], f"{front.length} samples at {front.rate} Hz become {rows} x {frames} points"),
        ("Cues", names["encoder"], f"{modalities(encoder.reads, encoder.optional)} become {gives}"),
        ("Meeting", names["conditioner"], f"{', '.join(sorted(conditioner.wants))} at {', '.join(_acting(model))}"),
    ]
    driven = f"{names['driver']}, which calls {names['separator']}" if "driver" in names else names["separator"]
    flow.append(("Estimate", driven, f"{estimate.kind} of 2 sources, {shape}, {low:.3g} to {high:.3g}"))
    flow.append(("Loss", names["objective"], ""))
    print_table(("", "Part", "What flows"), flow)
    screen.print()
    leaves, acting = conditioner.widths(), _acting(model)
    sites = [
        (name, site.kind, str(site.channels), str(leaves.get(name, site.channels)), "yes" if name in acting else "")
        for name, site in model.separator.sites.items()
    ]
    print_table(("Site", "Kind", "Channels", "Leaving", "Conditioned"), sites, numbers=(2, 3))
    screen.print()
    sizes = [
        (slot.replace("_", " "), names[slot], f"{_size(part):,}", f"{_size(part, trained=True):,}")
        for slot, part in model.named_children()
        if slot in names
    ]
    sizes.append(("all", "", f"{_size(model):,}", f"{_size(model, trained=True):,}"))
    print_table(("Slot", "Part", "Parameters", "Trained"), sizes, numbers=(2, 3))


def _acting(model: SeparationModel) -> list[str]:
    """Sites where the conditioner acts, in forward order."""
    acts, leaves = model.conditioner.acts_at, model.conditioner.widths()
    return [name for name, site in model.separator.sites.items() if site.kind in acts or name in leaves]


def _size(module: Any, *, trained: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


def _train(model: SeparationModel, objective: Objective) -> None:
    from avsep_zoo.training.smoke import smoke_train

    with busy("Training on made-up sounds"):
        losses = smoke_train(model, objective, steps=_STEPS)
    shown = ", ".join(f"{loss:.4g}" for loss in losses[:: _STEPS // 4] + losses[-1:])
    if losses[-1] >= losses[0]:
        raise CompositionError(
            f"The loss does not fall in {len(losses)} steps on one batch ({shown}); raise the objective's "
            "learning_rate, or look whether gradients reach all parts."
        )
    console().print(f"\nThe loss falls in {len(losses)} steps on one made-up batch: {shown}", soft_wrap=True)


def _write(out: Path, model: SeparationModel, *, small: bool, trained: bool) -> None:
    from avsep_zoo.weights.cards import write_card

    state = f"It was trained for {_STEPS} steps on made-up sounds, which taught it nothing of use." if trained else ""
    size = " The settings are small ones, to try what it does." if small else ""
    slots: Mapping[str, Any] = model.parts
    parts = "\n".join(f"- {slot.replace('_', ' ')}: `{part['name']}`" for slot, part in slots.items())
    text = f"# {model.name}\n\nComposed by `avsep compose`.{size}\n\n{parts}\n\n{state or 'It is untrained.'}\n"
    card = write_card(out, model, text=text)
    console().print(
        f"\n{card.folder} holds {card.name}. Train it: avsep train --from {out} --data DIR -o RUN", soft_wrap=True
    )
