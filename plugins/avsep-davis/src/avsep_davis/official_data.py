"""Rules of the published loader that no reader of this project has: which frames a segment is shown by.

Source: Huang et al., DAVIS, ACCV 2024.
"""

from __future__ import annotations

__all__ = ["centre_frame", "centre_time", "frame_numbers"]


def centre_frame(count: int) -> int:
    """Number, from 1, of the frame in the middle of ``count`` frames (MUSIC, test)."""
    return count // 2 + 1


def centre_time(frame: int, frame_rate: float) -> float:
    """Time of a frame in seconds at the rate the frames are taken to have, which for MUSIC is not that they have."""
    return (frame - 0.5) / frame_rate


def frame_numbers(centre: int, count: int, *, frames: int = 11, stride: int = 2, clamp: bool = True) -> list[int]:
    """Numbers, from 1, of ``frames`` frames around ``centre``.

    Args:
        centre: number of the middle one.
        count: frames of the clip according to its list.
        frames: how many, odd.
        stride: frames from one to the next.
        clamp: numbers beyond the ends are those of the first and last frame (MUSIC); AVE leaves them as they are.
    """
    numbers = [centre + (k - frames // 2) * stride for k in range(frames)]
    return [min(max(number, 1), count) for number in numbers] if clamp else numbers
