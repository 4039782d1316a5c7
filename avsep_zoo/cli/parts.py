"""``avsep parts``: the parts that models are made of, and what tells which of them fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any

import typer

from avsep_zoo.cli.terminal import console, print_json, print_table
from avsep_zoo.errors import AvsepError
from avsep_zoo.recipe import PartConfig
from avsep_zoo.registry import PART_KINDS, Entry, registry

__all__ = ["modalities", "parts"]

_OF_MODELS = PART_KINDS[: PART_KINDS.index("objective") + 1]
_TEACHES = {"mixtures_only": "mixtures of sounds", "whole_recordings": "whole recordings", "captioned": "captions"}


def parts(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help=f"One of {', '.join(PART_KINDS)}; without it, all that models are made of.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List parts: what they read, give and want, and where they act.

    An encoder turns cues into views; a conditioner wants some of them and acts at sites of a separator. Parts whose
    views and sites meet make a model: [bold]avsep compose --help[/bold].
    """
    if kind is not None and kind.replace("-", "_").removesuffix("s") not in PART_KINDS:
        raise typer.BadParameter(f"There is no kind {kind!r}; give one of {', '.join(PART_KINDS)}.", param_hint="KIND")
    kinds = _OF_MODELS if kind is None else (kind.replace("-", "_").removesuffix("s"),)
    listed = [_described(entry) for name in kinds for entry in registry().list(name)]
    if as_json:
        print_json(listed)
        return
    screen = console()
    if not listed:
        screen.print(
            f"There is no {kinds[0].replace('_', ' ')}; install a plugin that has one, and see 'avsep plugins'."
        )
    for name in kinds:
        if rows := [part for part in listed if part["kind"] == name]:
            _show(name, rows)
    if kind is None:
        screen.print("'avsep compose' puts an encoder, a conditioner and a separator together.")


def _described(entry: Entry) -> dict[str, Any]:
    """A part as JSON; of one that cannot be imported or planned the sentence that says why."""
    about: dict[str, Any] = {
        "kind": entry.kind, "name": entry.name, "summary": entry.summary, "plugin": entry.plugin, "problem": None,
    }  # fmt: skip
    try:
        target = registry().part(entry.kind, entry.name)
        about |= _DESCRIBES.get(entry.kind, lambda entry, target: {})(entry, target) | _settings(target)
    except AvsepError as error:
        about["problem"] = " ".join(str(error).split())
    except Exception as error:  # of a foreign part, which must not hide the others
        about["problem"] = f"It cannot be described ({type(error).__name__}: {error}); report it to its author."
    return about


def _settings(target: Any) -> dict[str, Any]:
    """Settings with their defaults; those without a default are needed."""
    given = inspect.signature(target).parameters.values()
    own = [p for p in given if p.name not in ("views", "sites", "widths") and p.kind not in (p.VAR_KEYWORD,)]
    return {
        "settings": {p.name: p.default for p in own if p.default is not p.empty},
        "needed": [p.name for p in own if p.default is p.empty],
    }


def _plan(entry: Entry, target: Any) -> Any:
    """The plan of the default settings, or of the small ones where these are not enough for a plan."""
    from avsep_zoo.compose import plan_part

    try:
        return target.plan()
    except Exception:
        return plan_part(entry.kind, PartConfig(entry.name, entry.small))


def _encoder(entry: Entry, target: Any) -> dict[str, Any]:
    plan = _plan(entry, target)
    return {"reads": sorted(plan.reads), "optional": sorted(plan.optional), "gives": dict(plan.gives)}


def _conditioner(entry: Entry, target: Any) -> dict[str, Any]:
    from avsep_zoo.contracts import SITE_KINDS, Site

    always = set(target.acts_at)
    sites = {kind: Site(kind, 8) for kind in SITE_KINDS}
    views = {"vector": 8, "tokens": 8, "map": 8}
    try:
        acts = set(target.plan(views=views, sites=sites, **entry.small).acts_at)
    except Exception:  # it knows more about what it fits than sites and views
        acts = always
    return {"wants": sorted(target.wants), "acts_at": sorted(always), "may_act_at": sorted(acts - always)}


def _separator(entry: Entry, target: Any) -> dict[str, Any]:
    plan = _plan(entry, target)
    sites = {name: {"kind": site.kind, "channels": site.channels} for name, site in plan.sites.items()}
    can = "driven" in _settings(target)["settings"]
    return {"sites": sites, "driver": "needed" if plan.driven else "driven=true" if can else "none"}


def _driver(entry: Entry, target: Any) -> dict[str, Any]:
    return {"solvers": dict(target.solvers), "bounded": bool(target.bounded)}


def _objective(entry: Entry, target: Any) -> dict[str, Any]:
    return {"learns_from": ["solos", *(text for flag, text in _TEACHES.items() if getattr(target, flag))]}


_DESCRIBES: Mapping[str, Callable[[Entry, Any], dict[str, Any]]] = {
    "encoder": _encoder,
    "conditioner": _conditioner,
    "separator": _separator,
    "driver": _driver,
    "objective": _objective,
}


def _show(kind: str, rows: Sequence[Mapping[str, Any]]) -> None:
    screen = console()
    plural = "motion networks" if kind == "motion" else f"{kind.replace('_', ' ')}s"
    screen.print(plural.capitalize(), style="bold")
    told = _TOLD.get(kind, lambda row: "")
    print_table(("", ""), [(r["name"], "\n".join(filter(None, (r["summary"], _told(r, told))))) for r in rows])
    screen.print(f"Plugins: {', '.join(sorted({row['plugin'] for row in rows}))}\n")


def _told(row: Mapping[str, Any], told: Callable[[Mapping[str, Any]], str]) -> str:
    return str(row["problem"] or told(row))


def modalities(reads: Collection[str], optional: Collection[str]) -> str:
    """What an encoder reads: ``text or label``, or ``frames, (detections)`` where it can do without some."""
    if set(reads) == set(optional) and len(reads) > 1:
        return " or ".join(sorted(reads))
    return ", ".join(f"({name})" if name in optional else name for name in sorted(reads))


def _sites(row: Mapping[str, Any]) -> str:
    kinds: dict[str, list[str]] = {}
    for site in row["sites"].values():
        kinds.setdefault(site["kind"], []).append(str(site["channels"]))
    return ", ".join(f"{kind} {'/'.join(channels)}" for kind, channels in kinds.items())


def _acts(row: Mapping[str, Any]) -> str:
    return ", ".join([*row["acts_at"], *(f"({kind})" for kind in row["may_act_at"])])


def _gives(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{view} {width}" for view, width in row["gives"].items())


_DRIVEN = {"needed": "; needs a driver", "driven=true": "; with driven=true needs a driver", "none": ""}
_TOLD: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "encoder": lambda row: f"reads {modalities(row['reads'], row['optional'])}; gives {_gives(row)}",
    "conditioner": lambda row: f"wants {', '.join(row['wants'])}; acts at {_acts(row)}",
    "separator": lambda row: f"sites {_sites(row)}{_DRIVEN[row['driver']]}",
    "driver": lambda row: f"solvers {', '.join(row['solvers'])}",
    "objective": lambda row: f"learns from {', '.join(row['learns_from'])}",
}
