"""What is evaluated: models by the name of their card, and baselines that need no training."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avsep_zoo.compose import build_part
from avsep_zoo.contracts import CueEncoder, FrontEnd
from avsep_zoo.errors import CompositionError, DataError
from avsep_zoo.evaluation.oracle import BASELINES
from avsep_zoo.evaluation.protocols import Protocol
from avsep_zoo.generative.contract import Driver
from avsep_zoo.load import find_card, is_place, methods
from avsep_zoo.recipe import PartConfig
from avsep_zoo.registry import registry
from avsep_zoo.weights.cards import Card

__all__ = ["Contender", "Setting", "find_contenders"]

RATE, LENGTH = 11025, 65535  # of the segments of four of the five papers


@dataclass(frozen=True)
class Contender:
    """A model or a baseline.

    Args:
        name: in results; of a card, unless two of them have the same.
        card: None for a baseline.
    """

    name: str
    card: Card | None = None

    @property
    def kind(self) -> str:
        """``model`` or ``baseline``."""
        return "baseline" if self.card is None else "model"

    @property
    def sha256(self) -> str | None:
        """Of the weights."""
        return None if self.card is None else str(self.card.manifest["sha256"])

    @property
    def parts(self) -> Mapping[str, Any]:
        """The parts of a model; none for a baseline."""
        return {} if self.card is None else self.card.manifest["parts"]

    @property
    def reads(self) -> frozenset[str]:
        """Modalities of cues that the model reads.

        Raises:
            CompositionError: its encoder is not registered here.
        """
        if self.card is None:
            return frozenset()
        part = PartConfig.parse(self.parts["encoder"])
        encoder: type[CueEncoder] = registry().part("encoder", part.name)
        return encoder.plan(**part.config).reads

    @property
    def driver(self) -> Driver | None:
        """What samples a generative model; None for others.

        Raises:
            CompositionError: it cannot be built.
        """
        return build_part("driver", PartConfig.parse(self.parts["driver"])) if "driver" in self.parts else None


@dataclass(frozen=True)
class Setting:
    """What a protocol leaves to the model, filled in.

    Args:
        rate: in Hz.
        length: samples of a mixture.
        scored: samples that are scored at most.
        mixture: ``sum``, ``mean``, or the objective, as a part, whose rule it is.
    """

    rate: int
    length: int
    scored: int
    mixture: str | Mapping[str, Any]

    @classmethod
    def of(cls, protocol: Protocol, contender: Contender) -> Setting:
        """Fill in ``protocol`` for a model; for a baseline with the segments of most papers.

        Raises:
            CompositionError: the front end of the model cannot be built.
            DataError: the protocol mixes by the model's objective and it has none.
        """
        rate, length, scored = protocol.rate, protocol.length, protocol.scored
        if contender.card is not None and (rate is None or length is None):
            front: FrontEnd = build_part("front_end", PartConfig.parse(contender.parts["front_end"]))
            rate, length = front.rate, front.length
            scored = length // front.hop_length * front.hop_length  # what comes back from the STFT
        rate, length = rate or RATE, length or LENGTH
        mixture: str | Mapping[str, Any] = protocol.mixture or "sum"
        if protocol.mixture is None and contender.card is not None:
            if "objective" not in contender.parts:
                raise DataError(
                    f"The model {contender.name} has no objective and protocol {protocol.name} mixes by its rule; take "
                    "another protocol."
                )
            mixture = contender.parts["objective"]
        return cls(rate, length, scored or length, mixture)


def find_contenders(names: Sequence[str]) -> list[Contender]:
    """Find models by method, variant or card folder, and baselines by name, in the order given.

    Raises:
        CompositionError: nothing has such a name.
        DataError: the same one is named twice.
        WeightsError: a model has no weights here.
    """
    found = [Contender(name) if name in BASELINES else _model(name) for name in names]
    if len({(c.kind, c.name, c.card.folder.resolve() if c.card else None) for c in found}) < len(found):
        raise DataError(f"The models {', '.join(names)} hold one twice; name each once.")
    taken = [contender.name for contender in found]
    return [  # runs of the same recipe have cards of the same name
        Contender(f"{c.name} ({c.card.folder})", c.card) if c.card and taken.count(c.name) > 1 else c for c in found
    ]


def _model(name: str) -> Contender:
    if not is_place(name) and name.partition(".")[0] not in methods():
        known = [*BASELINES, *methods()]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}" if near else f"known are {', '.join(known)}"
        raise CompositionError(f"There is no model or baseline {name!r}; {hint}, or give the folder of a card.")
    card = find_card(name)
    return Contender(card.name, card)
