"""Parity adapters of training: the golden losses, and numbers of recordings and sounds that no golden case has.

The whole step, with gradients, is left to ``avsep parity tests/parity``: its networks take 6 GB.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from avsep_zoo.parity.case import Case, load_case
from avsep_zoo.parity.compare import compare
from avsep_zoo.registry import registry

CASES = Path(__file__).parents[3] / "tests" / "parity" / "bimodal_sep"
Outputs = dict[str, Any]


def read(name: str) -> Case:
    case = load_case(CASES / f"{name}.json")
    assert case is not None
    return case


def outputs(case: Case) -> Outputs:
    adapter = registry().adapter("bimodal_sep", case.adapter)
    assert adapter is not None, case.adapter
    return dict(adapter(case))


def test_golden_losses() -> None:
    case = read("losses")
    found = compare(case, outputs(case))
    assert len(found) == 15 and all(error.passed for error in found), [e for e in found if not e.passed]


def test_the_whole_step_has_an_adapter() -> None:
    assert registry().adapter("bimodal_sep", read("train_objective").adapter)


def losses_of(batch: int, recordings: int, sounds: int, **config: float) -> Case:
    case = Case(CASES / "losses.json", copy.deepcopy(read("losses").spec))
    case.spec["config"] |= {"B": batch, "N": recordings, "K": sounds, **config}
    case.spec["inputs"] = {}
    masks = torch.rand(batch, recordings, 1, 8, 6)
    case.inputs.update(
        mag_mix=4 * torch.rand(batch, 1, 8, 6),
        mag_src=3 * torch.rand(batch, recordings, 1, 8, 6),
        mask_mix=masks,
        mask_src=torch.rand(batch, recordings, sounds, 8, 6),
        audio_embed=F.normalize(torch.randn(recordings, sounds * batch, 9), dim=-1),
        text_embed=F.normalize(torch.randn(recordings, sounds * batch, 9), dim=-1),
        source_weights=torch.rand(batch, recordings, sounds),
        labels=torch.randint(sounds * batch, (sounds * batch,)),
        bce_pred=masks[:, 0].clamp(0.01, 0.99),
        bce_target=(torch.rand(batch, 1, 8, 6) > 0.5).float(),
    )
    return case


@pytest.mark.parametrize(("batch", "recordings", "sounds"), [(1, 1, 1), (3, 2, 3), (2, 4, 1), (1, 3, 4)])
def test_losses_of_other_numbers(batch: int, recordings: int, sounds: int) -> None:
    case = losses_of(batch, recordings, sounds, recons_weight=0.3, logit_scale_a=7.0)
    got, given = outputs(case), case.inputs
    mixture, parts = given["mag_mix"], []
    for n in range(recordings):
        truth = given["mag_src"][:, n]
        shares = given["source_weights"][:, n, :, None, None]
        added = (shares * mixture * given["mask_src"][:, n]).sum(dim=1, keepdim=True)
        weights = [torch.log1p(x).clamp(1e-3, 10) for x in (mixture, truth)]
        logits = 7.0 * given["audio_embed"][n] @ given["text_embed"][n].T
        expected = {
            "unsup": (weights[0] * (mixture * given["mask_mix"][:, n] - truth).abs()).mean(),
            "cns": (weights[1] * (added - truth).abs()).mean(),
            "cnt": F.cross_entropy(logits, torch.arange(sounds * batch)),
        }
        for name, value in expected.items():
            torch.testing.assert_close(got[f"{name}_{n}"], value.reshape(1))
        parts.append(0.5 * expected["cnt"] + 0.3 * (expected["cns"] + expected["unsup"]))
    torch.testing.assert_close(got["total"], torch.stack(parts).sum().reshape(1))
    assert set(got) >= set(case.spec["outputs"]) - {f"{name}_1" for name in ("unsup", "cns", "cnt")}
    weight = torch.log1p(mixture).clamp(1e-3, 10)
    crossed = F.binary_cross_entropy(given["bce_pred"], given["bce_target"], weight=weight)
    torch.testing.assert_close(got["bce_weighted"], crossed.reshape(1))
    assert all(value.shape == (1,) for value in got.values())
