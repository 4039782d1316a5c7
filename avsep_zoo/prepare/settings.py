"""What decides the prepared files, and the detector and motion network that it names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from avsep_zoo.detection.choice import DetectorChoice
from avsep_zoo.detection.contract import Detector, MotionNet
from avsep_zoo.errors import DataError
from avsep_zoo.registry import registry
from avsep_zoo.weights.hub_files import HubFiles

__all__ = [
    "RATES",
    "DetectorChoice",
    "MotionChoice",
    "Settings",
    "Tools",
    "build_tools",
    "load_tools",
    "named",
    "usual_device",
]

RATES = {"asiw": 11025, "audiocaps": 16000, "ave": 11025, "duets": 11025, "music": 11025, "vggsound": 16000}
"""Samples per second that papers on a data set use."""


@dataclass(frozen=True)
class MotionChoice:
    """A registered network of motion features; arguments as :class:`~avsep_zoo.detection.MotionNet`."""

    name: str
    weights: HubFiles | None = None


@dataclass(frozen=True)
class Settings:
    """What decides the prepared files.

    Args:
        dataset: name of the reader.
        rate: samples per second.
        fps: frames per second.
        detector, motion: None writes no detections, no motion features.

    Raises:
        DataError: a number is out of range.
    """

    dataset: str
    rate: int
    fps: float
    detector: DetectorChoice | None = None
    motion: MotionChoice | None = None

    def __post_init__(self) -> None:
        if not 1000 <= self.rate <= 384000:
            raise DataError(f"The rate is {self.rate}; give 1000 to 384000 samples per second.")
        if not 0.01 <= self.fps <= 240:
            raise DataError(f"The frame rate is {self.fps}; give 0.01 to 240 frames per second.")
        score = self.detector.min_score if self.detector else None
        if score is not None and not 0 <= score <= 1:
            raise DataError(f"The lowest score is {score}; give 0 to 1.")

    def document(self) -> dict[str, Any]:
        """The settings as plain JSON; weights by name, commit and sha256, wherever they lie here.

        In those of :func:`named` class c of a detection is ``["detector"]["labels"][c - 1]``.
        """
        detector, motion = self.detector, self.motion
        return {
            "format": 1,
            "dataset": self.dataset,
            "rate": self.rate,
            "fps": self.fps,
            "detector": detector
            and {
                "name": detector.name,
                "weights": _weights(detector.weights),
                "labels": list(detector.labels),
                "min_score": detector.min_score,
            },
            "motion": motion and {"name": motion.name, "weights": _weights(motion.weights)},
        }


def _weights(files: HubFiles | None) -> dict[str, Any] | None:
    if files is None:
        return None
    return {"source": files.source, "revision": files.revision, "sha256": dict(files.sha256)}


@dataclass
class Tools:
    """What the settings name, ready for use."""

    detector: Detector | None = None
    motion: MotionNet | None = None


def build_tools(settings: Settings, device: str) -> Tools:
    """Build the detector and the motion network.

    Raises:
        CompositionError: there is no such part.
        WeightsError: its weights cannot be used.
    """
    tools = Tools()
    detector, motion = settings.detector, settings.motion
    if detector is not None:
        tools.detector = detector.build(device)
    if motion is not None:
        weights = motion.weights.path if motion.weights else None
        tools.motion = registry().part("motion", motion.name)(weights, device=device)
    return tools


def named(settings: Settings, tools: Tools) -> Settings:
    """The settings with the list of labels that numbers of classes are places in, wherever the detector has it from."""
    if settings.detector is None or tools.detector is None:
        return settings
    return replace(settings, detector=replace(settings.detector, labels=tuple(tools.detector.labels)))


_kept: tuple[Settings, str, Tools] | None = None


def load_tools(settings: Settings, device: str) -> Tools:
    """Build them once per process, also for settings that are :func:`named` later; raises as :func:`build_tools`."""
    global _kept
    if _kept is None or _kept[:2] != (settings, device):
        tools = build_tools(settings, device)
        _kept = (named(settings, tools), device, tools)
    return _kept[2]


def usual_device(settings: Settings) -> str:
    """Return ``cuda`` where there is one and something to run on it, else ``cpu``."""
    if settings.detector is None and settings.motion is None:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
