"""Parts of sound files, against reading them whole."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from avsep_zoo.errors import MediaError
from avsep_zoo.media import read_audio, read_excerpt
from avsep_zoo.media.audio import open_audio

RATE = 16000


def noise(seconds: float, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (0.2 * rng.standard_normal((channels, int(seconds * RATE)))).astype(np.float32)


def write(path: Path, codec: str, sound: np.ndarray, rate: int = RATE, late: float = 0.0, **options: str) -> Path:
    """Encode (channels, samples) at ``rate``, the first sample at ``late`` seconds; with pictures at time 0 if late."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.codec_context.layout = "stereo" if len(sound) == 2 else "mono"
        if late:
            pictures = container.add_stream("mpeg4", rate=1)
            pictures.width = pictures.height = 16
            pictures.pix_fmt = "yuv420p"
            for number in range(4):
                picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
                picture.pts = number
                container.mux(pictures.encode(picture))
            container.mux(pictures.encode(None))
        frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="stereo" if len(sound) == 2 else "mono")
        frame.sample_rate, frame.pts = rate, int(late * rate)
        resampler = av.AudioResampler(
            format=stream.codec_context.format, rate=rate, frame_size=stream.codec_context.frame_size or 1024
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


FILES = {
    "aac.mp4": ("aac", {"aac_pns": "0"}),  # noise substitution is drawn anew by every decoding
    "aac.mkv": ("aac", {"aac_pns": "0"}),
    "aac.ts": ("aac", {"aac_pns": "0"}),
    "opus.mkv": ("libopus", {}),
    "opus.ogg": ("libopus", {}),
    "mp3.mp3": ("libmp3lame", {}),
    "flac.flac": ("flac", {}),
    "flac.mkv": ("flac", {}),
    "pcm.mov": ("pcm_s16le", {}),
    "pcm.wav": ("pcm_s16le", {}),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("channels", [1, 2])
def test_parts_are_those_of_the_whole_sound(tmp_path: Path, name: str, channels: int) -> None:
    codec, options = FILES[name]
    rate = 48000 if codec == "libopus" else RATE
    path = write(tmp_path / name, codec, noise(6, channels), rate, **options)
    whole, _ = read_audio(path)
    end = whole.shape[1] / rate
    for start in (0.0, 0.3, 1.01, end / 2, end - 0.2):
        part, got = read_excerpt(path, start, 0.7)
        first = int(start * rate)
        assert got == rate and part.dtype == np.float32
        wanted = whole[:, first : first + int(np.ceil(0.7 * rate))]
        assert part.shape == wanted.shape
        np.testing.assert_allclose(part, wanted, rtol=0, atol=1e-6)  # Opus rounds by what came before


def test_sound_that_begins_late_keeps_its_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", "pcm_s16le", noise(3), late=1.5)
    whole, _ = read_audio(path)
    assert not whole[:, : int(1.4 * RATE)].any()
    for start in (0.0, 1.2, 2.5):
        first = int(start * RATE)
        np.testing.assert_array_equal(read_excerpt(path, start, 0.5)[0], whole[:, first : first + RATE // 2])


def test_part_beyond_the_end_is_empty(tmp_path: Path) -> None:
    part, rate = read_excerpt(write(tmp_path / "a.mov", "pcm_s16le", noise(2)), 5.0, 1.0)
    assert part.shape == (1, 0) and rate == RATE


@pytest.mark.parametrize("seek", [0.0, 2.0])
def test_file_that_is_cut_off(tmp_path: Path, seek: float) -> None:
    """The index at its front announces more than there is."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("aac", rate=RATE)
        stream.codec_context.layout = "mono"
        frame = av.AudioFrame.from_ndarray(noise(6), format="fltp", layout="mono")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert open_audio(path).duration == pytest.approx(6, abs=0.1)
    assert read_excerpt(path, seek, 0.5)[0].shape == (1, RATE // 2)
    with pytest.raises(MediaError, match=r"(cut off after|damaged near) .* s.*; replace it"):
        read_excerpt(path, seek, 4.0)


def test_video_without_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    for start in (0.0, 3.0):
        with pytest.raises(MediaError, match="has no audio track"):
            read_excerpt(path, start, 1.0)


def test_sound_with_nan(tmp_path: Path) -> None:
    import soundfile

    path = tmp_path / "a.w64"
    soundfile.write(path, np.where(np.arange(3 * RATE) == 2 * RATE, np.nan, 0.1).astype(np.float32), RATE, "FLOAT")
    with pytest.raises(MediaError, match="NaN or infinity"):
        read_excerpt(path, 1.5, 1.0)
