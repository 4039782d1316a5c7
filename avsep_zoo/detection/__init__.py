"""What is seen in frames: detectors of objects, and motion features."""

from __future__ import annotations

from avsep_zoo.detection.contract import Detector, MotionNet

__all__ = ["Detector", "MotionNet"]
