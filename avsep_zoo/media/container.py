"""Opening media files: what is in them, and where their time begins.

Seconds of a file are counted from the container's start time (MPEG-TS clocks, the encoder delay of MP3), so
sound and pictures of one file share one clock. A start less than 1 s below 0 is encoder priming: there time
begins at 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer
from av.frame import Frame
from av.stream import Disposition, Stream

from avsep_zoo.errors import MediaError

__all__ = ["AudioInfo", "MediaInfo", "VideoInfo", "probe"]

# FFmpeg's text-art demuxers take any .txt or .bin file for a video.
TEXT_ART = frozenset({"tty", "bin", "xbin", "adf", "idf"})


@dataclass(frozen=True)
class AudioInfo:
    """Sample rate in Hz, number of channels and FFmpeg's name of their layout."""

    rate: int
    channels: int
    layout: str


@dataclass(frozen=True)
class VideoInfo:
    """Width and height in pixels as shown (rotation applied), and mean frames per second where known."""

    width: int
    height: int
    fps: float | None


@dataclass(frozen=True)
class MediaInfo:
    """What a media file holds: ``duration`` is what the container announces, in seconds.

    ``video`` is None where there is no video track, or none of which a frame can be decoded.
    """

    path: Path
    duration: float | None
    audio: AudioInfo | None
    video: VideoInfo | None


def open_container(path: str | Path) -> InputContainer:
    """Open a local media file with FFmpeg.

    Raises:
        MediaError: the file is missing, is not a regular file, or FFmpeg cannot read it.
    """
    file = Path(path)
    if not file.exists():
        raise MediaError(f"The file {path} does not exist; check the path.")
    if file.is_dir():
        raise MediaError(f"{path} is a directory; give a media file.")
    if not file.is_file():
        raise MediaError(f"{path} is not a regular file; save the stream to a file first.")
    try:
        # An absolute path, so that FFmpeg does not take "a:b.wav" for a protocol.
        container = av.open(str(file.absolute()), metadata_errors="replace")
    except av.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        raise MediaError(f"{path} is no media file ({reason}); give a file FFmpeg can read.") from None
    if container.format.name in TEXT_ART or not (container.streams.audio or container.streams.video):
        container.close()
        raise MediaError(f"{path} holds neither sound nor pictures; give a file FFmpeg can read.")
    return container


def origin(container: InputContainer) -> float:
    """Return the timestamp, in seconds, at which the time of the file begins."""
    start = (container.start_time or 0) / av.time_base
    return 0.0 if -1 < start < 0 else start


def audio_stream(container: InputContainer) -> av.AudioStream | None:
    """Return the audio track FFmpeg would play, or None."""
    stream = container.streams.best("audio")
    return stream if isinstance(stream, av.AudioStream) else None


def video_stream(container: InputContainer) -> av.VideoStream | None:
    """Return the video track FFmpeg would show, or None; a cover picture of a sound file is not a video."""
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream) or stream.disposition & Disposition.attached_pic:
        return None
    return stream


def frames(container: InputContainer, stream: Stream) -> Iterator[Frame | None]:
    """Decode ``stream`` from the current position; None stands for data that could not be decoded."""
    try:
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                yield None
                continue
            yield from (frame for frame in decoded if isinstance(frame, Frame))
    except av.FFmpegError:
        yield None


def probe(path: str | Path) -> MediaInfo:
    """Say what a media file holds; the first picture is decoded, the sound is not.

    Raises:
        MediaError: the file is missing or FFmpeg cannot read it.
    """
    from avsep_zoo.media.video import VideoSource

    with open_container(path) as container:
        duration = None if container.duration is None else container.duration / av.time_base
        sound = audio_stream(container)
        audio = None
        if sound is not None:
            layout = sound.codec_context.layout
            audio = AudioInfo(sound.codec_context.sample_rate, layout.nb_channels, layout.name)
        has_video = video_stream(container) is not None
    if not has_video:
        return MediaInfo(Path(path), duration, audio, None)
    try:
        with VideoSource(path) as source:
            return MediaInfo(Path(path), duration, audio, source.info)
    except MediaError:
        return MediaInfo(Path(path), duration, audio, None)
