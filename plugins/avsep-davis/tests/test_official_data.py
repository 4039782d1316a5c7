"""Which frames the published loader shows of a clip."""

from __future__ import annotations

import pytest

from avsep_davis.official_data import centre_frame, centre_time, frame_numbers


def test_music_takes_every_second_frame_around_the_middle() -> None:
    """Beyond the ends it is the first or the last frame."""
    assert centre_frame(28) == 15
    assert frame_numbers(15, 28) == [5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25]
    assert frame_numbers(centre_frame(9), 9) == [1, 1, 1, 1, 3, 5, 7, 9, 9, 9, 9]


def test_ave_does_not_look_for_the_ends() -> None:
    assert frame_numbers(6, 12, stride=1, clamp=False) == list(range(1, 12))
    assert frame_numbers(6, 25, stride=2, clamp=False)[0] == -4


def test_time_of_a_frame_is_that_of_the_assumed_rate() -> None:
    assert centre_time(15, 8) == pytest.approx(14.5 / 8)
