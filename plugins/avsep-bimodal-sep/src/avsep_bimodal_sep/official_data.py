"""What the published loaders do with a recording: its sound at the rate of the model, and where a segment is cut.

Cutting itself is :func:`avsep_zoo.data.segment.published_segment`. Source: Mahmud et al., Weakly-supervised Audio
Separation via Bi-modal Semantic Similarity, ICLR 2024, and the code that goes with it.
"""

from __future__ import annotations

import numpy as np
import torch

from avsep_bimodal_sep.resample import resample
from avsep_zoo.errors import DataError

__all__ = ["DATASETS", "mono", "segment_centre"]

DATASETS = ("audiocaps", "music", "vggsound")
"""What the loaders know; sounds of the first one are not repeated when they are short."""

_VGGSOUND = 4.5  # seconds


def mono(pcm: np.ndarray, file_rate: int, rate: int) -> np.ndarray:
    """16-bit integers (samples, channels) at ``file_rate`` -> float32 (samples',) at ``rate``.

    Two channels are averaged; of more the first one is taken.
    """
    channels = pcm.astype(np.float32) / np.float32(2**15)
    sound = channels.mean(axis=1) if channels.shape[1] == 2 else channels[:, 0]
    at_rate: np.ndarray = resample(torch.from_numpy(sound.copy())[None], file_rate, rate)[0].numpy()
    return at_rate


def segment_centre(dataset: str, samples: int, length: int, *, rate: int, frames: int | None = None) -> int:
    """The sample at the centre of a segment in tests, and for AudioCaps and VGGSound in training, too.

    Args:
        dataset: one of :data:`DATASETS`.
        samples: of the sound.
        length: of the segment; a shorter sound of MUSIC or VGGSound is repeated.
        rate: in Hz of both.
        frames: of a clip of MUSIC, at one per second.

    Raises:
        DataError: the data set is unknown, or the frames of a clip of MUSIC are.
    """
    if dataset not in DATASETS:
        raise DataError(f"The data set is {dataset!r}; give {', '.join(DATASETS)}.")
    if dataset == "audiocaps":
        return samples // 2
    if dataset == "music":
        if frames is None:
            raise DataError("A clip of MUSIC has no number of frames; give the third column of its row.")
        return int((frames // 2 + 0.5) * rate)
    repeated = samples * (length // samples + 1) if samples < length else samples
    centre = int(_VGGSOUND * rate)
    return centre if centre <= repeated else repeated // 2
