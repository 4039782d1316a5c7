"""Parity adapter of the published inference: two recordings mixed, separated window by window, and scored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from avsep_avsgs.parity import only
from avsep_avsgs.parity_data import case_detections
from avsep_avsgs.parity_method import composed_model
from avsep_avsgs.scene_graph import test_nodes
from avsep_avsgs.sliding import separate_sliding
from avsep_zoo.contracts import CueBatch
from avsep_zoo.evaluation.bss import bss_eval

if TYPE_CHECKING:
    from avsep_zoo.parity.case import Case

__all__ = ["waveform"]


@torch.no_grad()
def waveform(case: Case) -> dict[str, Any]:
    """The whole test procedure, from waveforms and detections to the scores."""
    config, inputs = case.config, case.inputs
    only(case, unroll_steps=1)
    model, _ = composed_model(case)
    nodes = []
    for number in (0, 1):
        found = case_detections(inputs, number)
        chosen = test_nodes(found, min_score=config["conf_thresh"], min_overlap=config["iou_thresh"])
        assert found.features is not None
        nodes.append(torch.from_numpy(found.features[chosen.rows]))
    most = max(map(len, nodes))
    shown = torch.zeros(1, 2, nodes[0].shape[1], most)
    mask = torch.full((1, 2, most), torch.inf)
    for number, rows in enumerate(nodes):
        shown[0, number, :, : len(rows)], mask[0, number, : len(rows)] = rows.mT, 0.0
    waves = [torch.from_numpy(np.ascontiguousarray(inputs[f"wave{number}"])).float() for number in (0, 1)]
    length = min(map(len, waves))
    truth = torch.stack([wave[:length].clamp(-1.0, 1.0) for wave in waves])
    estimates = separate_sliding(
        model,
        truth.mean(dim=0),
        CueBatch({"detections": shown, "detections_mask": mask}),
        hop=int(config["hop_size"] * config["audio_sampling_rate"]),
        factor=config["estimate_factor"],
    )
    scores = bss_eval(truth, estimates, permutation=config["compute_permutation"])
    means = [float(np.asarray(part).mean()) for part in (scores.sdr, scores.sir, scores.sar)]
    return {"separated1": estimates[0], "separated2": estimates[1], "sdr_sir_sar": np.array(means)}
