"""The contract of a converter: what a plugin knows about the files that its method's authors publish."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from avsep_zoo.errors import PluginError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Converter", "Entries"]

Entries = tuple[dict[str, "Tensor"], list[str]]


@dataclass(frozen=True)
class Converter:
    """How the files of a method's authors become the entries of its model; a recipe names one (``Recipe.converter``).

    Args:
        parts: the files, or parts of one file, by name -> regular expression that is found at the beginning of the name
            of at least one entry of that part, and of no entry of another part. ``module.`` has come off the names.
        entries: takes a state dict for each part that is given, and returns the entries of a
            :class:`~avsep_zoo.model.SeparationModel` by name, and the names of the official entries that are not used.
            Entries that only teach are called ``objective.*``; they are reported and left out. Raises WeightsError, or
            KeyError with the name of an unknown entry.
        optional: parts that a model does without.
        allowed: names of classes that the authors' pickles hold beside tensors and plain values, and nothing needs.
    """

    parts: Mapping[str, str]
    entries: Callable[[Mapping[str, Mapping[str, Tensor]]], Entries]
    optional: frozenset[str] = frozenset()
    allowed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.parts or not self.optional <= self.parts.keys():
            raise PluginError(
                f"The converter has the parts {sorted(self.parts)} and the optional ones {sorted(self.optional)}; name "
                "at least one part, and as optional only some of these."
            )
