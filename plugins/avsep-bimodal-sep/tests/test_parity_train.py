"""Parity adapter of the losses with numbers of recordings and sounds that no golden case has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from avsep_bimodal_sep.parity_train import losses
from avsep_zoo.parity.case import Case


def losses_of(batch: int, recordings: int, sounds: int, **config: float) -> Case:
    case = Case(Path("losses"), {"case": "losses", "config": {"B": batch, "N": recordings, "K": sounds, **config}})
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


@pytest.mark.parametrize(("batch", "recordings", "sounds"), [(1, 1, 1), (3, 2, 3), (1, 3, 4)])
def test_losses_of_other_numbers(batch: int, recordings: int, sounds: int) -> None:
    case = losses_of(batch, recordings, sounds, recons_weight=0.3, logit_scale_a=7.0)
    got, given = losses(case), case.inputs
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
    weight = torch.log1p(mixture).clamp(1e-3, 10)
    crossed = F.binary_cross_entropy(given["bce_pred"], given["bce_target"], weight=weight)
    torch.testing.assert_close(got["bce_weighted"], crossed.reshape(1))
    assert all(value.shape == (1,) for value in got.values())
