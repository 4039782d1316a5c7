"""What a frozen network made of texts, remembered by their content."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from torch import Tensor

__all__ = ["TextCache"]


class TextCache:
    """Views of texts by key; the least recently used ones are forgotten first. A copy, also a pickled one, is empty.

    Args:
        size: texts that are remembered.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._state: Hashable = None
        self._views: dict[Hashable, tuple[Tensor, ...]] = {}

    def __len__(self) -> int:
        return len(self._views)

    def __reduce__(self) -> Any:
        return TextCache, (self.size,)

    def renew(self, state: Hashable) -> None:
        """Forget everything unless it was made by weights in this ``state``."""
        if state != self._state:
            self._state, self._views = state, {}

    def get(self, key: Hashable) -> tuple[Tensor, ...] | None:
        """Return what is remembered, which is now the last to be forgotten."""
        views = self._views.pop(key, None)
        if views is not None:
            self._views[key] = views
        return views

    def put(self, key: Hashable, views: tuple[Tensor, ...]) -> None:
        """Remember the views of a text; they must own their memory."""
        self._views[key] = views
        while len(self._views) > self.size:
            self._views.pop(next(iter(self._views)), None)
