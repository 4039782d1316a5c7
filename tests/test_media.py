"""Media in and out, on small files that FFmpeg and libsndfile encode here."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from avsep_zoo.errors import MediaError
from avsep_zoo.media import (
    VideoSource,
    open_audio,
    probe,
    read_audio,
    read_frames,
    video,
)

RATE = 48000
FPS = 25


def noise(channels: int, samples: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (channels, samples)).astype(np.float32)


def click(seconds: float, at: float, rate: int = RATE) -> np.ndarray:
    """A stereo click on a faint tone: (2, samples)."""
    x = 0.01 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    x[round(at * rate)] = 0.9
    return np.stack([x, x]).astype(np.float32)


def grey_of(index: int) -> int:
    return 20 + (index * 53) % 200


def encode(
    path: Path,
    *,
    audio: np.ndarray | None = None,
    audio_at: float = 0.0,
    codec: str = "aac",
    frames: int = 0,
    video_codec: str = "libx264",
    gop: int = 10,
    rotation: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode stereo sound from ``audio_at`` seconds on, and grey frames whose value tells the index."""
    with av.open(str(path), "w", options=options or {}) as container:
        if frames:
            pictures = container.add_stream(video_codec, rate=FPS)
            pictures.width, pictures.height, pictures.pix_fmt, pictures.gop_size = 64, 48, "yuv420p", gop
            if rotation:
                pictures.set_display_rotation(rotation)
        if audio is not None:
            sound = container.add_stream(codec, rate=RATE, layout="stereo")
        for index in range(frames):
            picture = np.full((48, 64, 3), grey_of(index), np.uint8)
            picture[:12, :16] = 255  # marks the top left corner
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(pictures.encode(frame))
        if frames:
            container.mux(pictures.encode())
        if audio is not None:
            block = av.AudioFrame.from_ndarray(audio, format="fltp", layout="stereo")
            block.sample_rate, block.pts, block.time_base = RATE, round(audio_at * RATE), Fraction(1, RATE)
            container.mux(sound.encode(block))
            container.mux(sound.encode())
    return path


def greys(pictures: np.ndarray) -> np.ndarray:
    return pictures[:, 24:, 32:].mean(axis=(1, 2, 3))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 s of H.264 and AAC; the click is at 0.5 s."""
    return encode(tmp_path_factory.mktemp("clip") / "clip.mp4", audio=click(4, 0.5), frames=100)


@pytest.mark.parametrize(
    ("rate", "channels", "subtype"),
    [
        (8000, 1, "PCM_16"),
        (96000, 2, "PCM_24"),
        (48000, 6, "FLOAT"),
        (44100, 16, "PCM_16"),
        (8000, 1, "PCM_U8"),
    ],
)
def test_wav_files_are_read_at_their_own_rate_and_channels(
    tmp_path: Path, rate: int, channels: int, subtype: str
) -> None:
    path = tmp_path / "a:b ü.wav"  # FFmpeg takes "a:" for a protocol in a bare name
    soundfile.write(path, noise(channels, 5001).T, rate, subtype=subtype)
    x, got = read_audio(str(path))
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    assert got == rate and x.dtype == np.float32
    np.testing.assert_array_equal(x, expected.T)
    info = probe(path)
    assert info.audio is not None and (info.audio.rate, info.audio.channels) == (rate, channels)
    assert info.video is None and info.duration == pytest.approx(5001 / rate, abs=1e-5)


def test_a_file_of_one_sample(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "one.wav", [0.25], 8000)
    assert read_audio(tmp_path / "one.wav")[0].tolist() == [[0.25]]


def test_a_file_with_sound_and_pictures(clip: Path) -> None:
    info = probe(clip)
    assert info.audio is not None and (info.audio.rate, info.audio.channels, info.audio.layout) == (
        RATE,
        2,
        "stereo",
    )
    assert info.video is not None and (info.video.width, info.video.height, info.video.fps) == (64, 48, 25.0)
    assert info.duration == pytest.approx(4, abs=0.05)
    source = open_audio(clip)
    assert (source.rate, source.channels, source.samples) == (RATE, 2, None)
    assert source.duration == pytest.approx(4, abs=0.05)


@pytest.mark.parametrize(
    ("name", "codec", "frames"),
    [("a.mp4", "aac", 50), ("a.mkv", "libopus", 50), ("a.m4a", "aac", 0), ("a.mp3", "libmp3lame", 0)],
)
def test_encoder_priming_is_left_out(tmp_path: Path, name: str, codec: str, frames: int) -> None:
    """The first sample read is the first sample encoded, whatever the codec put before it."""
    x, _ = read_audio(encode(tmp_path / name, audio=click(2, 0.5), codec=codec, frames=frames))
    assert abs(int(np.abs(x[0]).argmax()) - RATE // 2) <= RATE // 1000
    assert 0 <= x.shape[1] - 2 * RATE < 1024


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv"])
def test_a_track_that_starts_late_is_preceded_by_silence(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, audio=click(2, 0.5), audio_at=1.0, frames=75)
    x, _ = read_audio(path)
    assert abs(int(np.abs(x[0]).argmax()) - 3 * RATE // 2) <= RATE // 1000
    assert not x[:, : round(0.95 * RATE)].any()


def test_sound_and_pictures_of_a_transport_stream_share_one_clock(tmp_path: Path) -> None:
    """MPEG-TS begins at some time of its own, and its AAC keeps the priming."""
    path = encode(tmp_path / "a.ts", audio=click(2, 0.5), frames=50)
    x, _ = read_audio(path)
    with av.open(str(path)) as container:
        shift = (container.streams.video[0].start_time or 0) / 90000 - (container.start_time or 0) / 1e6
    assert shift > 0
    assert np.abs(x[0]).argmax() / RATE == pytest.approx(0.5 + shift, abs=1e-3)
    times = np.arange(50) / FPS + shift
    np.testing.assert_allclose(greys(read_frames(path, times)), [grey_of(i) for i in range(50)], atol=3)


def test_a_gap_between_timestamps_is_silence(tmp_path: Path) -> None:
    x = noise(2, RATE)
    with av.open(str(tmp_path / "gap.mkv"), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=RATE, layout="stereo")
        for start, pts in ((0, 0), (RATE // 2, RATE)):
            samples = np.ascontiguousarray(x[:, start : start + RATE // 2].T.reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = RATE, pts, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    y, _ = read_audio(tmp_path / "gap.mkv")
    silence = np.zeros((2, RATE // 2), np.float32)
    np.testing.assert_array_equal(y, np.concatenate([x[:, : RATE // 2], silence, x[:, RATE // 2 :]], axis=1))


@pytest.mark.parametrize("block", [1000, 1024, 4099, 10**7])
def test_blocks_add_up_to_the_whole(clip: Path, block: int) -> None:
    for source in (open_audio(clip), open_audio(noise(2, 9999), rate=8000)):
        blocks = list(source.blocks(block))
        assert {b.shape[1] for b in blocks[:-1]} <= {block} and 0 < blocks[-1].shape[1] <= block
        assert all(b.dtype == np.float32 and b.flags.c_contiguous for b in blocks)
        np.testing.assert_array_equal(np.concatenate(blocks, axis=1), source.read())


def test_blocks_do_not_share_memory_with_the_array() -> None:
    x = noise(1, 100)
    for block in open_audio(x, rate=8000).blocks(100):
        block[:] = 0
    assert x.all()


def test_arrays_and_tensors() -> None:
    x = noise(2, 100)
    for media in (x, x.astype(np.float64), torch.tensor(x, requires_grad=True)):
        y, rate = read_audio(media, 8000)
        assert rate == 8000
        np.testing.assert_array_equal(y, x)
    assert read_audio(torch.zeros(5, dtype=torch.bfloat16), 8000)[0].shape == (1, 5)
    assert open_audio(x, rate=8000).samples == 100 and open_audio(x, rate=8000).duration == 0.0125


@pytest.mark.parametrize(
    ("media", "rate", "message"),
    [
        (np.zeros((1, 2, 3)), 8000, r"shape \(1, 2, 3\)"),
        (np.zeros((1000, 2)), 8000, "transpose"),
        (np.zeros((2, 0)), 8000, "no samples"),
        (np.zeros(9, np.int16), 8000, "int16"),
        ([0.0, 1.0], 8000, "list"),
        (np.zeros(9), None, "without a sample rate"),
        (np.zeros(9), 0, "sample rate is 0"),
        (np.zeros(9), -1, "sample rate is -1"),
        (np.zeros(9), 44100.5, "44100.5"),
        (np.array([[0, 1, 2], [0, np.nan, np.inf]]), 8000, "2 samples .* channel 1 at sample 1"),
    ],
)
def test_arrays_that_are_no_sound(media: object, rate: int | None, message: str) -> None:
    with pytest.raises(MediaError, match=message):
        open_audio(media, rate=rate)  # type: ignore[arg-type]


def test_nan_in_a_file(tmp_path: Path) -> None:
    x = noise(2, 20000)
    x[1, 12345] = np.nan
    soundfile.write(tmp_path / "nan.wav", x.T, 8000, subtype="FLOAT")
    with pytest.raises(MediaError, match=r"1 samples .* channel 1 at sample 12345"):
        read_audio(tmp_path / "nan.wav")


def test_files_that_cannot_be_read(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "text.wav").write_text("This is no sound. " * 50)
    (tmp_path / "notes.txt").write_text("FFmpeg would show this as a video of text. " * 50)
    (tmp_path / "empty.wav").touch()
    # The index of this file is at its end, which is missing.
    (tmp_path / "headless.mp4").write_bytes(clip.read_bytes()[:-3000])
    soundfile.write(tmp_path / "silent.wav", np.zeros((0, 2)), 8000)
    encode(tmp_path / "mute.mp4", frames=5)
    for name, message in {
        "missing.wav": "does not exist",
        "": "is a directory",
        "text.wav": "is no media file .* give a file FFmpeg can read",
        "notes.txt": "neither sound nor pictures",
        "empty.wav": "is no media file",
        "headless.mp4": "is no media file",
        "silent.wav": "is empty|is no media file",
        "mute.mp4": "has no audio track",
    }.items():
        with pytest.raises(MediaError, match=message) as caught:
            open_audio(tmp_path / name)
        assert name in str(caught.value) and str(caught.value).count(". ") == 0
    with pytest.raises(MediaError, match="leave it out"):
        open_audio(clip, rate=8000)
    soundfile.write(tmp_path / "sound.wav", np.zeros(9), 8000)
    with pytest.raises(MediaError, match="no video track"):
        VideoSource(tmp_path / "sound.wav")


def test_a_sound_that_changes_its_format_on_the_way(tmp_path: Path) -> None:
    parts = []
    for channels, rate in ((1, 48000), (2, 44100)):
        soundfile.write(tmp_path / "part.flac", np.zeros((rate, channels)), rate)
        parts.append((tmp_path / "part.flac").read_bytes())
    (tmp_path / "both.flac").write_bytes(b"".join(parts))
    with pytest.raises(MediaError, match=r"1-channel, 48000 Hz to 2-channel, 44100 Hz after 1\.00 s"):
        read_audio(tmp_path / "both.flac")


@pytest.mark.parametrize("name", ["cut.wav", "cut.flac", "cut.mp4", "cut.mkv"])
def test_a_file_that_was_cut_off_gives_what_is_there_and_warns(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix in (".wav", ".flac"):
        soundfile.write(path, noise(2, 2 * RATE).T, RATE)
    else:
        encode(path, audio=noise(2, 2 * RATE), frames=50, options={"movflags": "faststart"})
    whole, _ = read_audio(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    source = open_audio(path)
    with pytest.warns(UserWarning, match=r"is cut off or damaged: [01]\.\d\d s of sound") as warned:
        part = source.read()
    assert len(warned) == 1
    samples = part.shape[1] - 2048  # the last frames may lack their neighbour
    assert 0.3 * whole.shape[1] < samples < 0.7 * whole.shape[1]
    np.testing.assert_array_equal(part[:, :samples], whole[:, :samples])


def test_a_damaged_packet_does_not_shift_what_follows(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.m4a", audio=click(2, 1.5))
    whole, _ = read_audio(path)
    with av.open(str(path)) as container:
        packet = [(p.pos, p.size, p.pts) for p in container.demux(audio=0) if p.size][40]
    content = bytearray(path.read_bytes())
    content[packet[0] : packet[0] + packet[1]] = b"\xff" * packet[1]
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        damaged, _ = read_audio(path)
    assert damaged.shape == whole.shape
    np.testing.assert_array_equal(damaged[:, : packet[2] - 1024], whole[:, : packet[2] - 1024])
    np.testing.assert_array_equal(damaged[:, packet[2] + 4096 :], whole[:, packet[2] + 4096 :])


@pytest.mark.parametrize(
    ("name", "codec", "gop"), [("v.mp4", "libx264", 10), ("v.mkv", "libx264", 250), ("v.mp4", "mpeg4", 25)]
)
def test_frames_are_those_shown_at_the_time(tmp_path: Path, name: str, codec: str, gop: int) -> None:
    """Dense, sparse, unordered, repeated and out-of-range times; at once and chunk by chunk."""
    path = encode(tmp_path / name, frames=150, video_codec=codec, gop=gop)
    rng = np.random.default_rng(1)
    for times in (
        np.arange(150) / FPS,
        rng.uniform(-1, 7, 60),
        np.array([5.5, 0.2, 3.1, 3.1, 5.99, 0.0]),
        np.array([-5.0, 99.0]),
        np.arange(150) / FPS + 0.039,
    ):
        index = np.clip(np.floor(times * FPS + 1e-3), 0, 149).astype(int)
        pictures = read_frames(path, times)
        assert pictures.shape == (len(times), 48, 64, 3) and pictures.dtype == np.uint8
        np.testing.assert_allclose(greys(pictures), [grey_of(i) for i in index], atol=5)
        with VideoSource(path) as source:
            chunks = [source.frames_at(times[i : i + 4]) for i in range(0, len(times), 4)]
        np.testing.assert_array_equal(np.concatenate(chunks), pictures)


@pytest.mark.parametrize("gop", [10, 250])
def test_chunks_in_increasing_time_decode_each_frame_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gop: int
) -> None:
    path = encode(tmp_path / "v.mp4", frames=250, gop=gop)
    decoded = 0
    original = video.frames

    def counted(*args: object) -> object:
        nonlocal decoded
        for frame in original(*args):  # type: ignore[arg-type]
            decoded += 1
            yield frame

    monkeypatch.setattr(video, "frames", counted)
    with VideoSource(path) as source:
        for start in range(10):
            source.frames_at([start, start + 0.5])
    assert decoded <= 250
    decoded = 0
    with VideoSource(path) as source:
        source.frames_at([8.0])
    assert decoded <= (30 if gop == 10 else 250)  # a far time is sought


def test_sound_beside_pictures_that_cannot_be_decoded(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mp4", audio=click(2, 0.5), frames=50)
    whole, _ = read_audio(path)
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    content = bytearray(path.read_bytes())
    for position, size in packets:
        content[position : position + size] = bytes(size)
    path.write_bytes(content)
    with pytest.raises(MediaError, match="no frame that can be decoded"):
        VideoSource(path)
    assert probe(path).video is None
    np.testing.assert_array_equal(read_audio(path)[0], whole)


def test_rotation_in_the_file_is_applied(tmp_path: Path) -> None:
    """The white corner goes from top left to bottom left when the file says 90 degrees counter-clockwise."""
    path = encode(tmp_path / "v.mp4", frames=5, rotation=90)
    info = probe(path).video
    assert info is not None and (info.width, info.height) == (48, 64)
    picture = read_frames(path, [0.1])[0]
    assert picture.shape == (64, 48, 3)
    assert picture[-8:, :6].min() > 200 and picture[:8].max() < 200


def test_a_picture_file_has_one_frame(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (30, 50, 3)).astype(np.uint8)
    av.VideoFrame.from_ndarray(picture, format="rgb24").to_image().save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_frames(tmp_path / "p.png", [0, 3.5]), [picture, picture])
    assert probe(tmp_path / "p.png").audio is None


def test_frame_times_are_finite(clip: Path) -> None:
    with pytest.raises(MediaError, match="NaN or infinity"):
        read_frames(clip, [0.0, float("nan")])
    assert read_frames(clip, []).shape == (0, 48, 64, 3)
