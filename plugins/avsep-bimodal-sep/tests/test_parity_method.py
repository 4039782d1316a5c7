"""Parity adapters of the whole method, its head and its front end with settings that no golden case covers.

Networks have an eighth of the published channels.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from avsep_bimodal_sep.parity import mask_head, unet
from avsep_bimodal_sep.parity_method import front_end, inverse, method, waveform
from avsep_zoo.errors import AvsepError
from avsep_zoo.parity.case import Case

LENGTH = 16383  # of a small case: 128 frames
Golden = Callable[[str], Case]


def small(golden: Case, inputs: dict[str, Any], **config: Any) -> Case:
    """A golden case with an eighth of the channels and other settings and inputs."""
    spec = copy.deepcopy(golden.spec)
    spec["inputs"] = {}
    for part, entries in spec["weights"]["parts"].items():
        made = [[key, [n // 8 if n > 16 else n for n in shape], dtype] for key, shape, dtype in entries]
        spec["weights"]["parts"][part] = made
    sizes = {"ngf": 8, "cond_dim": 96, "num_channels": 4, "out_dim": 4, "text_embed_dim": 64}
    spec["config"] |= sizes | {"stft_frame": 254, "stft_hop": 128, "audLen": LENGTH} | config
    case = Case(golden.path, spec)
    case.inputs.update(inputs)
    return case


def separated(golden: Golden, **settings: Any) -> Case:
    """The whole method on two mixtures, three texts for each."""
    inputs = {
        "audios": 0.1 * torch.randn(2, 3, LENGTH),
        "mix": 0.1 * torch.randn(2, LENGTH),
        "text_embed": torch.randn(3, 2, 64),
        "hidden": torch.randn(3, 2, 7, 96),
    }
    return small(golden("separate_mixture"), inputs, **settings)


def heard(golden: Golden, wav: np.ndarray, **settings: Any) -> Case:
    """A recording, asked for by the same text every time."""
    torch.manual_seed(0)
    inputs = {"wav": wav, "text_embed": torch.randn(1, 64), "hidden": torch.randn(1, 7, 96)}
    return small(golden("demo_sample1"), inputs, **settings)


def noise(*shape: int) -> np.ndarray:
    return (3000 * np.random.default_rng(0).standard_normal(shape)).astype(np.int16)


def activated(x: Tensor, kind: str) -> Tensor:
    known = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "no": lambda y: y}
    return x.softmax(dim=1) if kind == "softmax" else known[kind](x)


@pytest.mark.parametrize(("before", "sound", "after"), [("sigmoid", "no", "sigmoid"), ("relu", "tanh", "softmax")])
def test_one_query_after_the_other(golden: Golden, before: str, sound: str, after: str) -> None:
    """As published: the network runs anew for every query; outputs are not clipped."""
    case = separated(golden, cond_activation=before, sound_activation=sound, output_activation=after)
    case.inputs["mix"] = 20 * case.inputs["mix"]
    got = method(case)
    (state,) = case.state_dicts.values()
    spectra = torch.stft(case.inputs["mix"], 254, 128, window=torch.hann_window(254), return_complex=True)
    magnitude = spectra.abs()[:, None]
    network = small(golden("unet_sca_tokens"), {"x": torch.log1p(magnitude)})
    network.state_dicts["net_sound"] = {
        k.removeprefix("net_sound."): v for k, v in state.items() if k.startswith("net_sound.")
    }
    for n in range(3):
        network.inputs["cond"] = case.inputs["hidden"][n]
        features = activated(unet(network)["feat_sound"], sound)
        weights = F.linear(case.inputs["text_embed"][n], state["net_clap.fc.weight"], state["net_clap.fc.bias"])
        weights = activated(weights, before) * state["net_synthesizer.scale"]
        logits = torch.einsum("bc,bcft->bft", weights, features)[:, None]
        mask = activated(logits + state["net_synthesizer.bias"], after)
        torch.testing.assert_close(got["pred_mags"][:, n], (mask * magnitude)[:, 0], rtol=1e-3, atol=1e-4)
    assert got["pred_wavs"].shape == (2, 3, LENGTH) and got["pred_wavs"].abs().max() > 1
    assert got["raw_mags"].shape == (2, 3, 128, 128) and got["mag_mix"].shape == (2, 1, 128, 128)


@pytest.mark.parametrize("samples", [1, LENGTH, LENGTH + 1])
def test_waveforms_of_any_length(golden: Golden, samples: int) -> None:
    """Pieces on their own, also where the length is a multiple of theirs; as long as what came."""
    wav = noise(samples, 1)
    got = waveform(heard(golden, wav))
    assert got["wav_out"].shape == (samples,) and got["mask0"].shape == got["est_mag0"].shape == (1, 1, 128, 128)
    last = wav[(samples - 1) // LENGTH * LENGTH :]
    alone = waveform(heard(golden, last))
    torch.testing.assert_close(got["wav_out"][-len(last) :], alone["wav_out"], rtol=0.0, atol=1e-6)


def test_channels_are_averaged(golden: Golden) -> None:
    """int16 of full scale 32768; one channel of floats is as good, and is clipped."""
    wav = noise(1000, 2)
    mono = (wav.astype(np.float32) / 32768).mean(axis=1)
    assert torch.equal(waveform(heard(golden, wav))["wav_out"], waveform(heard(golden, mono))["wav_out"])
    loud = np.array([3.0, -2.0] * 500, dtype=np.float32)
    clipped = waveform(heard(golden, loud.clip(-1, 1)))
    assert torch.equal(waveform(heard(golden, loud))["wav_out"], clipped["wav_out"])


@pytest.mark.parametrize(
    ("before", "sound", "after"),
    [
        ("sigmoid", "no", "sigmoid"), ("softmax", "no", "sigmoid"), ("relu", "tanh", "relu"),
        ("no", "softmax", "tanh"), ("tanh", "relu", "softmax"), ("sigmoid", "sigmoid", "no"),
    ],
)  # fmt: skip
def test_activations_of_the_mask_head(golden: Golden, before: str, sound: str, after: str) -> None:
    case = golden("mask_head")
    case.spec["config"] |= {"cond_activation": before, "sound_activation": sound, "output_activation": after}
    got, given = mask_head(case), {name: torch.as_tensor(case.inputs[name]) for name in ("cond_logits", "feat_sound")}
    head = case.state_dicts["net_synthesizer"]
    weights = activated(given["cond_logits"], before) * head["scale"]
    logit = torch.einsum("bc,bcft->bft", weights, activated(given["feat_sound"], sound))[:, None] + head["bias"]
    torch.testing.assert_close(got["logit"], logit, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got["mask"], activated(got["logit"], after))


@pytest.mark.parametrize("length", [1000, 4095, 40950])
def test_inverse_of_other_lengths(golden: Golden, length: int) -> None:
    """It ends with the last frame, and then is shorter than asked for."""
    case = golden("istft_inverse")
    case.spec["config"] |= {"stft_frame": 126, "stft_hop": 32, "length": length}
    wav = 0.1 * torch.randn(2, 4095)
    case.inputs.update(wav=wav, mask=torch.ones(2, 1, 128, 64))
    got = inverse(case)
    there = min(length, 127 * 32 + 63)
    assert got["wav_out"].shape == (2, there) and got["head"].shape == (2, min(700, there))
    seen = min(there, 4095)
    torch.testing.assert_close(got["roundtrip"][:, :seen], wav[:, :seen], rtol=0.0, atol=1e-5)


def test_silence_has_no_phase(golden: Golden) -> None:
    """Cosine and sine are 0 there."""
    case = golden("stft_front_end")
    case.spec["config"] |= {"stft_frame": 126, "stft_hop": 32, "weight_min": 0.2, "weight_max": 0.3}
    case.inputs["wav"] = torch.cat((torch.zeros(1, 2048), torch.randn(1, 2047)), dim=1)
    got = front_end(case)
    assert not got["cos"][:, :, :60].any() and not got["sin"][:, :, :60].any()
    assert got["loss_weight"].min() == pytest.approx(0.2) and got["loss_weight"].max() == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"cond_layer": "cat"}, "'cat', which takes no tokens"),
        ({"output_activation": "gelu"}, "activation 'gelu'"),
        ({"in_dim": 2}, "in_dim 2"),
        ({"center": False}, "center False"),
    ],
)
def test_methods_that_are_not_defined(golden: Golden, settings: dict[str, Any], why: str) -> None:
    refused(method, separated(golden, **settings), why)


@pytest.mark.parametrize(
    ("wav", "settings", "why"),
    [
        (noise(100, 2), {"input_rate": 44100}, "input_rate 44100"),
        (noise(100, 2).astype(np.float32), {}, "float32 samples"),
    ],
)
def test_recordings_that_are_not_defined(golden: Golden, wav: np.ndarray, settings: dict[str, Any], why: str) -> None:
    refused(waveform, heard(golden, wav, **settings), why)


def refused(adapter: Any, case: Case, why: str) -> None:
    """In one sentence."""
    with pytest.raises(AvsepError, match=why) as error:
        adapter(case)
    assert re.fullmatch(r"[^\n]+\.", str(error.value)) and ". " not in str(error.value)
