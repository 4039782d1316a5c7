"""Given mixtures as items: where they are cut, what their cues give, and what happens to broken files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from avsep_zoo.contracts import CueBatch
from avsep_zoo.cue import Cue
from avsep_zoo.data.clip import Clip
from avsep_zoo.data.collate import collate
from avsep_zoo.data.fixed_mixtures import FixedMixtures
from avsep_zoo.errors import CueError, DataError
from avsep_zoo.model import SeparationModel

RATE, LENGTH = 8000, 8191  # of the tiny model
SECONDS = 3
BOTH = frozenset({"label", "frames"})


def make_clip(root: Path, label: str, name: str = "0", seconds: float = SECONDS) -> Clip:
    """A ramp that tells its place, and a picture per second whose level is 40 times its number."""
    audio, frames = root / f"{label}{name}.wav", root / f"{label}{name}"
    samples = int(seconds * RATE)
    soundfile.write(audio, np.arange(samples) / samples, RATE, "FLOAT")
    frames.mkdir()
    for number in range(1, int(seconds) + 1):
        Image.new("RGB", (32, 32), (40 * number,) * 3).save(frames / f"{number:06d}.jpg")
    return Clip(f"{label}/{name}", audio, (label,), frames=frames, frame_count=int(seconds))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Clip, Clip]:
    return make_clip(tmp_path, "violin"), make_clip(tmp_path, "flute")


def items(*mixtures: Sequence[Clip], prepare: Any = None, **change: Any) -> FixedMixtures:
    return FixedMixtures(mixtures, prepare, **{"rate": RATE, "length": LENGTH, "reads": BOTH, **change})


def first_place(item: dict[str, Any], seconds: float = SECONDS) -> float:
    """The sample of its clip that source 0 begins with."""
    return float(item["sources"][0, 0]) * seconds * RATE


def level(cue: Cue) -> float:
    return float(np.asarray(cue.frames)[1].mean())


def test_middle_of_the_clip(pair: tuple[Clip, Clip]) -> None:
    item = items(pair)[0]
    assert item["sources"].shape == (2, LENGTH) and item["sources"].dtype == torch.float32
    assert first_place(item) == pytest.approx((24000 - LENGTH) // 2, abs=0.1)
    assert level(item["cues"][0]) == pytest.approx(80, abs=2)


def test_start_of_the_clip(pair: tuple[Clip, Clip]) -> None:
    item = items(pair, placement="start")[0]
    assert first_place(item) == 0
    assert level(item["cues"][0]) == pytest.approx(40, abs=2)


def test_frame_after_the_middle_one(tmp_path: Path, pair: tuple[Clip, Clip]) -> None:
    """Of four frames that is the third, whose middle is at 2.5 s."""
    clip = make_clip(tmp_path, "drum", seconds=4)
    item = items((clip, pair[0]), placement="frame")[0]
    assert first_place(item, 4) == pytest.approx(2.5 * RATE - LENGTH / 2, abs=1)
    assert level(item["cues"][0]) == pytest.approx(120, abs=2)


def test_frame_near_an_end_is_padded_with_silence(pair: tuple[Clip, Clip]) -> None:
    item = items((replace(pair[0], frame_count=1), pair[1]), placement="frame", length=2 * RATE)[0]
    assert not item["sources"][0, : RATE // 2].any()
    assert float(item["sources"][0, RATE]) == pytest.approx(0.5 / 3, abs=1e-3)


def test_frame_beyond_the_sound(pair: tuple[Clip, Clip]) -> None:
    with pytest.raises(DataError, match=r"violin0\.wav' ends at 3\.00 s, before the segment .* begins at 9\.99 s"):
        items((replace(pair[0], frame_count=20), pair[1]), placement="frame")[0]


def test_part_of_a_longer_file(pair: tuple[Clip, Clip]) -> None:
    clip = replace(pair[0], start=1.0, duration=1.5)
    assert first_place(items((clip, pair[1]))[0]) == pytest.approx(RATE * 1.75 - LENGTH / 2, abs=1)
    late = items((clip, pair[1]), length=2 * RATE)[0]["sources"][0]
    assert late[: int(1.49 * RATE)].all() and not late[int(1.51 * RATE) :].any()


def test_short_clip_of_published_loaders(pair: tuple[Clip, Clip]) -> None:
    """Repeated, or in the middle of silence where it is not."""
    short = replace(pair[0], frame_count=0)
    for repeat, begin, end in ((True, 0, 32000), (False, 4000, 28000)):
        found = items((short, pair[1]), placement="middle", length=32000, protocol="paper", repeat=repeat)[0]
        sounding = found["sources"][0].nonzero()
        assert [int(sounding[0]), int(sounding[-1])] == pytest.approx([begin, end], abs=2)


def test_any_rate_and_length(pair: tuple[Clip, Clip]) -> None:
    item = items(pair, rate=4000, length=10000)[0]
    assert item["sources"].shape == (2, 10000)
    assert float(item["sources"][0, 5000]) == pytest.approx(0.5, abs=0.05)


def test_modalities_that_are_not_read_are_not_loaded(pair: tuple[Clip, Clip]) -> None:
    for path in pair[0].frames.iterdir():  # type: ignore[union-attr]
        path.write_bytes(b"no picture")
    cue = items(pair, reads=frozenset({"label"}))[0]["cues"][0]
    assert cue.modalities == {"label"}
    with pytest.raises(CueError, match="cannot be read as a picture"):
        items(pair)[0]


@pytest.mark.parametrize(
    ("use", "given"),
    [
        (None, {"label", "text", "frames"}),
        ({"label"}, {"label"}),
        ({"frames"}, {"frames"}),
        ({"text", "frames"}, {"text", "frames"}),
    ],
)
def test_cues_give_what_is_used(pair: tuple[Clip, Clip], use: set[str] | None, given: set[str]) -> None:
    clip = replace(pair[0], text="a violin")
    item = items((clip, pair[1]), use=None if use is None else frozenset(use))[0]
    assert item["cues"][0].modalities == given


def test_cue_that_would_be_empty_gives_label_or_caption(pair: tuple[Clip, Clip]) -> None:
    named = replace(pair[0], frames=None)
    told = replace(pair[1], frames=None, labels=(), text="a bird")
    cues = items((named, told), use=frozenset({"frames"}))[0]["cues"]
    assert (cues[0].label, cues[1].text) == ("violin", "a bird")


def test_cues_are_prepared_for_a_model(pair: tuple[Clip, Clip], tiny_model: SeparationModel) -> None:
    tiny_model.train()  # in eval mode a label makes frames unnecessary
    cues = items(pair, prepare=tiny_model.encoder.prepare)[0]["cues"]
    assert isinstance(cues, CueBatch)
    assert cues.values["frames"].shape == (1, 2, 3, 2, 32, 32)
    assert cues.values["label"].tolist() == [[0, 1]]


def test_cues_as_they_are_can_be_separated(pair: tuple[Clip, Clip], tiny_model: SeparationModel) -> None:
    item = items(pair, length=2 * LENGTH)[0]
    result = tiny_model.separate(item["sources"].sum(dim=0), item["cues"], rate=RATE)
    assert [stem.name for stem in result.stems] == ["violin", "flute"]


def test_batch_marks_what_some_items_lack(pair: tuple[Clip, Clip], tiny_model: SeparationModel) -> None:
    tiny_model.train()
    blind = [replace(clip, frames=None) for clip in pair]
    data = items(blind, pair, prepare=tiny_model.encoder.prepare)
    batch = collate([data[0], data[1]])
    assert batch["sources"].shape == (2, 2, LENGTH) and batch["skipped"] == []
    assert batch["cues"].has("frames").tolist() == [[False, False], [True, True]]
    assert batch["cues"].has("label").all()


def test_batch_of_cues_as_they_are(pair: tuple[Clip, Clip]) -> None:
    data = items(pair, pair[::-1])
    assert [[cue.label for cue in cues] for cues in collate([data[0], data[1]])["cues"]] == [
        ["violin", "flute"],
        ["flute", "violin"],
    ]


def test_broken_file_affects_its_item_only(tmp_path: Path, pair: tuple[Clip, Clip]) -> None:
    third = make_clip(tmp_path, "drum")
    third.audio.unlink()
    data = items((pair[0], third), pair)
    with pytest.raises(DataError, match=r"drum0\.wav' cannot be read"):
        data[0]
    assert data[1]["sources"].any()


def test_published_loader_makes_a_broken_item_silent_and_black(
    pair: tuple[Clip, Clip], tiny_model: SeparationModel
) -> None:
    """Its classes stay; frames are zeros after normalisation."""
    tiny_model.train()
    (pair[0].frames / "000002.jpg").write_bytes(b"no picture")  # type: ignore[operator]
    item = items(pair, prepare=tiny_model.encoder.prepare, protocol="paper")[0]
    assert not item["sources"].any() and not item["cues"].values["frames"].any()
    assert item["cues"].values["label"].tolist() == [[0, 1]] and item["cues"].has("frames").all()
    (entry,) = collate([item])["skipped"]
    assert entry.where == "violin/0 + flute/0" and "000002.jpg" in entry.why


def test_published_loader_takes_a_slow_file_for_one_at_the_rate(tmp_path: Path, pair: tuple[Clip, Clip]) -> None:
    """At twice the rate of the file its samples are taken as they are, and its time halves."""
    item = items(pair, protocol="paper", rate=2 * RATE, length=401, placement="middle")[0]
    assert first_place(item) == pytest.approx(SECONDS * RATE // 2 - 200, abs=0.1)
    assert item["sources"][0, -1] == 0
