"""Golden cases of the published code, and configurations of it that no golden case covers."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avsep_zoo.parity.case import Case, load_case
from avsep_zoo.parity.run import CaseResult, run_cases
from avsep_zoo.registry import registry

CASES = Path(__file__).parents[3] / "tests" / "parity" / "iquery"
NAMES = sorted(path.stem for path in CASES.glob("*.json"))
MUSIC21_DETECTIONS = [
    [1, 5, 0.9, 0, 0, 40, 40],
    [1, 3, 0.2, 10, 10, 30, 30],
    [1, 3, 0.8, 0, 0, 20, 20],
    [2, 9, 0.1, 2, 2, 22, 22],
]


@pytest.fixture(scope="module")
def results() -> dict[str, CaseResult]:
    """Every case, run once."""
    return {result.case: result for result in run_cases(CASES, method="iquery", adapters=registry().adapter)}


def test_no_case_is_missing(results: dict[str, CaseResult]) -> None:
    assert len(NAMES) == 18
    assert set(results) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_golden_case(results: dict[str, CaseResult], name: str) -> None:
    result = results[name]
    assert result.passed, f"{result.reason}\n{result.traceback}"


def variation(name: str, config: dict[str, Any], inputs: dict[str, str], shapes: dict[str, Any]) -> Case:
    """A golden case with other settings, inputs (expressions) and weight shapes."""
    case = load_case(CASES / f"{name}.json")
    assert case is not None
    spec = copy.deepcopy(case.spec)
    spec["config"] |= config
    for key, expression in inputs.items():
        spec["inputs"][key] = {**spec["inputs"].get(key, {}), "expr": expression}
    for entries in spec.get("weights", {}).get("parts", {}).values():
        for entry in entries:
            entry[1] = shapes.get(entry[0], entry[1])
    return Case(case.path, json.loads(json.dumps(spec)))


def outputs(case: Case) -> dict[str, Any]:
    adapter = registry().adapter("iquery", case.adapter)
    assert adapter is not None
    return dict(adapter(case))


def test_method_with_the_settings_of_ave() -> None:
    """Sum instead of mean, 30 queries, six frames, hop 184."""
    case = variation(
        "e2e_nomotion",
        {
            "dataset": "ave", "mixture": "sum", "audLen": 47087, "audRate": 22050, "stft_hop": 184, "num_frames": 6,
            "MASK_FORMER_NUM_OBJECT_QUERIES": 30,
        },
        {
            "frames_0": "np.ones((1, 3, 6, 64, 64)) * np.arange(6)[:, None, None]",
            "frames_1": "np.zeros((1, 3, 6, 64, 64))",
            "classes_0": "np.array([27])",
            "classes_1": "np.array([0])",
        },
        {"query_embed.weight": [30, 256]},
    )  # fmt: skip
    got = outputs(case)
    assert got["pred_mask_1"].shape == (1, 1, 256, 256)
    assert got["pred_mask_linear_0"].shape == (1, 1, 512, 256)
    assert not torch.equal(got["pred_mask_0"], got["pred_mask_1"])


def test_predictor_with_22_queries_and_another_latent() -> None:
    case = variation(
        "maskformer_motion",
        {"num_queries": 22},
        {
            "latent": "draw('a', (2, 256, 8, 16))",
            "mask_features": "draw('b', (2, 32, 16, 32))",
            "classes": "np.array([20, 11])",
        },
        {"query_embed.weight": [22, 256]},
    )
    got = outputs(case)
    assert got["mask_logits"].shape == (2, 1, 16, 32)
    assert got["decoder_states"].shape == (4, 2, 22, 256)
    assert got["encoder_memory"].shape == (2, 256, 8, 16)


def test_unet_with_another_size() -> None:
    got = outputs(variation("unet7", {}, {"log_mag": "draw('a', (2, 1, 128, 256), 'abs')"}, {}))
    assert got["mask_features"].shape == (2, 32, 128, 256)
    assert got["latent"].shape == (2, 256, 16, 32)


def test_front_end_and_inverse_with_the_settings_of_ave() -> None:
    settings = {"dataset": "ave", "mixture": "sum", "audLen": 47087, "audRate": 22050, "stft_hop": 184}
    audio = {f"audio_{n}": f"0.1 * draw('{n}', (47087,))" for n in range(2)}
    front = outputs(variation("frontend_music", settings, audio, {}))
    assert front["mag_mix"].shape == (1, 1, 512, 256)
    assert front["net_input"].shape == front["gt_mask_1"].shape == (1, 1, 256, 256)
    inverse = outputs(variation("istft_music", settings, audio, {}))
    assert inverse["estimate_waveform"].shape == (184 * 255,)


def test_metrics_of_a_plain_sum() -> None:
    """Masks around the true ones beat the mixture, also at AVE's hop; the second mixture counts too."""
    settings = {"dataset": "ave", "mixture": "sum", "audRate": 22050, "stft_hop": 184}
    tones = [
        f"0.3 * np.sin(2 * np.pi * {hertz} * np.arange(11609) / 22050) + 0.02 * draw('{hertz}', (11609,))"
        for hertz in (440.0, 6400.0)
    ]
    sources = f"[{', '.join(tones)}]"
    one = outputs(variation("metrics", settings, {"audio": f"np.array([{sources}, {sources}])"}, {}))
    mixture_sdr, sdr, sir, _ = one["sdr_mix_sdr_sir_sar"]
    assert sir > sdr > mixture_sdr + 3
    skipped = variation("metrics", settings, {"audio": "np.zeros((2, 2, 11609))"}, {})
    assert outputs(skipped)["sdr_mix_sdr_sir_sar"].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("dataset", "class_id"), [("music21", 2), ("ave", 3)])
def test_detection_rules_that_follow_the_class(dataset: str, class_id: int) -> None:
    """The first row of the class is taken although another one has a higher score."""
    case = variation(
        "frames_detection_music",
        {"dataset": dataset, "class_id": class_id, "frame_ids": [1, 2, 3]},
        {
            "detections": f"np.array({MUSIC21_DETECTIONS})",
            "images": "np.arange(3 * 48 * 64 * 3).reshape(3, 48, 64, 3) % 256",
        },
        {},
    )
    got = outputs(case)["frames"]
    by_hand = variation(
        "frames_detection_music",
        {"dataset": "music", "frame_ids": [1, 2, 3]},
        {
            "detections": "np.array([[1, 3, 1, 10, 10, 30, 30], [2, 9, 1, 2, 2, 22, 22]])",
            "images": "np.arange(3 * 48 * 64 * 3).reshape(3, 48, 64, 3) % 256",
        },
        {},
    )
    assert np.array_equal(got, outputs(by_hand)["frames"])


def test_segments_of_a_file_above_the_rate_of_the_model() -> None:
    """They are resampled: a tone keeps its frequency."""
    config = {"segments": {"high": {"source": "wave_middle", "file_rate": 44100, "center_time_s": 3.0}}}
    wave = {"wave_middle": "0.5 * np.sin(2 * np.pi * 441 * np.arange(44100 * 7) / 44100)"}
    got = outputs(variation("audio_segment", config | {"audLen": 22050}, wave, {}))["high"]
    spectrum = np.abs(np.fft.rfft(got[:-1]))
    assert got.shape == (22050,)
    assert spectrum.argmax() / 2 == pytest.approx(441, abs=0.5)


def test_three_sources() -> None:
    """Motion of three sources in a batch of one."""
    case = variation("motion_collate", {"num_mix": 3, "files": [["a", "b", "c"]]}, {}, {})
    for name, steps in zip("abc", (3, 1, 4), strict=True):
        case.spec["inputs"][name] = {"expr": f"draw('{name}', (1024, {steps}, 2, 2))"}
    case.spec["inputs"]["classes"]["expr"] = "np.array([[4, 0, 2]])"
    got = outputs(case)
    assert [got[f"motions_{n}"].shape for n in range(3)] == [(1, 1024, 3), (1, 1024, 1), (1, 1024, 4)]
    assert int(got["classes_0"][0]) == 4
