"""Scores in dB as text, for terminals and pages."""

from __future__ import annotations

__all__ = ["NOISE_DB", "decibels"]

NOISE_DB = 120  # a score beyond is the rounding of double precision


def decibels(value: float | None, form: str = "%.2f") -> str:
    """Write a score by a printf-style ``form``: without a sign where it rounds to 0, ``>120`` beyond that.

    None, no score, is a dash.
    """
    if value is None:
        return "–"
    if value > NOISE_DB:
        return f">{NOISE_DB}"
    text = form % value
    return text if float(text) else text.lstrip("+-")
