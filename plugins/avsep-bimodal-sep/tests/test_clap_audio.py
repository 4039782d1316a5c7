"""CLAP's sound tower, small: on estimates, and as a cue encoder."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avsep_bimodal_sep.clap_audio import SAMPLES, ClapAudioEncoder, ClapSound, ten_seconds
from avsep_zoo.contracts import CueBatch
from avsep_zoo.cue import Cue
from avsep_zoo.errors import CompositionError, CueError
from avsep_zoo.media import write_wav

SMALL = {
    "patch_embeds_hidden_size": 4,
    "depths": [2, 1, 1, 1],
    "num_attention_heads": [1, 2, 2, 2],
    "projection_dim": 8,
}


def lively(module: Any) -> Any:
    """With random weights large enough that sounds differ."""
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return module.eval()


def small(**settings: Any) -> ClapSound:
    return lively(ClapSound(**{"tower": SMALL, "rate": 16000, **settings}))


def encoder() -> ClapAudioEncoder:
    return lively(ClapAudioEncoder(tower=SMALL))


def prepared(*cues: Cue) -> torch.Tensor:
    """(N, 480000)."""
    batch = encoder().prepare(cues, video=None, time=0.0)
    audio: torch.Tensor = batch.values["audio"][0]
    return audio


def test_views_and_their_width() -> None:
    sound, waveforms = small(), 0.1 * torch.randn(3, 16000)
    vectors, tokens = sound.views(waveforms)
    assert vectors.shape == (3, 8) and tokens.shape == (3, 64, 32)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(3)) and torch.equal(sound(waveforms), vectors)
    assert (vectors[0] - vectors[1]).abs().max() > 1e-4


def test_views_are_those_of_the_tower() -> None:
    """The vector is made of the mean of the tokens."""
    sound, waveforms = small(), 0.1 * torch.randn(2, 16000)
    vectors, tokens = sound.views(waveforms)
    projected = sound.clap.get_submodule("audio_projection")(tokens.mean(dim=1))
    assert torch.allclose(vectors, torch.nn.functional.normalize(projected, dim=-1), atol=1e-6)


def test_gradient_reaches_the_waveform_and_no_weight() -> None:
    sound = small().train()
    waveforms = (0.1 * torch.randn(2, 16000)).requires_grad_()
    (sound(waveforms)[:, 0]).sum().backward()
    assert waveforms.grad is not None and waveforms.grad.isfinite().all()
    assert (waveforms.grad != 0).float().mean() > 0.9
    assert all(weight.grad is None for weight in sound.parameters())


def test_the_gradient_is_the_slope() -> None:
    """Also through the spectrogram, its interpolation and the norms."""
    sound = small().double()
    waveforms = (0.1 * torch.randn(1, 16000)).requires_grad_()
    direction = torch.randn(1, 16000)
    (gradient,) = torch.autograd.grad(sound(waveforms)[0, 0], waveforms)
    with torch.no_grad():
        ahead, behind = (sound(waveforms + step * direction)[0, 0] for step in (1e-4, -1e-4))
    assert float((gradient * direction).sum()) == pytest.approx(float(ahead - behind) / 2e-4, rel=0.03)


def test_silence() -> None:
    """Has a vector, and no gradient that is NaN."""
    waveforms = torch.zeros(1, 8000, requires_grad=True)
    vector = small()(waveforms)
    vector.sum().backward()
    assert vector.isfinite().all() and waveforms.grad is not None and waveforms.grad.isfinite().all()


def test_a_sound_is_the_same_alone() -> None:
    sound, waveforms = small(), 0.1 * torch.randn(3, 8000)
    assert torch.allclose(sound(waveforms)[1:2], sound(waveforms[1:2]), atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 700])
def test_sounds_of_a_few_samples(length: int) -> None:
    assert small()(torch.randn(1, length)).isfinite().all()


def test_training_changes_nothing_in_the_tower() -> None:
    """No batch statistics, no dropout; only a longer sound is cropped elsewhere."""
    sound = small().train()
    waveforms = 0.1 * torch.randn(2, 16000)
    assert sound.training and not any(module.training for module in sound.clap.modules())
    before = copy.deepcopy(sound.state_dict())
    assert torch.equal(sound(waveforms), sound(waveforms))
    assert all(torch.equal(value, before[name]) for name, value in sound.state_dict().items())


def test_under_autocast() -> None:
    """The spectrogram is not rounded, so that the tower's own rounding is all."""
    sound, waveforms = small(), 0.1 * torch.randn(1, 16000)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = sound(waveforms)
    assert torch.allclose(rounded.float(), sound(waveforms), atol=0.1)


def test_ten_seconds() -> None:
    """Repeated while it fits, then silent."""
    wave = torch.arange(1.0, 150001.0)[None]
    made = ten_seconds(wave)
    assert made.shape == (1, SAMPLES)
    assert torch.equal(made[:, :450000], wave.repeat(1, 3)) and not made[:, 450000:].any()
    assert torch.equal(ten_seconds(made), made)


def test_longer_sounds_are_cropped() -> None:
    """In the middle, or each at a place of its own that torch draws."""
    waves = torch.arange(SAMPLES + 1000.0).expand(2, -1)
    assert ten_seconds(waves)[:, 0].tolist() == [500, 500]
    varied = ten_seconds(waves, vary=True)
    assert varied.shape == (2, SAMPLES) and varied[0, 0] != varied[1, 0]
    assert torch.equal(varied.diff(dim=1), torch.ones(2, SAMPLES - 1))
    torch.manual_seed(1)
    once = ten_seconds(waves, vary=True)
    torch.manual_seed(1)
    assert torch.equal(ten_seconds(waves, vary=True), once)


def test_no_sample() -> None:
    with pytest.raises(ValueError, match="no samples"):
        ten_seconds(torch.zeros(2, 0))


def test_the_encoder_gives_both_views() -> None:
    made = encoder()
    embedding = made(CueBatch({"audio": 0.1 * torch.randn(1, 2, SAMPLES)}))
    assert embedding.vector is not None and embedding.tokens is not None
    assert embedding.vector.shape == (1, 2, 8) and embedding.tokens.shape == (1, 2, 64, 32)
    assert made.gives == {"vector": 8, "tokens": 32} and made.reads == {"audio"} and made.per_clip
    assert ClapAudioEncoder.plan().gives == {"vector": 512, "tokens": 1024}
    assert not embedding.vector.requires_grad


def test_examples_of_all_kinds(tmp_path: Path) -> None:
    """An array, a tensor, a list and a file of the same sound; channels are averaged."""
    sound = (0.1 * np.random.default_rng(0).standard_normal((2, 48000))).astype(np.float32)
    write_wav(tmp_path / "sound.wav", sound, 48000)
    array, tensor, listed, file = prepared(
        Cue(audio=sound, audio_rate=48000),
        Cue(audio=torch.from_numpy(sound), audio_rate=48000),
        Cue(audio=sound.tolist(), audio_rate=48000),
        Cue(audio=tmp_path / "sound.wav"),
    )
    assert array.shape == (SAMPLES,) and torch.equal(array[:48000], torch.from_numpy(sound.mean(axis=0)))
    assert torch.equal(array[48000:96000], array[:48000])
    assert torch.equal(tensor, array) and torch.allclose(listed, array)
    assert torch.allclose(file, array, atol=1e-4)


@pytest.mark.parametrize("kind", ["file", "array"])
def test_the_middle_of_a_long_example(tmp_path: Path, kind: str) -> None:
    """Of 14 s at 16 kHz, seconds 2 to 12."""
    sound = np.repeat(np.arange(1, 15, dtype=np.float32) / 20, 16000)
    write_wav(tmp_path / "long.wav", sound[None], 16000)
    cue = Cue(audio=tmp_path / "long.wav") if kind == "file" else Cue(audio=sound, audio_rate=16000)
    found = prepared(cue)[0].reshape(10, 48000)[:, 24000]
    assert torch.allclose(found, torch.arange(3, 13) / 20, atol=2e-3)


NAN = np.array([0.1, np.nan], dtype=np.float32)


@pytest.mark.parametrize(
    ("cue", "message"),
    [
        (Cue(audio=NAN, audio_rate=16000), "NaN or infinite"),
        (Cue(audio=np.zeros(16000, dtype=np.float32), audio_rate=16000), "is silent; give one that sounds"),
        (Cue(audio=np.zeros((2, 0), dtype=np.float32), audio_rate=16000), "no samples"),
        (Cue(audio=np.ones(9, dtype=np.int16), audio_rate=16000), "give floats"),
        (Cue(audio=[[0.1], [0.2, 0.3]], audio_rate=16000), "cannot be used"),
        (Cue(audio=np.ones(9, dtype=np.float32), audio_rate=-3), "rate is -3"),
        (Cue(audio="no/such/file.wav", name="dog"), r"'dog' cannot be used: .*no/such/file\.wav"),
        (Cue(text="dog"), "'dog' has no example of the sound; give audio"),
    ],
)
def test_examples_that_cannot_be(cue: Cue, message: str) -> None:
    with pytest.raises(CueError, match=message):
        prepared(cue)


@pytest.mark.parametrize("content", [b"", b"RIFF\x10\0\0\0WAVE", b"no sound at all"])
def test_files_that_are_no_sound(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(CueError, match=r"^The example of the sound of .*x\.wav"):
        prepared(Cue(audio=tmp_path / "x.wav"))


def test_an_example_of_one_sample() -> None:
    batch = encoder().prepare([Cue(audio=np.ones(1, dtype=np.float32), audio_rate=48000)], video=None, time=0.0)
    assert batch.values["audio"].shape == (1, 1, SAMPLES)


def test_a_batch_without_examples() -> None:
    with pytest.raises(CueError, match="needs an example of the sound"):
        encoder()(CueBatch({"token_ids": torch.zeros(1, 1, 4)}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 0}, "rate is 0"),
        ({"tower": {"window": 8}}, "no size 'window'"),
        ({"tower": {"depths": 2}}, "depths is 2; give whole numbers above 0, one per stage"),
        ({"tower": {"depths": [2, 0]}}, r"depths is \[2, 0\]"),
        ({"tower": {"depths": [2, 2]}}, "depths of 2 stages and heads of 4"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClapSound(**settings)


def test_constants_are_not_saved() -> None:
    """A state dict is weights, running statistics and the scale."""
    names = set(ClapSound(tower=SMALL).state_dict())
    assert {name for name in names if not name.startswith("clap.audio_")} == {"logit_scale_a"}
    assert not any("index" in name for name in names)


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    message = r"^bimodal_sep\.clap_audio needs transformers; install it: pip install transformers tokenizers\.$"
    with pytest.raises(CompositionError, match=message):
        ClapSound(tower=SMALL)
