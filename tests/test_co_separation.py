"""Masks of the sounds of recordings of several sounds."""

from __future__ import annotations

import pytest
import torch

from avsep_zoo.blocks.co_separation import recording_masks
from avsep_zoo.errors import DataError


def test_masks_of_each_recording_are_added() -> None:
    """Sounds n K ... n K + K - 1 belong to recording n."""
    masks = torch.arange(6.0).reshape(1, 6, 1, 1).expand(2, 6, 3, 4)
    assert torch.equal(recording_masks(masks, 2), torch.tensor([3.0, 12.0]).reshape(1, 2, 1, 1).expand(2, 2, 3, 4))
    assert torch.equal(recording_masks(masks, 3)[0, :, 0, 0], torch.tensor([1.0, 5.0, 9.0]))


def test_one_sound_per_recording_is_no_change() -> None:
    masks = torch.rand(2, 3, 4, 5)
    assert recording_masks(masks, 3) is masks


def test_sounds_that_cannot_be_shared_out() -> None:
    with pytest.raises(DataError, match="5 cues cannot be shared out to 2 recordings"):
        recording_masks(torch.rand(1, 5, 2, 2), 2)
