"""Names of classes: how they are compared, and which one a cue means."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from avsep_zoo.errors import CueError

if TYPE_CHECKING:
    from avsep_zoo.cue import Cue

__all__ = ["class_position", "labelled_class", "plain_name"]


def plain_name(name: str) -> str:
    """Class name as it is compared: lower case, spaces and hyphens as underscores."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def class_position(label: str, classes: Sequence[str]) -> int:
    """Return the position of a class name in ``classes``; case, spaces and hyphens don't matter.

    Raises:
        CueError: the class is unknown.
    """
    plain = [plain_name(c) for c in classes]
    if plain_name(label) in plain:
        return plain.index(plain_name(label))
    near = difflib.get_close_matches(plain_name(label), plain, n=1)
    hint = f"did you mean {classes[plain.index(near[0])]!r}" if near else f"it knows {', '.join(classes)}"
    raise CueError(f"This model has no class {label!r}; {hint}.")


def labelled_class(cue: Cue, classes: Sequence[str]) -> int:
    """Return the position in ``classes`` of the class a cue names.

    Raises:
        CueError: the class is unknown, or the cue has no label.
    """
    if cue.label is None:
        raise CueError(f"The cue {cue.title!r} has no label and this model needs one; it knows {', '.join(classes)}.")
    return class_position(cue.label, classes)
