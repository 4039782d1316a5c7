"""Parity adapters of the data rules and the scores: items of the three data sets, captions, prompts, BSS Eval."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
import torch
from einops import reduce
from torch import Tensor

from avsep_bimodal_sep.official_data import mono, segment_centre
from avsep_zoo.blocks.mixture import mix_sources
from avsep_zoo.data.captions import parse_caption
from avsep_zoo.data.prompts import sound_prompt
from avsep_zoo.data.repeats import shares
from avsep_zoo.data.segment import published_segment
from avsep_zoo.errors import DataError
from avsep_zoo.evaluation.bss import bss_eval

if TYPE_CHECKING:
    from avsep_zoo.parity.case import Case

__all__ = ["caption_parser", "dataset", "label_prompts", "metrics"]

Outputs = dict[str, Any]


def dataset(case: Case) -> Outputs:
    """An item: segments of its files, mixed, and what is said of them."""
    config, choices = case.config, case.inputs["choices"]
    items = case.inputs["items"]
    gains, centres = (choices[name] or [None] * len(items) for name in ("gains", "centres"))
    segments = torch.stack(
        [
            _segment(case.inputs[f"wav_{i}"], item, config, centre=centres[i], gain=gains[i])
            for i, item in enumerate(items)
        ]
    )
    training = config["split"] == "train"
    named = config["dataset"] == "audiocaps"
    if training and not named:
        return _grouped(segments, [item["label"] for item in items], config["num_mix"], config["n_sources"])
    mixture, recordings = _mixed(segments, config["num_mix"])
    outputs: Outputs = {"mix": mixture, "audios": recordings}
    if not named:
        return outputs | {"conds": [sound_prompt([item["label"]]) for item in items]}
    outputs["conds"] = [item["caption"] for item in items]
    if training:
        phrases, drawn = [item["phrases"] for item in items], choices["phrases"] or [[]] * len(items)
        asked = [_asked(len(each), places, config["n_sources"]) for each, places in zip(phrases, drawn, strict=True)]
        outputs["source_conds"] = [[each[p] for p in places] for each, places in zip(phrases, asked, strict=True)]
        outputs["source_weights"] = np.array([shares(places) for places in asked])
    return outputs


def caption_parser(case: Case) -> Outputs:
    """The phrases of captions."""
    return {"sources": [parse_caption(caption) for caption in case.inputs["captions"]]}


def label_prompts(case: Case) -> Outputs:
    """The texts of classes, and of recordings of several."""
    return {
        "single": [sound_prompt([label]) for label in case.inputs["labels"]],
        "mixture": [sound_prompt(labels, mixture=True) for labels in case.inputs["label_groups"]],
    }


def metrics(case: Case) -> Outputs:
    """SDR, SIR and SAR of estimates, and the SDR of the mixture in their place."""
    config = case.config
    if config["compute_permutation"]:
        raise DataError("The published scores are without permutation; set compute_permutation to false.")
    truth, guess = (np.asarray(case.inputs[name]) for name in ("ref", "est"))
    mixture = np.broadcast_to(np.asarray(case.inputs["mix"]), truth.shape)
    scores = bss_eval(truth, np.stack((guess, mixture)), filter_length=config["filter_length"])
    return {"sdr": scores.sdr[0], "sir": scores.sir[0], "sar": scores.sar[0], "sdr_mix": scores.sdr[1]}


def _segment(
    pcm: np.ndarray, item: Mapping[str, Any], config: Mapping[str, Any], *, centre: int | None, gain: float | None
) -> Tensor:
    """The segment (L,) of a file, in training around a drawn centre and at a drawn level."""
    rate, length = config["audRate"], config["audLen"]
    sound = mono(pcm, config["file_rate"], rate)
    rules: Any = {"rate": rate, "frames": item["frames"]}
    if centre is None:
        centre = segment_centre(config["dataset"], len(sound), length, **rules)
    if gain is not None:
        sound = sound * np.float32(gain)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound.wav"
        soundfile.write(path, sound, rate, "FLOAT")
        segment = published_segment(
            path,
            rate=rate,
            length=length,
            centre=(centre + 0.25) / rate,  # the sample, however the product is rounded
            assume_rate=False,
            repeat=config["dataset"] != "audiocaps",
        )
    return torch.from_numpy(segment)


def _grouped(segments: Tensor, labels: Sequence[str], count: int, members: int) -> Outputs:
    """An item of training with classes: K solos of (N K, L) after each other are one of N recordings.

    The loader divides the recordings by K once more than the mixture, which the objective's ``in_place`` does.
    """
    if len(segments) != count * members:
        raise DataError(f"The item has {len(segments)} files; give num_mix {count} times n_sources {members}.")
    mixture, targets = _mixed(reduce(segments, "(n k) l -> n l", "mean", k=members), count)
    groups = [list(labels[start : start + members]) for start in range(0, len(labels), members)]
    return {
        "mix": mixture,
        "audios": targets / members,
        "conds": [sound_prompt(group, mixture=True) for group in groups],
        "source_conds": [[sound_prompt([label]) for label in group] for group in groups],
        "source_weights": np.ones((len(groups), members)),
    }


def _mixed(recordings: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The mixture (L,) of recordings (N, L), and what they are in it."""
    if len(recordings) != count:
        raise DataError(f"The item has {len(recordings)} recordings and num_mix is {count}; give as many files.")
    mixture, targets = mix_sources(recordings[None], "mean")
    return mixture[0], targets[0]


def _asked(there: int, drawn: Sequence[int], wanted: int) -> list[int]:
    """Places of the phrases that are asked for, with what was drawn of more, or to be repeated of fewer."""
    if there == wanted:
        return [*range(wanted)]
    return [*range(there), *drawn] if there < wanted else [*drawn]
