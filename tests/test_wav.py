"""WAV files out: float blocks, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from avsep_zoo.errors import MediaError
from avsep_zoo.media import WavWriter, read_audio, wav, write_wav


def noise(channels: int, samples: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (channels, samples)).astype(np.float32)


def test_wav_writer_writes_float_blocks(tmp_path: Path) -> None:
    x = 3 * noise(2, 10000)  # beyond full scale, and exactly kept
    with WavWriter(tmp_path / "x.wav", 44100, 2) as writer:
        for start in range(0, 10000, 999):
            writer.write(x[:, start : start + 999])
        assert not (tmp_path / "x.wav").exists()
    info = soundfile.info(tmp_path / "x.wav")
    assert (info.subtype, info.format, info.samplerate) == ("FLOAT", "WAV", 44100)
    np.testing.assert_array_equal(read_audio(tmp_path / "x.wav")[0], x)
    assert [p.name for p in tmp_path.iterdir()] == ["x.wav"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", np.ones((1, 10), np.float32), 8000)
    before = (tmp_path / "x.wav").read_bytes()
    for block in (np.zeros((2, 5)), np.zeros(5)):
        with pytest.raises(ValueError, match="shape"), WavWriter(tmp_path / "x.wav", 8000, 1) as writer:
            writer.write(np.zeros((1, 5)))
            writer.write(block)
    with pytest.raises(KeyboardInterrupt), WavWriter(tmp_path / "y.wav", 8000, 1) as writer:
        writer.write(np.zeros((1, 5)))
        raise KeyboardInterrupt
    assert (tmp_path / "x.wav").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.wav"]


def test_a_sound_too_long_for_riff_becomes_rf64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wav, "RIFF_BYTES", 4 * 2 * 1500)
    x = noise(2, 4000)
    with WavWriter(tmp_path / "x.wav", 8000, 2) as writer:
        for start in range(0, 4000, 1000):
            writer.write(x[:, start : start + 1000])
    assert (tmp_path / "x.wav").read_bytes()[:4] == b"RF64"
    np.testing.assert_array_equal(read_audio(tmp_path / "x.wav")[0], x)
    assert [p.name for p in tmp_path.iterdir()] == ["x.wav"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    x = np.zeros((1, 5), np.float32)
    with pytest.raises(MediaError, match="create it first"):
        write_wav(tmp_path / "no" / "x.wav", x, 8000)
    with pytest.raises(MediaError, match="is a directory"):
        write_wav(tmp_path, x, 8000)
    with pytest.raises(MediaError, match="5000 channels"):
        write_wav(tmp_path / "x.wav", np.zeros((5000, 5), np.float32), 8000)
    assert list(tmp_path.iterdir()) == []
