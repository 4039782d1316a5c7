"""Part of a sound file: sought, so that what lies before it is not decoded."""

from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer

from avsep_zoo.errors import MediaError
from avsep_zoo.media.audio import CUT_SECONDS, JITTER_SECONDS, RESET_SECONDS, announced_seconds
from avsep_zoo.media.container import audio_stream, frames, open_container, origin

__all__ = ["read_excerpt"]

# Decoding begins this much early: a codec needs what came before to give the same samples (Opus: 80 ms, MP3: the
# bit reservoir), and a seek must not land on the priming at the start of a file.
LEAD_SECONDS = 0.5


def read_excerpt(path: str | Path, start: float, seconds: float) -> tuple[np.ndarray, int]:
    """Read part of a sound: the samples that :func:`~avsep_zoo.media.read_audio` gives from ``start`` on.

    Args:
        path: a media file.
        start: of the part, in seconds, at least 0; it begins with sample ``int(start * rate)``.
        seconds: length of the part, rounded up to samples.

    Returns:
        (channels, samples) float32, shorter at the end of the sound, and the rate in Hz. Codecs that fill in noise
        draw it anew; where timestamps are coarser than samples and blocks differ in length (Vorbis in Matroska),
        the part is placed as exactly as they say.

    Raises:
        MediaError: the file cannot be read or has no sound, is cut off or damaged in this part, changes its rate or
            channels there, or holds NaN or infinity.
    """
    excerpt = None
    if start > 2 * LEAD_SECONDS:
        with open_container(path) as container:
            excerpt = _Excerpt(container, path, start, seconds).read(seek=True)
    if excerpt is None:
        with open_container(path) as container:
            excerpt = _Excerpt(container, path, start, seconds).read(seek=False)
    assert excerpt is not None
    if not np.isfinite(excerpt[0]).all():
        raise MediaError(f"The sound of {path} holds NaN or infinity; replace it.")
    return excerpt


class _Excerpt:
    """One part of an open file, on its way."""

    def __init__(self, container: InputContainer, path: str | Path, start: float, seconds: float) -> None:
        stream = audio_stream(container)
        if stream is None:
            raise MediaError(f"{path} has no audio track; give a file with sound.")
        self.container, self.stream, self.path, self.start, self.seconds = container, stream, path, start, seconds
        self.zero, self.tick = origin(container), float(stream.time_base or 0)  # seconds
        self.converter: av.AudioResampler | None = None

    def read(self, *, seek: bool) -> tuple[np.ndarray, int] | None:
        """Decode the part; None where a seek landed too late, or the file does not tell the time."""
        grid = self._seek() if seek else None
        if seek and grid is None:
            return None
        rate = channels = first = stop = position = 0
        chunks: list[tuple[int, np.ndarray]] = []  # place of the first sample, and (channels, n)
        for frame in frames(self.container, self.stream):
            if not isinstance(frame, av.AudioFrame):
                if seek and not rate:
                    return None
                raise MediaError(f"{self.path} is damaged near {position / max(rate, 1):.2f} s; replace it.")
            if frame.samples == 0:
                continue
            time = None if frame.time is None else frame.time - self.zero
            if not rate:
                rate, channels = frame.sample_rate, frame.layout.nb_channels
                first = int(self.start * rate)
                stop = first + math.ceil(self.seconds * rate)
                if grid is not None:
                    if time is None or time > self.start - LEAD_SECONDS / 2:
                        return None
                    position = _snap(round(time * rate), *grid, self.tick * rate)
                else:
                    position = self._first_place(frame)
            elif (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
                raise MediaError(
                    f"The sound of {self.path} changes from {channels}-channel, {rate} Hz to "
                    f"{frame.layout.nb_channels}-channel, {frame.sample_rate} Hz after {position / rate:.2f} s; "
                    "convert it to one format with FFmpeg first."
                )
            elif time is not None and JITTER_SECONDS * rate < (gap := round(time * rate) - position):
                position += gap if gap <= RESET_SECONDS * rate else 0
            if position + frame.samples > first:
                chunks.append((position, self._samples(frame)))
            position += frame.samples
            if position >= stop:
                break
        if not rate:
            if seek:
                return None
            raise MediaError(f"The audio track of {self.path} is empty (0 samples decoded); give a file with sound.")
        stated = announced_seconds(self.container, self.stream)
        if stated is not None and position < min(stop, (stated - CUT_SECONDS) * rate):
            raise MediaError(f"{self.path} is cut off after {position / rate:.2f} s of {stated:.2f} s; replace it.")
        return _join(chunks, first, min(stop, position), channels), rate

    def _seek(self) -> tuple[int, int] | None:
        """Go before the part; return place and length of the blocks of samples where timestamps are coarse."""
        grid = (0, 0)
        if self.tick == 0:
            return None
        if self.tick * self.stream.codec_context.sample_rate > 1.5:
            decoded = frames(self.container, self.stream)
            two = [frame for frame, _ in zip(decoded, range(2), strict=False) if isinstance(frame, av.AudioFrame)]
            if len(two) == 2:
                grid = (self._first_place(two[0]) + two[0].samples, two[1].samples)
        try:
            target = self.start - LEAD_SECONDS + self.zero
            self.container.seek(int(target / self.tick), stream=self.stream)
        except av.FFmpegError:
            return None
        return grid

    def _first_place(self, frame: av.AudioFrame) -> int:
        """Place of the first frame of the file: where its timestamp says, if that is not merely rounded."""
        place = 0 if frame.time is None else round((frame.time - self.zero) * frame.sample_rate)
        return place if abs(place) > max(1, math.ceil(frame.sample_rate * self.tick)) else 0

    def _samples(self, frame: av.AudioFrame) -> np.ndarray:
        channels = frame.layout.nb_channels
        if frame.format.name == "fltp" and channels <= 8:  # PyAV crashes on planar frames of more channels
            return frame.to_ndarray()
        self.converter = self.converter or av.AudioResampler(format="flt")
        packed = [part.to_ndarray().reshape(-1, channels) for part in self.converter.resample(frame)]
        return np.concatenate(packed).T


def _snap(place: int, anchor: int, block: int, tick: float) -> int:
    """The beginning of a block that a timestamp rounded to ``tick`` samples means, or the place as it is."""
    if block == 0:
        return place
    near = anchor + round((place - anchor) / block) * block
    return near if abs(near - place) <= tick else place


def _join(chunks: list[tuple[int, np.ndarray]], first: int, stop: int, channels: int) -> np.ndarray:
    """Samples ``first`` to ``stop``; where there is no chunk they are silent."""
    out = np.zeros((channels, max(0, stop - first)), np.float32)
    for place, chunk in chunks:
        low, high = max(place, first), min(place + chunk.shape[1], stop)
        if high > low:
            out[:, low - first : high - first] = chunk[:, low - place : high - place]
    return out
