"""Cues as nodes: training and test graphs, features and crops, padding, and the mistakes a user can make."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from avsep_avsgs.encoder import CropsEncoder, DetectionsEncoder
from avsep_avsgs.scene_encoder import MISSING, UNNAMED, SceneEncoder
from avsep_zoo.contracts import CueBatch
from avsep_zoo.cue import Cue
from avsep_zoo.data.detections import Detections, Sounding
from avsep_zoo.errors import CueError, DataError
from avsep_zoo.media import VideoSource
from avsep_zoo.synth.files import write_mp4

CLASSES = ("dog", "cat")


def pictures(count: int = 1) -> np.ndarray:
    """60 x 40 pixels, red in the left third, green in the middle, blue in the right one."""
    frames = np.zeros((count, 40, 60, 3), np.uint8)
    for third in range(3):
        frames[:, :, 20 * third : 20 * third + 20, third] = 255
    return frames


def detected(*sounding: Sounding, features: int = 0, seconds: float | None = None) -> Detections:
    """A dog on the left, a cat on the right, and a mat in the middle that both touch."""
    boxes = np.array([[0, 0, 20, 40], [40, 0, 60, 40], [14, 0, 46, 40]], np.float64)
    return Detections(
        np.ones(3, np.int64),
        np.array([1, 2, 3]),
        np.array([0.9, 0.8, 0.7]),
        boxes,
        features=np.repeat(np.arange(1, 4, dtype=np.float32)[:, None], features, axis=1) if features else None,
        scene=np.full(features, 9, np.float32) if features else None,
        times=None if seconds is None else np.full(3, seconds),
        names=("dog", "cat", "mat"),
        sounding=sounding,
    )


BOTH = (Sounding(0, "dog"), Sounding(1, "cat"))


def by_features(**settings: Any) -> DetectionsEncoder:
    return DetectionsEncoder(**{"features": 2, "hidden": 5, "width": 4, "classes": CLASSES, **settings}).eval()


def by_crops(**settings: Any) -> CropsEncoder:
    small = {"width": 2, "image_size": 32, "reduced": 3, "features": 4, "classes": CLASSES}
    return CropsEncoder(**{**small, **settings}).eval()


def prepared(encoder: SceneEncoder, *cues: Cue, rng: int | None = None, **more: Any) -> CueBatch:
    generator = None if rng is None else np.random.default_rng(rng)
    return encoder.prepare(cues, **{"video": None, "time": 0.0, "rng": generator, **more})


def nodes_of(batch: CueBatch, recording: int = 0) -> list[float]:
    """First number of each real node of features."""
    there = batch.get("detections_mask")[0, recording] == 0
    return batch.get("detections")[0, recording, 0, there].tolist()


def test_published_sizes() -> None:
    with torch.device("meta"):
        maps, crops = DetectionsEncoder(), CropsEncoder()
    assert sum(p.numel() for p in maps.parameters()) == 2_622_976
    assert sum(p.numel() for p in crops.parameters()) == 14_454_208
    assert list(maps.state_dict()) == ["map.0.weight", "map.0.bias", "map.2.weight", "map.2.bias"]
    assert (maps.gives, crops.gives) == ({"tokens": 512}, {"tokens": 512})
    assert (maps.optional, crops.optional) == (frozenset(), {"detections"})


def test_nodes_in_use() -> None:
    """The object, then what it touches; several recordings are padded to the longest."""
    found = detected(features=2)
    batch = prepared(by_features(), Cue(label="dog", detections=found), Cue(box=(14, 0, 46, 40), detections=found))
    assert (nodes_of(batch), nodes_of(batch, 1)) == ([1, 3], [3, 1, 2])
    assert batch.get("detections").shape == (1, 2, 2, 3) and batch.get("objects") is None
    assert torch.isinf(batch.get("detections_mask")[0, 0]).tolist() == [False, False, True]


def test_nodes_in_training() -> None:
    """All that sounds after what it touches, the scene last; the classes of sounds, from 1."""
    encoder, cue = by_features().train(), Cue(label="dog", detections=detected(*BOTH, features=2))
    batch = prepared(encoder, cue, rng=0)
    assert nodes_of(batch) == [3, 1, 2, 9] and batch.get("objects").tolist() == [[[1, 2, 0]]]
    assert nodes_of(prepared(encoder, cue)) == [1, 3]
    plain = prepared(by_features(scene=False).train(), cue, rng=0)
    assert nodes_of(plain) == [3, 1, 2] and plain.get("objects").tolist() == [[[1, 2]]]
    published = prepared(by_features(protocol="paper").train(), cue, rng=0)
    assert nodes_of(published) == [3, 1, 3, 2, 9]


def test_sounds_that_are_missing_or_unnamed() -> None:
    encoder = by_features().train()
    one = Cue(name="a", detections=detected(Sounding(1, "cat"), features=2))
    gong = Cue(name="b", detections=detected(Sounding(0, "gong"), Sounding(1), features=2))
    assert prepared(encoder, one, gong, rng=0).get("objects").tolist() == [
        [[2, MISSING, 0], [UNNAMED, UNNAMED, 0]],
    ]
    boxed = Cue(label="cat", box=(0, 0, 20, 40), detections=detected(features=2))
    assert prepared(encoder, boxed, rng=0).get("objects").tolist() == [[[2, MISSING, MISSING]]]


def test_surroundings_are_dropped_in_training_only() -> None:
    cue = Cue(name="a", detections=detected(*BOTH, features=2))
    encoder = by_features(drop_context=1.0)
    assert nodes_of(prepared(encoder, cue, rng=0)) == [1, 3]
    assert nodes_of(prepared(encoder.train(), cue, rng=0)) == [1, 2, 9]


@pytest.mark.parametrize("protocol", ["default", "paper"])
def test_objects_and_the_scene_are_never_left_out(protocol: Any) -> None:
    """However few nodes there may be, also where published graphs have an object twice."""
    found = replace(detected(*BOTH, features=2), boxes=np.tile([0.0, 0, 20, 40], (3, 1)))
    cue, encoder = Cue(name="a", detections=found), by_features(nodes=3, protocol=protocol)
    assert nodes_of(prepared(encoder.train(), cue, rng=0))[-1] == 9
    assert sorted(nodes_of(prepared(encoder, cue, rng=0))) == [1, 2, 9]
    assert nodes_of(prepared(encoder.eval(), cue)) == [1, 2, 3]
    assert nodes_of(prepared(by_features(nodes=3, objects=1, protocol=protocol), cue)) == [1, 2, 3]


def test_published_graphs_of_two_frames_fit() -> None:
    """Twenty boxes in each, all of them touching the object, and the scene."""
    found = Detections(
        np.repeat([0, 1], 20), np.arange(40), np.ones(40), np.tile([0.0, 0, 9, 9], (40, 1)),
        features=np.ones((40, 2), np.float32), sounding=(Sounding(0, "dog"), Sounding(20, "cat")),
    )  # fmt: skip
    batch = prepared(by_features().train(), Cue(name="a", detections=found), rng=0)
    assert batch.get("detections").shape == (1, 1, 2, 41)


def test_crops() -> None:
    """What the boxes show, scaled to the square; the scene is the whole picture."""
    cue = Cue(label="cat", frames=pictures(), detections=detected(*BOTH))
    shown = prepared(by_crops(), cue).get("frames")
    assert shown.shape == (1, 1, 3, 32, 32, 2)
    levels = shown[0, 0].mean(dim=(1, 2)) * torch.tensor([0.229, 0.224, 0.225])[:, None]
    levels += torch.tensor([0.485, 0.456, 0.406])[:, None]
    torch.testing.assert_close(levels[:, 0], torch.tensor([0.0, 0, 1]), atol=1e-3, rtol=0)
    assert levels[1, 1] > 0.5
    taught = prepared(by_crops().train(), cue, rng=0).get("frames")
    assert taught.shape[-1] == 4
    whole = taught[0, 0, :, 16, :, 3]
    assert whole.argmax(dim=0)[[2, 16, 29]].tolist() == [0, 1, 2]


@pytest.mark.parametrize("given", [{}, {"box": (0, 0, 60, 40)}])
def test_pictures_alone_are_the_object(given: dict[str, Any]) -> None:
    """With the middle one of several, no surroundings, and in training the class of the cue."""
    frames = pictures(3)
    frames[[0, 2]] = 0
    cue = Cue(label="dog", frames=frames, **given)
    batch = prepared(by_crops(), cue)
    torch.testing.assert_close(batch.get("frames"), prepared(by_crops(), Cue(frames=pictures())).get("frames"))
    assert batch.get("detections").tolist() == [[len(given)]] and batch.has("detections").tolist() == [[False]]
    taught = prepared(by_crops().train(), cue, rng=0)
    assert taught.get("objects").tolist() == [[[1, MISSING, MISSING]]]


def test_surroundings_outside_of_the_picture_are_left_out() -> None:
    found = replace(detected(), boxes=np.array([[-60.0, 0, 20, 40], [40, 0, 60, 40], [-60, 0, 0, 40]]))
    assert prepared(by_crops(), Cue(label="dog", frames=pictures(), detections=found)).get("frames").shape[-1] == 1


@pytest.mark.parametrize("box", [(60, 0, 70, 40), (-9, 0, 0, 40), (0, 99, 60, 140), (70.0, 0, 9e9, 40), (3, 3, 3.2, 9)])
def test_a_box_outside_of_the_picture(box: tuple[float, ...]) -> None:
    with pytest.raises(CueError, match=r"of 'dog' has no pixel of its picture of 60 x 40; give x1, y1, x2, y2"):
        prepared(by_crops(), Cue(label="dog", frames=pictures(), box=box))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds, black in the first five and as ``pictures`` from then on."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    video = np.repeat(pictures(), 80, axis=0)
    video[:40] = 0
    write_mp4(path, video, np.zeros(441000, np.float32))
    return path


def test_the_picture_is_that_of_the_detections(film: Path) -> None:
    with VideoSource(film) as video:
        early, late = (
            prepared(by_crops(), Cue(label="dog", detections=detected(seconds=at)), video=video, time=5.0).get("frames")
            for at in (1.0, 9.0)
        )
    assert early.max() < -1 and late[0, 0, 0, :, :, 0].mean() > 1


def test_cues_of_one_video_are_told_apart(film: Path) -> None:
    """By their boxes, classes or own frames; a single cue may be the whole picture."""
    found = detected()
    dog, cat, boxed = Cue(label="dog", detections=found), Cue(label="cat", detections=found), Cue(box=(0, 0, 20, 20))
    nobody = Cue(label="gong")
    with VideoSource(film) as video:
        for cues in ([dog, cat], [dog, boxed], [dog, Cue(frames=pictures())], [nobody]):
            assert prepared(by_crops(), *cues, video=video).get("frames").shape[1] == len(cues)
        with pytest.raises(CueError, match="'gong' has neither a box, frames nor an object that was detected, and the"):
            prepared(by_crops(), dog, nobody, video=video)
        with pytest.raises(CueError, match="'source by box' and 'source by box' mean the same object"):
            prepared(by_crops(), boxed, boxed, video=video)
    same = Cue(name="left", detections=found), Cue(name="right", detections=found)
    with pytest.raises(CueError, match=r"'left' and 'right' mean the same object, the one in the box \[0\.0, 0\.0, 20"):
        prepared(by_crops(), *same, video=None)
    with pytest.raises(CueError, match="'dog' and 'dog' mean the same object"):
        prepared(by_features(), *[Cue(label="dog", detections=detected(features=2))] * 2)


def test_recordings_of_a_data_set_may_look_alike() -> None:
    """Each has detections of its own."""
    cues = [Cue(label="dog", detections=detected(features=2)) for _ in range(2)]
    assert prepared(by_features(), *cues).get("detections").shape[1] == 2


@pytest.mark.parametrize(
    ("cue", "why"),
    [
        (Cue(label="dog"), "'dog' has no detections with features and this model needs them; give Cue"),
        (Cue(label="dog", box=(0, 0, 9, 9)), "'dog' has no detections with features"),
        (Cue(label="dog", frames=pictures()), "'dog' has no detections with features"),
        (Cue(label="dog", detections=detected()), "'dog' has no detections with features"),
        (Cue(label="dog", detections=detected(features=3)), "'dog' have 3 features and this model reads 2; take the"),
        (Cue(label="gong", detections=detected(features=2)), "no class 'gong', its classes are dog, cat, mat"),
        (Cue(label="dog", box=(0, 0, 3, 3), detections=detected(features=2)), "Nothing was detected in the box"),
        (
            Cue(label="dog", detections=detected(features=2).take(np.zeros(0, np.int64))),
            "Nothing was detected in the pictures of 'dog'; give other detections",
        ),
    ],
)
def test_cues_without_features(cue: Cue, why: str, film: Path) -> None:
    """Where the video is at hand, too: this encoder does not look at it."""
    with VideoSource(film) as video:
        for source in (None, video):
            with pytest.raises(CueError, match=why):
                prepared(by_features(), cue, Cue(label="cat", detections=detected(features=2)), video=source)


def test_a_cue_without_pictures() -> None:
    with pytest.raises(CueError, match="'dog' has no frames and this model needs them"):
        prepared(by_crops(), Cue(label="dog", detections=detected()))


def test_a_missing_file_of_detections() -> None:
    with pytest.raises(DataError, match=r"The detections 'no/where\.npy' cannot be read"):
        prepared(by_crops(), Cue(label="dog", frames=pictures(), detections="no/where.npy"))


def test_a_file_of_detections(tmp_path: Path) -> None:
    np.save(tmp_path / "seen.npy", np.array([[1, 3, 0.9, 0, 0, 20, 40], [1, 1, 0.8, 10, 0, 30, 40]]))
    cue = Cue(name="it", frames=pictures(), detections=tmp_path / "seen.npy")
    batch = prepared(by_crops(), cue)
    assert batch.get("frames").shape[-1] == 2 and batch.get("detections").tolist() == [[2]]


def test_what_told_the_object() -> None:
    """A user reads it: detections, and the class where it chose among them."""
    found = detected(features=2)
    cues = Cue(label="dog", detections=found), Cue(label="cat", box=(40, 0, 60, 40), detections=found)
    batch = prepared(by_features(), *cues)
    assert batch.present["detections"].tolist() == [[True, True]]
    assert batch.present["label"].tolist() == [[True, False]]


@pytest.mark.parametrize("kind", [by_features, by_crops])
def test_tokens(kind: Any) -> None:
    """Padding has a bias of -inf and no gradient; recordings do not see each other, and the batch is as one."""
    encoder, two, one = kind(), detected(features=2), detected(features=2).take(np.array([0]))
    cues = [Cue(label="dog", frames=pictures(), detections=found) for found in (two, one)]
    batch = CueBatch.stack([prepared(encoder, *cues), prepared(encoder, *cues[::-1])])
    shown: Tensor = batch.values[encoder.shows].requires_grad_()
    embedding = encoder(batch)
    assert embedding.tokens.shape == (2, 2, 2, 4)
    assert embedding.tokens_bias.tolist() == [[[0, 0], [0, -torch.inf]], [[0, -torch.inf], [0, 0]]]
    torch.testing.assert_close(embedding.tokens[0], embedding.tokens[1].flip(0))
    torch.testing.assert_close(encoder(prepared(encoder, cues[1])).tokens[0, 0, 0], embedding.tokens[0, 1, 0])
    embedding.tokens.sum().backward()
    assert shown.grad is not None and torch.isfinite(shown.grad).all()
    assert shown.grad[0, 1, ..., 1].eq(0).all() and shown.grad[0, 0, ..., 1].abs().sum() > 0


@pytest.mark.parametrize("kind", [by_features, by_crops])
def test_half_precision(kind: Any) -> None:
    encoder = kind()
    batch = prepared(encoder, Cue(label="dog", frames=pictures(), detections=detected(features=2)))
    wanted = encoder(batch)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = encoder(batch)
    torch.testing.assert_close(mixed.tokens.float(), wanted.tokens, atol=0.1, rtol=0.05)
    assert mixed.tokens_bias.dtype == torch.float32


def test_nodes_without_a_mask_all_count() -> None:
    embedding = by_features()(CueBatch({"detections": torch.randn(1, 2, 2, 3)}))
    assert embedding.tokens_bias.eq(0).all() and embedding.tokens_bias.shape == (1, 2, 3)


def test_a_batch_without_nodes() -> None:
    with pytest.raises(CueError, match="needs what was detected in each recording"):
        by_features()(CueBatch({"label": torch.zeros(1, 2)}))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"objects": 0}, "There are 0 objects among 64 nodes"),
        ({"nodes": 2}, "2 objects among 2 nodes"),
        ({"drop_context": 1.5}, "1.5 of the surroundings is dropped"),
        ({"protocol": "papers"}, "'papers'; give default or paper"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        by_features(**settings)
    with pytest.raises(ValueError, match="image_size is 100; give a multiple of 32"):
        by_crops(image_size=100)
