"""Faster R-CNN and video networks of torchvision, with random weights on disk, and the frame difference."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from avsep_zoo.detection import Detector, MotionNet
from avsep_zoo.detection.faster_rcnn import FasterRcnn
from avsep_zoo.detection.frame_difference import FrameDifference
from avsep_zoo.detection.video_net import VideoNet
from avsep_zoo.errors import WeightsError
from avsep_zoo.registry import registry

torchvision: Any = pytest.importorskip("torchvision")

FRAMES = np.random.default_rng(0).integers(0, 256, (20, 36, 64, 3), np.uint8)
MOBILENET = "fasterrcnn_mobilenet_v3_large_320_fpn"


@pytest.fixture(scope="module")
def rcnn_state() -> dict[str, torch.Tensor]:
    """A detector of two classes and the background."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(MOBILENET, weights=None, weights_backbone=None, num_classes=3)
    return dict(model.state_dict())


@pytest.fixture(scope="module")
def rcnn(rcnn_state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder in the Hub's layout, with labels and a small picture size."""
    folder = tmp_path_factory.mktemp("rcnn")
    save_file(rcnn_state, folder / "model.safetensors")
    config = {"architecture": MOBILENET, "labels": ["cello", "tuba"], "min_size": 64, "max_size": 128}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def r3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a video network as training scripts write it."""
    folder = tmp_path_factory.mktemp("r3d")
    torch.manual_seed(0)
    state = torchvision.models.video.r3d_18(weights=None, num_classes=2).state_dict()
    torch.save({"model": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}, folder / "r3d.pth")
    (folder / "config.json").write_text(json.dumps({"side": 32}))
    return folder


def test_the_registered_parts_are_of_their_kind() -> None:
    """Every registered detector and motion net fulfils its contract."""
    for kind, contract in (("detector", Detector), ("motion", MotionNet)):
        for entry in registry().list(kind):
            assert issubclass(entry.resolve(), contract)


def test_faster_rcnn_gives_what_torchvision_gives(rcnn: Path, rcnn_state: dict[str, torch.Tensor]) -> None:
    """Rows are labels, scores and boxes of the model itself."""
    model = torchvision.models.get_model(
        MOBILENET, weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=128, box_score_thresh=0.2
    )
    model.load_state_dict(rcnn_state)
    with torch.inference_mode():
        theirs = model.eval()([torch.from_numpy(FRAMES[0]).permute(2, 0, 1) / 255])[0]
    rows = FasterRcnn(rcnn, min_score=0.2).detect(FRAMES[:1])[0]
    assert len(rows) and rows.dtype == np.float32 and rows.shape[1] == 6
    np.testing.assert_allclose(rows[:, 0], theirs["labels"])
    np.testing.assert_allclose(rows[:, 1], theirs["scores"], atol=1e-5)
    np.testing.assert_allclose(rows[:, 2:], theirs["boxes"], atol=1e-3)


def test_faster_rcnn_sees_every_frame_of_several_batches(rcnn: Path) -> None:
    """More frames than a batch holds give one array each, of the detector's classes."""
    detector = FasterRcnn(rcnn, min_score=0.2)
    found = detector.detect(FRAMES[:10])
    assert detector.labels == ("cello", "tuba") and len(found) == 10
    assert set(np.concatenate(found)[:, 0]) <= {1, 2}


def test_features_are_those_the_boxes_were_classified_by(rcnn: Path) -> None:
    """Given the boxes that it proposed to itself, the detector gives what its own head made of them."""
    detector = FasterRcnn(rcnn, min_score=0.2)
    kept: dict[str, Any] = {}
    heads = detector._model.roi_heads
    hooks = [
        heads.box_roi_pool.register_forward_hook(lambda _, given, out: kept.update(boxes=given[1], sizes=given[2])),
        heads.box_head.register_forward_hook(lambda _, given, out: kept.update(vectors=out)),
    ]
    detector.detect(FRAMES[:2])
    for hook in hooks:
        hook.remove()
    height, width = FRAMES.shape[1:3]
    (resized_height, resized_width), _ = kept["sizes"]
    assert (resized_height, resized_width) != (height, width)
    scale = np.array([width / resized_width, height / resized_height] * 2)
    boxes = [one.numpy() * scale for one in kept["boxes"]]
    features = detector.features(FRAMES[:2], boxes)
    assert detector.feature_width == 1024 and [one.shape for one in features] == [(len(one), 1024) for one in boxes]
    assert features[0].dtype == np.float32 and kept["vectors"].std() > 0
    np.testing.assert_allclose(np.concatenate(features), kept["vectors"], atol=1e-4)


def test_features_do_not_depend_on_the_other_frames(rcnn: Path) -> None:
    """Frames of several batches, some without a box: each box has the feature it has alone."""
    detector = FasterRcnn(rcnn)
    boxes = [np.array([[4.0, 4, 40, 30], [n, 0, 64, 36]])[: n % 3] for n in range(len(FRAMES))]
    together = detector.features(FRAMES, boxes)
    assert [len(one) for one in together] == [n % 3 for n in range(len(FRAMES))]
    for n in (1, 11, 19):
        alone = detector.features(FRAMES[n : n + 1], boxes[n : n + 1])[0]
        np.testing.assert_allclose(together[n], alone, atol=1e-5)


def test_features_of_no_box(rcnn: Path) -> None:
    """Frames without boxes have none, of the right width."""
    features = FasterRcnn(rcnn).features(FRAMES[:2], [np.zeros((0, 4))] * 2)
    assert [one.shape for one in features] == [(0, 1024)] * 2


def test_the_architecture_is_known_by_its_tensors(rcnn: Path, tmp_path: Path) -> None:
    """A bare file needs a class list only; its background may be named."""
    (tmp_path / "mine.safetensors").hardlink_to(rcnn / "model.safetensors")
    detector = FasterRcnn(tmp_path / "mine.safetensors", labels=["__background__", "a", "b"])
    assert detector.architecture == "fasterrcnn_mobilenet_v3_large_fpn"
    assert detector.labels == ("a", "b")


@pytest.mark.parametrize("labels", [["a"], ["a", "b", "c"], ["a", "b", "background"]])
def test_labels_must_fit_the_weights(rcnn: Path, labels: list[str]) -> None:
    """A list of another length is refused with both numbers."""
    with pytest.raises(WeightsError, match=f"2 classes and the background, and {len(labels)} labels"):
        FasterRcnn(rcnn, labels=labels)


@pytest.mark.parametrize("kind", [FasterRcnn, VideoNet])
def test_weights_are_needed(kind: type[FasterRcnn | VideoNet]) -> None:
    """There is no default model."""
    with pytest.raises(WeightsError, match="-weights: a folder"):
        kind(None)


def test_pickled_objects_are_not_read(tmp_path: Path) -> None:
    """A .pth file that would run code is refused and does not run it."""

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(WeightsError, match="was not loaded: it asks for"):
        FasterRcnn(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"not weights"])
def test_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    """Files that hold no tensors are errors in one sentence."""
    for suffix in (".safetensors", ".pth"):
        (tmp_path / f"w{suffix}").write_bytes(content)
        with pytest.raises(WeightsError, match="cannot be read as tensors"):
            VideoNet(tmp_path / f"w{suffix}")


def test_other_networks_are_refused(tmp_path: Path) -> None:
    """Tensors of another network fit no architecture."""
    save_file({"fc.weight": torch.zeros(2, 3)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="fit none of r3d_18"):
        VideoNet(tmp_path)
    with pytest.raises(WeightsError, match="no Faster R-CNN head"):
        FasterRcnn(tmp_path)


def test_several_files_are_ambiguous(tmp_path: Path) -> None:
    """Which of two files is meant must be said."""
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(WeightsError, match="name the one to use"):
        VideoNet(tmp_path)


@pytest.mark.parametrize("config", ["[]", "{", '{"side": "big"}', '{"architecture": "resnet18"}'])
def test_a_wrong_config_is_refused(tmp_path: Path, config: str) -> None:
    """config.json beside the weights is checked before it is used."""
    save_file({"fc.weight": torch.zeros(2, 3)}, tmp_path / "w.safetensors")
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(WeightsError, match=r"config\.json|no architecture 'resnet18'"):
        VideoNet(tmp_path)


def test_features_of_a_convolutional_network(r3d: Path) -> None:
    """20 frames are one clip of 16 and 4 of a second: 3 steps of the network's last layer, h by w kept."""
    net = VideoNet(r3d)
    assert (net.architecture, net.fps, net.side) == ("r3d_18", 15.0, 32)
    features = net.features(FRAMES, net.fps)
    assert features.shape == (512, 3, 2, 4) and features.dtype == np.float32
    assert np.isfinite(features).all() and features.std() > 0


def test_features_are_what_the_network_pools(r3d: Path) -> None:
    """The mean over steps and space, through the classifier, is the network's own answer."""
    net = VideoNet(r3d)
    clip = np.repeat(FRAMES[:1], 16, axis=0)[:, :32, :32]
    model: Any = net._model
    mean, std = (torch.tensor(v).view(3, 1, 1, 1) for v in (net._mean, net._std))
    x = (torch.from_numpy(clip).permute(3, 0, 1, 2) / 255 - mean) / std
    with torch.inference_mode():
        theirs = model(x[None])[0]
        ours = model.fc(torch.from_numpy(net.features(clip, 15.0)).mean(dim=(1, 2, 3)))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name, side, shape", [("s3d", 32, (1024, 2, 1, 2)), ("mvit_v2_s", 224, (768, 8, 7, 7))])
def test_features_of_other_networks(tmp_path: Path, name: str, side: int, shape: tuple[int, ...]) -> None:
    """S3D and MViT give their features before pooling; MViT without its class token."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, num_classes=2)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"side": side}))
    net = VideoNet(tmp_path)
    assert net.architecture == name
    assert net.features(FRAMES[:16], net.fps).shape == shape


def test_frame_difference_of_a_moving_edge() -> None:
    """Only the cells that change have features, 2 steps per second."""
    video = np.zeros((16, 64, 64, 3), np.uint8)
    video[8:, :32, :32] = 255
    features = FrameDifference().features(video, 8.0)
    assert features.shape == (1024, 4, 1, 1)
    grid = features[:, :, 0, 0].reshape(32, 32, 4)
    assert grid[:16, :16, 2].min() == pytest.approx(0.25)
    assert grid[16:].max() == grid[:, 16:].max() == grid[..., [0, 1, 3]].max() == 0


def test_frame_difference_has_no_weights(tmp_path: Path) -> None:
    """Weights that would be ignored are refused."""
    with pytest.raises(WeightsError, match="has no weights"):
        FrameDifference(tmp_path)
