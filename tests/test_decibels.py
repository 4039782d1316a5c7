"""Scores in dB as text."""

from __future__ import annotations

import pytest

from avsep_zoo.decibels import decibels


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (7.434, "%.2f", "7.43"),
        (-0.004, "%.2f", "0.00"),
        (0.004, "%+.2f", "0.00"),
        (0.005001, "%+.2f", "+0.01"),
        (-3.0, "%+.1f", "-3.0"),
        (120.0, "%.2f", "120.00"),
        (151.8, "%.2f", ">120"),
        (-150.0, "%.1f", "-150.0"),
        (float("inf"), "%.1f", ">120"),
        (None, "%.2f", "–"),
    ],
)
def test_what_is_shown_of_a_score(value: float | None, form: str, text: str) -> None:
    assert decibels(value, form) == text
