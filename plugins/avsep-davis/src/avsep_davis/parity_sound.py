"""Parity adapters of the signal path and the data rules: front end, whole method, sound segments, index files."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from avsep_davis.official_data import centre_frame, centre_time, frame_numbers
from avsep_davis.parity_driver import composed_model
from avsep_zoo.contracts import Embedding, Estimate
from avsep_zoo.data.index_reader import IndexReader
from avsep_zoo.data.readers.ave import AveReader
from avsep_zoo.data.readers.music import MusicReader
from avsep_zoo.data.segment import published_segment
from avsep_zoo.evaluation.bss import bss_eval
from avsep_zoo.front_end import StftFrontEnd, warp_grid
from avsep_zoo.generative.diffusion import Diffusion
from avsep_zoo.generative.flow import Flow
from avsep_zoo.generative.noise import Sampling
from avsep_zoo.generative.objective import GenerativeObjective

if TYPE_CHECKING:
    from avsep_zoo.model import SeparationModel
    from avsep_zoo.parity.case import Case

Outputs = dict[str, Any]
_READERS: Mapping[str, type[IndexReader]] = {"music": MusicReader, "ave": AveReader}


@torch.no_grad()
def front_end(case: Case) -> Outputs:
    """Waveforms to features and back."""
    front = _front(case.config)
    waves = _tensor(case.inputs["waves"])
    mixture, _ = GenerativeObjective(mixture="mean").mix(waves[None])
    spectrum = front.analyse(mixture)
    phase = spectrum.phase
    assert phase is not None
    first = front.stft(waves[:1]).abs()  # (1, F, T)
    again = Estimate(spectrum.features, kind="features")
    rows, columns = case.config["warped"]
    grid, inverse = warp_grid(rows, columns), warp_grid(front.frequency_rows, columns, inverse=True)
    return {
        "mixture": mixture[0],
        "mag_mix": spectrum.magnitude[:, 0],
        "cos_phase": torch.where(spectrum.magnitude > 1e-3, phase.real, 0.0)[:, 0],
        "mag_0": first,
        "grid_warp_y": grid[:, 0, 1],
        "grid_unwarp_y": inverse[:, 0, 1],
        "grid_warp_x": grid[0, :, 0],
        "log_mag_mix": spectrum.features,
        "log_mag_0": front.features(first[:, None]),
        "unwarped": front.linear_magnitude(again, spectrum),
        "wave_from_unwarped": front.synthesise(again, spectrum)[0, 0],
        "wave_mixture_roundtrip": front.istft(spectrum.magnitude * phase).clamp(-1, 1)[0, 0],
    }


def waveform(case: Case) -> Outputs:
    """The whole method from waveforms and image features, with given noise."""
    return separated(composed_model(case, driver=_driver(case.config), front_end=_front(case.config)), case)


@torch.no_grad()
def separated(model: SeparationModel, case: Case) -> Outputs:
    """What a model that has its weights, front end and driver already gives for a case of the whole method."""
    config, sources = case.config, range(case.config["num_mix"])
    front: Any = model.front_end
    waves = torch.stack([_tensor(case.inputs[f"wave_{n}"]) for n in sources], dim=1)  # (B, N, L)
    mixture, _ = GenerativeObjective(mixture="mean").mix(waves)
    spectrum = front.analyse(mixture)
    encoder: Any = model.encoder
    tokens = torch.stack([encoder.temporal(_tensor(case.inputs[f"clip_features_{n}"])) for n in sources], dim=1)
    embedding = Embedding(vector=tokens.mean(dim=2), tokens=tokens)

    def draw(number: int) -> Tensor:
        noise = [_tensor(case.inputs[f"step_noise_{n}"])[number - 1] for n in sources] if number else []
        noise = noise or [_tensor(case.inputs[f"start_noise_{n}"]) for n in sources]
        return torch.stack(noise, dim=1).flatten(0, 1)  # (B N, 1, F', T')

    estimate = model.estimate(spectrum, embedding, sampling=Sampling(steps=config["steps"]), draw=draw)
    estimates = front.synthesise(estimate, spectrum)
    assert spectrum.phase is not None
    mixed = front.istft(spectrum.magnitude * spectrum.phase).clamp(-1, 1)  # (B, 1, L')
    truth = waves[..., : estimates.shape[-1]]
    scores = bss_eval(truth, torch.stack((estimates, mixed.expand_as(estimates))))
    named = {"sdr": scores.sdr[0], "sir": scores.sir[0], "sar": scores.sar[0], "sdr_mixture": scores.sdr[1]}
    outputs: Outputs = {"metrics": np.array([named[name].mean() for name in config["metrics"]])}
    for n in sources:
        outputs[f"pred_mag_{n}"] = front.expand(estimate.values[:, n : n + 1])
        outputs[f"wave_pred_{n}"] = estimates[:, n]
    return outputs


def audio_segment(case: Case) -> Outputs:
    """Segments of sounds, as the published loader reads them."""
    outputs: Outputs = {}
    with tempfile.TemporaryDirectory() as folder:
        for k, segment in enumerate(case.config["segments"]):
            path = Path(folder, f"{k}.wav")
            soundfile.write(path, case.inputs[f"raw_{k}"], segment["audRate"], subtype="FLOAT")
            outputs[f"buffer_{k}"] = published_segment(
                path,
                rate=segment["audRate"],
                length=segment["audLen"],
                centre=float(case.inputs[f"center_time_{k}"]),
            )
    return outputs


def data_index(case: Case) -> Outputs:
    """Clips and frames of test mixtures, read from index files in the published form."""
    outputs: Outputs = {}
    for name, reader_of in _READERS.items():
        config = case.config[name]
        with tempfile.TemporaryDirectory() as folder:
            _write(Path(folder, f"{case.config['split']}.csv"), case.inputs[f"{name}_index_rows"])
            _write(Path(folder, f"{case.config['split']}sep.csv"), case.inputs[f"{name}_pairs"])
            reader = reader_of(Path(folder), protocol="paper", frame_rate=config["frameRate"])
            clips = [clip for mixture in reader.mixtures(f"{case.config['split']}sep") for clip in mixture]
        numbers, times, paths = [], [], []
        for clip in clips:
            centre = centre_frame(clip.frame_count) if config["center_frame"] is None else config["center_frame"]
            time = config["center_time"]
            stride = config["stride_frames"] or clip.frame_count // config["stride_divisor"]
            numbers.append(
                frame_numbers(
                    centre, clip.frame_count, frames=config["num_frames"], stride=stride, clamp=config["clamp_ids"]
                )
            )
            times.append(centre_time(centre, clip.frame_rate) if time is None else time)
            assert clip.frames is not None
            sound, pictures = (
                Path(config[below], *path.relative_to(stored).parts).as_posix()
                for below, path, stored in zip(
                    ("audio_dir", "frame_dir"), (clip.audio, clip.frames), reader.folders[:2], strict=True
                )
            )
            paths.append([sound, pictures])
        outputs |= {
            f"{name}_frame_ids": np.array(numbers),
            f"{name}_center_time": np.array(times),
            f"{name}_paths": paths,
        }
    return outputs


def _write(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _tensor(value: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(value)).float()


def _front(config: Mapping[str, Any]) -> StftFrontEnd:
    rows, columns = config["warped"]
    return StftFrontEnd(
        rate=config["audRate"],
        length=config["audLen"],
        n_fft=config["n_fft"],
        hop_length=config["hop"],
        warp_rows=rows,
        warp_frames=columns,
        pad_mode=config["pad_mode"],
        align_corners=config["align_corners"],
        log_scale=config["scale_factor"],
    )


def _driver(config: Mapping[str, Any]) -> Diffusion | Flow:
    """The driver that the configuration of a case describes."""
    shared = bool(config["start_noise_shared"])
    if config["sampler"] == "flow":
        return Flow(time_scale=float(config["time_scale"]), shared_noise=shared)
    schedule = config["schedule"]
    silent = bool(config["silence_mask"])
    return Diffusion(
        solver=config["sampler"],
        shared_noise=shared,
        eta=config["eta"],
        lowest=0.0 if silent else config["clip_x0"][0],  # what is silenced is clamped to [0, 1] after that
        silence=config["threshold"] if silent else None,
        timesteps=schedule["timesteps"],
        start=schedule["start"],
        end=schedule["end"],
        tau=schedule["tau"],
    )
