"""Co-separation: what a model learns from recordings of several sounds, without any solo.

Source: Gao and Grauman, Co-Separating Sounds of Visual Objects, ICCV 2019, section 3.3.
"""

from __future__ import annotations

from torch import Tensor

from avsep_zoo.errors import DataError

__all__ = ["recording_masks"]


def recording_masks(masks: Tensor, recordings: int) -> Tensor:
    """Add the masks of the sounds of each recording: (B, N K, F, T) -> (B, N, F, T).

    Recordings of K cued sounds each are mixed. How a recording splits into its sounds is unknown, but its own
    ideal mask in the mixture is known, and the masks of its sounds have to add up to it. A sound that occurs in
    recordings beside different ones can only satisfy all of them by having a mask of its own.

    Args:
        masks: masks of the sounds; those of recording n are n K ... n K + K - 1.
        recordings: N. With K = 1 the masks are returned as they are.

    Raises:
        DataError: the number of sounds is no multiple of N.
    """
    sounds = masks.shape[1]
    if sounds % recordings:
        raise DataError(
            f"{sounds} cues cannot be shared out to {recordings} recordings; give the same number for each of them."
        )
    if sounds == recordings:
        return masks
    return masks.unflatten(1, (recordings, sounds // recordings)).sum(dim=2)
