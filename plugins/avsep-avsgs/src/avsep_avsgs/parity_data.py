"""Parity adapters of the signal path and the data rules: front end, training samples, scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from avsep_avsgs.official_data import collate_graphs, sample_graphs, sample_mixture, training_segment
from avsep_avsgs.scene_graph import training_nodes
from avsep_zoo.contracts import Estimate
from avsep_zoo.data.detections import Detections, Sounding
from avsep_zoo.errors import DataError
from avsep_zoo.evaluation.bss import bss_eval
from avsep_zoo.front_end import StftFrontEnd, warp_grid

if TYPE_CHECKING:
    from avsep_zoo.parity.case import Case

__all__ = ["case_detections", "dataset", "front_end", "metrics"]

Outputs = dict[str, Any]
_FLOOR = 1e-10  # that the front end adds to the mixture


@torch.no_grad()
def front_end(case: Case) -> Outputs:
    """A waveform to features and, with a mask, back."""
    config = case.config
    front = _front(config, n_fft=config["n_fft"], hop_length=config["hop"], window=config["window"])
    wave = _tensor(case.inputs["wave"])[None]
    spectrum = front.analyse(wave)
    assert spectrum.phase is not None
    lifted = front.from_magnitude(spectrum.magnitude + (config["mix_eps"] - _FLOOR))
    mask = front.mask(Estimate(_tensor(case.inputs["mask"])), spectrum)
    masked = front.istft(mask * spectrum.magnitude * spectrum.phase, length=config["audio_window"])
    complex_spectrum = front.stft(wave)[0]
    outputs = {
        "mag": spectrum.magnitude[0, 0],
        "real": complex_spectrum.real,
        "imag": complex_spectrum.imag,
        "warped_mag": lifted.warped[0, 0],
        "log_warped": lifted.features[0, 0],
        "unwarped_mask": mask[0, 0],
        "wave_masked": masked.clamp(-1.0, 1.0)[0, 0],
    }
    if not front.warp_rows:
        return outputs
    grid = warp_grid(front.warp_rows, spectrum.magnitude.shape[-1])
    inverse = warp_grid(front.frequency_rows, 1, inverse=True)
    return outputs | {"grid_y_warp": grid[:, 0, 1], "grid_y_unwarp": inverse[:, 0, 1], "grid_x": grid[0, :, 0]}


@torch.no_grad()
def dataset(case: Case) -> Outputs:
    """Training samples, each of some recordings, collated into a batch."""
    config, inputs = case.config, case.inputs
    front = _front(config, n_fft=config["stft_frame"], hop_length=config["stft_hop"], window=config["stft_window"])
    rng = np.random.default_rng(0)
    classes = [str(n) for n in range(1 + max(int(rows[:, 0].max(initial=0)) for rows in _rows(inputs)))]
    samples, alone, mixed = [], [], []
    for members in config["samples"]:
        if len(members) != config["num_per_mix"]:
            raise DataError(f"A sample has {len(members)} recordings; give num_per_mix, {config['num_per_mix']}.")
        recordings, segments = [], []
        for i in members:
            found = case_detections(inputs, i)
            nodes = training_nodes(
                found,
                objects=config["num_object_per_video"],
                scene=bool(config["with_additional_scene_image"]),
                rng=rng,
                protocol="paper",
                min_score=config["conf_thresh"],
                min_overlap=config["iou_thresh"],
            )
            recordings.append((found, nodes))
            segments.append(
                training_segment(inputs[f"wave{i}"], config["audio_window"], rng, augment=bool(config["augmentation"]))
            )
        samples.append(sample_graphs(recordings, objects=config["num_object_per_video"], classes=classes))
        alone += segments
        mixed += [sample_mixture(segments)] * len(segments)
    batch = collate_graphs(samples)
    return {
        "labels": batch.labels,
        "video_index": batch.recordings,
        "loss_ind": batch.counts,
        "edge_index": batch.edges,
        "batch_vec": batch.graph,
        "node_features": batch.nodes,
        "audio_mags": _magnitudes(front, alone)[batch.recordings],
        "audio_mix_mags": _magnitudes(front, mixed)[batch.recordings],
        "sample0_edge_index": samples[0].edges,
        "sample0_batch_vec": samples[0].graph,
    }


def metrics(case: Case) -> Outputs:
    """SDR, SIR and SAR, each the mean of the sources."""
    scores = bss_eval(
        case.inputs["references"],
        case.inputs["estimates"],
        filter_length=case.config["filter_taps"],
        permutation=case.config["compute_permutation"],
    )
    return {"sdr_sir_sar": np.array([scores.sdr.mean(), scores.sir.mean(), scores.sar.mean()])}


def case_detections(inputs: Mapping[str, Any], number: int) -> Detections:
    """Recording ``number`` of a case, which has arrays over frames and boxes; labels are named by their number."""
    features, boxes = inputs[f"features{number}"], inputs[f"boxes{number}"]
    frames, each = features.shape[:2]
    return Detections(
        frames=np.repeat(np.arange(frames), each),
        classes=inputs[f"classes{number}"].reshape(-1),
        scores=inputs[f"confidences{number}"].reshape(-1).astype(np.float64),
        boxes=boxes.reshape(-1, 4).astype(np.float64),
        features=features.reshape(frames * each, -1),
        scene=features[0, 0],
        sounding=tuple(
            Sounding(int(frame) * each + int(box), str(int(label)))
            for label, _, frame, box in inputs[f"rows{number}"].reshape(-1, 4)
        ),
    )


def _rows(inputs: Mapping[str, Any]) -> list[Any]:
    return [value.reshape(-1, 4) for name, value in inputs.items() if name.startswith("rows")]


def _front(config: Mapping[str, Any], *, n_fft: int, hop_length: int, window: str) -> StftFrontEnd:
    """The front end that the configuration of a case describes."""
    asked = (window, config.get("center", True), config.get("warp_interpolation", "bilinear"))
    if (*asked, config.get("warp_padding", "zeros")) != ("hann_periodic", True, "bilinear", "zeros"):
        raise DataError(
            f"The front end is {asked} with padding {config.get('warp_padding')!r}; give a periodic Hann window, "
            "centred, and a bilinear warp with zeros outside."
        )
    return StftFrontEnd(
        rate=config["audio_sampling_rate"],
        length=config["audio_window"],
        n_fft=n_fft,
        hop_length=hop_length,
        warp_rows=config.get("log_bins", 0) if config.get("log_freq", True) else 0,
        pad_mode=config["pad_mode"] if "pad_mode" in config else config["stft_pad_mode"],
        align_corners=config.get("warp_align_corners", False),
        log_offset=0.0,
    )


def _magnitudes(front: StftFrontEnd, waves: list[np.ndarray]) -> np.ndarray:
    """Linear magnitudes (R, 1, F, T)."""
    return front.analyse(_tensor(np.stack(waves))).magnitude.numpy()


def _tensor(value: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(value)).float()
