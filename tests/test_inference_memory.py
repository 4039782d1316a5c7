"""Memory of a separation: long results move to temporary files, whatever the length of the recording."""

from __future__ import annotations

import gc
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avsep_zoo import inference
from avsep_zoo.errors import MediaError
from avsep_zoo.model import SeparationModel


def noise(channels: int, samples: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((channels, samples)) * 0.1).astype(np.float32)


def test_long_results_lie_in_temporary_files_that_vanish(
    tiny_model: SeparationModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the same as in memory, can be written to and saved, and nothing is left on the disk."""
    mixture = noise(2, 40000)
    short = tiny_model.separate(mixture, ["violin", "flute"], rate=8000)
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(inference, "_IN_MEMORY", 10000)
    long = tiny_model.separate(mixture, ["violin", "flute"], rate=8000)
    for a, b in zip([*short.tracks], [*long.tracks], strict=True):
        assert isinstance(b.waveform.base, np.memmap) or isinstance(b.waveform, np.memmap)
        np.testing.assert_array_equal(a.waveform, b.waveform)
        if a.mask is not None:
            np.testing.assert_array_equal(a.mask, b.mask)
    np.testing.assert_array_equal(long.mixture, mixture)
    long.save(tmp_path / "out")
    saved, _ = soundfile.read(tmp_path / "out" / "flute.wav", dtype="float32", always_2d=True)
    np.testing.assert_array_equal(saved.T, long.stem("flute").waveform)
    long.stems[0].waveform[:] *= 0.5
    short.stems[0].waveform[:] *= 0.5
    np.testing.assert_array_equal(short.stems[0].waveform, long.stems[0].waveform)
    assert not list(folder.iterdir())
    del long, b
    gc.collect()  # an unclosed file would warn here


def test_full_disk(tiny_model: SeparationModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(inference, "_IN_MEMORY", 10000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100000, limits[1]))
    try:
        with pytest.raises(MediaError, match="set TMPDIR"):
            tiny_model.separate(noise(1, 60000), "violin", rate=8000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_memory_does_not_grow_with_the_length(
    tiny_model: SeparationModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What NumPy holds for 120 s is what it holds for 20 s (3.8 MB of results more would be seen)."""
    monkeypatch.setattr(inference, "_IN_MEMORY", 100000)
    peaks = []
    for seconds in (20, 20, 120):  # the first one warms up
        soundfile.write(tmp_path / "long.wav", noise(1, 8000 * seconds)[0], 8000)
        gc.collect()
        tracemalloc.start()
        done = tiny_model.separate(tmp_path / "long.wav", "violin")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert done.seconds == seconds
    assert peaks[2] < peaks[1] + 300_000
