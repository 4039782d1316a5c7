"""Cues as maps: what is looked at, when and where, what training varies, and the mistakes a user can make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from avsep_ial_cms.encoder import DeepLabEncoder
from avsep_ial_cms.views import object_view
from avsep_zoo.blocks.resnet import ResNet18Features
from avsep_zoo.contracts import CueBatch
from avsep_zoo.cue import Cue
from avsep_zoo.data.detection_file import write_detections_file
from avsep_zoo.data.detections import Detections, Sounding
from avsep_zoo.errors import CueError, DataError, WeightsError
from avsep_zoo.media import VideoSource
from avsep_zoo.synth.files import write_mp4

CLASSES = ("dog", "cat")
LEFT, RIGHT, MAT = [0.0, 0, 20, 40], [40.0, 0, 60, 40], [14.0, 0, 46, 40]


def pictures(count: int = 1) -> np.ndarray:
    """60 x 40 pixels, red in the left third, green in the middle, blue in the right one."""
    frames = np.zeros((count, 40, 60, 3), np.uint8)
    for third in range(3):
        frames[:, :, 20 * third : 20 * third + 20, third] = 255
    return frames


def detected(*sounding: Sounding, seconds: float | None = None) -> Detections:
    """A dog on the left, a cat on the right, and a mat in the middle."""
    return Detections(
        np.ones(3, np.int64), np.array([1, 2, 3]), np.array([0.9, 0.8, 0.7]), np.array([LEFT, RIGHT, MAT]),
        times=None if seconds is None else np.full(3, seconds), names=("dog", "cat", "mat"), sounding=sounding,
    )  # fmt: skip


def encoder(**settings: Any) -> DeepLabEncoder:
    small = {"width": 2, "pyramid": 3, "details": 2, "space": 4, "image_size": 32, "classes": CLASSES}
    return DeepLabEncoder(**{**small, "frozen": False, **settings}).eval()


def prepared(*cues: Cue, using: DeepLabEncoder | None = None, rng: int | None = None, **more: Any) -> CueBatch:
    generator = None if rng is None else np.random.default_rng(rng)
    return (using or encoder()).prepare(cues, **{"video": None, "time": 0.0, "rng": generator, **more})


def colour(batch: CueBatch, source: int = 0) -> list[int]:
    """Mean red, green and blue of what is shown of a source, in tenths."""
    means = batch.values["frames"][0, source].mean(dim=(1, 2)) * torch.tensor([0.229, 0.224, 0.225])
    return ((means + torch.tensor([0.485, 0.456, 0.406])) * 10).round().int().tolist()


def boxes(batch: CueBatch) -> list[list[float]]:
    found: list[list[float]] = batch.values["object_box"][0].tolist()
    return found


def test_plan() -> None:
    made = encoder()
    assert dict(made.gives) == {"map": 4, "vector": 4}
    assert (made.reads, made.optional) == ({"frames", "detections"}, {"detections"})
    assert DeepLabEncoder.plan(space=4) == DeepLabEncoder.plan(space=4, width=9) and not made.per_clip


def test_maps_of_every_source() -> None:
    """Unit vectors at an eighth of the pixels; sources and mixtures do not see each other."""
    made, frames = encoder(), torch.randn(2, 3, 3, 32, 32)
    maps = made(CueBatch({"frames": frames})).map
    assert maps.shape == (2, 3, 4, 4, 4)
    torch.testing.assert_close(maps.norm(dim=2), torch.ones(2, 3, 4, 4))
    alone = made(CueBatch({"frames": frames[1:, 2:]})).map
    torch.testing.assert_close(alone[0, 0], maps[1, 2])


def test_a_box_is_cut_out() -> None:
    """Of the middle one of several pictures; reports hear of the box, and of the part of it that is shown."""
    frames = pictures(3)
    frames[[0, 2]] = 0
    batch = prepared(Cue(box=LEFT, frames=frames), Cue(box=(41, 1, 57, 33), frames=frames), time=2.0)
    assert (colour(batch), colour(batch, 1)) == ([10, 0, 0], [0, 0, 10])
    torch.testing.assert_close(batch.values["frames"][0, 1], object_view(frames[1], (41, 1, 57, 33), 32))
    assert boxes(batch) == [[2, *LEFT], [2, 41, 1, 57, 33]]
    region = batch.values["map_region"][0, 1]
    first, last = 2 / 37, 34 / 37  # pixels of the square that the view is cut from
    wanted = [2, 41 + 16 * first, 1 + 32 * first, 41 + 16 * last, 1 + 32 * last]
    torch.testing.assert_close(region, torch.tensor(wanted, dtype=torch.float64))


def test_a_box_that_sticks_out_of_the_picture() -> None:
    """The map shows what the picture has of it."""
    batch = prepared(Cue(box=(40, -40, 100, 80), frames=pictures()))
    assert colour(batch) == [0, 0, 10] and boxes(batch) == [[0, 40, -40, 100, 80]]
    _, x1, y1, x2, y2 = batch.values["map_region"][0, 0].tolist()
    assert 40 < x1 < 42 and 58 < x2 < 60 and 0 < y1 < 3 and 36 < y2 < 40


def test_without_a_box_the_picture_is_the_object() -> None:
    batch = prepared(Cue(name="it", frames=pictures()[0]))
    torch.testing.assert_close(batch.values["frames"][0, 0], object_view(pictures()[0], None, 32))
    assert batch.values["object_box"][0, 0].isnan().tolist() == [False, True, True, True, True]
    _, x1, y1, x2, y2 = batch.values["map_region"][0, 0].tolist()
    assert 0 < x1 < 6 and 54 < x2 < 60 and 0 < y1 < 4 and 36 < y2 < 40


@pytest.mark.parametrize(
    ("cue", "wanted", "label"),
    [
        (Cue(label="dog", detections=detected()), LEFT, True),
        (Cue(label="Cat", detections=detected()), RIGHT, True),
        (Cue(name="it", detections=detected()), LEFT, False),
        (Cue(name="it", detections=detected(Sounding(2))), MAT, False),
        (Cue(label="cat", detections=detected(Sounding(2, "dog"), Sounding(0, "cat"))), LEFT, True),
        (Cue(label="dog", box=(41, 1, 60, 40), detections=detected()), [41.0, 1, 60, 40], False),
        (Cue(label="gong", box=(0, 0, 9, 9), detections=detected()), [0.0, 0, 9, 9], False),
    ],
)
def test_detections(cue: Cue, wanted: list[float], label: bool) -> None:
    """By class, by what sounds, by score, or by the box of the cue; a user reads what told it."""
    given = {**{name: getattr(cue, name) for name in ("label", "name", "box", "detections")}, "frames": pictures()}
    batch = prepared(Cue(**given))
    assert boxes(batch) == [[0, *wanted]]
    assert batch.present["detections"].tolist() == [[True]] and batch.present["label"].tolist() == [[label]]


def test_detections_in_files(tmp_path: Path) -> None:
    np.save(tmp_path / "seen.npy", np.array([[1, 3, 0.9, *RIGHT], [1, 1, 0.8, *LEFT]]))
    write_detections_file(tmp_path / "seen.safetensors", detected())
    for file, label, wanted in (("seen.npy", "dog", RIGHT), ("seen.safetensors", "cat", RIGHT)):
        assert boxes(prepared(Cue(label=label, frames=pictures(), detections=tmp_path / file))) == [[0, *wanted]]


def test_pictures_in_files(tmp_path: Path) -> None:
    Image.fromarray(pictures()[0]).save(tmp_path / "it.png")
    batch = prepared(Cue(box=RIGHT, frames=tmp_path / "it.png"))
    torch.testing.assert_close(batch.values["frames"][0, 0], object_view(pictures()[0], RIGHT, 32))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds, black in the first five and as ``pictures`` from then on."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    video = np.repeat(pictures(), 80, axis=0)
    video[:40] = 0
    write_mp4(path, video, np.zeros(441000, np.float32))
    return path


@pytest.mark.parametrize("own", [True, False])
def test_the_picture_is_that_of_the_segment(film: Path, own: bool) -> None:
    """Where detections have times, that of the nearest of them."""
    timed = np.array([[1.0, *LEFT], [9.0, *RIGHT]])
    more: dict[str, Any] = {"frames": film} if own else {}
    with VideoSource(film) as video:
        video_given = None if own else video
        for cue, time, wanted, moment in (
            (Cue(box=LEFT, **more), 2.0, [0, 0, 0], 2.0),
            (Cue(box=LEFT, **more), 8.0, [10, 0, 0], 8.0),
            (Cue(boxes=timed, **more), 7.0, [0, 0, 10], 7.0),
            (Cue(label="dog", detections=detected(seconds=9.0), **more), 1.0, [10, 0, 0], 9.0),
        ):
            batch = prepared(cue, video=video_given, time=time)
            assert colour(batch) == pytest.approx(wanted, abs=1)
            assert batch.values["object_box"][0, 0, 0] == batch.values["map_region"][0, 0, 0] == moment


def test_cues_of_one_video_are_told_apart(film: Path) -> None:
    """By their boxes, classes or own frames; a single cue may be the whole picture."""
    dog, cat, boxed = Cue(label="dog", detections=detected()), Cue(label="cat", detections=detected()), Cue(box=MAT)
    nobody = Cue(label="gong")
    with VideoSource(film) as video:
        for cues in ([boxed, Cue(box=LEFT)], [dog, boxed], [dog, Cue(frames=pictures())], [nobody]):
            assert prepared(*cues, video=video).values["frames"].shape == (1, len(cues), 3, 32, 32)
        with pytest.raises(CueError, match="'gong' has neither a box, frames nor an object that was detected, and the"):
            prepared(boxed, nobody, video=video)
        with pytest.raises(CueError, match="'source by box' and 'source by box' mean the same object"):
            prepared(boxed, boxed, video=video)
        assert prepared(dog, cat, video=video).present["label"].tolist() == [[True, True]]


@pytest.mark.parametrize(
    ("cue", "why"),
    [
        (Cue(label="dog"), "'dog' has no frames and this model needs them; give frames, or a video"),
        (Cue(frames=pictures(), box=(60, 0, 70, 40)), "has no pixel of a picture of 60 x 40; give x1, y1, x2, y2"),
        (Cue(frames=pictures(), box=(3, 3, 3.2, 9)), "has no pixel of a picture"),
        (Cue(frames=np.zeros((2, 0, 8, 3), np.uint8)), "give uint8 RGB"),
        (Cue(frames=np.zeros((8, 8, 3))), "are float64 of shape"),
        (Cue(frames="no/picture.png"), "cannot be read as a picture"),
        (Cue(label="gong", frames=pictures(), detections=detected()), "no class 'gong', its classes are dog, cat, mat"),
    ],
)
def test_cues_that_show_nothing(cue: Cue, why: str) -> None:
    """One sentence."""
    with pytest.raises(CueError, match=why) as caught:
        prepared(cue)
    assert str(caught.value).endswith(".") and str(caught.value).count(". ") == 0


def test_a_missing_file_of_detections() -> None:
    with pytest.raises(DataError, match=r"The detections 'no/where\.npy' cannot be read"):
        prepared(Cue(label="dog", frames=pictures(), detections="no/where.npy"))


def test_boxes_of_any_size() -> None:
    """One pixel, and as large as numbers go."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    cues = Cue(frames=noise, box=(7, 9, 8, 10)), Cue(frames=noise, box=(-1e100, -1e12, 1e12, 1e100))
    batch = prepared(*cues)
    assert batch.values["frames"][0, 0].std(dim=(1, 2)).max() < 1e-6
    torch.testing.assert_close(batch.values["frames"][0, 1], prepared(Cue(frames=noise)).values["frames"][0, 0])
    assert torch.isfinite(encoder()(batch).map).all()


def test_views_of_training_vary_with_the_generator_of_the_item() -> None:
    """The same one gives the same; outside of training it changes nothing."""
    made = encoder()
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    cues = [Cue(frames=noise, box=LEFT), Cue(frames=noise, box=RIGHT)]
    still = prepared(*cues, using=made).values["frames"]
    torch.testing.assert_close(prepared(*cues, using=made, rng=1).values["frames"], still)
    made.train()
    torch.testing.assert_close(prepared(*cues, using=made).values["frames"], still)
    views = [prepared(*cues, using=made, rng=seed).values["frames"] for seed in (1, 1, 2, 3)]
    torch.testing.assert_close(views[0], views[1])
    assert all(not torch.equal(views[0], other) for other in (*views[2:], still))


def test_classes_come_with_training_items_only() -> None:
    """-1 where the class is unknown or there is none; two recordings may show the same."""
    made, cues = encoder(), [Cue(label=name, frames=pictures(), box=LEFT) for name in ("cat", "gong", None)]
    with pytest.raises(CueError, match="mean the same object"):
        prepared(*[cues[0]] * 2, using=made)
    assert "label" not in prepared(*[Cue(label="cat", frames=pictures())], using=made).values
    batch = prepared(*cues, using=made.train(), rng=0)
    assert batch.values["label"].tolist() == [[1, -1, -1]]
    assert not batch.values.keys() & {"object_box", "map_region"}
    assert "label" not in prepared(*cues, using=encoder(classes=()).train(), rng=0).values


def test_training_items_make_a_batch() -> None:
    made = encoder().train()
    items = [prepared(*[Cue(label="dog", frames=pictures())] * 2, using=made, rng=seed) for seed in (0, 1)]
    batch = CueBatch.stack(items)
    assert made(batch).map.shape == (2, 2, 4, 4, 4) and batch.values["label"].shape == (2, 2)


def test_a_batch_without_frames() -> None:
    with pytest.raises(CueError, match="needs to see every source; give frames, or a video with boxes"):
        encoder()(CueBatch({"label": torch.zeros(1, 2)}))


@pytest.mark.parametrize("size", [0, 8, 100, -16])
def test_sizes_of_views_that_do_not_fit(size: int) -> None:
    with pytest.raises(ValueError, match=f"image_size is {size}; give a multiple of 16"):
        encoder(image_size=size)


def test_imagenet_weights(tmp_path: Path) -> None:
    """Torchvision's file: a classifier that is left out; it may have no counters, as old files."""
    torch.manual_seed(1)
    source = ResNet18Features(width=2).state_dict()
    old = {name: value for name, value in source.items() if not name.endswith("num_batches_tracked")}
    torch.save({**old, "fc.weight": torch.zeros(1000, 16), "fc.bias": torch.zeros(1000)}, tmp_path / "resnet18.pth")
    made = encoder(image_weights=str(tmp_path / "resnet18.pth"), frozen=True)
    made.load_pretrained()
    assert all(torch.equal(value, source[name]) for name, value in made.network.features.state_dict().items())


def test_weights_of_another_network(tmp_path: Path) -> None:
    """Nothing is loaded unless all of it fits."""
    torch.save(ResNet18Features(width=4).state_dict(), tmp_path / "resnet18.pth")
    made = encoder(image_weights=str(tmp_path / "resnet18.pth"))
    before = made.network.features.conv1.weight.clone()
    with pytest.raises(WeightsError, match=r"resnet18\.pth do not fit this ResNet-18: 100 entries"):
        made.load_pretrained()
    assert torch.equal(made.network.features.conv1.weight, before)


def test_weights_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.pth"):
        encoder(image_weights=str(tmp_path / "gone.pth")).load_pretrained()


def test_a_frozen_resnet_needs_weights() -> None:
    with pytest.raises(WeightsError, match=r"name torchvision's resnet18-f37072fd\.pth by the encoder's setting image"):
        encoder(frozen=True).load_pretrained()
    made = encoder()
    before = made.network.features.conv1.weight.clone()
    made.load_pretrained()
    assert torch.equal(made.network.features.conv1.weight, before)
