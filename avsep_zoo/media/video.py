"""Pictures in: the frames a video shows at given times, as uint8 RGB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from avsep_zoo.errors import MediaError
from avsep_zoo.media.container import VideoInfo, frames, open_container, origin, video_stream

__all__ = ["VideoSource", "read_frames"]

SAME_TIME = 1e-4  # seconds: the rounding of timestamps
FORWARD_SECONDS = 1.0  # up to here decoding forward beats seeking


TimedFrame = tuple[float, av.VideoFrame]


class VideoSource:
    """A video (or picture) file that stays open, to be asked for frames chunk after chunk.

    Args:
        path: a file FFmpeg reads.
        threads: that decode; 0 is as many as FFmpeg likes, 1 is best where every core has a process of its own.

    Attributes:
        info: size as shown, after the rotation in the file, and frames per second.

    Raises:
        MediaError: the file cannot be read, or has no video track or no frame that can be decoded.
    """

    _first: float  # time of the first frame
    _shown: TimedFrame  # the frame at the current position ...
    _next: TimedFrame | None  # ... and the one that follows it

    def __init__(self, path: str | Path, *, threads: int = 0) -> None:
        self.path, self._threads = Path(path), threads
        self._reformatter = VideoReformatter()  # one for all frames: setting up the conversion costs more than it
        # The longest way from a keyframe to the frame that was sought: what a seek costs, in seconds.
        self._seek_cost = FORWARD_SECONDS
        self._open()
        first, rate = self._shown[1], self._stream.average_rate
        self._coded_size = (first.width, first.height)
        self._quarter_turns = round(first.rotation / 90)  # counter-clockwise, as np.rot90
        width, height = self._coded_size if self._quarter_turns % 2 == 0 else self._coded_size[::-1]
        self.info = VideoInfo(width, height, float(rate) if rate else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    @property
    def ended(self) -> bool:
        """Whether the last frame was reached, which is shown at every later time."""
        return self._next is None

    def frames_at(self, times: Sequence[float]) -> np.ndarray:
        """Return the frames shown at ``times``, in the order asked: uint8 (K, height, width, 3), RGB.

        The frame at a time is the last one that began at or before it; times before the first or after the
        last frame get that frame. Near times are decoded forward, far ones sought, each frame once per call.

        Args:
            times: K finite times in seconds of the file, in any order.

        Raises:
            MediaError: a time is NaN or infinite.
        """
        wanted = np.asarray(times, dtype=np.float64).reshape(-1)
        if not np.isfinite(wanted).all():
            raise MediaError(f"The frame times of {self.path} hold NaN or infinity; give seconds.")
        pictures = np.empty((len(wanted), self.info.height, self.info.width, 3), np.uint8)
        last: tuple[av.VideoFrame, int] | None = None  # the frame converted last, and its row
        for row in np.argsort(wanted, kind="stable"):
            frame = self._frame_at(float(wanted[row]))
            if last is None or last[0] is not frame:
                pictures[row] = self._picture(frame)
                last = (frame, row)
            else:
                pictures[row] = pictures[last[1]]
        return pictures

    def _frame_at(self, time: float) -> av.VideoFrame:
        behind = time + SAME_TIME < self._shown[0] and self._shown[0] > self._first
        ahead = self._next is not None and time - self._next[0] > self._seek_cost
        if behind or ahead:
            self._seek(time)
        while self._next is not None and self._next[0] <= time + SAME_TIME:
            self._shown = self._next
            self._next = next(self._decoded, None)
        return self._shown[1]

    def _seek(self, time: float) -> None:
        """Go to a keyframe at or before ``time``; a seek may land late, so try earlier, then the start."""
        assert self._stream.time_base is not None
        for margin in (0.0, 10.0):
            target = time - margin + self._origin
            if target <= self._first + self._origin:
                break
            try:
                self._container.seek(int(target / self._stream.time_base), stream=self._stream)
            except av.FFmpegError:
                break
            if self._start(None) and self._shown[0] <= time + SAME_TIME:
                self._seek_cost = max(self._seek_cost, time - self._shown[0])
                return
        self._container.close()
        self._open()

    def _open(self) -> None:
        self._container = open_container(self.path)
        stream = video_stream(self._container)
        if stream is None:
            self._container.close()
            raise MediaError(f"{self.path} has no video track; give a video or a picture.")
        stream.thread_type, stream.thread_count = "AUTO", self._threads
        self._stream = stream
        self._origin = origin(self._container)
        if not self._start(0.0):
            self._container.close()
            raise MediaError(f"{self.path} has no frame that can be decoded; give a complete file.")
        self._first = self._shown[0]

    def _start(self, time: float | None) -> bool:
        """Decode the first two frames from the current position, at ``time``; False when there is none."""
        self._decoded = self._timed_frames(time)
        first = next(self._decoded, None)
        if first is None:
            return False
        self._shown = first
        self._next = next(self._decoded, None)
        return True

    def _timed_frames(self, time: float | None) -> Iterator[TimedFrame]:
        """Decode from the current position; frames without a timestamp follow at the mean frame rate."""
        period = 1 / float(self._stream.average_rate or 25)
        for frame in frames(self._container, self._stream):
            if not isinstance(frame, av.VideoFrame):
                continue
            if frame.time is not None:
                time = frame.time - self._origin
            if time is not None:
                yield time, frame
                time += period

    def _picture(self, frame: av.VideoFrame) -> np.ndarray:
        """Return (height, width, 3) as shown; a track that changes its size is scaled to its first frame."""
        width, height = self._coded_size
        shown = self._reformatter.reformat(frame, width, height, "rgb24")
        return np.rot90(shown.to_ndarray(), self._quarter_turns)


def read_frames(path: str | Path, times: Sequence[float]) -> np.ndarray:
    """Return the frames a video shows at ``times`` seconds: uint8 (K, height, width, 3), RGB.

    Raises:
        MediaError: as :class:`VideoSource` and :meth:`VideoSource.frames_at`.
    """
    with VideoSource(path) as video:
        return video.frames_at(times)
