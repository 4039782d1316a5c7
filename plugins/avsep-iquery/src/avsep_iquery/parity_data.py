"""Parity adapters of the data rules, the motion extractor and the evaluation."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import soundfile
import torch
from torch import Tensor

from avsep_iquery.i3d import I3D, convert_i3d
from avsep_iquery.official_data import choose_box, collate_motion, frames_view, pool_motion
from avsep_iquery.official_metrics import batch_metrics
from avsep_iquery.parity import configured_front_end, configured_objective, tensor
from avsep_zoo.contracts import Estimate
from avsep_zoo.data.segment import published_segment

if TYPE_CHECKING:
    from avsep_zoo.parity.case import Case

Outputs = dict[str, Any]


def audio_segment(case: Case) -> Outputs:
    """Segments of sound files, as the published loader reads them."""
    outputs: Outputs = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, segment in case.config["segments"].items():
            path = Path("silent")
            if segment["source"] is not None:
                path = Path(folder, f"{name}.wav")
                soundfile.write(path, case.inputs[segment["source"]], segment["file_rate"], subtype="FLOAT")
            outputs[name] = published_segment(
                path, rate=case.config["audRate"], length=case.config["audLen"], centre=segment["center_time_s"]
            )
    return outputs


def detection_crop(case: Case) -> Outputs:
    """Frames cropped to their detections and transformed as in the test."""
    config, images = case.config, case.inputs["images"]

    def view(rows: Any) -> Any:
        dataset, class_id = config["dataset"], config["class_id"]
        boxes = [choose_box(rows, frame, dataset, class_id) for frame in config["frame_ids"]]
        return frames_view(list(images), boxes, size=config["imgSize"])

    return {
        "frames": view(case.inputs["detections"]),
        "frames_all_zero_detections": view(case.inputs["detections_zero"]),
    }


def motion_collate(case: Case) -> Outputs:
    """Motion files pooled and padded, one source slot at a time."""
    pooled = [[pool_motion(case.inputs[name]) for name in names] for names in case.config["files"]]
    motion, mask = collate_motion(pooled)
    outputs: Outputs = {}
    for n in range(motion.shape[1]):
        steps = int(mask[0, n].isfinite().sum())  # the longest of this slot
        outputs[f"motions_{n}"] = motion[:, n, :, :steps]
        outputs[f"motion_masks_{n}"] = mask[:, n, :steps]
        outputs[f"classes_{n}"] = case.inputs["classes"][:, n]
    return outputs


@torch.no_grad()
def i3d(case: Case) -> Outputs:
    """The motion extractor with running statistics, then with those of the clip."""
    extractor = I3D()
    extractor.load_state_dict(convert_i3d(case.state_dicts["i3d"]))
    video = tensor(case.inputs["video"])
    return {
        "features_eval_mode": extractor(video, statistics="running"),
        "features_train_mode": extractor(video, statistics="clip"),
    }


@torch.no_grad()
def metrics(case: Case) -> Outputs:
    """Scores of a batch of mixtures."""
    config = case.config
    front, objective = configured_front_end(config), configured_objective(config)
    audio = tensor(case.inputs["audio"]).float()
    masks = [tensor(case.inputs[f"pred_mask_{n}"]) for n in range(config["num_mix"])]
    mixture, sources = objective.mix(audio)
    spectrum = front.analyse(mixture)
    assert spectrum.phase is not None
    rebuilt: Tensor = front.istft(spectrum.magnitude * spectrum.phase).clamp(*config["clip"])[:, 0]
    estimates = front.synthesise(Estimate(torch.cat(masks, dim=1)), spectrum)
    scores = batch_metrics(sources, estimates, rebuilt, silence_threshold=config["silence_threshold"])
    return {"sdr_mix_sdr_sir_sar": scores}
