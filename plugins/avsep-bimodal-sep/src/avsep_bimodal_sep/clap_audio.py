"""CLAP's view of a sound: for the contrastive loss on estimates, and as a cue encoder for an example of a sound."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_bimodal_sep.clap_towers import sound_sizes, sound_tower
from avsep_bimodal_sep.clap_weights import WEIGHTS, load_tower
from avsep_bimodal_sep.log_mel import LogMel
from avsep_bimodal_sep.resample import resample
from avsep_zoo.contracts import CueBatch, CueEncoder, Embedding, EncoderPlan
from avsep_zoo.cue import Cue
from avsep_zoo.errors import CueError, MediaError

if TYPE_CHECKING:
    from avsep_zoo.media import VideoSource

__all__ = ["RATE", "SAMPLES", "ClapAudioEncoder", "ClapSound", "ten_seconds"]

RATE = 48000
SAMPLES = 480000  # 10 s
_SECONDS = SAMPLES / RATE


class ClapSound(nn.Module):
    """The frozen sound tower of CLAP on waveforms; their gradient passes through it.

    Sounds are resampled to 48 kHz and made 10 s long (:func:`ten_seconds`; longer ones are cropped at random in
    training, in the middle otherwise), then become log-mel spectrograms. The tower is always in eval mode. ``scale``
    is the factor of similarities that CLAP was trained with; it comes with the weights.

    Source: Wu et al., ICASSP 2023; Mahmud et al., ICLR 2024, section 3.

    Args:
        rate: sample rate in Hz of the waveforms.
        clap_weights: as that of :class:`~avsep_bimodal_sep.clap_text.ClapTextEncoder`, and the same.
        tower: sizes of the tower that differ from those of HTSAT-base
            (:data:`~avsep_bimodal_sep.clap_towers.SOUND_TOWER`), by transformers' names.
    """

    logit_scale_a: Tensor

    def __init__(
        self, *, rate: int = 16000, clap_weights: str | None = WEIGHTS, tower: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        if rate < 1:
            raise ValueError(f"rate is {rate}; give the sample rate in Hz.")
        self.rate, self.clap_weights = rate, clap_weights
        self.log_mel = LogMel()
        self.clap = sound_tower(sound_sizes(tower))
        self.register_buffer("logit_scale_a", torch.tensor(math.log(1 / 0.07)))

    @property
    def scale(self) -> Tensor:
        """The factor of similarities, a constant ()."""
        return self.logit_scale_a.detach().exp()

    def train(self, mode: bool = True) -> ClapSound:
        """Set the mode of all but the tower."""
        super().train(mode)
        self.clap.eval()
        return self

    def forward(self, waveforms: Tensor) -> Tensor:
        """(M, L) at ``rate`` -> joint embeddings (M, D) of length 1."""
        return self.views(waveforms)[0]

    def views(self, waveforms: Tensor) -> tuple[Tensor, Tensor]:
        """(M, L) at ``rate`` -> joint embeddings (M, D) of length 1, and the last hidden states (M, 64, D').

        The 64 positions are 2 halves of the frequencies by 32 steps of 0.31 s.
        """
        with torch.autocast(waveforms.device.type, enabled=False):
            sound = ten_seconds(resample(waveforms.float(), self.rate, RATE), vary=self.training)
        features = self.log_mel(sound).to(next(self.clap.parameters()).dtype)
        out = self.clap(input_features=features)
        vectors = F.normalize(out.audio_embeds.float(), dim=-1).to(out.audio_embeds.dtype)
        return vectors, rearrange(out.last_hidden_state, "m d f t -> m (f t) d")

    def load_pretrained(self) -> None:
        """Load the published weights of the tower.

        Raises:
            WeightsError: none are named, they cannot be had, or they are those of another tower.
        """
        others = load_tower(self.clap, self.clap_weights, kind="audio")
        if "logit_scale_a" in others:
            self.logit_scale_a.copy_(others["logit_scale_a"].reshape(()))


class ClapAudioEncoder(CueEncoder):
    """The frozen sound tower of CLAP on an example of the sound, of which the middle 10 s count.

    Gives ``vector``, in the space of texts, and ``tokens``, as :meth:`ClapSound.views` does.

    Args:
        clap_weights, tower: as of :class:`ClapSound`.
    """

    per_clip = True

    def __init__(self, *, clap_weights: str | None = WEIGHTS, tower: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        plan = self.plan(tower=tower)
        self.reads, self.optional, self.gives = plan.reads, plan.optional, plan.gives
        self.sound = ClapSound(rate=RATE, clap_weights=clap_weights, tower=tower)

    @classmethod
    def plan(cls, *, tower: Mapping[str, Any] | None = None, **_: Any) -> EncoderPlan:
        """Audio alone."""
        sizes = sound_sizes(tower)
        hidden = sizes["patch_embeds_hidden_size"] * 2 ** (len(sizes["depths"]) - 1)
        return EncoderPlan(frozenset({"audio"}), {"vector": sizes["projection_dim"], "tokens": hidden})

    def forward(self, cues: CueBatch) -> Embedding:
        """Encode ``audio`` (B, N, 480000) at 48 kHz."""
        audio = cues.get("audio")
        if audio is None:
            raise CueError("This model needs an example of the sound of every source; give audio.")
        vector, tokens = self.sound.views(audio.flatten(0, 1).to(self.sound.logit_scale_a.device))
        return Embedding(vector=vector.unflatten(0, audio.shape[:2]), tokens=tokens.unflatten(0, audio.shape[:2]))

    def prepare(
        self,
        cues: Sequence[Cue],
        *,
        video: VideoSource | None,
        time: float,
        rng: np.random.Generator | None = None,
    ) -> CueBatch:
        return CueBatch({"audio": torch.cat([ten_seconds(_example(cue)) for cue in cues])[None]})

    def load_pretrained(self) -> None:
        """Load the published weights of the tower.

        Raises:
            WeightsError: none are named, they cannot be had, or they are those of another tower.
        """
        self.sound.load_pretrained()


def ten_seconds(waveforms: Tensor, *, vary: bool = False) -> Tensor:
    """(M, L) at 48 kHz -> (M, 480000): repeated as often as it fits and then silent, or cropped.

    Args:
        waveforms: at least one sample.
        vary: crop each at a place drawn by torch; otherwise in the middle.

    Raises:
        ValueError: there is no sample.
    """
    length = waveforms.shape[-1]
    if length == 0:
        raise ValueError("The sound has no samples; give at least one.")
    if length < SAMPLES:
        repeated = waveforms.repeat(1, SAMPLES // length)
        return F.pad(repeated, (0, SAMPLES - repeated.shape[-1]))
    spare = length - SAMPLES
    if not vary or spare == 0:
        return waveforms[:, spare // 2 : spare // 2 + SAMPLES]
    starts = torch.randint(spare + 1, (len(waveforms),)).tolist()
    return torch.stack([wave[start : start + SAMPLES] for wave, start in zip(waveforms, starts, strict=True)])


def _example(cue: Cue) -> Tensor:
    """The example of a cue, (1, L) at 48 kHz: its middle, at most 10 s."""
    from avsep_zoo.media import resample as convert

    if cue.audio is None:
        raise CueError(f"The cue {cue.title!r} has no example of the sound; give audio.")
    try:
        sound, rate = _middle(cue)
    except (MediaError, ValueError, TypeError) as error:
        why = " ".join(str(error).split())
        raise CueError(f"The example of the sound of {cue.title!r} cannot be used: {why}") from error
    sound = sound.mean(axis=0, keepdims=True)
    if not sound.any():
        raise CueError(f"The example of the sound of {cue.title!r} is silent; give one that sounds.")
    return torch.from_numpy(convert(sound, rate, RATE))


def _middle(cue: Cue) -> tuple[np.ndarray, int]:
    """(channels, samples) of at most 10 s, and the rate."""
    from avsep_zoo.media import open_audio, read_excerpt

    audio: Any = cue.audio
    path = isinstance(audio, str | Path)
    if not path and not hasattr(audio, "detach"):
        audio = np.asarray(audio)
    source = open_audio(audio, rate=None if path else cue.audio_rate)
    if path and source.duration is not None:
        return read_excerpt(audio, max(0.0, (source.duration - _SECONDS) / 2), _SECONDS)
    sound, samples = source.read(), math.ceil(_SECONDS * source.rate)
    start = max(0, (sound.shape[1] - samples) // 2)
    return sound[:, start : start + samples], source.rate
