"""Texts without a download: a small vocabulary, a small transformer, and an ear that hears examples.

What CLAP is to the published models this is to the small ones: texts and sounds in one space.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
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
from avsep_zoo.data.segment import read_segment, seconds
from avsep_zoo.errors import CueError, DataError, MediaError
from avsep_zoo.media import read_audio, resample
from avsep_zoo.synth.captions import caption

if TYPE_CHECKING:
    from avsep_zoo.media import VideoSource

__all__ = ["WordEncoder"]

_SPELLED = re.compile(r"[^\W\d_]+")
_POSSESSIVE = re.compile(r"(?<=\w)['\u2019]s\b")
_PADDING, _UNKNOWN = 0, 1  # rows of the table before those of the words
_EXAMPLE = 6.0  # seconds of an example that are heard
_NAMED = 6  # unknown words that a sentence names


class WordEncoder(CueEncoder):
    """A text becomes its words, each a row of a table, and a transformer layer over them; a sound is heard.

    Gives ``vector``, of root mean square 1, and ``tokens``: the vector itself, then the words of a text. Texts and
    sounds share one space of vectors. A label is a text, too; of a cue with a text and a sound, the text counts. Words
    that are not in the vocabulary, as they are or in the singular, are left out, which :meth:`remarks` tells.

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
                sounds = rearrange(audio.to(vector.device), "b n l -> (b n) l")[heard]
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
        """Words of texts that are not in the vocabulary, and texts that are longer than what is read of them."""
        said: list[str] = []
        for cue in cues:
            if cue.text is None and cue.label is None:
                continue
            title, spelled = " ".join(cue.title.split())[:80], _spelled(_text_of(cue))
            known = [word for word in spelled if self._known(word)]
            unknown = list(dict.fromkeys(word for word in spelled if not self._known(word)))
            if not any(self._known(word) in self.naming for word in spelled):
                continue  # which is an error, and not said twice
            if unknown:
                left_out = "were left out" if len(unknown) > 1 else "was left out"
                said.append(f"{title}: {_are_unknown(unknown)} and {left_out}.")
            if len(known) > self.length:
                first = f"of {len(known)} words that are known the first {self.length} were read"
                said.append(f"{title}: {first}.")
        return said

    def _known(self, word: str) -> str | None:
        """The word of the vocabulary that is meant: the word itself, or its singular."""
        return next((w for w in (word, word.removesuffix("s"), word.removesuffix("es")) if w in self.row), None)

    def _text(self, cue: Cue, rng: np.random.Generator | None) -> list[int] | None:
        """Rows of the words of a text that are known; None where the example counts."""
        if cue.text is None and cue.label is None:
            return None
        if self.training and rng is not None and cue.audio is not None and rng.random() < self.examples:
            return None
        text = _text_of(cue) if cue.text is not None else self.caption([str(cue.label)], rng)
        spelled = _spelled(text)
        words = [known for word in spelled if (known := self._known(word))]
        if self.naming.isdisjoint(words[: self.length]):
            if not self.naming.isdisjoint(words):
                raise CueError(
                    f"The text {text[:80]!r} names no sound in its first {self.length} known words, and no more are "
                    "read; say what to hear first."
                )
            unknown = [word for word in dict.fromkeys(spelled) if not self._known(word)]
            named = sorted(self.naming)
            near = [w for word in unknown[:_NAMED] for w in difflib.get_close_matches(word, named, n=1, cutoff=0.7)]
            classes = [label.replace("_", " ") for label in self.taught] or named
            hint = f"did you mean {near[0]!r}" if near else f"it knows {', '.join(classes)}"
            why = f": {_are_unknown(unknown)}" if unknown else ""
            raise CueError(f"The text {text[:80]!r} names no sound that this model knows{why}; {hint}.")
        return [self.row[word] for word in words[: self.length]]

    def _sound(self, cue: Cue, rng: np.random.Generator | None) -> np.ndarray:
        """An example of a sound, float32 (L,) at ``rate``: its middle, or in training any part."""
        if cue.audio is None:
            raise CueError(f"The cue {cue.title!r} has neither a text, a label nor an example; give one of them.")
        length = round(_EXAMPLE * self.rate)
        try:
            if isinstance(cue.audio, str | Path):
                path = Path(cue.audio)
                sound = read_segment(path, self.rate, length, _start(seconds(path) - _EXAMPLE, rng))
            else:
                sound = self._excerpt(cue, length, rng)
        except (DataError, MediaError, ValueError) as error:
            why = " ".join(str(error).partition(";")[0].rstrip(".").split())
            raise CueError(f"The example of the sound of {cue.title!r} cannot be used: {why}; give another.") from error
        if rng is None and not sound.any():
            raise CueError(f"The example of the sound of {cue.title!r} is silent; give one that sounds.")
        return sound

    def _excerpt(self, cue: Cue, length: int, rng: np.random.Generator | None) -> np.ndarray:
        """Part of an array of audio, float32 (length,) at ``rate``."""
        audio: Any = cue.audio
        try:
            given = audio if hasattr(audio, "detach") else np.asarray(audio)
        except (ValueError, TypeError) as error:
            raise MediaError("It is no array of numbers; give one.") from error
        sound, rate = read_audio(given, cue.audio_rate)
        sound = resample(sound.mean(axis=0, keepdims=True), rate, self.rate)[0]
        start = round(_start((len(sound) - length) / self.rate, rng) * self.rate)
        sound = sound[start : start + length]
        return np.pad(sound, (0, length - len(sound)))


def _text_of(cue: Cue) -> str:
    """The text of a cue, or the prompt of its label."""
    said = cue.label if cue.text is None else cue.text
    if not isinstance(said, str) or not said.strip():
        raise CueError(f"The cue {cue.title[:80]!r} says {said!r}; say in words what to hear.")
    return said if cue.text is not None else sound_prompt([said])


def _spelled(text: str) -> list[str]:
    """The words of a text in lower case, without what owns something."""
    return _SPELLED.findall(_POSSESSIVE.sub("", unicodedata.normalize("NFKC", text).lower()))


def _are_unknown(words: Sequence[str]) -> str:
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    quoted = ", ".join(repr(word) for word in words[:_NAMED]) + more
    return f"the words {quoted} are unknown" if len(words) > 1 else f"the word {quoted} is unknown"


def _start(spare: float, rng: np.random.Generator | None) -> float:
    """Where an excerpt begins, in seconds, if ``spare`` seconds are left out: in the middle, or drawn."""
    if spare <= 0:
        return 0.0
    return spare / 2 if rng is None else float(rng.uniform(0, spare))
