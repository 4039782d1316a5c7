"""Parity adapters of the whole method with settings that no golden case covers, with an eighth of the channels."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_zoo.errors import AvsepError
from avsep_zoo.parity.case import Case, load_case
from avsep_zoo.registry import registry

LENGTH = 16383  # of a small case: 128 frames
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


def small(name: str, inputs: dict[str, Any], **config: Any) -> Case:
    """A golden case with an eighth of the channels and other settings and inputs."""
    spec = copy.deepcopy(read(name).spec)
    spec["inputs"] = {}
    for part, entries in spec["weights"]["parts"].items():
        made = [[key, [n // 8 if n > 16 else n for n in shape], dtype] for key, shape, dtype in entries]
        spec["weights"]["parts"][part] = made
    sizes = {"ngf": 8, "cond_dim": 96, "num_channels": 4, "out_dim": 4, "text_embed_dim": 64}
    spec["config"] |= sizes | {"stft_frame": 254, "stft_hop": 128, "audLen": LENGTH} | config
    case = Case(CASES / f"{name}.json", spec)
    case.inputs.update(inputs)
    return case


def separated(**settings: Any) -> Case:
    """The whole method on two mixtures, small."""
    inputs = {
        "audios": 0.1 * torch.randn(2, 3, LENGTH),
        "mix": 0.1 * torch.randn(2, LENGTH),
        "text_embed": torch.randn(3, 2, 64),
        "hidden": torch.randn(3, 2, 7, 96),
    }
    return small("separate_mixture", inputs, **settings)


def activated(x: Tensor, kind: str) -> Tensor:
    known = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "no": lambda y: y}
    return x.softmax(dim=1) if kind == "softmax" else known[kind](x)


@pytest.mark.parametrize(("before", "sound", "after"), [("sigmoid", "no", "sigmoid"), ("relu", "tanh", "softmax")])
def test_one_query_after_the_other(before: str, sound: str, after: str) -> None:
    """As published: the network runs anew for every query; outputs are not clipped."""
    case = separated(cond_activation=before, sound_activation=sound, output_activation=after)
    case.inputs["mix"] = 20 * case.inputs["mix"]
    got = outputs(case)
    (state,) = case.state_dicts.values()
    spectra = torch.stft(case.inputs["mix"], 254, 128, window=torch.hann_window(254), return_complex=True)
    magnitude = spectra.abs()[:, None]
    for n in range(3):
        unet = small("unet_sca_tokens", {"x": torch.log1p(magnitude), "cond": case.inputs["hidden"][n]})
        unet.state_dicts["net_sound"] = {
            k.removeprefix("net_sound."): v for k, v in state.items() if k.startswith("net_sound.")
        }
        features = activated(outputs(unet)["feat_sound"], sound)
        weights = F.linear(case.inputs["text_embed"][n], state["net_clap.fc.weight"], state["net_clap.fc.bias"])
        weights = activated(weights, before) * state["net_synthesizer.scale"]
        logits = torch.einsum("bc,bcft->bft", weights, features)[:, None]
        mask = activated(logits + state["net_synthesizer.bias"], after)
        torch.testing.assert_close(got["pred_mags"][:, n], (mask * magnitude)[:, 0], rtol=1e-3, atol=1e-4)
    assert got["pred_wavs"].shape == (2, 3, LENGTH) and got["pred_wavs"].abs().max() > 1
    assert got["raw_mags"].shape == (2, 3, 128, 128) and got["mag_mix"].shape == (2, 1, 128, 128)


def heard(wav: np.ndarray, **settings: Any) -> Case:
    torch.manual_seed(0)
    inputs = {"wav": wav, "text_embed": torch.randn(1, 64), "hidden": torch.randn(1, 7, 96)}
    return small("demo_sample1", inputs, **settings)


def noise(*shape: int) -> np.ndarray:
    return (3000 * np.random.default_rng(0).standard_normal(shape)).astype(np.int16)


@pytest.mark.parametrize("samples", [1, LENGTH - 1, LENGTH, LENGTH + 1, 2 * LENGTH])
def test_waveforms_of_any_length(samples: int) -> None:
    """Pieces on their own, also where the length is a multiple of theirs; as long as what came."""
    wav = noise(samples, 1)
    got = outputs(heard(wav))
    assert got["wav_out"].shape == (samples,) and got["mask0"].shape == got["est_mag0"].shape == (1, 1, 128, 128)
    last = wav[(samples - 1) // LENGTH * LENGTH :]
    alone = outputs(heard(last))
    torch.testing.assert_close(got["wav_out"][-len(last) :], alone["wav_out"], rtol=0.0, atol=1e-6)


def test_channels_are_averaged() -> None:
    """int16 of full scale 32768; one channel of floats is as good."""
    wav = noise(1000, 2)
    mono = (wav.astype(np.float32) / 32768).mean(axis=1)
    assert torch.equal(outputs(heard(wav))["wav_out"], outputs(heard(mono))["wav_out"])
    assert torch.equal(outputs(heard(wav[:, 0]))["wav_out"], outputs(heard(wav[:, :1]))["wav_out"])


def test_floats_are_clipped() -> None:
    loud = np.array([3.0, -2.0] * 500, dtype=np.float32)
    assert torch.equal(outputs(heard(loud))["wav_out"], outputs(heard(loud.clip(-1, 1)))["wav_out"])


def test_the_adapters_use_the_modules_of_models() -> None:
    """The same weights through a model's separator give the same masks."""
    from avsep_bimodal_sep.conditioner import TextAttention
    from avsep_bimodal_sep.convert import convert_official
    from avsep_bimodal_sep.separator import ConditionalUNet
    from avsep_zoo.contracts import Embedding
    from avsep_zoo.front_end import StftFrontEnd

    case = separated()
    (state,) = case.state_dicts.values()
    plan = ConditionalUNet.plan(width=8, levels=7, mask_features=4)
    conditioner = TextAttention(views={"vector": 64, "tokens": 96}, sites=plan.sites, heads=8)
    separator = ConditionalUNet(width=8, levels=7, mask_features=4, widths=conditioner.widths())
    parts = nn.ModuleDict({"conditioner": conditioner, "separator": separator}).eval()
    parts.load_state_dict(convert_official(state)[0])
    front = StftFrontEnd(rate=16000, length=LENGTH, n_fft=254, hop_length=128, warp_rows=0, pad_mode="reflect")
    spectrum = front.analyse(case.inputs["mix"])
    cue = Embedding(case.inputs["text_embed"].transpose(0, 1), case.inputs["hidden"].transpose(0, 1))
    with torch.no_grad():
        estimate = separator(spectrum, conditioner.bind(cue))
    torch.testing.assert_close(outputs(case)["pred_mags"], front.linear_magnitude(estimate, spectrum))


@pytest.mark.parametrize(
    ("case", "setting"),
    [
        (lambda: separated(cond_layer="cat"), "'cat', which takes no tokens"),
        (lambda: separated(output_activation="gelu"), "activation 'gelu'"),
        (lambda: separated(in_dim=2), "in_dim 2"),
        (lambda: separated(center=False), "center False"),
        (lambda: heard(noise(100, 2), input_rate=44100), "input_rate 44100"),
        (lambda: heard(noise(100, 2).astype(np.float32)), "float32 samples"),
    ],
)
def test_what_is_not_defined(case: Any, setting: str) -> None:
    """In one sentence."""
    with pytest.raises(AvsepError, match=setting) as error:
        outputs(case())
    assert re.fullmatch(r"[^\n]+\.", str(error.value)) and ". " not in str(error.value)
