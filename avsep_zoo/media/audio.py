"""Sound in: files through FFmpeg and arrays, as blocks of (channels, samples) float32 at their own rate."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import soxr
from av.container import InputContainer

from avsep_zoo.errors import MediaError
from avsep_zoo.media.container import audio_stream, frames, open_container, origin

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AudioSource", "open_audio", "read_audio", "resample"]

# Timestamps within 0.1 s of the samples counted are jitter (FFmpeg's min_hard_comp); steps beyond 10 s are a
# clock that was reset (FFmpeg's dts_delta_threshold). What lies between is a gap in the recording.
JITTER_SECONDS = 0.1
RESET_SECONDS = 10.0

# A file that ends this much before the length its header states was cut off.
CUT_SECONDS = 0.2

# Containers that write the length down; FFmpeg guesses it from the bit rate in the others.
STATES_LENGTH = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "wav", "w64", "flac", "aiff", "caf", "asf"})

ZEROS = 65536  # samples of silence made at once


@dataclass(frozen=True)
class AudioSource:
    """A sound that can be read as a whole or block by block, as often as wanted.

    Args:
        rate: sample rate in Hz.
        channels: number of channels.
        samples: number of samples per channel where it is known exactly (arrays), else None (files).
        duration: seconds; exact for arrays, for files what the container announces, or None.
    """

    rate: int
    channels: int
    samples: int | None
    duration: float | None
    _chunks: Callable[[], Iterator[np.ndarray]]

    def blocks(self, block_samples: int) -> Iterator[np.ndarray]:
        """Yield (channels, block_samples) float32 from the beginning; the last block may be shorter.

        Memory is bounded by the block and one decoded frame.

        Raises:
            MediaError: the sound changes its rate or channels on the way, or holds NaN or infinity.
        """
        if block_samples < 1:
            raise ValueError(f"block_samples is {block_samples}; give at least 1.")
        held: list[np.ndarray] = []
        count = 0
        for chunk in self._chunks():
            while count + chunk.shape[1] >= block_samples:
                head, chunk = np.split(chunk, [block_samples - count], axis=1)
                yield np.concatenate([*held, head], axis=1)  # (channels, block_samples)
                held, count = [], 0
            held.append(chunk)
            count += chunk.shape[1]
        if count:
            yield np.concatenate(held, axis=1)

    def read(self) -> np.ndarray:
        """Return the whole sound as (channels, samples) float32.

        Raises:
            MediaError: as :meth:`blocks`.
        """
        return np.concatenate(list(self.blocks(self.rate)), axis=1)


def open_audio(media: str | Path | np.ndarray | Tensor, *, rate: int | None = None) -> AudioSource:
    """Open a media file or an array for reading.

    The sound of a file begins at the container's time 0 (see :mod:`avsep_zoo.media.container`): a track that
    starts later is preceded by silence, encoder priming is left out as FFmpeg does, gaps of 0.1 to 10 s
    between timestamps are silence. A file that was cut off gives what can be decoded, and a UserWarning.

    Args:
        media: a path, or a floating-point array or tensor (samples,) or (channels, samples), full scale 1.
        rate: sample rate in Hz of the array; a file carries its own.

    Raises:
        MediaError: the file cannot be read or has no sound; the array has another shape or type, is empty or
            holds NaN or infinity; the rate is missing, not positive, or given for a file.
    """
    if isinstance(media, str | Path):
        if rate is not None:
            raise MediaError(f"rate={rate} was given with the file {media}; leave it out, files carry their own.")
        return _open_file(Path(media))
    return _open_array(media, rate)


def read_audio(media: str | Path | np.ndarray | Tensor, rate: int | None = None) -> tuple[np.ndarray, int]:
    """Read a whole sound: (channels, samples) float32 and the rate in Hz; arguments as :func:`open_audio`.

    Raises:
        MediaError: as :func:`open_audio` and :meth:`AudioSource.blocks`.
    """
    source = open_audio(media, rate=rate)
    return source.read(), source.rate


def resample(x: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resample (channels, n) float32 to (channels, ceil(n * to_rate / from_rate)) float32 (soxr, quality HQ).

    The length is rounded up, so that going to another rate and back never loses a sample of the end.
    """
    if from_rate == to_rate:
        return x
    length = -(-x.shape[1] * to_rate // from_rate)
    y = soxr.resample(np.ascontiguousarray(x.T), from_rate, to_rate, quality="HQ").T[:, :length]
    return np.ascontiguousarray(np.pad(y, ((0, 0), (0, length - y.shape[1]))))  # (channels, length)


def _open_array(media: Any, rate: int | None) -> AudioSource:
    if hasattr(media, "detach"):
        tensor = media.detach().cpu()
        media = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if not isinstance(media, np.ndarray):
        raise MediaError(f"The sound is a {type(media).__name__}; give a path, a NumPy array or a tensor.")
    if media.dtype.kind != "f":
        raise MediaError(f"The waveform has dtype {media.dtype}; give floats with full scale 1.")
    if media.ndim not in (1, 2):
        raise MediaError(f"The waveform has shape {media.shape}; give (samples,) or (channels, samples).")
    wave = media[None] if media.ndim == 1 else media  # (channels, samples)
    channels, samples = wave.shape
    if wave.size == 0:
        raise MediaError(f"The waveform has shape {media.shape} and so no samples; give at least one.")
    if channels > 64 and channels > samples:
        raise MediaError(
            f"The waveform has shape {media.shape}, which is {channels} channels; "
            "give (channels, samples), i.e. transpose it if the samples come first."
        )
    if rate is None:
        raise MediaError("The waveform comes without a sample rate; give rate=... in Hz.")
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer) or rate <= 0:
        raise MediaError(f"The sample rate is {rate!r}; give a positive whole number of Hz.")
    _check_finite(wave, "The waveform")

    def chunks() -> Iterator[np.ndarray]:
        for start in range(0, samples, ZEROS):
            yield wave[:, start : start + ZEROS].astype(np.float32)

    return AudioSource(int(rate), channels, samples, samples / rate, chunks)


def _check_finite(x: np.ndarray, what: str, offset: int = 0) -> None:
    bad = ~np.isfinite(x)
    if bad.any():
        channel, sample = (int(i) for i in np.argwhere(bad)[0])
        raise MediaError(
            f"{what} holds {int(bad.sum())} samples that are NaN or infinite, the first in channel {channel} "
            f"at sample {sample + offset}; replace them."
        )


def _open_file(path: Path) -> AudioSource:
    with open_container(path) as container:
        stream = audio_stream(container)
        if stream is None:
            raise MediaError(f"{path} has no audio track; give a file with sound.")
        decoded = (f for f in frames(container, stream) if isinstance(f, av.AudioFrame) and f.samples)
        first = next(decoded, None)
        if first is None:
            raise MediaError(f"The audio track of {path} is empty (0 samples decoded); give a file with sound.")
        # The first frame knows better than the header what the decoder gives (HE-AAC doubles the rate).
        rate, channels = first.sample_rate, first.layout.nb_channels
        duration: float | None
        if stream.duration is not None and stream.time_base is not None:
            duration = float(stream.duration * stream.time_base)
        else:
            duration = None if container.duration is None else container.duration / av.time_base
    return AudioSource(rate, channels, None, duration, lambda: _decode(path, rate, channels))


def _decode(path: Path, rate: int, channels: int) -> Iterator[np.ndarray]:
    """Yield the sound of a file as (channels, n) float32, placed by its timestamps."""
    with open_container(path) as container:
        stream = audio_stream(container)
        assert stream is not None
        start = origin(container)
        tick = max(1, math.ceil(rate * (stream.time_base or 0)))  # samples
        position = silence = 0  # samples given so far, and how many of them came before the first frame
        # To interleaved samples, since PyAV crashes on planar frames of more than 8 channels.
        converters: dict[tuple[str, str], av.AudioResampler] = {}
        exact, lost = True, False  # exact: the next frame is placed exactly where its timestamp says
        for frame in frames(container, stream):
            if not isinstance(frame, av.AudioFrame):
                exact = lost = True
                continue
            if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
                raise MediaError(
                    f"The sound of {path} changes from {channels}-channel, {rate} Hz to "
                    f"{frame.layout.nb_channels}-channel, {frame.sample_rate} Hz "
                    f"after {position / rate:.2f} s; convert it to one format with FFmpeg first."
                )
            key = (frame.format.name, frame.layout.name)
            if key not in converters:
                converters[key] = av.AudioResampler(format="flt")
            packed = [part.to_ndarray().reshape(-1, channels) for part in converters[key].resample(frame)]
            chunk = np.ascontiguousarray(np.concatenate(packed).T)  # (channels, n)
            gap = 0 if frame.time is None else round((frame.time - start) * rate) - position
            if position == 0 and gap < -tick:
                chunk = chunk[:, -gap:]
            elif (gap > tick and exact) or JITTER_SECONDS * rate < gap <= RESET_SECONDS * rate:
                silence = silence if position else gap
                position += gap
                for done in range(0, gap, ZEROS):
                    yield np.zeros((channels, min(ZEROS, gap - done)), np.float32)
            exact = exact and chunk.shape[1] == 0
            _check_finite(chunk, f"The sound of {path}", position)
            position += chunk.shape[1]
            if chunk.shape[1]:
                yield chunk
        if position == 0:
            raise MediaError(f"All sound of {path} lies before its time 0; give a file with sound.")
        decoded = (position - silence) / rate
        announced = announced_seconds(container, stream)
    missing = announced is not None and announced > decoded + CUT_SECONDS
    if lost or missing or is_short_riff(path):
        of = f" of {announced:.2f} s announced" if missing else ""
        warnings.warn(f"{path} is cut off or damaged: {decoded:.2f} s of sound decoded{of}.", stacklevel=2)


def announced_seconds(container: InputContainer, stream: av.AudioStream) -> float | None:
    """Return the length of the audio track where the file states it."""
    name = container.format.name
    # An MP3 states its length only with a LAME header, which also sets the start time.
    if name not in STATES_LENGTH and not (name == "mp3" and stream.start_time):
        return None
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    try:
        hours, minutes, seconds = (float(part) for part in stream.metadata["DURATION"].split(":"))  # Matroska
    except (KeyError, ValueError):
        return None
    start = float((stream.start_time or 0) * (stream.time_base or 0))
    return hours * 3600 + minutes * 60 + seconds - start  # the tag tells when the track ends


def is_short_riff(path: Path) -> bool:
    """Say whether a WAV or AVI file is shorter than its header states; FFmpeg goes by the file size."""
    with path.open("rb") as file:
        head = file.read(8)
    size = int.from_bytes(head[4:8], "little")
    # Sizes 0 and 2**32 - 1 come from writers that could not go back; the last pad byte is often forgotten.
    return head[:4] == b"RIFF" and 0 < size < 2**32 - 1 and path.stat().st_size < size + 8 - 1
