"""A method as data: which parts it is made of, with which settings, under which names."""

from __future__ import annotations

import copy
import keyword
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from avsep_zoo.errors import CompositionError, PluginError

__all__ = ["PartConfig", "Recipe"]

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TAKEN = ("compose", "dependencies")  # names in hubconf.py
_SLOTS = ("encoder", "conditioner", "separator", "driver", "front_end", "objective")


@dataclass(frozen=True)
class PartConfig:
    """A part by its registered name, with the keyword arguments of its constructor."""

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, value: Any) -> PartConfig:
        """Read ``"name"``, ``{"name": ..., **config}`` or a PartConfig.

        Raises:
            CompositionError: the value is none of these.
        """
        if isinstance(value, PartConfig):
            return value
        if isinstance(value, str):
            return cls(value)
        if isinstance(value, Mapping) and isinstance(value.get("name"), str):
            return cls(value["name"], {k: copy.deepcopy(v) for k, v in value.items() if k != "name"})
        raise CompositionError(f"A part is given as {value!r}; give its name, or a mapping with name and settings.")

    def changed(self, settings: Mapping[str, Any]) -> PartConfig:
        """Return the part with other settings; with ``name``, another part with these settings alone."""
        change = dict(settings)
        name = change.pop("name", self.name)
        kept = self.config if name == self.name else {}
        return PartConfig(name, copy.deepcopy({**kept, **change}))

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"name": ..., **config}``."""
        return {"name": self.name, **copy.deepcopy(dict(self.config))}


@dataclass(frozen=True)
class Recipe:
    """A method: encoder + conditioner + separator + front end + objective.

    Args:
        name: identifier; also the torch.hub entry point and the ``--method`` of the command line.
        summary: one sentence.
        paper: reference, with the address of the paper.
        cues: one sentence that says which cues the method needs.
        encoder, conditioner, separator, front_end, objective: the parts of the default variant.
        driver: what calls the separator's network step by step, for generative methods.
        default_variant: name of the variant these parts are.
        variants: variant -> slot -> settings that differ from the default variant; with ``name``, another
            part with these settings alone.
        weights: card (``<method>.<tag>``) that ``weights="default"`` means, or None when there is none yet.
        training: preset -> settings of the trainer.
        add_classes: ``"module:function"`` that takes a model and names of new classes and returns a model that
            knows them, too; None where the method cannot be expanded.
        converter: ``"module:attribute"`` of the :class:`~avsep_zoo.weights.converter.Converter` of the files that the
            method's authors publish; None where there are none.
    """

    name: str
    summary: str
    paper: str
    cues: str
    encoder: PartConfig
    conditioner: PartConfig
    separator: PartConfig
    front_end: PartConfig
    objective: PartConfig
    driver: PartConfig | None = None
    default_variant: str = "default"
    variants: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    weights: str | None = None
    training: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    add_classes: str | None = None
    converter: str | None = None

    def __post_init__(self) -> None:
        for name in (self.name, self.default_variant, *self.variants):
            if not _NAME.fullmatch(name):
                raise PluginError(
                    f"The method or variant name {name!r} is not lower-case letters, digits and _; rename it."
                )
        if self.name in _TAKEN or keyword.iskeyword(self.name):
            raise PluginError(f"The method name {self.name!r} means something else in torch.hub or Python; rename it.")
        for does, target in (("adds classes", self.add_classes), ("converts files", self.converter)):
            if target is not None and (not isinstance(target, str) or target.count(":") != 1):
                raise PluginError(
                    f"The method {self.name} {does} by {target!r}; give a string 'package.module:attribute'."
                )
        for variant, slots in self.variants.items():
            wrong = set(slots) - set(_SLOTS)
            if wrong:
                raise PluginError(
                    f"Variant {self.name}.{variant} changes {sorted(wrong)}; it can change {list(_SLOTS)}."
                )

    @property
    def variant_names(self) -> tuple[str, ...]:
        """All variants, the default one first."""
        return (self.default_variant, *(v for v in self.variants if v != self.default_variant))

    def parts(self, variant: str | None = None) -> dict[str, PartConfig]:
        """Return slot -> part of a variant (default: ``default_variant``).

        Raises:
            CompositionError: the variant is unknown.
        """
        variant = variant or self.default_variant
        if variant not in self.variant_names:
            known = ", ".join(f"{self.name}.{v}" for v in self.variant_names)
            raise CompositionError(f"{self.name} has no variant {variant!r}; it has {known}.")
        changes = self.variants.get(variant, {})
        given = {slot: part for slot in _SLOTS if (part := getattr(self, slot)) is not None}
        return {slot: part.changed(changes.get(slot, {})) for slot, part in given.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain JSON."""
        return asdict(self)
