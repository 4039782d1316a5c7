"""A detector as a user names it: registered name, weights, labels."""

from __future__ import annotations

from dataclasses import dataclass

from avsep_zoo.detection.contract import Detector
from avsep_zoo.registry import registry
from avsep_zoo.weights.hub_files import HubFiles

__all__ = ["DetectorChoice"]


@dataclass(frozen=True)
class DetectorChoice:
    """A registered detector; arguments as :class:`~avsep_zoo.detection.Detector`."""

    name: str
    weights: HubFiles | None = None
    labels: tuple[str, ...] = ()
    min_score: float | None = None

    def build(self, device: str = "cpu") -> Detector:
        """Build it.

        Raises:
            CompositionError: there is no such detector.
            WeightsError: its weights cannot be used.
        """
        kind = registry().part("detector", self.name)
        weights = self.weights.path if self.weights else None
        made: Detector = kind(weights, labels=self.labels, min_score=self.min_score, device=device)
        return made
