"""Parity adapter of the published inference: two recordings mixed, separated window by window, and scored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from avsep_avsgs.convert import load_official
from avsep_avsgs.parity import only
from avsep_avsgs.parity_data import case_detections
from avsep_avsgs.scene_graph import test_nodes
from avsep_avsgs.sliding import separate_sliding
from avsep_zoo.compose import compose
from avsep_zoo.contracts import CueBatch
from avsep_zoo.errors import DataError
from avsep_zoo.evaluation.bss import bss_eval
from avsep_zoo.model import SeparationModel

if TYPE_CHECKING:
    from avsep_zoo.parity.case import Case

__all__ = ["waveform"]


@torch.no_grad()
def waveform(case: Case) -> dict[str, Any]:
    """The whole test procedure, from waveforms and detections to the scores."""
    config, inputs = case.config, case.inputs
    only(case, stft_window="hann_periodic", unroll_steps=1, map_negative_slope=0.2, mix_eps=1e-10)
    model = _model(case)
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


def _model(case: Case) -> SeparationModel:
    config = case.config
    if config["rnn_hidden"] != config["visual_dim"]:
        raise DataError(
            f"The case has rnn_hidden {config['rnn_hidden']} and visual_dim {config['visual_dim']}; give one width."
        )
    model = compose(
        encoder={
            "name": "avsgs.detections",
            "features": config["feat_dim"],
            "hidden": config["map_hidden"],
            "width": config["visual_dim"],
        },
        conditioner={
            "name": "avsgs.scene_graph",
            "hidden": config["nhid"],
            "heads": config["heads"],
            "kind": config["gnet_type"],
            "activation": config["hidden_act"],
            "width": config["rnn_hidden"],
        },
        separator={"name": "avsgs.unet", "width": config["ngf"], "levels": config["unet_num_layers"]},
        front_end={
            "name": "stft",
            "rate": config["audio_sampling_rate"],
            "length": config["audio_window"],
            "n_fft": config["stft_frame"],
            "hop_length": config["stft_hop"],
            "warp_rows": config["log_bins"] if config["log_freq"] else 0,
            "pad_mode": config["stft_pad_mode"],
            "log_offset": 0.0,
        },
    )
    load_official(model, case.state_dicts)
    return model.eval()
