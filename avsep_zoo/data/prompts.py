"""Class labels as texts, for methods that go by texts."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["sound_prompt"]


def sound_prompt(labels: Sequence[str], *, mixture: bool | None = None) -> str:
    """``["cello"]`` -> ``"The sound of cello"``, ``["cello", "flute"]`` -> ``"The sound mixture of cello and flute"``.

    Underscores become blanks. ``mixture`` calls it a mixture or not; None does where there are several.

    Source: Mahmud et al., BiModalSep, ICLR 2024, its training on MUSIC and VGGSound.
    """
    names = [label.replace("_", " ") for label in labels]
    several = len(names) > 1 if mixture is None else mixture
    return f"The sound {'mixture ' if several else ''}of {' and '.join(names)}"
