"""Parity adapters of the front end and of the whole method: golden cases of the official code.

Each adapter is a function of a case (configuration, official state dict, inputs) and returns named outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_bimodal_sep.conditioner import TextAttention
from avsep_bimodal_sep.parity import activate, attention_settings, bind, load, only, separator_settings, tensor
from avsep_bimodal_sep.separator import ConditionalUNet
from avsep_zoo.blocks.mask_loss import loudness_weight
from avsep_zoo.contracts import Embedding, Estimate, Spectrum
from avsep_zoo.errors import DataError
from avsep_zoo.front_end import StftFrontEnd

if TYPE_CHECKING:
    from avsep_zoo.model import SeparationModel
    from avsep_zoo.parity.case import Case

__all__ = ["front_end", "inverse", "method", "separated", "stft", "waveform"]

Outputs = dict[str, Any]
_EDGE = 700  # samples of the beginning and the end of a waveform
_SILENCE = 1e-10  # least magnitude that a phase is made from
_WEIGHTS = (1e-3, 10.0)


@torch.no_grad()
def front_end(case: Case) -> Outputs:
    """The transform, and what the network sees of it."""
    config, wav = case.config, tensor(case, "wav")
    front = stft(config, wav.shape[-1])
    complex_, spectrum = front.stft(wav)[:, None], front.analyse(wav)
    parts = {"real": complex_.real, "imag": complex_.imag, "mag": spectrum.magnitude}
    least = spectrum.magnitude.clamp_min(_SILENCE)
    parts |= {"cos": complex_.real / least, "sin": complex_.imag / least}
    limits = config["weight_min"], config["weight_max"]
    weight = loudness_weight(spectrum.magnitude) if limits == _WEIGHTS else spectrum.features.clamp(*limits)
    turned = {name: value.transpose(2, 3) for name, value in parts.items()}
    return turned | {"log_mag": spectrum.features, "loss_weight": weight}


@torch.no_grad()
def inverse(case: Case) -> Outputs:
    """There and back, with a mask and without."""
    config, wav = case.config, tensor(case, "wav")
    front = stft(config, wav.shape[-1])
    spectrum = front.analyse(wav)
    mask = tensor(case, "mask").transpose(2, 3)
    masked, same = (
        _waveforms(front, Estimate(values), spectrum, config["length"])[:, 0]
        for values in (mask, torch.ones_like(mask))
    )
    return {"wav_out": masked, "head": masked[:, :_EDGE], "tail": masked[:, -_EDGE:], "roundtrip": same}


@torch.no_grad()
def method(case: Case) -> Outputs:
    """Mixtures and what was said to waveforms."""
    return _separated(_Network.of(case), case)


@torch.no_grad()
def separated(model: SeparationModel, case: Case) -> Outputs:
    """What :func:`method` gives, from a model whose front end and layers are those of the case."""
    front, conditioner, separator = model.front_end, model.conditioner, model.separator
    assert isinstance(front, StftFrontEnd)
    assert isinstance(conditioner, TextAttention)
    assert isinstance(separator, ConditionalUNet)
    return _separated(_Network(front, conditioner, separator, case.config), case)


def _separated(network: _Network, case: Case) -> Outputs:
    recordings = tensor(case, "audios")
    vector, tokens = tensor(case, "text_embed").transpose(0, 1), tensor(case, "hidden").transpose(0, 1)
    spectrum = network.front.analyse(tensor(case, "mix"))
    estimate = network.estimate(spectrum, Embedding(vector=vector, tokens=tokens))
    return {
        "pred_wavs": _waveforms(network.front, estimate, spectrum, network.config["audLen"]),
        "pred_mags": network.front.linear_magnitude(estimate, spectrum),
        "raw_mags": network.front.stft(recordings).abs(),
        "mag_mix": spectrum.magnitude,
    }


@torch.no_grad()
def waveform(case: Case) -> Outputs:
    """A recording of any length, in pieces that do not overlap."""
    config = case.config
    only(config, input_rate=config["audRate"])  # which resampler reads other rates is a matter of librosa's version
    network = _Network.of(case)
    length = network.front.length
    sound = _mono(np.asarray(case.inputs["wav"])).clamp(-1.0, 1.0)
    missing = length - len(sound) % length  # at least one sample
    embedding = Embedding(vector=tensor(case, "text_embed")[:, None], tokens=tensor(case, "hidden")[:, None])
    pieces: list[Tensor] = []
    first: Outputs = {}
    for piece in F.pad(sound, (0, missing)).split(length):
        spectrum = network.front.analyse(piece[None])
        estimate = network.estimate(spectrum, embedding)
        pieces.append(_waveforms(network.front, estimate, spectrum, length)[0, 0])
        magnitude = network.front.linear_magnitude(estimate, spectrum)
        first = first or {"mask0": estimate.values, "est_mag0": magnitude}
    return {"wav_out": torch.cat(pieces)[:-missing], **first}


def stft(config: Mapping[str, Any], length: int) -> StftFrontEnd:
    """The front end of a case, for waveforms of ``length`` samples."""
    only(config, window="hann periodic", center=True)
    return StftFrontEnd(
        rate=config.get("audRate", 16000),
        length=length,
        n_fft=config["stft_frame"],
        hop_length=config["stft_hop"],
        warp_rows=0,
        pad_mode=config["pad_mode"],
    )


@dataclass(frozen=True)
class _Network:
    """The method without what reads texts, with the official weights of a case."""

    front: StftFrontEnd
    conditioner: TextAttention
    separator: ConditionalUNet
    config: Mapping[str, Any]

    @classmethod
    def of(cls, case: Case) -> _Network:
        """Build it.

        Raises:
            DataError: the case is not of the evaluation, its condition layer takes no tokens, or its weights do not
                fit.
        """
        config = case.config
        only({"mode": case.mode}, mode="eval")
        if config["cond_layer"] == "cat":
            raise DataError("The case has the condition layer 'cat', which takes no tokens; give another layer.")
        settings = separator_settings(config, config["num_channels"])
        sites = ConditionalUNet.plan(**settings).sites
        views = {"vector": config["text_embed_dim"], "tokens": config["cond_dim"]}
        with torch.device("meta"):
            conditioner = TextAttention(views=views, sites=sites, **attention_settings(config, config["num_head"]))
            separator = ConditionalUNet(widths=conditioner.widths(), **settings)
        load(nn.ModuleDict({"conditioner": conditioner, "separator": separator}), case)
        return cls(stft(config, config["audLen"]), conditioner, separator, config)

    def estimate(self, spectrum: Spectrum, embedding: Embedding) -> Estimate:
        """Masks, with the activations of the case."""
        estimate = self.separator(spectrum, bind(self.conditioner, embedding, self.config))
        kind = self.config["output_activation"]
        if kind == "sigmoid":
            return estimate
        logits = estimate.logits
        masks = activate(rearrange(logits, "b n f t -> (b n) 1 f t"), kind)
        return Estimate(rearrange(masks, "(b n) 1 f t -> b n f t", b=len(logits)))


def _waveforms(front: StftFrontEnd, estimate: Estimate, spectrum: Spectrum, length: int) -> Tensor:
    """Waveforms (B, N, L), not clipped, which published code never does; L is less where frames end before."""
    assert spectrum.phase is not None
    there = (spectrum.phase.shape[-1] - 1) * front.hop_length + front.n_fft - front.n_fft // 2
    magnitude = front.linear_magnitude(estimate, spectrum)
    return front.istft(magnitude * spectrum.phase, min(length, there))


def _mono(wav: np.ndarray) -> Tensor:
    """Samples (L,) or (L, channels) -> (L,) float32, full scale 1.

    Raises:
        DataError: the official code adds up something else than channels.
    """
    if wav.dtype == np.int16:
        sound = torch.from_numpy(wav.astype(np.float32) / 32768)
        return sound if sound.ndim == 1 else sound.mean(dim=1)
    if wav.dtype.kind != "f" or wav.ndim != 1:
        raise DataError(f"The case has {wav.dtype} samples of the shape {wav.shape}; give int16, or one channel.")
    return torch.from_numpy(wav.astype(np.float32))
