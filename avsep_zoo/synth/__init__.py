"""Test material: solo clips and duets whose pictures move with the notes, from soundfonts and from recorded solos."""

from avsep_zoo.detection.frame_difference import motion_features
from avsep_zoo.synth.dataset import write_dataset
from avsep_zoo.synth.duet import write_duet
from avsep_zoo.synth.ensemble_set import write_ensembles
from avsep_zoo.synth.instruments import INSTRUMENTS, Instrument

__all__ = ["INSTRUMENTS", "Instrument", "motion_features", "write_dataset", "write_duet", "write_ensembles"]
