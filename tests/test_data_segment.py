"""Segments of sound: cut, resampled, padded, from files of any kind, and by the rules of published loaders."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from avsep_zoo.data.clip import Clip
from avsep_zoo.data.segment import clip_seconds, published_segment, read_segment, seconds
from avsep_zoo.errors import DataError

RATE, LENGTH = 1000, 401


def write(path: Path, sound: np.ndarray, rate: int = RATE, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, sound, rate, subtype)
    return path


def sine(frequency: float, seconds: float, rate: int = 11025) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def ramp(samples: int) -> np.ndarray:
    """Every sample tells its place."""
    return np.arange(1, samples + 1, dtype=np.float32) / 10000


def write_m4a(path: Path, sound: np.ndarray, rate: int) -> Path:
    """AAC without noise substitution, which every decoding draws anew."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=rate, options={"aac_pns": "0"})
        stream.codec_context.layout = "mono"
        frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        for packets in (stream.encode(frame), stream.encode(None)):
            container.mux(packets)
    return path


def test_segment_is_cut_resampled_and_padded(tmp_path: Path) -> None:
    """A second of 440 Hz after a second of silence, in the left of two channels."""
    left = np.concatenate([np.zeros(22050, np.float32), sine(440, 1, 22050)])
    path = write(tmp_path / "a.wav", np.stack([left, np.zeros_like(left)], axis=1), 22050)
    expected = np.concatenate([np.zeros(4000), sine(440, 1, 8000) / 2, np.zeros(4000)])
    got = read_segment(path, 8000, 16000, 0.5)
    assert got.dtype == np.float32
    assert np.abs(got - expected).mean() < 1e-3
    assert np.abs(got[12100:]).max() == 0
    assert not read_segment(path, 8000, 100, 5.0).any()


def test_segment_that_begins_before_the_sound(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", ramp(300))
    got = read_segment(path, RATE, LENGTH, -0.15)
    assert not got[:150].any()
    assert np.array_equal(got[150:], ramp(251))


def test_sound_after_the_end_of_a_clip_is_left_out(tmp_path: Path) -> None:
    got = read_segment(write(tmp_path / "a.wav", ramp(3000)), RATE, LENGTH, 1.0, end=1.2)
    assert np.array_equal(got[:200], ramp(3000)[1000:1200])
    assert not got[202:].any()


def test_speed_raises_pitch_and_tempo(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sine(440, 2), 11025)
    fast = read_segment(path, 8000, 16000, 0.0, speed=1.25)
    assert int(np.abs(np.fft.rfft(fast[:8000])).argmax()) == 550
    assert np.abs(fast[: int(8000 / 1.25 * 2) - 50]).max() > 0.2
    assert np.abs(fast[int(8000 / 1.25 * 2) + 50 :]).max() < 0.01


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_samples_are_those_of_the_file(tmp_path: Path, subtype: str) -> None:
    """16-bit files take a faster way to the same numbers."""
    noise = np.random.default_rng(0).uniform(-1, 1, (3000, 2))
    path = write(tmp_path / "a.wav", noise, subtype=subtype)
    stored = soundfile.read(path, dtype="float32")[0].mean(axis=1)
    assert np.array_equal(read_segment(path, RATE, LENGTH, 1.0), stored[1000 : 1000 + LENGTH])


def test_sound_of_a_video_is_that_of_the_whole_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write_m4a(tmp_path / "a.mp4", (0.2 * rng.standard_normal(5 * 8000)).astype(np.float32), 8000)
    whole = read_segment(path, 8000, 5 * 8000, 0.0)
    assert np.array_equal(read_segment(path, 8000, 4000, 3.5), whole[28000:32000])
    assert seconds(path) == pytest.approx(5, abs=0.2)
    assert not read_segment(path, 8000, 100, 50.0).any()


def test_duration_follows_a_file_that_changes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", ramp(300))
    assert seconds(path) == 0.3
    write(path, ramp(400))
    os.utime(path, ns=(1, 1))
    assert seconds(path) == 0.4


def test_clip_within_its_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", ramp(3000))
    assert clip_seconds(Clip("a", path, start=1.0)) == 2.0
    assert clip_seconds(Clip("a", path, start=1.0, duration=0.5)) == 0.5
    with pytest.raises(DataError, match=r"ends at 3\.00 s, before clip 'a' begins at 4\.00 s"):
        clip_seconds(Clip("a", path, start=4.0))


def broken(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.wav"
    if kind == "text":
        path.write_bytes(b"RIFF of nothing")
    elif kind == "nothing":
        path.touch()
    elif kind == "empty":
        write(path, np.zeros(0))
    elif kind == "nan":
        write(path, np.where(np.arange(900) == 300, np.nan, 0.1))
    elif kind == "cut":
        write(path, ramp(900))
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "folder":
        path.mkdir()
    elif kind == "video":
        path = write_m4a(folder / "cut.mp4", np.full(40000, 0.1, np.float32), 8000)
        path.write_bytes(path.read_bytes()[:400])
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"missing\.wav' cannot be read \(No such file"),
        ("text", "cannot be read"),
        ("nothing", "cannot be read"),
        ("folder", "cannot be read"),
        ("video", "cannot be read"),
        ("empty", "is empty"),
        ("nan", "holds NaN or infinity"),
        ("cut", "is shorter than its header says"),
    ],
)
def test_sounds_that_cannot_be_used(tmp_path: Path, kind: str, message: str) -> None:
    path = broken(tmp_path, kind)
    with pytest.raises(DataError, match=message):
        read_segment(path, RATE, LENGTH, 0.0)
    if kind != "nan":
        with pytest.raises(DataError, match=message):
            published_segment(path, rate=RATE, length=LENGTH, centre=0.2)


def published(path: Path, centre: float, length: int = LENGTH, rate: int = RATE) -> np.ndarray:
    return published_segment(path, rate=rate, length=length, centre=centre)


def test_published_segment_leaves_the_last_of_odd_samples_silent(tmp_path: Path) -> None:
    path, wave = write(tmp_path / "a.wav", ramp(3000)), ramp(3000)
    odd = published(path, 1.5)
    assert np.array_equal(odd[:-1], wave[1300:1700]) and odd[-1] == 0
    assert np.array_equal(published(path, 1.5, length=400), wave[1300:1700])


def test_published_segment_over_an_end_keeps_its_time(tmp_path: Path) -> None:
    path, wave = write(tmp_path / "a.wav", ramp(3000)), ramp(3000)
    start = published(path, 0.05)
    assert start[:150].max() == 0 and np.array_equal(start[150:-1], wave[:250])
    end = published(path, 2.9)
    assert np.array_equal(end[:300], wave[2700:]) and end[300:].max() == 0
    with pytest.raises(DataError, match=r"ends at 3.00 s, before its segment around 3.30 s"):
        published(path, 3.3)


def test_published_segment_repeats_a_short_sound(tmp_path: Path) -> None:
    got = published(write(tmp_path / "a.wav", ramp(150)), 0.2)
    assert np.array_equal(got[:400], np.tile(ramp(150), 3)[:400])


def test_published_segment_takes_a_slow_file_for_one_at_the_rate(tmp_path: Path) -> None:
    """99 Hz at 990 Hz are heard as 100 Hz; read rightly they stay 99."""
    path = write(tmp_path / "a.wav", np.sin(2 * np.pi * 99 * np.arange(990 * 4) / 990).astype(np.float32), 990)
    for got, hertz in ((published(path, 2.0, 2001), 100.0), (read_segment(path, RATE, 2001, 1.0), 99.0)):
        assert np.abs(np.fft.rfft(got[:2000])).argmax() / 2 == hertz
    assert (seconds(path), seconds(path, RATE)) == (4.0, 3.96)


def test_published_segment_of_a_slow_file_at_its_own_rate(tmp_path: Path) -> None:
    """99 Hz stay 99, and a sound of half a segment is repeated to its full length at the rate that is wanted."""
    path = write(tmp_path / "a.wav", np.sin(2 * np.pi * 99 * np.arange(990) / 990).astype(np.float32), 990)
    got = published_segment(path, rate=RATE, length=2001, centre=1.0, assume_rate=False)
    assert np.abs(np.fft.rfft(got[:2000])).argmax() / 2 == 99
    assert np.abs(got[1900:2000]).max() > 0.9


def test_published_segment_of_a_short_sound_padded(tmp_path: Path) -> None:
    """Silence after it where the segment begins with it, and on both sides where it lies in the middle."""
    path = write(tmp_path / "a.wav", ramp(150))
    for centre, place in ((0.2, 0), (0.075, 125)):
        got = published_segment(path, rate=RATE, length=LENGTH, centre=centre, repeat=False)
        assert np.array_equal(np.flatnonzero(got), np.arange(place, place + 150))


def test_pipe_is_no_sound(tmp_path: Path) -> None:
    """It would be waited for, for ever."""
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(DataError, match="cannot be read"):
        seconds(tmp_path / "a.wav")


def test_published_segment_resamples_a_fast_file_as_librosa_does(tmp_path: Path) -> None:
    import librosa

    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 22050 * 2).astype(np.float32)
    path = write(tmp_path / "a.wav", wave, 22050)
    resampled = librosa.resample(wave, orig_sr=22050, target_sr=11025)
    got = published(path, 1.0, length=11025, rate=11025)
    assert np.array_equal(got[:-1], resampled[5513 : 5513 + 11024].clip(-1, 1))


def test_published_segment_is_the_mean_of_the_channels_clipped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.stack([np.full(1000, 2.5), np.full(1000, 0.1)], axis=1))
    assert published(path, 0.5)[:-1] == pytest.approx(1.0)
    assert read_segment(path, RATE, LENGTH, 0.1) == pytest.approx(1.3)


def test_published_silence() -> None:
    assert not published(Path("cello/silent"), 1.0).any()


def test_reading_warns_of_nothing(tmp_path: Path) -> None:
    """A warning per item would fill the screen."""
    path = write_m4a(tmp_path / "a.mp4", sine(440, 3, 8000), 8000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert published(path, 1.0, rate=8000).any()
