"""Parity adapters of CLAP: its towers, from LAION's entries, and the resampler before its ear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_bimodal_sep.clap_audio import RATE, SAMPLES, ClapSound, ten_seconds
from avsep_bimodal_sep.clap_keys import clap_entries
from avsep_bimodal_sep.clap_text import ClapTextEncoder
from avsep_bimodal_sep.resample import resample as resampled
from avsep_bimodal_sep.tokeniser import PADDING
from avsep_zoo.errors import DataError
from avsep_zoo.weights.pretrained import load_entries

if TYPE_CHECKING:
    from avsep_zoo.parity.case import Case

__all__ = ["clap_audio", "clap_text", "load_clap", "resample", "sound_settings", "text_encoder"]

Outputs = dict[str, Any]
_PREFIX = "model.model."  # of LAION-CLAP's entries in the official network
_TEXT = {"hidden_size": "hidden", "intermediate_size": "intermediate", "num_hidden_layers": "layers"} | {
    "num_attention_heads": "heads", "vocab_size": "vocab", "max_position_embeddings": "max_position"
}  # fmt: skip
_SOUND = {"patch_embeds_hidden_size": "embed_dim", "depths": "depths", "num_attention_heads": "heads"}


@torch.no_grad()
def clap_text(case: Case) -> Outputs:
    """The text tower, and the layer of the mask head that reads its embedding."""
    (state,) = case.state_dicts.values()
    encoder = text_encoder(case.config).eval()
    load_clap(encoder.clap, state, _PREFIX, "text")
    ids, mask = (torch.as_tensor(case.inputs[name]) for name in ("input_ids", "attention_mask"))
    if not torch.equal(mask.bool(), ids != PADDING):
        raise DataError("The case masks something else than padding; correct the case.")
    vector, hidden = encoder.embed(ids)
    logits = F.linear(vector, state["fc.weight"], state["fc.bias"])
    return {"hidden": hidden, "text_embed": vector, "cond_logits": logits, "cond": logits.sigmoid()}


@torch.no_grad()
def clap_audio(case: Case) -> Outputs:
    """The sound tower and what comes before it."""
    (state,) = case.state_dicts.values()
    sound = ClapSound(rate=case.config["input_rate"], tower=sound_settings(case.config))
    load_clap(sound.eval().clap, state, _PREFIX, "audio")
    waveforms = torch.as_tensor(case.inputs["wav"])
    at_rate = resampled(waveforms, sound.rate, RATE)
    outputs = {"logmel": sound.log_mel(ten_seconds(at_rate)), "embed": sound(waveforms)}
    return outputs if sound.rate == RATE else {"wav48": at_rate, **outputs}


@torch.no_grad()
def resample(case: Case) -> Outputs:
    """The resampler alone."""
    config = case.config
    _only(config, lowpass_filter_width=6, rolloff=0.99, resampling_method="sinc_interp_hann")
    after = resampled(torch.as_tensor(case.inputs["wav"]), config["orig_freq"], config["new_freq"])
    return {"wav48": after, "head": after[:, :200], "tail": after[:, -200:]}


def text_encoder(config: Mapping[str, Any]) -> ClapTextEncoder:
    """The encoder with a text tower of the sizes of a case."""
    _only(config, tmodel="roberta", layer_norm_eps=1e-5, type_vocab=1, pad_id=PADDING, proj="768-512 relu 512-512")
    return ClapTextEncoder(tower={name: config[theirs] for name, theirs in _TEXT.items()})


def sound_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of the sound tower of a case."""
    front = {"n_fft": 1024, "hop": 480, "fmin": 50, "fmax": 14000, "mel_bins": 64}
    shape = {"window": 8, "spec_size": 256, "patch": 4, "proj": "1024-512 relu 512-512", "amodel": "HTSAT-base"}
    _only(config, sample_rate=RATE, clip_samples=SAMPLES, **front, **shape)
    return {name: config[theirs] for name, theirs in _SOUND.items()}


def load_clap(tower: nn.Module, state: Mapping[str, Tensor], prefix: str, kind: str) -> None:
    """Load LAION-CLAP's entries, which begin with ``prefix``, into the tower for ``text`` or ``audio``."""
    laion = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    own = {name: value for name, value in clap_entries(laion).items() if name.startswith(f"{kind}_")}
    load_entries(tower, own, title=f"{kind} tower of CLAP", source="of the case")


def _only(config: Mapping[str, Any], **known: Any) -> None:
    """Refuse settings that the method cannot have.

    Raises:
        DataError: one has another value.
    """
    for name, value in known.items():
        if config.get(name, value) != value:
            raise DataError(f"The case has {name} {config[name]!r}; the method knows {value!r} only.")
