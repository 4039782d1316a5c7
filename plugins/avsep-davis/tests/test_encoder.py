"""DAVIS' encoder with ResNet-18, and how frames become its input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avsep_davis.encoder import ResNetEncoder
from avsep_zoo.blocks.resnet import ResNet18Features
from avsep_zoo.contracts import CueBatch
from avsep_zoo.cue import Cue
from avsep_zoo.errors import CueError, WeightsError
from avsep_zoo.media import VideoSource
from avsep_zoo.synth.files import write_mp4

SMALL: dict[str, Any] = {
    "width": 4, "frames": 3, "image_size": 32, "heads": 2, "feedforward": 16, "encoder_layers": 1, "dropout": 0.0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test draws the same weights."""
    torch.manual_seed(0)


def small(**settings: Any) -> ResNetEncoder:
    return ResNetEncoder(**{**SMALL, **settings})


def frames(**shape: int) -> torch.Tensor:
    sizes = {"b": 2, "n": 2, "k": 3, "side": 32, **shape}
    return torch.randn(sizes["b"], sizes["n"], 3, sizes["k"], sizes["side"], sizes["side"])


def pictures(count: int = 3, height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_views() -> None:
    encoder = small(first_frame=False).eval()
    embedding = encoder(CueBatch({"frames": frames()}))
    assert embedding.tokens is not None and embedding.vector is not None
    assert embedding.tokens.shape == (2, 2, 3, 32) and encoder.gives == {"vector": 32, "tokens": 32}
    assert torch.equal(embedding.vector, embedding.tokens.mean(dim=2))


def test_published_encoder_keeps_the_first_frame_only() -> None:
    encoder = small().eval()
    seen = frames()
    changed = seen.clone()
    changed[:, :, :, 1:] = 0
    one, other = (encoder(CueBatch({"frames": f})) for f in (seen, changed))
    assert one.tokens.shape == (2, 2, 1, 32) and torch.equal(one.tokens, other.tokens)
    changed[:, :, :, 0] = 0
    assert not torch.allclose(one.tokens, encoder(CueBatch({"frames": changed})).tokens)


def test_frozen_resnet_learns_statistics_of_all_frames_in_training() -> None:
    """As published: no gradient, but batch norms move, and frames count that the output does not depend on."""
    one, other = small().train(), small().train()
    other.load_state_dict(one.state_dict())
    seen = frames()
    one(CueBatch({"frames": seen})).vector.sum().backward()
    assert all(p.grad is None for p in one.features.parameters())
    assert all(p.grad is not None for p in one.temporal.parameters())
    assert one.features.bn1.num_batches_tracked == 1 and one.features.bn1.running_mean.abs().sum() > 0
    changed = seen.clone()
    changed[:, :, :, 1:] *= 3
    other(CueBatch({"frames": changed}))
    assert not torch.allclose(one.features.bn1.running_var, other.features.bn1.running_var)


def test_defaults_are_the_published_sizes() -> None:
    """Names of torchvision, and a transformer with a narrow feed-forward network."""
    with torch.device("meta"):
        encoder = ResNetEncoder()
    shapes = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    assert shapes["features.layer4.0.downsample.0.weight"] == (512, 256, 1, 1)
    assert shapes["temporal.transformer.encoder.layers.2.linear1.weight"] == (512, 512)
    assert len(shapes) == 178 and not any(name.startswith("recogniser") for name in shapes)


def test_recognition_of_taught_classes() -> None:
    """Labels come with training items only, and an unknown one teaches nothing."""
    encoder = small(classes=["cello", "flute"], first_frame=False, frozen=False)
    cues = [Cue(label="flute", frames=pictures()), Cue(label="gong", frames=pictures())]
    assert "label" not in encoder.eval().prepare(cues, video=None, time=0.0).values
    batch = encoder.train().prepare(cues, video=None, time=0.0)
    assert batch.values["label"].tolist() == [[1, -1]]
    logits = encoder.eval().recogniser(encoder(batch).vector)  # type: ignore[misc]
    expected = -torch.log_softmax(logits, dim=-1)[0, 0, 1]
    assert torch.allclose(encoder.recognition_loss(batch), expected)
    assert encoder.recognition_loss(CueBatch({"frames": frames()})) == 0


def test_frames_are_varied_in_training_by_the_items_generator() -> None:
    """All frames of a source alike; sources differ; the same generator gives the same."""
    encoder = small(vary=True).train()
    cues = [Cue(frames=np.repeat(pictures(1), 3, axis=0)) for _ in range(2)]

    def prepared(rng: np.random.Generator | None) -> torch.Tensor:
        return encoder.prepare(cues, video=None, time=0.0, rng=rng).values["frames"]

    varied = prepared(np.random.default_rng(1))
    assert torch.equal(varied, prepared(np.random.default_rng(1)))
    assert not torch.equal(varied, prepared(np.random.default_rng(2)))
    assert torch.equal(varied[0, :, :, 0], varied[0, :, :, 2]) and not torch.equal(varied[0, 0], varied[0, 1])
    still = prepared(None)
    assert torch.equal(still[0, 0], still[0, 1])
    encoder.eval()
    assert torch.equal(still, prepared(np.random.default_rng(1)))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds that get brighter by 20 per second, from 20 on."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    levels = 20 + 20 * (np.arange(80) + 0.5) / 8
    video = np.broadcast_to(levels[:, None, None, None], (80, 48, 64, 3)).astype(np.uint8)
    write_mp4(path, np.ascontiguousarray(video), np.zeros(441000, dtype=np.float32))
    return path


def test_times_of_frames(film: Path) -> None:
    """Around the centre of the segment, at the encoder's rate; before the beginning the video has its first one."""
    encoder = small(frames=5, frame_rate=0.5)
    with VideoSource(film) as video:
        seen = encoder.prepare([Cue(label="cello")], video=video, time=3.0).values["frames"]
    levels = 255 * (seen[0, 0, 0, :, 16, 16] * 0.229 + 0.485)
    assert torch.allclose(levels, torch.tensor([20.0, 40, 80, 120, 160]), atol=4)


def test_sources_of_one_video_need_boxes(film: Path) -> None:
    """The whole picture shows all of them; alone it may be the cue."""
    left, right = Cue(label="cello", box=(0, 0, 30, 48)), Cue(label="flute")
    with VideoSource(film) as video:
        with pytest.raises(CueError, match="'flute' has neither frames nor a box, and the whole picture shows all 2"):
            small().prepare([left, right], video=video, time=3.0)
        for cues in ([right], [left, Cue(frames=pictures())]):
            assert small().prepare(cues, video=video, time=3.0).values["frames"].shape[1] == len(cues)


@pytest.mark.parametrize(
    ("cue", "message"),
    [
        (Cue(label="cello"), "'cello' has no frames and this model needs them"),
        (Cue(frames=np.zeros((0, 8, 8, 3), dtype=np.uint8)), "give uint8 RGB"),
        (Cue(frames=np.zeros((8, 0, 3), dtype=np.uint8)), "give uint8 RGB"),
        (Cue(frames=np.zeros((8, 8, 3))), "are float64 of shape"),
        (Cue(frames=[[[1, 2, 3]], [[1, 2]]]), "are no array"),
        (Cue(frames="no/picture.png"), "cannot be read as a picture"),
        (Cue(frames=np.zeros((2, 2500, 3), dtype=np.uint8)), "2500 x 2 pixels is too narrow"),
        (Cue(frames=pictures(), box=(100.2, 1, 100.4, 9)), "has no pixel of a picture of 60 x 40"),
        (Cue(frames=pictures(), box=(500, 1, 600, 9)), "has no pixel of a picture of 60 x 40"),
    ],
)
def test_cues_without_pictures(cue: Cue, message: str) -> None:
    with pytest.raises(CueError, match=message):
        small().prepare([cue], video=None, time=0.0)


def test_an_endless_box_takes_no_endless_memory() -> None:
    cue = Cue(frames=pictures(), box=(-1e12, -1e12, 1e12, 1e12))
    seen = small().prepare([cue], video=None, time=0.0).values["frames"]
    assert seen.shape == (1, 1, 3, 3, 32, 32) and torch.isfinite(seen).all()


def test_a_batch_without_frames() -> None:
    with pytest.raises(CueError, match="needs frames of every source"):
        small()(CueBatch({"label": torch.tensor([[0, 1]])}))


def test_imagenet_weights(tmp_path: Path) -> None:
    """Torchvision's file: a classifier that is left out; it may have no counters, as old files."""
    torch.manual_seed(1)
    source = ResNet18Features(width=4).state_dict()
    old = {name: value for name, value in source.items() if not name.endswith("num_batches_tracked")}
    torch.save({**old, "fc.weight": torch.zeros(1000, 32), "fc.bias": torch.zeros(1000)}, tmp_path / "resnet18.pth")
    encoder = small(image_weights=str(tmp_path / "resnet18.pth"))
    encoder.load_pretrained()
    assert all(torch.equal(value, source[name]) for name, value in encoder.features.state_dict().items())


def test_weights_of_another_network(tmp_path: Path) -> None:
    torch.save(ResNet18Features(width=8).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(WeightsError, match=r"resnet18\.pth do not fit this ResNet-18: 100 entries"):
        small(image_weights=str(tmp_path / "resnet18.pth")).load_pretrained()


def test_a_frozen_resnet_needs_weights() -> None:
    with pytest.raises(WeightsError, match=r"name torchvision's resnet18-f37072fd\.pth"):
        small().load_pretrained()
    encoder = small(frozen=False)
    before = encoder.features.conv1.weight.clone()
    encoder.load_pretrained()
    assert torch.equal(encoder.features.conv1.weight, before)
