"""A plugin of somebody else's: a separator, and a method made of it and of registered parts."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CARDS"]

CARDS = Path(__file__).with_name("cards")
