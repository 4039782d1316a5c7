"""The encoder of frames: what it gives, what it learns, what it asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avsep_zoo.blocks.frame_encoder import FrameEncoder
from avsep_zoo.contracts import CueBatch
from avsep_zoo.cue import Cue
from avsep_zoo.errors import CueError, WeightsError
from avsep_zoo.pictures import centre_view, crop, normalise

PICTURES = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), dtype=np.uint8)
BOX = (5.0, 4.0, 45.0, 36.0)


def encoder(**settings: Any) -> FrameEncoder:
    torch.manual_seed(0)
    return FrameEncoder(**{"width": 2, "object_features": 6, "frames": 2, "image_size": 32, **settings}).eval()


def batch(**more: Any) -> CueBatch:
    frames = torch.randn(2, 3, 3, 2, 32, 32, generator=torch.Generator().manual_seed(1))
    return CueBatch({"frames": frames, **more})


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["max", "average"])
def test_the_vector_is_the_pooled_map_through_a_sigmoid(pooling: Any) -> None:
    network, cues = encoder(pooling=pooling), batch()
    maps = network.feature_map(cues.get("frames")[1])  # (N, D, K, h, w)
    assert maps.shape == (3, 6, 2, 2, 2)
    pooled = maps.amax(dim=(2, 3, 4)) if pooling == "max" else maps.mean(dim=(2, 3, 4))
    torch.testing.assert_close(network(cues).vector[1], torch.sigmoid(pooled))


def test_pictures_are_cut_to_the_box() -> None:
    cues = encoder().prepare([Cue(frames=PICTURES, box=BOX)], video=None, time=3.0)
    by_hand = normalise([centre_view(crop(picture, BOX), 32) for picture in PICTURES])
    assert np.array_equal(cues.get("frames")[0, 0].numpy(), by_hand)
    assert set(cues.values) == {"frames"}


def test_pictures_are_needed() -> None:
    with pytest.raises(CueError, match="needs frames of every source"):
        encoder()(CueBatch({"label": torch.zeros(1, 2)}))
    with pytest.raises(CueError, match="has no frames and this model needs them"):
        encoder().prepare([Cue(label="cello")], video=None, time=0.0)


def test_classes_are_taught_in_training_only() -> None:
    """Those of the list; a class that is not in it, and a cue without one, teach nothing."""
    network = encoder(classes=["cello", "flute"])
    cues = [Cue(label=name, frames=PICTURES) for name in ("flute", "tuba")] + [Cue(frames=PICTURES)]
    assert network.prepare(cues, video=None, time=0.0).get("label") is None
    assert network.train().prepare(cues, video=None, time=0.0).get("label").tolist() == [[1, -1, -1]]
    assert not getattr(network, "classes", ())


def test_loss_of_recognition_by_hand() -> None:
    network = encoder(classes=["cello", "flute"])
    cues = batch(label=torch.tensor([[0, -1, 1], [1, -1, -1]]))
    rows = network.recogniser(network.looks(cues)).log_softmax(dim=-1)  # type: ignore[misc]
    loss = network.recognition_loss(cues)
    torch.testing.assert_close(loss, -(rows[0, 0, 0] + rows[0, 2, 1] + rows[1, 0, 1]) / 3)
    loss.backward()
    assert network.features.conv1.weight.grad.abs().sum() > 0  # type: ignore[union-attr]
    assert network.recognition_loss(batch()) == 0 and encoder().recognition_loss(cues) == 0


def test_image_weights(tmp_path: Path) -> None:
    """Are loaded where they are named, and have to fit; without a name there are none."""
    trained, network = encoder(), encoder()
    torch.nn.init.ones_(trained.features.conv1.weight)
    torch.save(trained.features.state_dict(), tmp_path / "resnet.pth")
    network.load_pretrained()
    assert not torch.equal(network.features.conv1.weight, trained.features.conv1.weight)
    network = encoder(image_weights=str(tmp_path / "resnet.pth"))
    network.load_pretrained()
    assert torch.equal(network.features.conv1.weight, trained.features.conv1.weight)
    with pytest.raises(WeightsError, match="do not fit this ResNet-18"):
        encoder(width=3, image_weights=str(tmp_path / "resnet.pth")).load_pretrained()
