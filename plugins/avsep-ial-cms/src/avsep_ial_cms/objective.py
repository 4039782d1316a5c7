"""IAL-CMS' objective: recordings as the sums of their sounds, pictures against sounds, sounds that are independent.

Source: Independency Adversarial Learning for Cross-Modal Sound Separation, AAAI 2024, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_ial_cms.conditioner import CrossModal, CrossModalAttention
from avsep_ial_cms.critic import PairCritic, critic_loss, independence_loss
from avsep_ial_cms.losses import artifact_ratio, correspondence_loss, interference_ratio, signal_ratio, stepped
from avsep_ial_cms.pairs import MemoryBank, dependent_pairs, draw_partners
from avsep_zoo.blocks.mixture import MixtureRule, mix_sources
from avsep_zoo.contracts import Embedding, Objective
from avsep_zoo.errors import CompositionError, DataError

if TYPE_CHECKING:
    from avsep_zoo.model import SeparationModel

__all__ = ["IndependencyObjective", "Separated"]


@dataclass
class Separated:
    """What a model makes of a batch.

    Args:
        waveforms: (B, N K, L).
        magnitudes: warped ones of the estimates (B, N K, F', T').
        embedding: of the cues.
        heard: vectors (B, N K, D) in the space of the embedding's map; None without cross-modal attention.
    """

    waveforms: Tensor
    magnitudes: Tensor
    embedding: Embedding
    heard: Tensor | None


class IndependencyObjective(Objective):
    """The estimates of the sounds of each recording have to add up to it, match their pictures and be independent.

    Recordings of one sound teach by their waveforms alone (supervised). Recordings of several cued sounds do not say
    how they split (unsupervised): a critic learns to tell pairs of estimates of one mixture from pairs drawn from
    different ones, and the model learns to make both look the same. Critic and model take turns.

    Args:
        mixture: ``sum`` adds recordings up (published), ``mean`` divides by their number.
        most: SI-SNR in dB that is good enough; infinity for no limit.
        scaled: how loud an estimate is does not count, as published.
        correspondence: weight of :func:`~avsep_ial_cms.losses.correspondence_loss`.
        correspondence_steps: steps of the model after each of which it becomes ten times as large, up to its value.
        temperature, discarded: of that loss.
        independence: weight of the critic's opinion; 0 builds no critic.
        independence_steps: the same as ``correspondence_steps``, in steps of the run.
        margin: weight of the hinges in the critic's own loss.
        critic_width: of the :class:`~avsep_ial_cms.critic.PairCritic`.
        critic_gain: factor of the magnitudes that the critic sees; 1 is published. Its layers are spectrally
            normalised: small magnitudes make small features, and its last layer shrinks to 0 before it has learned from
            them.
        bank: earlier estimates that partners are drawn from.
        model_every: the model takes a turn in every so many steps.
        critic_every: the critic does.
        recognition: weight of a loss that recognises classes in the maps themselves (not part of the paper).
        classes: their number.
        recognised: channels of the map.
        learning_rate: of Adam for separator and conditioner.
        encoder_learning_rate: for the encoder; scaled with the other one where a run sets that.
        critic_learning_rate, critic_weight_decay: of Adam for the critic.
    """

    mixtures_only = True

    def __init__(
        self,
        *,
        mixture: MixtureRule = "sum",
        most: float = 30.0,
        scaled: bool = True,
        correspondence: float = 0.05,
        correspondence_steps: Sequence[int] = (4000, 8000, 12000),
        temperature: float = 0.3,
        discarded: int = 6,
        independence: float = 0.0,
        independence_steps: Sequence[int] = (8000, 16000, 24000),
        margin: float = 1.0,
        critic_width: int = 64,
        critic_gain: float = 1.0,
        bank: int = 1000,
        model_every: int = 1,
        critic_every: int = 1,
        recognition: float = 0.0,
        classes: int = 0,
        recognised: int = 512,
        learning_rate: float = 1e-4,
        encoder_learning_rate: float = 1e-3,
        critic_learning_rate: float = 1e-4,
        critic_weight_decay: float = 1e-3,
    ) -> None:
        super().__init__()
        if mixture not in ("sum", "mean"):
            raise ValueError(f"The mixture is {mixture!r}; give sum or mean.")
        numbers = {"model_every": model_every, "critic_every": critic_every, "critic_width": critic_width, "bank": bank}
        for name, number in numbers.items():
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} is {number!r}; give a whole number from 1.")
        if min(temperature, critic_gain, learning_rate, encoder_learning_rate, critic_learning_rate) <= 0:
            raise ValueError("The temperature, critic_gain or a learning rate is not above 0; give a number that is.")
        if recognition and classes < 2:
            raise ValueError(f"The loss of recognition needs classes and there are {classes}; set classes, or it to 0.")
        self.mixture, self.most, self.scaled = mixture, most, scaled
        self.correspondence, self.correspondence_steps = correspondence, tuple(correspondence_steps)
        self.temperature, self.discarded = temperature, discarded
        self.independence, self.independence_steps = independence, tuple(independence_steps)
        self.margin, self.critic_gain = margin, critic_gain
        self.model_every, self.critic_every, self.recognition = model_every, critic_every, recognition
        self.learning_rate, self.encoder_learning_rate = learning_rate, encoder_learning_rate
        self.critic_learning_rate, self.critic_weight_decay = critic_learning_rate, critic_weight_decay
        self.step = 0
        self.critic: PairCritic | None = None
        if independence:
            self.critic = PairCritic(width=critic_width)
        self.bank = MemoryBank(bank)
        self.recogniser: nn.Sequential | None = None
        if recognition:
            self.recogniser = nn.Sequential(nn.BatchNorm1d(recognised), nn.Linear(recognised, classes))

    def get_extra_state(self) -> dict[str, Any]:
        """The memory bank. The counters of the schedules are the step of the run."""
        return self.bank.state()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.bank.restore(state)

    def mix(self, sources: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, L) sources -> the mixture (B, L) and the sources as they are in it."""
        return mix_sources(sources, self.mixture)

    def turns(self, step: int) -> tuple[str, ...]:
        """The critic first, then the model, each in its own steps."""
        self.step = step
        critic = self.critic is not None and step % self.critic_every == 0
        model = step % self.model_every == 0
        return (("critic",) if critic else ()) + (("model",) if model else ())

    @property
    def correspondence_weight(self) -> float:
        """Weight of that loss in this step, which counts the steps of the model."""
        return stepped(self.correspondence, self.correspondence_steps, -(-self.step // self.model_every))

    @property
    def independence_weight(self) -> float:
        """Weight of that loss in this step."""
        return stepped(self.independence, self.independence_steps, self.step)

    def loss(self, model: SeparationModel, batch: Mapping[str, Any], turn: str = "model") -> dict[str, Tensor]:
        mixture, sources = self.mix_batch(batch)
        if turn == "critic":
            with torch.no_grad():
                separated = self.separate(model, mixture, batch)
            return self.critic_losses(separated.magnitudes)
        return self.model_losses(self.separate(model, mixture, batch), sources, batch)

    def separate(self, model: SeparationModel, mixture: Tensor, batch: Mapping[str, Any]) -> Separated:
        """Separate mixtures (B, L) for the cues of a batch."""
        front: Any = model.front_end
        spectrum = front.analyse(mixture)
        embedding = model.encode(batch["cues"])
        bound = model.conditioner.bind(embedding)
        estimate = model.separator(spectrum, bound)
        estimate.values = estimate.values.float()
        complex_spectrum = front.linear_magnitude(estimate, spectrum) * spectrum.phase
        return Separated(
            front.istft(complex_spectrum, mixture.shape[-1]),
            front.warped_mask(estimate, spectrum) * spectrum.warped,
            embedding,
            bound.heard if isinstance(bound, CrossModal) else None,
        )

    def critic_losses(self, magnitudes: Tensor, **drawn: Any) -> dict[str, Tensor]:
        """Losses of the critic, of magnitudes (B, N K, F', T') of estimates; ``drawn`` as :meth:`scores`."""
        assert self.critic is not None
        independent, dependent = self.scores(magnitudes, **drawn)
        loss = critic_loss(independent, dependent, self.critic.score.weight, margin_weight=self.margin)
        return {"loss": loss, "distance": independent.mean() - dependent.mean()}

    def model_losses(
        self, separated: Separated, sources: Tensor, batch: Mapping[str, Any], **drawn: Any
    ) -> dict[str, Tensor]:
        """Losses of the model.

        Args:
            separated: of a batch.
            sources: recordings (B, N, L) as they are in the mixture.
            batch: holds the cues.
            drawn: as :meth:`scores`.
        """
        recordings = rearrange(separated.waveforms, "b (n k) l -> b n k l", n=sources.shape[1]).sum(dim=2)
        separation = -signal_ratio(recordings, sources, most=self.most, scaled=self.scaled).mean()
        total, values = separation, {"separation": separation}
        if self.correspondence and separated.heard is not None and separated.embedding.map is not None:
            values["correspondence"] = correspondence_loss(
                separated.embedding.map.flatten(0, 1),
                separated.heard.flatten(0, 1),
                temperature=self.temperature,
                discarded=self.discarded,
            )
            total = total + self.correspondence_weight * values["correspondence"]
        if self.critic is not None:
            values["independence"] = independence_loss(*self.scores(separated.magnitudes, **drawn))
            total = total + self.independence_weight * values["independence"]
        label = batch["cues"].get("label") if self.recogniser is not None else None
        if self.recogniser is not None and label is not None and separated.embedding.map is not None:
            seen = separated.embedding.map.mean(dim=(3, 4)).flatten(0, 1)
            known = (label >= 0).sum().clamp_min(1)
            named = F.cross_entropy(self.recogniser(seen).float(), label.flatten(), ignore_index=-1, reduction="sum")
            values["recognition"] = named / known
            total = total + self.recognition * values["recognition"]
        with torch.no_grad():
            values["interference"] = interference_ratio(separated.waveforms).mean()
            values["artifacts"] = artifact_ratio(recordings, sources).mean()
        return {"loss": total, **values}

    def scores(
        self,
        magnitudes: Tensor,
        *,
        valid: Tensor | None = None,
        bank_rows: Sequence[int] | None = None,
        partners: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The critic's scores of independent and of dependent pairs; what is scored is written to the bank.

        Args:
            magnitudes: (B, N K, F', T').
            valid: bool (B, N K): which of them there are; None is all.
            bank_rows: row of the bank for each of them; None draws them.
            partners: for each of them the number of its partner in its mixture, itself not counted; None draws them.

        Returns:
            (n, 1) and (m, 1); m is less than n where a mixture has a single sound, which depends on no other.

        Raises:
            DataError: every mixture has a single sound, or the bank holds spectrograms of another shape.
        """
        assert self.critic is not None
        there = torch.ones(magnitudes.shape[:2], dtype=torch.bool) if valid is None else valid.bool()
        counts = there.sum(dim=1).tolist()
        if max(counts, default=0) < 2:
            raise DataError(
                "The critic compares the sounds of a mixture and no mixture of this batch has two; give 2 or more "
                "sources, or set independence of the objective to 0."
            )
        sounds = self.critic_gain * magnitudes[there.to(magnitudes.device)]
        independent = self.critic(self.bank.pairs(sounds, bank_rows))
        drawn = draw_partners(counts) if partners is None else partners
        return independent, self.critic(dependent_pairs(sounds, counts, drawn))

    def optimisers(
        self, model: SeparationModel, *, learning_rate: float | None = None
    ) -> dict[str, list[torch.optim.Optimizer]]:
        """Adam for the model, with another rate for the encoder, and Adam for the critic where there is one.

        Raises:
            CompositionError: the model is generative, it has no cross-modal attention to compare pictures and sounds
                with, or another number of classes.
        """
        if model.driver is not None:
            raise CompositionError(
                f"The objective ial_cms.independency needs estimates of one pass and {model.name} is generative; take "
                "the objective generative."
            )
        if self.correspondence and not isinstance(model.conditioner, CrossModalAttention):
            raise CompositionError(
                f"The correspondence of pictures and sounds needs the conditioner ial_cms.attention and {model.name} "
                "has another one; set correspondence of the objective to 0."
            )
        rate = learning_rate or self.learning_rate
        seeing = rate / self.learning_rate * self.encoder_learning_rate
        hearing: list[nn.Module] = [model.separator, model.conditioner]
        if self.recogniser is not None:
            self._check_classes(model)
            hearing.append(self.recogniser)
        groups = [
            {"params": [p for module in modules for p in module.parameters() if p.requires_grad], "lr": its_rate}
            for modules, its_rate in ((hearing, rate), ([model.encoder], seeing))
        ]
        groups = [group for group in groups if group["params"]]
        turns: dict[str, list[torch.optim.Optimizer]] = {}
        turns["model"] = [torch.optim.Adam(groups, lr=rate)] if groups else []
        if self.critic is not None:
            critic = torch.optim.Adam(
                self.critic.parameters(),
                lr=self.critic_learning_rate,
                betas=(0.0, 0.9),
                weight_decay=self.critic_weight_decay,
            )
            turns["critic"] = [critic]
        return turns

    def _check_classes(self, model: SeparationModel) -> None:
        assert self.recogniser is not None
        given = (model.encoder.gives.get("map"), len(model.classes))
        wanted = (self.recogniser[1].in_features, self.recogniser[1].out_features)
        if given != wanted:
            raise CompositionError(
                f"The objective recognises {wanted[1]} classes in maps of {wanted[0]} channels and {model.name} has "
                f"{given[1]} and {given[0]}; set classes and recognised of the objective."
            )
