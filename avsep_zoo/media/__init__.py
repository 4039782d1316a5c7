"""Media in and out: sound and pictures through PyAV, WAV files through libsndfile, rates through soxr."""

from __future__ import annotations

from avsep_zoo.media.audio import AudioSource, open_audio, read_audio, resample
from avsep_zoo.media.container import AudioInfo, MediaInfo, VideoInfo, probe
from avsep_zoo.media.excerpt import read_excerpt
from avsep_zoo.media.video import VideoSource, read_frames
from avsep_zoo.media.wav import WavWriter, whole_file, write_wav

__all__ = [
    "AudioInfo",
    "AudioSource",
    "MediaInfo",
    "VideoInfo",
    "VideoSource",
    "WavWriter",
    "open_audio",
    "probe",
    "read_audio",
    "read_excerpt",
    "read_frames",
    "resample",
    "whole_file",
    "write_wav",
]
