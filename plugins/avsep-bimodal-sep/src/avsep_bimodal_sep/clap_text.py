"""CLAP's view of a text: the published cue encoder."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from avsep_bimodal_sep.clap_towers import text_sizes, text_tower
from avsep_bimodal_sep.clap_weights import WEIGHTS, load_tower
from avsep_bimodal_sep.text_cache import TextCache
from avsep_bimodal_sep.tokeniser import PADDING, TOKENISER, Tokeniser
from avsep_zoo.contracts import CueBatch, CueEncoder, Embedding, EncoderPlan
from avsep_zoo.cue import Cue
from avsep_zoo.data.prompts import sound_prompt
from avsep_zoo.errors import CueError

if TYPE_CHECKING:
    from avsep_zoo.media import VideoSource

__all__ = ["ClapTextEncoder"]

_REMEMBERED = 1024  # texts; at the published sizes each takes 0.24 MB in float32


class ClapTextEncoder(CueEncoder):
    """The frozen text tower of CLAP on a text, or on the prompt of a label.

    Gives ``vector``, the joint embedding of length 1, and ``tokens``, the last hidden states at all positions. Those
    behind the end of a text are among them, since published models attend to them: the length a text is padded to is
    part of what it means.

    The tower is frozen and always in eval mode; a training run starts from its published weights
    (:meth:`load_pretrained`), and cards hold them. While it is frozen, texts are embedded once and remembered; what is
    remembered is the same to within rounding whatever batch a text was in. Nothing is remembered in training, where a
    run that goes on must not differ from one that was never stopped.

    Source: Wu et al., ICASSP 2023; Mahmud et al., ICLR 2024, section 3.

    Args:
        tokenizer: a folder with RoBERTa's ``vocab.json`` and ``merges.txt``, or ``org/name@commit`` on the Hugging Face
            Hub; read when the first text comes.
        clap_weights: where the tower's weights come from: a file or folder with the entries of LAION-CLAP or of
            transformers' ClapModel, or ``org/name@commit``.
        length: tokens that a text is padded or cut to, marks of its ends included.
        tower: sizes of the tower that differ from those of RoBERTa-base
            (:data:`~avsep_bimodal_sep.clap_towers.TEXT_TOWER`), by transformers' names.
    """

    per_clip = True

    def __init__(
        self,
        *,
        tokenizer: str = TOKENISER,
        clap_weights: str | None = WEIGHTS,
        length: int = 77,
        tower: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        plan = self.plan(tower=tower)
        self.reads, self.optional, self.gives = plan.reads, plan.optional, plan.gives
        sizes = text_sizes(tower)
        longest = sizes["max_position_embeddings"] - PADDING - 1
        if not 3 <= length <= longest:
            raise ValueError(f"A text has {length} tokens; give 3 to {longest}.")
        self.length, self.clap_weights = length, clap_weights
        self.tokeniser = Tokeniser(tokenizer, size=sizes["vocab_size"])
        self.clap = text_tower(sizes)
        self.remembered = TextCache(_REMEMBERED)

    @classmethod
    def plan(cls, *, tower: Mapping[str, int] | None = None, **_: Any) -> EncoderPlan:
        """Text or label, of which one is enough."""
        sizes = text_sizes(tower)
        reads = frozenset({"text", "label"})
        return EncoderPlan(reads, {"vector": sizes["projection_dim"], "tokens": sizes["hidden_size"]}, reads)

    def train(self, mode: bool = True) -> ClapTextEncoder:
        """Set the mode of all but the tower."""
        super().train(mode)
        self.clap.eval()
        return self

    def forward(self, cues: CueBatch) -> Embedding:
        """Encode ``token_ids``, int64 (B, N, length), as :meth:`prepare` makes them."""
        ids = cues.get("token_ids")
        if ids is None:
            raise CueError("This model needs a text or a label of every source; give one of them.")
        vector, tokens = self.embed(ids.flatten(0, 1))
        return Embedding(vector=vector.unflatten(0, ids.shape[:2]), tokens=tokens.unflatten(0, ids.shape[:2]))

    def embed(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids (M, length) -> joint embeddings (M, D) of length 1 and hidden states (M, length, D').

        Equal texts are embedded once, and outside of training not again while the tower is frozen and its weights stay
        as they are.
        """
        texts, places = torch.unique(ids.cpu(), dim=0, return_inverse=True)
        state = None if self.training else self._state()
        if state is None:
            vectors, tokens = self._views(texts)
        else:
            self.remembered.renew(state)
            keys = [(self._autocast(), text.numpy().tobytes()) for text in texts]
            found = [self.remembered.get(key) for key in keys]
            new = [number for number, views in enumerate(found) if views is None]
            if new:
                with torch.no_grad():
                    made = self._views(texts[new])
                    for number, vector, hidden in zip(new, *made, strict=True):
                        found[number] = views = (vector.clone(), hidden.clone())
                        self.remembered.put(keys[number], views)
            vectors, tokens = (torch.stack(views) for views in zip(*(f for f in found if f is not None), strict=True))
        places = places.to(vectors.device)
        return vectors[places], tokens[places]

    def caption(self, labels: Sequence[str], rng: np.random.Generator | None = None) -> str:
        """A text for sounds of these classes, the published prompt; nothing is drawn."""
        return sound_prompt(labels)

    def prepare(
        self,
        cues: Sequence[Cue],
        *,
        video: VideoSource | None,
        time: float,
        rng: np.random.Generator | None = None,
    ) -> CueBatch:
        rows = self.tokeniser.rows([_text(cue) for cue in cues], self.length)
        by_text = torch.tensor([[cue.text is not None for cue in cues]])
        return CueBatch({"token_ids": torch.from_numpy(rows)[None]}, {"text": by_text, "label": ~by_text})

    def remarks(self, cues: Sequence[Cue]) -> list[str]:
        """Texts that are longer than what is read of them."""
        lengths = {cue.title: len(self.tokeniser.ids(_text(cue))) for cue in cues if cue.text or cue.label}
        return [
            f"{title[:80]}: the text has {length} tokens, of which the first {self.length - 2} were read."
            for title, length in lengths.items()
            if length > self.length - 2
        ]

    def load_pretrained(self) -> None:
        """Load the published weights of the tower.

        Raises:
            WeightsError: none are named, they cannot be had, or they are those of another tower.
        """
        load_tower(self.clap, self.clap_weights, kind="text")

    def fetch(self) -> None:
        """Read the tokenizer, from the Hub where it is not here yet.

        Raises:
            WeightsError: it cannot be had, or is another one.
        """
        self.tokeniser.read()

    def _views(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids (M, length) through the tower."""
        ids = texts.to(self.clap.get_input_embeddings().weight.device)  # type: ignore[operator]
        out = self.clap(input_ids=ids, attention_mask=(ids != PADDING).long())
        vectors = F.normalize(out.text_embeds.float(), dim=-1).to(out.text_embeds.dtype)
        return vectors, out.last_hidden_state

    def _state(self) -> Hashable:
        """What changes whenever the weights do; None where texts must not be remembered."""
        weights = list(self.clap.parameters())
        if any(weight.requires_grad or weight.is_inference() for weight in weights):
            return None
        return tuple((weight.data_ptr(), weight._version, weight.dtype, weight.device) for weight in weights)

    def _autocast(self) -> torch.dtype | None:
        device = next(self.clap.parameters()).device.type
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _text(cue: Cue) -> str:
    """What the cue says; as it is, since blanks at the beginning belong to it."""
    said = cue.text if cue.text is not None else cue.label
    if said is None:
        raise CueError(f"The cue {cue.title!r} has neither a text nor a label; give one of them.")
    if not isinstance(said, str) or not said.strip():
        raise CueError(f"The cue {cue.title!r} says {said!r}; say in words what to hear.")
    return said if cue.text is not None else sound_prompt([said])
