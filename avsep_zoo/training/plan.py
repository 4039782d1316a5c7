"""What decides a run, as one YAML file: the method or card, changes of its parts, the data, the trainer's settings.

::

    method: iquery.mini
    from: {card: weights_cards/iquery.mini, sha256: ...}    # or the card alone
    data: {folder: music, dataset: music}                   # or the folder alone
    add_classes: [theremin]
    parts: {objective: {loss: l2}}                          # what differs from the method or card
    training: {steps: 2000, learning_rate: 1e-4}            # fields of TrainingConfig

``training.yaml`` of a run is such a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from avsep_zoo.errors import DataError
from avsep_zoo.training.config import TrainingConfig, hint

__all__ = ["SLOTS", "Plan", "merged", "read_plan"]

SLOTS = ("encoder", "conditioner", "separator", "driver", "front_end", "objective")
_KEYS = ("method", "from", "data", "add_classes", "parts", "training")
_INNER = {"from": ("card", "sha256"), "data": ("folder", "dataset", "clips", "sha256")}


@dataclass(frozen=True)
class Plan:
    """A plan of a run; what is left out is decided by the method's preset.

    Args:
        method: method or variant.
        card: folder or name of the card the run starts from, ``sha256`` of its weights where it matters.
        data: folder of the data set, ``dataset`` its reader.
        add_classes: new classes.
        parts: slot -> settings that differ.
        training: settings of the trainer.
    """

    method: str | None = None
    card: str | None = None
    sha256: str | None = None
    data: str | None = None
    dataset: str | None = None
    add_classes: tuple[str, ...] = ()
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


def read_plan(file: Path) -> Plan:
    """Read a plan.

    Raises:
        DataError: the file cannot be read, or says something that is not understood.
    """
    try:
        document = yaml.load(file.read_text(encoding="utf-8-sig"), _Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        why = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise DataError(f"The config {str(file)!r} cannot be read ({why}); give a YAML file.") from error
    name = f"The config {str(file)!r}"
    document = {} if document is None else document
    if not isinstance(document, dict):
        raise DataError(f"{name} holds {document!r}; give a mapping with {', '.join(_KEYS)}.")
    for key in document:
        if key not in _KEYS:
            raise DataError(f"{name} has {key!r} at its top; {_where(key)}.")
    values = {key: value for key, value in document.items() if value is not None}
    origin, data = _named(name, "from", "card", values), _named(name, "data", "folder", values)
    for key in ("parts", "training"):
        if not isinstance(values.get(key, {}), dict):
            raise DataError(f"{name} has {key} {values[key]!r}; give a mapping.")
    parts = values.get("parts", {})
    for slot, settings in parts.items():
        if slot not in SLOTS or not isinstance(settings, dict):
            raise DataError(f"{name} has parts.{slot} {settings!r}; give settings of {hint(slot, SLOTS)}.")
    classes = values.get("add_classes", [])
    if not isinstance(classes, list) or not all(isinstance(entry, str) for entry in classes):
        raise DataError(f"{name} has add_classes {classes!r}; give a list of names.")
    method = values.get("method")
    if method is not None and not isinstance(method, str):
        raise DataError(f"{name} has method {method!r}; give a name, as in iquery.mini.")
    return Plan(
        method, origin.get("card"), origin.get("sha256"), data.get("folder"), data.get("dataset"), tuple(classes),
        parts, values.get("training", {}),
    )  # fmt: skip


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``change`` over it; of mappings the entries are merged, unless they name another part."""
    result = dict(base)
    for key, value in change.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping) and "name" not in value
        result[key] = {**old, **value} if both else value  # type: ignore[dict-item]
    return result


def _named(name: str, key: str, first: str, values: Mapping[str, Any]) -> dict[str, str | None]:
    """Read a text, or a mapping with ``first`` and more texts."""
    value = values.get(key, {})
    entries = {first: value} if isinstance(value, str) else value
    if not isinstance(entries, dict):
        raise DataError(f"{name} has {key} {value!r}; give a text, or a mapping with {', '.join(_INNER[key])}.")
    for inner, entry in entries.items():
        if inner not in _INNER[key]:
            raise DataError(f"{name} has {key}.{inner}; it can have {hint(inner, _INNER[key])}.")
        if inner != "clips" and not isinstance(entry, str | None):
            raise DataError(f"{name} has {key}.{inner} {entry!r}; give a text.")
    return entries


def _where(key: Any) -> str:
    if key in [entry.name for entry in fields(TrainingConfig)]:
        return "put it under training"
    return "put it under parts" if key in SLOTS else f"it can have {hint(key, _KEYS)}"


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-4 is a number, no is a text, and no key is there twice, as in YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":bool")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"true|false"), list("tf"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)
