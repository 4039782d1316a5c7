"""The contracts that parts keep, and the data that flows between them.

``B`` mixtures, ``N`` sources, ``F`` frequency rows, ``T`` frames, ``L`` samples, ``K`` tokens or video
frames, ``D`` features, ``C H W`` channels, rows, columns of a feature map::

    waveform (B, L) -> FrontEnd.analyse -> Spectrum
    cues            -> CueEncoder       -> Embedding: vector | tokens | map
    Separator(Spectrum, inject)            inject = Conditioner.bind(Embedding), called at each site
                    -> Estimate (B, N, F, T) -> FrontEnd.synthesise -> waveforms (B, N, L)

Every part can be described without being built: its class method ``plan`` takes the configuration of its constructor
and says what the part reads, gives, wants and where it acts. :func:`avsep_zoo.compose` checks plans, then builds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import torch
from einops import repeat
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    import numpy as np

    from avsep_zoo.cue import Cue
    from avsep_zoo.media import VideoSource

__all__ = [
    "SITE_KINDS",
    "Bound",
    "Conditioner",
    "ConditionerPlan",
    "CueBatch",
    "CueEncoder",
    "Embedding",
    "EncoderPlan",
    "Estimate",
    "FrontEnd",
    "Objective",
    "Separator",
    "SeparatorPlan",
    "Site",
    "Spectrum",
    "expand_sources",
]

SITE_KINDS = ("bottleneck", "decoder", "latent", "head")


@dataclass(frozen=True)
class Site:
    """A named place in a separator's forward pass where a conditioner may act.

    Args:
        kind: one of :data:`SITE_KINDS`.
        channels: channels of the features that arrive there.
    """

    kind: str
    channels: int


@dataclass(frozen=True)
class EncoderPlan:
    """What an encoder reads (modalities), which of them it can do without, and the views it gives with widths."""

    reads: frozenset[str]
    gives: Mapping[str, int]
    optional: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ConditionerPlan:
    """The views a conditioner wants, the kinds of site it acts at, and the channels that leave each site."""

    wants: frozenset[str]
    acts_at: frozenset[str]
    widths: Mapping[str, int]


@dataclass(frozen=True)
class SeparatorPlan:
    """The sites of a separator, in forward order, and whether a driver has to call its network step by step."""

    sites: Mapping[str, Site]
    driven: bool = False


@dataclass
class CueBatch:
    """The cues of a batch: one entry per modality, each with leading axes (B, N).

    Args:
        values: modality -> tensor (B, N, ...) or nested list [B][N] (texts).
        present: modality -> bool (B, N): whether that source has it; one left out here is present for all sources it
            has values for. One without values told what they are of, as a label tells which detected object is meant.

    An encoder that finds a source in the picture itself says where in ``object_box`` (B, N, 5): seconds of the media,
    x1, y1, x2, y2 in pixels, NaN where it did not; reports show it. Of what a map shows ``map_region`` says the same.
    """

    values: dict[str, Any]
    present: dict[str, Tensor] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """(B, N)."""
        for value in self.values.values():
            return (len(value), len(value[0]))
        raise ValueError("The cue batch is empty.")

    def get(self, modality: str) -> Any:
        """Return the values of ``modality``, or None."""
        return self.values.get(modality)

    def has(self, modality: str) -> Tensor:
        """Return bool (B, N): which sources have ``modality``."""
        if modality in self.present:
            return self.present[modality]
        return torch.full(self.shape, modality in self.values)

    @classmethod
    def stack(cls, batches: Sequence[CueBatch]) -> CueBatch:
        """Join batches along B; what some of them lack is filled with zeros and marked absent there.

        A ragged last axis is padded with zeros, in masks (``*_mask``) with infinity.
        """
        values: dict[str, Any] = {}
        present: dict[str, Tensor] = {}
        for name in sorted({name for batch in batches for name in batch.values}):
            having = [batch.values[name] for batch in batches if name in batch.values]
            rows = [batch.values.get(name) for batch in batches]
            if isinstance(having[0], Tensor):
                longest = max(v.shape[-1] for v in having)
                fill = torch.inf if name.endswith("_mask") else 0
                blank = torch.zeros_like(having[0])
                padded = [blank if row is None else row for row in rows]
                values[name] = torch.cat([F.pad(v, (0, longest - v.shape[-1]), value=fill) for v in padded])
            else:
                empty = [[None] * batches[0].shape[1]]
                values[name] = [line for row in rows for line in (empty if row is None else row)]
            held = [b.has(name) if name in b.values else torch.zeros(b.shape).bool() for b in batches]
            present[name] = torch.cat(held)
        return cls(values, present)

    def to(self, device: torch.device | str) -> CueBatch:
        """Return the batch with every tensor on ``device``."""
        move = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in self.values.items()}
        return CueBatch(move, {k: v.to(device) for k, v in self.present.items()})


@dataclass
class Embedding:
    """What a cue becomes: one or more views, each with leading axes (B, N).

    Args:
        vector: (B, N, D).
        tokens: (B, N, K, D); ``tokens_bias`` (B, N, K) is added to attention scores: 0 at real steps, -inf at padded.
        map: (B, N, D, H, W).
        index: int64 (B, N): row of a learned table, e.g. the class.
    """

    vector: Tensor | None = None
    tokens: Tensor | None = None
    tokens_bias: Tensor | None = None
    map: Tensor | None = None
    index: Tensor | None = None

    @property
    def sources(self) -> int:
        """N."""
        for view in (self.vector, self.tokens, self.map, self.index):
            if view is not None:
                return view.shape[1]
        raise ValueError("The embedding has no view.")

    def repeat(self, batch: int) -> Embedding:
        """Return the embedding of one mixture for ``batch`` mixtures with the same cues."""
        views = {f.name: getattr(self, f.name) for f in fields(self)}
        return type(self)(**{n: v.expand(batch, *v.shape[1:]) for n, v in views.items() if v is not None})


@dataclass
class Spectrum:
    """One analysed mixture.

    Args:
        features: (B, 1, F', T) what the separator sees.
        warped: (B, 1, F', T) magnitude in the domain of the mask (equal to ``magnitude`` without a warp).
        magnitude: (B, 1, F, T) linear STFT magnitude.
        phase: complex (B, 1, F, T) of modulus 1, or None when analysed from magnitudes.
        gain: (B, 1, 1, 1) factor that was applied to the magnitude before the warp.
    """

    features: Tensor
    warped: Tensor
    magnitude: Tensor
    phase: Tensor | None = None
    gain: Tensor | None = None


@dataclass
class Estimate:
    """A separator's answer in the domain of the mask.

    Args:
        values: (B, N, F', T): a mask in [0, 1] or with an open end, a magnitude, or the front end's features.
        logits: (B, N, F', T) before the activation, where there is one.
        kind: ``mask``, ``magnitude`` or ``features``.
        loudness: how many times louder sources are estimated than they are in the mixture.
        localisation: that of the :class:`Bound` conditioner; :class:`~avsep_zoo.SeparationModel` adds it.
    """

    values: Tensor
    logits: Tensor | None = None
    kind: str = "mask"
    loudness: float = 1.0
    localisation: Tensor | None = None


class FrontEnd(nn.Module, ABC):
    """Waveform to spectrum and back."""

    rate: int
    length: int
    hop_length: int

    @abstractmethod
    def analyse(self, waveform: Tensor) -> Spectrum:
        """Analyse (B, L) waveforms at ``self.rate``."""

    @abstractmethod
    def mask(self, estimate: Estimate, spectrum: Spectrum) -> Tensor:
        """Return the estimate as linear-frequency masks (B, N, F, T)."""

    @abstractmethod
    def synthesise(self, estimate: Estimate, spectrum: Spectrum, *, length: int | None = None) -> Tensor:
        """Return the waveforms (B, N, L') of the estimate; L' is ``length``, or a whole number of hops."""


class CueEncoder(nn.Module, ABC):
    """Turns cues into an embedding; also knows how a user's cue becomes tensors (its preprocessing)."""

    reads: frozenset[str]
    optional: frozenset[str]
    gives: Mapping[str, int]
    per_clip = False
    """Whether one look at a recording is enough for all its segments; otherwise each has its own pictures."""

    @classmethod
    @abstractmethod
    def plan(cls, **config: Any) -> EncoderPlan:
        """Describe the encoder that ``config`` would build."""

    @abstractmethod
    def prepare(
        self,
        cues: Sequence[Cue],
        *,
        video: VideoSource | None,
        time: float,
        rng: np.random.Generator | None = None,
    ) -> CueBatch:
        """Turn the N cues of one mixture into a batch of one.

        Args:
            cues: one per source.
            video: the video that is separated, where there is one.
            time: centre of the audio segment, in seconds of the media.
            rng: that of a training item, from which is drawn what an encoder varies in training.

        Raises:
            CueError: a cue lacks a modality, or names a class that is unknown.
        """

    def remarks(self, cues: Sequence[Cue]) -> list[str]:
        """Say in a sentence each what of usable cues is not used, e.g. unknown words; the default uses everything."""
        return []

    def load_pretrained(self) -> None:
        """Fetch published weights that a run without a card starts from, or raise WeightsError; by default, none."""
        return None

    def fetch(self) -> None:
        """Fetch what is otherwise fetched when the first cue comes, or raise WeightsError; by default, nothing."""
        return None

    @abstractmethod
    def forward(self, cues: CueBatch) -> Embedding: ...


class Bound(ABC):
    """A conditioner bound to one embedding: the state of one forward pass."""

    sources: int
    localisation: Tensor | None = None
    """(B, N, h, w) in [0, 1]: where in the picture each source was found; None until the separator ran, or unknown."""

    @abstractmethod
    def __call__(self, site: str, features: Tensor) -> Tensor:
        """Act at ``site``.

        ``features`` are (B, C, H, W) as long as no site needed the cue and (B N, C, H, W) from then on; the first that
        needs it expands them with :func:`expand_sources`. Where the conditioner does not act they stay unchanged.
        """


class Conditioner(nn.Module, ABC):
    """What happens at the sites of a separator."""

    wants: frozenset[str]
    acts_at: frozenset[str]

    @classmethod
    @abstractmethod
    def plan(cls, *, views: Mapping[str, int], sites: Mapping[str, Site], **config: Any) -> ConditionerPlan:
        """Describe the conditioner that would be built for these views and sites."""

    @abstractmethod
    def widths(self) -> Mapping[str, int]:
        """Return the channels that leave each site the conditioner acts at."""

    def digest(self, embedding: Embedding) -> Embedding:
        """Do once what is the same for all windows of a recording; :meth:`bind` takes the result for the embedding."""
        return embedding

    @abstractmethod
    def bind(self, embedding: Embedding) -> Bound:
        """Bind to the cues of one batch."""


class Separator(nn.Module, ABC):
    """A backbone with named sites; what comes before the first that needs the cue runs once per mixture."""

    sites: Mapping[str, Site]

    @classmethod
    @abstractmethod
    def plan(cls, **config: Any) -> SeparatorPlan:
        """Describe the separator that ``config`` would build."""

    @abstractmethod
    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate: ...


class Objective(nn.Module, ABC):
    """A method's training objective: how sources are mixed, the losses of a batch, the optimisers that lower them.

    It is a module: what it trains itself (critics) and what it remembers (banks, counters, as buffers) moves, is saved
    and is resumed with the run. ``mixtures_only`` says that it can learn without any solo: when each of the ``sources``
    is a recording of several cued sounds. ``whole_recordings`` says that each of them is a recording of any number of
    sounds, and its one cue shows all of them. ``captioned`` says that such recordings have a text each, too.
    """

    mixtures_only = whole_recordings = captioned = False

    @abstractmethod
    def mix(self, sources: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, L) sources -> the mixture (B, L), and the sources as they are in it (the truth)."""

    def mix_batch(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Mix the sources of a batch and put its background, where it has one, under the mixture."""
        mixture, sources = self.mix(batch["sources"])
        return (mixture + batch["background"] if "background" in batch else mixture), sources

    @abstractmethod
    def loss(self, model: Any, batch: Mapping[str, Any], turn: str = "model") -> dict[str, Tensor]:
        """Return ``{"loss": scalar, ...}`` of one turn; further entries are logged.

        ``batch`` holds ``sources`` (B, N, L) waveforms before the mixture rule and ``cues``, a CueBatch of (B, N), or
        of (B, N K) where sources are recordings of K cued sounds (``mixtures_only``; the cues of source n are n K ...
        n K + K - 1). It may hold ``background`` (B, L), sound that no cue asks for; where ``captioned`` and K > 1 also
        ``captions`` (B, N) of the recordings and ``shares`` (B, N K), weights of the cues.
        """

    @abstractmethod
    def optimisers(self, model: Any, *, learning_rate: float | None = None) -> dict[str, list[torch.optim.Optimizer]]:
        """Return turn -> its optimisers, over the parameters that are trainable when this is called."""

    def load_pretrained(self) -> None:
        """Fetch published weights, of a frozen judge, where a run starts; the default has none."""
        return None

    def turns(self, step: int) -> tuple[str, ...]:
        """Turns of step ``step`` (from 0), in order: each is a loss, a backward pass and a step of its optimisers."""
        return ("model",)


def expand_sources(features: Tensor, batch: int, sources: int) -> Tensor:
    """Repeat (B, C, H, W) features for each of N sources to (B N, C, H, W); expanded ones pass unchanged."""
    if features.shape[0] == batch * sources:
        return features
    last = features.is_contiguous(memory_format=torch.channels_last)
    expanded = repeat(features, "b c h w -> (b n) c h w", n=sources)
    return expanded.contiguous(memory_format=torch.channels_last) if last else expanded
