"""Texts without a download: a small vocabulary, a small transformer, and an ear that hears examples.

What CLAP is to the published models this is to the small ones: texts and sounds in one space.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from avsep_bimodal_sep.ear import Ear
from avsep_zoo.contracts import CueBatch, CueEncoder, Embedding, EncoderPlan
from avsep_zoo.cue import Cue
from avsep_zoo.data.prompts import sound_prompt
from avsep_zoo.errors import CueError, DataError
from avsep_zoo.synth.captions import caption

if TYPE_CHECKING:
    from avsep_zoo.media import VideoSource

__all__ = ["WordEncoder"]

_SPELLED = re.compile(r"[^\W\d_]+")
_PADDING, _UNKNOWN = 0, 1  # rows of the table before those of the words
_EXAMPLE = 6.0  # seconds of an example that are heard


class WordEncoder(CueEncoder):
    """A text becomes its words, each a row of a table, and a transformer layer over them; a sound is heard.

    Gives ``vector``, of root mean square 1, and ``tokens``: the vector itself, then the words of a text. Texts and
    sounds share one space of vectors. A label is a text, too; of a cue with a text and a sound, the text counts. Words
    that are not in the vocabulary are left out, which :meth:`remarks` tells.

    Args:
        naming: words of the vocabulary that name what sounds, in lower case.
        other: the other words of the vocabulary.
        classes: class names that texts are taught by: in training a label becomes a caption of the generator
            (:func:`avsep_zoo.synth.captions.caption`). Other labels are prompts.
        width: D of vectors and tokens.
        length: most words of a text; more are left out.
        heads, layers: of the transformer.
        rate: sample rate in Hz at which examples are heard.
        ear: channels of the :class:`~avsep_bimodal_sep.ear.Ear`'s first convolution.
        examples: share of training cues that are an example of the sound instead of a text.
        forgotten: share of words that training makes unknown.
    """

    per_clip = True

    def __init__(
        self,
        *,
        naming: Sequence[str],
        other: Sequence[str] = (),
        classes: Sequence[str] = (),
        width: int = 96,
        length: int = 20,
        heads: int = 4,
        layers: int = 1,
        rate: int = 11025,
        ear: int = 24,
        examples: float = 0.0,
        forgotten: float = 0.05,
    ) -> None:
        super().__init__()
        plan = self.plan(naming=naming, other=other, width=width)
        self.reads, self.optional, self.gives = plan.reads, plan.optional, plan.gives
        if not 0 <= examples < 1 or not 0 <= forgotten < 1:
            raise ValueError(f"The shares of examples and forgotten words are {examples} and {forgotten}; give [0, 1).")
        self.naming, self.taught = frozenset(naming), tuple(classes)
        self.row = {word: number for number, word in enumerate([*naming, *other], _UNKNOWN + 1)}
        self.length, self.rate, self.examples, self.forgotten = length, rate, examples, forgotten
        self.table = nn.Embedding(len(self.row) + _UNKNOWN + 1, width, padding_idx=_PADDING)
        self.places = nn.Parameter(0.1 * torch.randn(length, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, width)
        self.ear = Ear(rate=rate, width=ear, features=width)

    @classmethod
    def plan(cls, *, naming: Sequence[str] = (), other: Sequence[str] = (), width: int = 96, **_: Any) -> EncoderPlan:
        """Text, label or an example, of which one is enough."""
        if len({*naming, *other}) < len(naming) + len(other):
            raise ValueError("A word is twice in the vocabulary; leave one of them out.")
        reads = frozenset({"text", "label", "audio"})
        return EncoderPlan(reads, {"vector": width, "tokens": width}, reads)

    def forward(self, cues: CueBatch) -> Embedding:
        """Encode ``words``, rows int64 (B, N, M) with 0 behind the last one, and ``audio`` (B, N, L)."""
        text, audio = cues.get("words"), cues.get("audio")
        batch, sources = cues.shape
        if text is None:
            text = torch.zeros(batch, sources, 1, dtype=torch.int64)
        text = text.to(self.places.device)
        words, there = self.read(rearrange(text, "b n m -> (b n) m"))
        vector = self.meant(words, there)
        if audio is not None:
            heard = rearrange(cues.has("audio") & ~cues.has("words"), "b n -> (b n)").to(vector.device)
            if heard.any():
                sounds = rearrange(audio, "b n l -> (b n) l")[heard]
                vector = vector.index_put((heard.nonzero()[:, 0],), self.hear(sounds).to(vector.dtype))
        vector = vector * vector.shape[-1] ** 0.5
        tokens = torch.cat((vector[:, None].to(words.dtype), words), dim=1)
        bias = torch.zeros(there.shape, device=there.device).masked_fill(~there, -torch.inf)
        bias = torch.cat((torch.zeros_like(bias[:, :1]), bias), dim=1)
        views = {"vector": vector, "tokens": tokens, "tokens_bias": bias}
        return Embedding(**{name: view.unflatten(0, (batch, sources)) for name, view in views.items()})

    def read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of words (M, K) -> what they mean in their sentence (M, K, D), and bool (M, K): which are words."""
        there = rows != _PADDING
        if self.training and self.forgotten:
            lost = torch.rand(rows.shape, device=rows.device) < self.forgotten
            rows = torch.where(lost & there, _UNKNOWN, rows)
        attended = there.clone()
        attended[:, 0] = True  # attention needs something to attend to where there is no word
        x = self.table(rows) + self.places[: rows.shape[1]]
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~attended)
        return self.norm(x), there

    def meant(self, words: Tensor, there: Tensor) -> Tensor:
        """What words (M, K, D) mean together: (M, D) of length 1."""
        count = there.sum(dim=1, keepdim=True).clamp_min(1)
        mean = (words * there[..., None]).sum(dim=1) / count
        return nn.functional.normalize(self.fc(mean).float(), dim=-1)

    def hear(self, waveforms: Tensor) -> Tensor:
        """Sounds (M, L) at ``rate`` -> (M, D) of length 1, in the space of texts."""
        heard: Tensor = self.ear(waveforms)
        return heard

    def caption(self, labels: Sequence[str], rng: np.random.Generator | None = None) -> str:
        """A text for sounds of these classes: the prompt, or for training one that is drawn."""
        if self.training and rng is not None and all(label in self.taught for label in labels):
            return caption(labels, rng)
        return sound_prompt(labels)

    def prepare(
        self,
        cues: Sequence[Cue],
        *,
        video: VideoSource | None,
        time: float,
        rng: np.random.Generator | None = None,
    ) -> CueBatch:
        rows = [self._text(cue, rng) for cue in cues]
        sounds = [None if row is not None else self._sound(cue, rng) for cue, row in zip(cues, rows, strict=True)]
        values: dict[str, Any] = {}
        present: dict[str, Tensor] = {}
        if any(row is not None for row in rows):
            filled = [[*(row or ()), *[_PADDING] * self.length][: self.length] for row in rows]
            longest = max(len(row or ()) for row in rows)
            values["words"] = torch.tensor([filled])[..., :longest]
            present["words"] = torch.tensor([[row is not None for row in rows]])
            present["text"] = torch.tensor([[cue.text is not None for cue in cues]])
            present["label"] = present["words"] & ~present["text"]
        if any(sound is not None for sound in sounds):
            blank = np.zeros(round(_EXAMPLE * self.rate), dtype=np.float32)
            values["audio"] = torch.from_numpy(np.stack([blank if s is None else s for s in sounds]))[None]
            present["audio"] = torch.tensor([[sound is not None for sound in sounds]])
        if self.taught and self.training:
            known = [self.taught.index(cue.label) if cue.label in self.taught else -1 for cue in cues]
            values["label"] = torch.tensor([known])
        return CueBatch(values, present)

    def remarks(self, cues: Sequence[Cue]) -> list[str]:
        """Words of texts that are not in the vocabulary."""
        return [
            f"{cue.title}: {self._unknown_words(unknown)} and {'was' if len(unknown) == 1 else 'were'} left out."
            for cue in cues
            if (spelled := self._spelled(cue)) is not None
            and (unknown := [word for word in dict.fromkeys(spelled) if self._row(word) == _UNKNOWN])
        ]

    def _unknown_words(self, unknown: Sequence[str]) -> str:
        quoted = ", ".join(repr(word) for word in unknown)
        return f"the word {quoted} is unknown" if len(unknown) == 1 else f"the words {quoted} are unknown"

    def _spelled(self, cue: Cue) -> list[str] | None:
        text = cue.text if cue.text is not None else None if cue.label is None else sound_prompt([cue.label])
        return None if text is None else _SPELLED.findall(text.lower())

    def _row(self, word: str) -> int:
        """Row of a word, or of its singular."""
        return self.row.get(word) or self.row.get(word.removesuffix("s")) or _UNKNOWN

    def _text(self, cue: Cue, rng: np.random.Generator | None) -> list[int] | None:
        """Rows of the words of a text that are known."""
        learns = self.training and rng is not None
        if cue.text is None and cue.label is None:
            return None
        if learns and cue.audio is not None and rng is not None and rng.random() < self.examples:
            return None
        text = cue.text if cue.text is not None else self.caption([str(cue.label)], rng)
        words = [word for word in _SPELLED.findall(text.lower()) if self._row(word) != _UNKNOWN]
        named = [word for word in words if word in self.naming or word.removesuffix("s") in self.naming]
        if not named:
            spelled = [word for word in _SPELLED.findall(text.lower()) if self._row(word) == _UNKNOWN]
            near = [w for word in spelled for w in difflib.get_close_matches(word, sorted(self.naming), n=1)]
            hint = f"did you mean {near[0]!r}" if near else f"it knows {', '.join(sorted(self.naming))}"
            raise CueError(f"The text {text[:80]!r} names no sound that this model knows; {hint}.")
        return [self._row(word) for word in words][: self.length]

    def _sound(self, cue: Cue, rng: np.random.Generator | None) -> np.ndarray:
        """An example of a sound, float32 (L,) at ``rate``: its middle, or in training any part."""
        if cue.audio is None:
            raise CueError(f"The cue {cue.title!r} has neither a text, a label nor an example; give one of them.")
        length = round(_EXAMPLE * self.rate)
        if isinstance(cue.audio, str | Path):
            from avsep_zoo.data.segment import read_segment, seconds

            try:
                spare = max(0.0, seconds(Path(cue.audio)) - _EXAMPLE)
                start = spare / 2 if rng is None else float(rng.uniform(0, spare)) if spare else 0.0
                return read_segment(Path(cue.audio), self.rate, length, start)
            except DataError as error:
                raise CueError(f"The example of {cue.title!r} cannot be used: {error}") from error
        from avsep_zoo.media import resample

        sound = np.atleast_2d(np.asarray(cue.audio, dtype=np.float32)).mean(axis=0, keepdims=True)
        assert cue.audio_rate is not None
        sound = sound if cue.audio_rate == self.rate else resample(sound, cue.audio_rate, self.rate)
        start = max(0, (sound.shape[1] - length) // 2)
        sound = sound[0, start : start + length]
        return np.pad(sound, (0, length - len(sound)))
