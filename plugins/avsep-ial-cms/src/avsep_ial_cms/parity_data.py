"""Parity adapters of the data rules and the scores: segments, detections, test mixtures, BSS Eval."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from avsep_ial_cms.detection_cleanup import clean_rows
from avsep_ial_cms.official_data import drawn_segment
from avsep_ial_cms.views import object_view
from avsep_zoo.data.readers.duets import published_mixtures
from avsep_zoo.errors import DataError
from avsep_zoo.evaluation.score import batch_means, score_batch
from avsep_zoo.pictures import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from avsep_zoo.parity.case import Case

__all__ = ["audio_segment", "detection_cleanup", "detection_crop", "metrics", "test_pairs"]

Outputs = dict[str, Any]
_SCORES = ("sdr", "sir", "sar")


def audio_segment(case: Case) -> Outputs:
    """A segment of every sound in every split, each drawn by a generator of the same seed."""
    config = case.config
    outputs: Outputs = {}
    for split in config["splits"]:
        gains = tuple(config["gain_range"]) if split == "train" else None
        for name, sound in _named(case, "wav_").items():
            rng = random.Random(config["seed"])
            outputs[f"{split}_{name}"] = drawn_segment(sound, config["audLen"], rng, gains=gains)
    return outputs


def detection_crop(case: Case) -> Outputs:
    """Every detection of a frame as it is shown in tests, and its class."""
    config, frame, rows = case.config, _tensor(case.inputs["frame"]), case.inputs["detections"]
    if config["split"] == "train":
        raise DataError("The views of training are drawn by PyTorch's generator; give the split test or val.")
    known = np.allclose(config["mean"], IMAGENET_MEAN) and np.allclose(config["std"], IMAGENET_STD)
    side, size = _side(config["resize"]), _side(config["crop"])
    if not known:
        raise DataError(f"The mean is {config['mean']} and std {config['std']}; give those of ImageNet.")
    views: Outputs = {
        f"object{i}_antialias_{antialias}": object_view(frame, row[3:], size, side=side, antialias=antialias)
        for antialias in map(bool, config["antialias"])
        for i, row in enumerate(rows)
    }
    return views | {"class_id": rows[:, 1].astype(np.int64)}


def detection_cleanup(case: Case) -> Outputs:
    """What is kept of the detections of a clip of each instrument."""
    config = case.config
    return {
        f"clean_{name}": clean_rows(case.inputs[f"det_{name}"], name, config["video_id"], best=config["K"])
        for name in config["instruments"]
    }


def test_pairs(case: Case) -> Outputs:
    """Rows of the list of clips that each test mixture is made of."""
    config, rows = case.config, dict[str, list[int]]()
    for row, place in enumerate(case.inputs["rows_instrument"].astype(int).tolist()):
        rows.setdefault(config["instruments"][place], []).append(row)
    mixtures = published_mixtures(
        rows, config["num_mix"], times=config["sample_times_per_video_pair"], seed=config["seed"]
    )
    return {"pairs_row_index": np.array(mixtures, dtype=np.int64)}


def metrics(case: Case) -> Outputs:
    """SDR, SIR and SAR of every source of the mixtures that are scored, and their means."""
    config = case.config
    if config["compute_permutation"]:
        raise DataError("The published scores are without permutation; set compute_permutation to false.")
    sources, estimates = _tensor(case.inputs["audios"]), _tensor(case.inputs["estimates"])
    scored = score_batch(
        sources, estimates, sources.sum(dim=1), silence=config["silence_threshold"], silent_estimate="zero"
    )
    rows = [row for row in scored if not isinstance(row, str)]
    means = batch_means(rows, len(rows)) if rows else dict.fromkeys(_SCORES, 0.0)
    return {
        "per_source": np.array([[row[name] for name in _SCORES] for row in rows]).reshape(-1, 3, sources.shape[1]).mT,
        "mean_sdr_sir_sar": np.array([means[name] for name in _SCORES]),
    }


def _named(case: Case, start: str) -> dict[str, np.ndarray]:
    """Inputs whose names begin so, by the rest of their names."""
    return {name.removeprefix(start): value for name, value in case.inputs.items() if name.startswith(start)}


def _side(shape: Sequence[int]) -> int:
    """Side of a square of (height, width)."""
    if len(set(shape)) != 1:
        raise DataError(f"A view of {list(shape)} is no square; give one.")
    return int(shape[0])


def _tensor(value: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(value)).float()
