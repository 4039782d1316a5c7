"""Cues to embedding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avsep_iquery.encoder import IQueryEncoder
from avsep_zoo.contracts import CueBatch
from avsep_zoo.cue import Cue
from avsep_zoo.errors import CueError
from avsep_zoo.pictures import centre_view, crop, normalise

CLASSES = ["cello", "acoustic_guitar", "tuba"]


def encoder(**settings: Any) -> IQueryEncoder:
    small = {"classes": CLASSES, "width": 4, "object_features": 8, "frames": 2, "image_size": 32}
    return IQueryEncoder(**(small | settings)).eval()


def pictures(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 40, 50, 3), dtype=np.uint8)


def batch(sources: int = 2, items: int = 2, **more: Any) -> CueBatch:
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(items, sources, 3, 2, 32, 32, generator=generator)
    label = torch.arange(items * sources).reshape(items, sources) % 3
    return CueBatch({"frames": frames, "label": label, **more})


@pytest.mark.parametrize("label", ["acoustic_guitar", "Acoustic Guitar", " acoustic-guitar "])
def test_spelling_of_a_class(label: str) -> None:
    assert encoder().label_index(label) == 1


def test_an_unknown_class() -> None:
    with pytest.raises(CueError, match="no class 'celo'; did you mean 'cello'"):
        encoder().label_index("celo")
    with pytest.raises(CueError, match="it knows cello, acoustic_guitar, tuba"):
        encoder().label_index("xylophone")


@torch.no_grad()
def test_vector_is_the_pooled_map_through_a_sigmoid() -> None:
    for pooling in ("max", "average"):
        network, cues = encoder(pooling=pooling), batch()
        embedding = network(cues)
        maps = network.feature_map(cues.get("frames")[1])  # (N, D, K, h, w)
        pooled = maps.amax(dim=(2, 3, 4)) if pooling == "max" else maps.mean(dim=(2, 3, 4))
        torch.testing.assert_close(embedding.vector[1], torch.sigmoid(pooled))
        assert embedding.index.tolist() == [[0, 1], [2, 0]]
        assert embedding.tokens is None


@pytest.mark.parametrize(("stride", "size"), [(16, 2), (32, 1)])
def test_stride(stride: Any, size: int) -> None:
    assert encoder(stride=stride).feature_map(torch.zeros(1, 3, 2, 32, 32)).shape == (1, 8, 2, size, size)


def test_training_normalises_every_source_on_its_own() -> None:
    """As published: the frame net runs once per source slot, also while its weights are frozen."""
    network = encoder().train()
    network(batch(sources=3))
    assert int(network.features.bn1.num_batches_tracked) == 3
    trained = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"fc"}
    assert all(p.requires_grad for p in encoder(frozen=False).parameters())


@torch.no_grad()
def test_a_missing_modality() -> None:
    network = encoder(optional=["frames", "label"])
    cues = batch()
    cues.present = {
        "frames": torch.tensor([[True, False], [True, True]]),
        "label": torch.tensor([[True, True], [False, True]]),
    }
    embedding, vectors = network(cues), network.class_vectors.weight
    chances = torch.softmax(network.recogniser(network.look(cues.get("frames")[1])), dim=-1)  # (N, classes)
    assert embedding.index.tolist() == [[0, 1], [int(chances[0].argmax()), 0]]
    assert torch.equal(embedding.vector[0], vectors[:2])
    torch.testing.assert_close(embedding.vector[1, 0], chances[0] @ vectors[:3])
    assert torch.equal(embedding.vector[1, 1], vectors[0])
    labels_alone = network(CueBatch({"label": torch.tensor([[2, 1]])}))
    assert torch.equal(labels_alone.vector[0], vectors[[2, 1]])


def test_frames_that_are_needed() -> None:
    with pytest.raises(CueError, match="needs frames"):
        encoder()(CueBatch({"label": torch.tensor([[0]])}))


def test_optional_names_a_modality_it_cannot_do_without() -> None:
    with pytest.raises(ValueError, match="motion"):
        encoder(motion=6, optional=["motion"])


def test_padded_motion_is_added_or_masked() -> None:
    mask = torch.tensor([[[0.0, 1.0, torch.inf]]])
    cues = batch(sources=1, items=1, motion=torch.randn(1, 1, 6, 3), motion_mask=mask)
    inf = torch.inf
    for padding, bias in (("added", [0.0, 1.0, -inf]), ("masked", [0.0, -inf, -inf])):
        embedding = encoder(motion=6, motion_padding=padding)(cues)
        assert embedding.tokens_bias[0, 0].tolist() == bias
        assert torch.equal(embedding.tokens[0, 0], cues.get("motion")[0, 0].T)


def test_preparing_frames_with_boxes() -> None:
    box = (5.0, 4.0, 45.0, 36.0)
    cues = encoder().prepare([Cue(label="tuba", frames=pictures(), box=box)], video=None, time=3.0)
    by_hand = normalise([centre_view(crop(picture, box), 32) for picture in pictures()])
    assert np.array_equal(cues.get("frames")[0, 0].numpy(), by_hand)
    assert cues.get("label").tolist() == [[2]]


def test_preparing_one_picture_for_all_places(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(pictures()[0]).save(tmp_path / "tuba.png")
    for frames in (pictures()[0], tmp_path / "tuba.png"):
        frames = encoder().prepare([Cue(label="tuba", frames=frames)], video=None, time=0.0).get("frames")
        assert torch.equal(frames[0, 0, :, 0], frames[0, 0, :, 1])


def test_preparing_cues_of_different_kinds() -> None:
    network = encoder(optional=["frames", "label"])
    cues = network.prepare([Cue(label="tuba"), Cue(frames=pictures())], video=None, time=0.0)
    assert cues.has("frames").tolist() == [[False, True]]
    assert cues.has("label").tolist() == [[True, False]]
    index = network(cues).index[0].tolist()
    assert index[0] == 2 and 0 <= index[1] < 3


def test_frames_of_a_labelled_source_are_prepared_only_to_learn_from() -> None:
    network = encoder(optional=["frames", "label"])
    cue = Cue(label="tuba", frames=pictures())
    assert network.eval().prepare([cue], video=None, time=0.0).get("frames") is None
    assert network.train().prepare([cue], video=None, time=0.0).get("frames") is not None


def test_recognition_is_learned_from_sources_with_frames_and_label() -> None:
    network = encoder(optional=["frames", "label"], frozen=False).train()
    cues = batch()
    cues.present = {"frames": torch.tensor([[True, False], [True, True]])}
    loss = network.recognition_loss(cues)
    logits = network.recogniser(torch.stack([network.look(cues.get("frames")[:, n]) for n in range(2)], dim=1))
    rows = logits.log_softmax(dim=-1)
    torch.testing.assert_close(loss, -(rows[0, 0, 0] + rows[1, 0, 2] + rows[1, 1, 0]) / 3)
    loss.backward()
    assert network.features.conv1.weight.grad.abs().sum() > 0
    assert network.recognition_loss(CueBatch({"label": torch.tensor([[0]])})) == 0


@pytest.mark.parametrize(
    ("cue", "message"),
    [
        (Cue(frames=np.zeros((2, 8, 8, 3), np.uint8)), "has no label"),
        (Cue(label="tuba"), "has no frames"),
        (Cue(label="tuba", frames=np.zeros((2, 8, 8, 3))), "give uint8 RGB"),
    ],
)
def test_cues_that_are_not_enough(cue: Cue, message: str) -> None:
    with pytest.raises(CueError, match=message):
        encoder().prepare([cue], video=None, time=0.0)


def test_preparing_motion(tmp_path: Path) -> None:
    """Files are pooled over the picture; sources are padded to the longest, the padding is removed."""
    grid = np.random.default_rng(0).standard_normal((6, 3, 2, 2)).astype(np.float32)
    np.save(tmp_path / "motion.npy", grid)
    cues = encoder(motion=6).prepare(
        [
            Cue(label="tuba", frames=pictures(), motion=tmp_path / "motion.npy"),
            Cue(label="cello", frames=pictures(), motion=np.ones((6, 2))),
        ],
        video=None,
        time=0.0,
    )
    motion, mask = cues.get("motion"), cues.get("motion_mask")
    assert np.array_equal(motion[0, 0].numpy(), grid.max(axis=(2, 3)))
    assert motion[0, 1, :, 2].abs().sum() == 0
    assert mask[0].tolist() == [[0, 0, 0], [0, 0, torch.inf]]


@pytest.mark.parametrize("motion", [None, np.ones((5, 3)), np.ones((6, 0)), "missing.npy"])
def test_motion_that_cannot_be_used(motion: Any, tmp_path: Path) -> None:
    cue = Cue(label="tuba", frames=pictures(), motion=tmp_path / motion if isinstance(motion, str) else motion)
    with pytest.raises(CueError, match=r"motion features"):
        encoder(motion=6).prepare([cue], video=None, time=0.0)


def test_an_empty_motion_file(tmp_path: Path) -> None:
    (tmp_path / "empty.npy").touch()
    with pytest.raises(CueError, match=r"cannot be read .*give a .npy file"):
        encoder(motion=6).prepare(
            [Cue(label="tuba", frames=pictures(), motion=tmp_path / "empty.npy")], video=None, time=0.0
        )


@torch.no_grad()
def test_rows_of_added_classes_lie_behind_the_spare_ones() -> None:
    network = encoder(classes=[*CLASSES, "oboe", "harp"], added=[1, 1], spare_queries=2)
    assert network.gives["index"] == 7 and network.originals == 3
    cues = batch(label=torch.tensor([[3, 4], [0, 2]]))
    assert network(cues).index.tolist() == [[5, 6], [0, 2]]
    cues.present = {"label": torch.tensor([[True, False], [False, True]])}
    assert network(cues).index.tolist() == [[5, -1], [-1, 2]]


def test_nothing_known_takes_the_last_original_vector() -> None:
    network = encoder(classes=[*CLASSES, "oboe"], added=[1], optional=["frames", "label"])
    embedding = network(CueBatch({"label": torch.tensor([[-1, 3]])}))
    assert embedding.index.tolist() == [[-1, 4]]
    assert torch.equal(embedding.vector[0], network.class_vectors.weight[[3, 4]])


def test_recognition_is_learned_for_all_classes() -> None:
    """Cross-entropy over old and added classes by hand; a gradient reaches the added one."""
    network = encoder(classes=[*CLASSES, "oboe"], added=[1], optional=["label"])
    cues = batch(label=torch.tensor([[0, 3], [3, 1]]))
    loss = network.recognition_loss(cues)
    looks = torch.stack([network.look(frames) for frames in cues.get("frames")])
    scores = torch.cat((network.recogniser(looks), torch.zeros(2, 2, 1)), dim=-1).flatten(0, 1)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(scores, torch.tensor([0, 3, 3, 1])))
    loss.backward()
    assert network.added_recogniser.weight.grad.abs().min() > 0


@pytest.mark.parametrize("added", [[0], [3], [1, -1], [2, 2]])
def test_groups_of_added_classes_that_cannot_be(added: list[int]) -> None:
    with pytest.raises(ValueError, match="give sizes of real groups"):
        encoder(added=added)
