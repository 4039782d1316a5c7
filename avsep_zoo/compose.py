"""Put parts together: check that they fit from their plans alone, then build.

``compose`` takes registered names, ``{"name": ..., **settings}`` mappings, or modules that are built already.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from avsep_zoo.contracts import ConditionerPlan, EncoderPlan, FrontEnd, SeparatorPlan
from avsep_zoo.errors import AvsepError, CompositionError
from avsep_zoo.generative.contract import DrivenSeparator, Driver
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig
from avsep_zoo.registry import registry

__all__ = ["build_part", "check_parts", "compose", "compose_recipe", "plan_part"]

Part = str | Mapping[str, Any] | PartConfig | nn.Module

_FROM_COMPOSE = ("views", "sites", "widths")  # arguments of constructors that compose gives, not the user


def compose(
    *,
    encoder: Part,
    conditioner: Part,
    separator: Part,
    driver: Part | None = None,
    front_end: Part = "stft",
    name: str = "composed",
) -> SeparationModel:
    """Build a model out of parts.

    Args:
        encoder: a registered :class:`~avsep_zoo.contracts.CueEncoder`, e.g. ``"iquery.cues"``.
        conditioner: a registered :class:`~avsep_zoo.contracts.Conditioner`.
        separator: a registered :class:`~avsep_zoo.contracts.Separator`.
        driver: a registered :class:`~avsep_zoo.generative.contract.Driver`, for a separator that needs one.
        front_end: a registered :class:`~avsep_zoo.contracts.FrontEnd`.
        name: name of the model.

    Raises:
        CompositionError: a name is unknown, a setting is wrong, or two parts do not fit; the message names
            both and what would fit instead.
    """
    slots: dict[str, Any] = {"encoder": encoder, "conditioner": conditioner, "separator": separator}
    slots |= {"front_end": front_end} | ({} if driver is None else {"driver": driver})
    given = {slot: part if isinstance(part, nn.Module) else PartConfig.parse(part) for slot, part in slots.items()}
    encoder_plan, separator_plan, conditioner_plan = _checked(given)
    built_front_end = _build("front_end", given["front_end"])
    built_driver = _build("driver", given["driver"]) if "driver" in given else None
    _check_range(given, built_driver, built_front_end)
    views, sites = encoder_plan.gives, separator_plan.sites
    built_conditioner = _build("conditioner", given["conditioner"], views=views, sites=sites)
    model = SeparationModel(
        front_end=built_front_end,
        encoder=_build("encoder", given["encoder"]),
        conditioner=built_conditioner,
        separator=_build("separator", given["separator"], widths=dict(conditioner_plan.widths)),
        driver=built_driver,
        name=name,
        parts={slot: part.to_dict() for slot, part in given.items() if isinstance(part, PartConfig)},
    )
    return model.eval()


def check_parts(parts: Mapping[str, PartConfig]) -> FrontEnd:
    """Check that the parts of a recipe fit, and return its front end; of the others only a driver is built.

    Raises:
        CompositionError: a name is unknown, a setting is wrong, or two parts do not fit.
        PluginError: a part cannot be imported.
    """
    given: dict[str, Any] = dict(parts)
    _checked(given)
    if "objective" in given:
        _part_class("objective", given["objective"])
    front_end: FrontEnd = build_part("front_end", given["front_end"])
    _check_range(given, build_part("driver", given["driver"]) if "driver" in given else None, front_end)
    return front_end


def compose_recipe(parts: Mapping[str, PartConfig], name: str) -> SeparationModel:
    """Build the model of a recipe's parts; the objective, where there is one, is kept in ``model.parts``."""
    slots: dict[str, Any] = {slot: part for slot, part in parts.items() if slot != "objective"}
    model = compose(**slots, name=name)
    if "objective" in parts:
        model.parts["objective"] = parts["objective"].to_dict()
    return model


def build_part(kind: str, part: PartConfig, **context: Any) -> Any:
    """Build one registered part.

    Raises:
        CompositionError: the name is unknown or a setting is wrong.
    """
    target = _part_class(kind, part)
    try:
        return target(**context, **part.config)
    except Exception as error:
        raise _refused(kind, part, error) from error


def plan_part(kind: str, part: PartConfig) -> EncoderPlan | SeparatorPlan:
    """Describe an ``encoder`` or a ``separator`` without building it.

    Raises:
        CompositionError: the name is unknown or a setting is wrong.
        PluginError: the part cannot be imported.
    """
    target = _part_class(kind, part)
    try:
        plan: EncoderPlan | SeparatorPlan = target.plan(**part.config)
    except Exception as error:
        raise _refused(kind, part, error) from error
    return plan


def _build(kind: str, part: PartConfig | nn.Module, **context: Any) -> Any:
    return part if isinstance(part, nn.Module) else build_part(kind, part, **context)


def _checked(given: Mapping[str, Any]) -> tuple[EncoderPlan, SeparatorPlan, ConditionerPlan]:
    """The plans of parts that fit."""
    encoder: EncoderPlan = _plan("encoder", given["encoder"])
    separator: SeparatorPlan = _plan("separator", given["separator"])
    conditioner = _plan_conditioner(given, encoder, separator)
    _check_driver(given, separator)
    for slot in ("front_end", "driver"):
        if isinstance(part := given.get(slot), PartConfig):
            _part_class(slot, part)
    return encoder, separator, conditioner


def _plan(kind: str, part: PartConfig | nn.Module) -> Any:
    if isinstance(part, nn.Module):
        if kind == "encoder":
            return EncoderPlan(part.reads, part.gives, part.optional)  # type: ignore[arg-type]
        driven = isinstance(part, DrivenSeparator) and part.driven
        return SeparatorPlan(part.sites, driven)  # type: ignore[arg-type]
    return plan_part(kind, part)


def _plan_conditioner(given: Mapping[str, Any], encoder: EncoderPlan, separator: SeparatorPlan) -> ConditionerPlan:
    part = given["conditioner"]
    kind: Any = part if isinstance(part, nn.Module) else _part_class("conditioner", part)
    missing = kind.wants - set(encoder.gives)
    if missing:
        fits = _fitting("encoder", lambda plan: kind.wants <= set(plan.gives))
        raise CompositionError(
            f"The conditioner {_title(part)!r} wants {_words(kind.wants)} and the encoder "
            f"{_title(given['encoder'])!r} gives {_words(encoder.gives)}; {fits}."
        )
    kinds = {site.kind for site in separator.sites.values()}
    if kind.acts_at - kinds:
        fits = _fitting("separator", lambda plan: kind.acts_at <= {s.kind for s in plan.sites.values()})
        raise CompositionError(
            f"The conditioner {_title(part)!r} acts at {_words(kind.acts_at)} and the separator "
            f"{_title(given['separator'])!r} has {_words(kinds)}; {fits}."
        )
    if isinstance(part, nn.Module):
        return ConditionerPlan(kind.wants, kind.acts_at, kind.widths())
    try:
        return kind.plan(views=encoder.gives, sites=separator.sites, **part.config)
    except Exception as error:
        raise _refused("conditioner", part, error) from error


def _check_driver(given: Mapping[str, Any], separator: SeparatorPlan) -> None:
    part, driver = given["separator"], given.get("driver")
    if separator.driven and driver is None:
        names = ", ".join(entry.name for entry in registry().list("driver"))
        raise CompositionError(f"The separator {_title(part)!r} needs a driver; give one of {names}.")
    if not separator.driven and driver is not None:
        fits = _fitting("separator", lambda plan: plan.driven)
        if isinstance(part, PartConfig) and "driven" in inspect.signature(_part_class("separator", part)).parameters:
            fits = f"set driven: true in it; other {fits}"
        raise CompositionError(
            f"The driver {_title(driver)!r} drives nothing: the separator {_title(part)!r} reads no noise; {fits}."
        )


def _check_range(given: Mapping[str, Any], driver: Driver | None, front_end: FrontEnd) -> None:
    if driver is not None and driver.bounded and getattr(front_end, "log_scale", 1.0) is None:
        raise CompositionError(
            f"The driver {_title(given['driver'])!r} makes data up to 1 and the features of the front end "
            f"{_title(given['front_end'])!r} have no upper end; set its log_scale, e.g. to 0.15."
        )


def _part_class(kind: str, part: PartConfig) -> Any:
    """The class behind a part's name, whose constructor knows all settings and gets all it needs."""
    target = registry().part(kind, part.name)
    parameters = inspect.signature(target).parameters.values()
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in parameters if p.kind in named and p.name not in _FROM_COMPOSE]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    unknown = sorted(set(part.config) - set(names))
    if unknown and not open_ended:
        near = difflib.get_close_matches(unknown[0], names, n=1)
        hint = f"did you mean {near[0]!r}" if near else f"it has {', '.join(names) or 'none'}"
        raise CompositionError(f"The {_words([kind])} {part.name!r} has no setting {unknown[0]!r}; {hint}.")
    missing = [p.name for p in parameters if p.name in names and p.default is p.empty and p.name not in part.config]
    if missing:
        raise CompositionError(f"The {_words([kind])} {part.name!r} needs the setting {missing[0]!r}; give it.")
    return target


def _refused(kind: str, part: PartConfig, error: Exception) -> CompositionError:
    why = str(error) if isinstance(error, ValueError | AvsepError) else f"{type(error).__name__}: {error}"
    return CompositionError(f"The {_words([kind])} {part.name!r} cannot be built with these settings: {why}")


def _fitting(kind: str, fits: Callable[[Any], bool]) -> str:
    names = []
    for entry in registry().list(kind):
        try:
            if fits(entry.resolve().plan()):
                names.append(entry.name)
        except Exception:  # a broken or unconfigurable part is no suggestion
            continue
    return f"{kind}s that fit: {', '.join(names)}" if names else f"no registered {kind} fits"


def _title(part: Any) -> str:
    return part.name if isinstance(part, PartConfig) else type(part).__name__


def _words(names: Any) -> str:
    return ", ".join(sorted(names)).replace("_", " ") or "nothing"
