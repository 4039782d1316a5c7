"""From raw videos to the layout that readers of data sets read."""

from __future__ import annotations

from avsep_zoo.prepare.dataset import prepare_dataset
from avsep_zoo.prepare.settings import DetectorChoice, MotionChoice, Settings

__all__ = ["DetectorChoice", "MotionChoice", "Settings", "prepare_dataset"]
