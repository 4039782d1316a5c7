"""The core's mask objective where it differs from the methods' own: its optimiser, and what it asks of an encoder."""

from __future__ import annotations

import pytest
import torch

from avsep_zoo.blocks.class_table import ClassTable, decayed_groups
from avsep_zoo.blocks.mask_objective import MaskObjective
from avsep_zoo.blocks.recognition import recognition_loss
from avsep_zoo.contracts import CueBatch
from avsep_zoo.errors import CompositionError
from avsep_zoo.model import SeparationModel


def test_one_optimiser_trains_everything(tiny_model: SeparationModel) -> None:
    (optimiser,) = MaskObjective(weight_decay=0.5).optimisers(tiny_model, learning_rate=0.25)["model"]
    assert isinstance(optimiser, torch.optim.AdamW)
    (group,) = optimiser.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.5)
    assert len(group["params"]) == len(list(tiny_model.parameters()))
    assert MaskObjective().optimisers(tiny_model.requires_grad_(False)) == {"model": []}


def test_rows_that_stay_are_not_decayed() -> None:
    table = ClassTable(2, 3).grown(1)
    before = table.weight.detach().clone()
    network = torch.nn.ModuleList([table, torch.nn.Linear(3, 1)])
    optimiser = torch.optim.AdamW(decayed_groups(network), lr=0.1, weight_decay=0.5)
    network[1](table(torch.arange(3))).sum().backward()
    optimiser.step()
    assert torch.equal(table.weight[:2], before[:2])
    assert not torch.equal(table.weight[2], before[2])


def test_recognition_needs_an_encoder_that_recognises() -> None:
    cues = CueBatch({"label": torch.zeros(1, 2).long()})
    with pytest.raises(CompositionError, match="the encoder Linear recognises no classes; set recognition to 0"):
        recognition_loss(torch.nn.Linear(1, 1), cues, 0.5)  # type: ignore[arg-type]
