"""The official variants: they can be built, and are as large as the published networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import avsep_zoo
from avsep_iquery import classes

# Entries of the published predictor that its forward pass never uses: self and audio attention with their
# norms in the motion layer, motion attention with its norm in the three others.
_ATTENTION, _NORM = 4 * 256 * 256 + 4 * 256, 2 * 256
_UNUSED_WITH_MOTION = 2 * (_ATTENTION + _NORM) + 3 * (_ATTENTION + _NORM)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("variant", "predictor", "queries", "names"),
    [
        ("music", 6_472_480 - _UNUSED_WITH_MOTION, 12, classes.MUSIC),
        ("music21", 6_475_040 - _UNUSED_WITH_MOTION, 22, classes.MUSIC21),
        ("ave", 5_159_968, 30, classes.AVE),
        ("nomotion", 5_155_360, 12, classes.MUSIC),
    ],
)
def test_sizes(variant: str, predictor: int, queries: int, names: tuple[str, ...]) -> None:
    model = avsep_zoo.load(f"iquery.{variant}", weights=None)
    assert count(model.separator) == 30_274_178
    assert count(model.encoder) == 11_324_000
    assert count(model.conditioner) == predictor
    assert model.conditioner.query_embed.num_embeddings == queries == model.encoder.gives["index"]
    assert model.classes == names
    assert ("motion" in model.encoder.reads) == (variant in ("music", "music21"))
    segment = torch.zeros(1, model.front_end.length)
    assert model.front_end.length == (47087 if variant == "ave" else 65535)
    assert model.front_end.stft(segment).shape == (1, 512, 256)


def test_class_lists_of_the_papers() -> None:
    assert [len(names) for names in (classes.MUSIC, classes.MUSIC21, classes.AVE)] == [11, 21, 28]
    assert classes.MUSIC21[:11] == classes.MUSIC
    assert classes.AVE[28 // 2 - 1] == "Food" and classes.MUSIC21[20] == "ukulele"
