"""The files of one clip, each written under a temporary name and renamed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr
from PIL import Image

from avsep_zoo.detection.frame_difference import motion_features
from avsep_zoo.synth.scene import FPS
from avsep_zoo.synth.soundfont import RATE

__all__ = ["WAV_RATE", "clip_done", "write_clip", "write_mp4", "write_scene", "write_text", "write_wav"]

WAV_RATE = 22050
"""Samples per second of the lossless audio files."""


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    write(part)
    part.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    _replace(path, lambda part: part.write_bytes(text.encode()))


def write_wav(path: Path, sound: np.ndarray) -> None:
    """Write mono sound at 44.1 kHz, float [samples] in -1..1, as 16-bit PCM at 22.05 kHz."""
    low = np.clip(soxr.resample(sound.astype(np.float32), RATE, WAV_RATE), -1, 1)
    _replace(path, lambda part: soundfile.write(part, low, WAV_RATE, "PCM_16", format="WAV"))


def write_mp4(path: Path, video: np.ndarray, sound: np.ndarray) -> None:
    """Write H.264 video, uint8 [frames, height, width, 3] at 8 fps, with mono AAC sound at 44.1 kHz."""
    _replace(path, lambda part: _encode(part, video, sound))


def _encode(path: Path, video: np.ndarray, sound: np.ndarray) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        pictures = container.add_stream("libx264", rate=FPS)
        pictures.width, pictures.height, pictures.pix_fmt = video.shape[2], video.shape[1], "yuv420p"
        pictures.codec_context.thread_count = 1
        # without cpu-independent, x264 gives other bytes for other alignments of its memory (macroblock tree)
        exact = "cpu-independent=1"
        pictures.options = {"preset": "veryfast", "crf": "28", "threads": "1", "x264-params": exact}
        sounds = container.add_stream("aac", rate=RATE)
        sounds.codec_context.layout, sounds.codec_context.bit_rate = "mono", 96000
        for stream in (pictures, sounds):
            stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for number, picture in enumerate(video):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        size = 1024
        for start in range(0, len(sound), size):
            chunk = np.ascontiguousarray(sound[None, start : start + size], np.float32)
            block = av.AudioFrame.from_ndarray(chunk, format="fltp", layout="mono")
            block.sample_rate, block.pts = RATE, start
            container.mux(sounds.encode(block))
        container.mux(sounds.encode(None))


def _paths(out: Path, class_name: str, name: str) -> tuple[Path, Path, Path, Path, Path]:
    return (
        out / "audio" / class_name / f"{name}.wav",
        out / "frames" / class_name / f"{name}.mp4",
        out / "detection_results" / class_name / f"{name}.mp4.npy",
        out / "motion_features" / class_name / f"{name}.mp4.npy",
        out / "videos" / class_name / f"{name}.mp4",
    )


def clip_done(out: Path, class_name: str, name: str) -> bool:
    """Whether every file of a clip is there."""
    return all(path.exists() for path in _paths(out, class_name, name))


def _write_stills(folder: Path, video: np.ndarray) -> None:
    """One still per second, from the middle of the second, numbered from 1."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, picture in enumerate(video[FPS // 2 :: FPS], 1):
        Image.fromarray(picture).save(folder / f"{number:06d}.jpg", quality=85)


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)


def write_clip(
    out: Path,
    class_name: str,
    detector_id: int,
    name: str,
    video: np.ndarray,
    boxes: np.ndarray,
    sound: np.ndarray,
) -> None:
    """Write the clip of one object, with its boxes, float32 [frames, 4] in pixels; see ``write_scene``."""
    write_scene(out, class_name, name, video, [(detector_id, 1.0, boxes)], sound)


def write_scene(
    out: Path,
    folder: str,
    name: str,
    video: np.ndarray,
    detections: Sequence[tuple[int, float, np.ndarray]],
    sound: np.ndarray,
) -> None:
    """Write one clip in the MUSIC layout, in folders called after its class or classes.

    video: uint8 [frames, height, width, 3] at 8 fps; detections: detector class, score and boxes, float32 [frames, 4]
    in pixels, of every object; sound: float32 [samples] mono at 44.1 kHz in -1..1. Every file but the stills is a cue
    or a sound of the whole clip.
    """
    wav, stills, detected, motion, mp4 = _paths(out, folder, name)
    write_wav(wav, sound)
    shutil.rmtree(stills, ignore_errors=True)
    _replace(stills, lambda part: _write_stills(part, video))
    rows = [
        (number, detector_id, score, *boxes[frame])
        for number, frame in enumerate(range(FPS // 2, len(video), FPS), 1)
        for detector_id, score, boxes in detections
    ]
    _replace(detected, lambda part: _save(part, np.array(rows, np.float32)))  # [K, 7]
    _replace(motion, lambda part: _save(part, motion_features(video, FPS)))
    write_mp4(mp4, video, sound)
