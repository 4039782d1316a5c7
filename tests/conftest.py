"""What the tests run in: an own home for caches, an own Hub, no settings of the user; and a tiny iQuery."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from avsep_zoo.recipe import PartConfig
from avsep_zoo.testing.loopback_hub import LoopbackHub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from avsep_zoo.contracts import CueBatch
    from avsep_zoo.model import SeparationModel
    from avsep_zoo.weights.cards import Card

_HOME = tempfile.TemporaryDirectory(prefix="avsep-tests-")
_HUB = LoopbackHub().__enter__()  # before anything imports huggingface_hub, which asks the Hub it found then
for _name in [name for name in os.environ if name.startswith(("AVSEP_", "HF_", "HUGGING"))]:
    del os.environ[_name]
os.environ |= {
    "HF_HOME": f"{_HOME.name}/huggingface",
    "TORCH_HOME": f"{_HOME.name}/torch",
    "HF_ENDPOINT": _HUB.url,
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "OMP_NUM_THREADS": "1",  # small models are faster on one thread, and sums the same everywhere
}


def pytest_unconfigure() -> None:
    _HUB.__exit__()
    _HOME.cleanup()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """The Hub that the client asks, without repositories, and an empty cache, also for processes of the test."""
    from huggingface_hub import constants

    home = tmp_path / "huggingface"
    for name, folder in {"HF_HOME": home, "HF_HUB_CACHE": home / "hub"}.items():
        monkeypatch.setattr(constants, name, str(folder))
    monkeypatch.setenv("HF_HOME", str(home))
    _HUB.clear()
    yield _HUB
    if _HUB.gate is not None:
        _HUB.gate.set()
    _HUB.clear()


@pytest.fixture
def tiny_parts() -> dict[str, PartConfig]:
    """The parts of a small iQuery: one segment is 1.02 s at 8 kHz, a spectrum of 128 by 128 points."""
    return {
        "encoder": PartConfig(
            "iquery.cues",
            {
                "classes": ["violin", "flute", "drum"],
                "width": 4,
                "object_features": 8,
                "frames": 2,
                "image_size": 32,
                "frozen": False,
                "optional": ["frames", "label"],
            },
        ),
        "conditioner": PartConfig("iquery.queries", {"queries": 4, "heads": 2, "feedforward": 16, "decoder_layers": 2}),
        "separator": PartConfig("mask_unet", {"width": 4, "levels": 5, "mask_features": 4}),
        "front_end": PartConfig(
            "stft",
            {
                "rate": 8000,
                "length": 8191,
                "n_fft": 254,
                "hop_length": 64,
                "warp_rows": 128,
                "align_corners": True,
            },
        ),
        "objective": PartConfig("iquery.masks", {"mixture": "sum"}),
    }


@pytest.fixture
def tiny_model(tiny_parts: dict[str, PartConfig]) -> SeparationModel:
    """The small iQuery with seeded random weights, in eval mode."""
    import torch

    from avsep_zoo.compose import compose_recipe

    torch.manual_seed(0)
    return compose_recipe(tiny_parts, "iquery.tiny")


@pytest.fixture
def generative_parts(tiny_parts: dict[str, PartConfig]) -> dict[str, PartConfig]:
    """The parts of a small DAVIS-Flow that hears what the small iQuery hears, as 32 by 128 features."""
    separator = {"width": 8, "multipliers": [1, 2], "rows": 32, "groups": 4, "heads": 2, "head_channels": 4}
    encoder = {"width": 2, "frames": 2, "frame_rate": 1.0, "image_size": 32, "heads": 2, "feedforward": 16}
    return {
        "encoder": PartConfig("davis.resnet", encoder | {"encoder_layers": 1, "first_frame": False}),
        "conditioner": PartConfig("tiled_concat"),
        "separator": PartConfig("davis.unet", separator | {"time_heads": 2, "time_features": 16}),
        "driver": PartConfig("flow", {"steps": 2}),
        "front_end": tiny_parts["front_end"].changed({"warp_rows": 32, "log_scale": 0.15}),
        "objective": PartConfig("generative"),
    }


@pytest.fixture
def generative_model(generative_parts: dict[str, PartConfig]) -> SeparationModel:
    """The small DAVIS-Flow with seeded random weights, in eval mode."""
    import torch

    from avsep_zoo.compose import compose_recipe

    torch.manual_seed(0)
    return compose_recipe(generative_parts, "davis_flow.tiny")


@pytest.fixture
def tiny_cues() -> CueBatch:
    """Two mixtures of three sources: every class once per mixture, with noise for pictures."""
    import torch

    from avsep_zoo.contracts import CueBatch

    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(2, 3, 3, 2, 32, 32, generator=generator)
    return CueBatch({"frames": frames, "label": torch.tensor([[0, 1, 2], [2, 0, 1]])})


@pytest.fixture
def card(tmp_path: Path, tiny_model: SeparationModel) -> Path:
    """The folder of a card of the tiny model."""
    from avsep_zoo.weights.cards import write_card

    return write_card(tmp_path / "card", tiny_model).folder


@pytest.fixture
def card_on_hub(tmp_path: Path, tiny_model: SeparationModel, hub: LoopbackHub) -> Card:
    """A card of the tiny model that is pinned to a commit of ``someone/tiny``, where its weights are; free for all."""
    from avsep_zoo.weights.cards import pin_card, write_card

    licences = {"code": "Apache-2.0", "weights": "CC0-1.0", "training_data": "CC0-1.0"}
    card = write_card(tmp_path / "card", tiny_model, manifest={"licences": licences})
    files = {name: (card.folder / name).read_bytes() for name in ("README.md", "model.safetensors")}
    commit = hub.add_repo("someone/tiny", files)
    card.weights.unlink()
    return pin_card(card, "someone/tiny", commit)


@pytest.fixture
def ready(tmp_path: Path, tiny_model: SeparationModel) -> Path:
    """The folder of a card of the tiny model that is fit to be published."""
    from avsep_zoo.weights.cards import write_card

    data = [{"of": "noise", "licence": "CC0-1.0"}]
    licences = {"code": "Apache-2.0", "weights": "CC-BY-4.0", "training_data": data}
    front = {"license": "cc-by-4.0", "tags": ["sound-separation"]}
    text = "# iquery.tiny\n\nIts block is called avsep: this is no entry of it.\n"
    return write_card(tmp_path / "ready", tiny_model, manifest={"licences": licences}, front=front, text=text).folder


@pytest.fixture
def logged_in(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user is logged in to the Hub."""
    hub.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", hub.token)


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two training clips and a validation clip of 2 s for each of three classes of tones and colours."""
    import numpy as np

    from avsep_zoo.synth.files import write_clip

    root = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    time = np.arange(2 * 44100) / 44100
    for c, (label, base) in enumerate({"violin": 1500, "flute": 600, "drum": 150}.items()):
        for name, split in (("a", "train"), ("b", "train"), ("c", "val")):
            notes = sum(np.sin(2 * np.pi * base * rng.uniform(0.9, 1.1) * k * time) / k for k in (1, 2))
            video = np.zeros((16, 32, 32, 3), np.uint8)
            video[..., c] = 200
            boxes = np.tile(np.array([4, 4, 28, 28], np.float32), (16, 1))
            sound = 0.2 * notes + 0.01 * rng.standard_normal(len(time))  # pure tones are hard to score
            write_clip(root, label, c, name, video, boxes, sound.astype(np.float32))
            with (root / f"{split}.csv").open("a") as rows:
                rows.write(f"/{label}/{name}.wav,/{label}/{name}.mp4,2\n")
    return root


@pytest.fixture(scope="session")
def needs_fluidsynth() -> None:
    """Skip where the FluidSynth library is missing."""
    from avsep_zoo.errors import DataError
    from avsep_zoo.synth.soundfont import fluidsynth_version

    try:
        fluidsynth_version()
    except DataError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def needs_font() -> None:
    """Skip where the font of emojis is missing."""
    from avsep_zoo.errors import DataError
    from avsep_zoo.synth.sprites import find_font

    try:
        find_font()
    except DataError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def sine_soundfont(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A soundfont with one looped sine of 441 Hz (root key 69) as every General MIDI program in use."""
    import struct

    import numpy as np

    from avsep_zoo.synth import INSTRUMENTS

    path = tmp_path_factory.mktemp("soundfont") / "sine.sf2"
    programs = sorted({voice.program for instrument in INSTRUMENTS.values() for voice in instrument.voices})
    sine = np.round(20000 * np.sin(2 * np.pi * np.arange(5000) / 100)).astype("<i2")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    def header(name: str) -> bytes:
        return name.encode().ljust(20, b"\0")

    count = len(programs)
    presets = b"".join(header(f"p{p}") + struct.pack("<HHHIII", p, 0, i, 0, 0, 0) for i, p in enumerate(programs))
    presets += header("EOP") + struct.pack("<HHHIII", 0, 0, count, 0, 0, 0)
    sample = header("sine") + struct.pack("<IIIIIBbHH", 0, 5000, 1000, 4000, 44100, 69, 0, 0, 1)
    lists = (
        (b"phdr", presets),
        (b"pbag", b"".join(struct.pack("<HH", i, 0) for i in range(count + 1))),
        (b"pmod", bytes(10)),
        (b"pgen", struct.pack("<HH", 41, 0) * count + bytes(4)),
        (b"inst", header("sine") + struct.pack("<H", 0) + header("EOI") + struct.pack("<H", 1)),
        (b"ibag", struct.pack("<HHHH", 0, 0, 2, 0)),
        (b"imod", bytes(10)),
        (b"igen", struct.pack("<HHHH", 54, 1, 53, 0) + bytes(4)),
        (b"shdr", sample + header("EOS") + bytes(26)),
    )
    info = chunk(b"ifil", struct.pack("<HH", 2, 1)) + chunk(b"isng", b"EMU8000\0") + chunk(b"INAM", b"sine\0\0")
    body = chunk(b"LIST", b"INFO" + info)
    body += chunk(b"LIST", b"sdta" + chunk(b"smpl", sine.tobytes() + bytes(92)))
    body += chunk(b"LIST", b"pdta" + b"".join(chunk(kind, data) for kind, data in lists))
    path.write_bytes(chunk(b"RIFF", b"sfbk" + body))
    return path
