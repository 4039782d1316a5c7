"""Recordings taken whole: any number of sounds, one cue each; and the frames the cue is drawn with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from avsep_zoo.contracts import CueBatch
from avsep_zoo.cue import Cue
from avsep_zoo.data.clip import Clip
from avsep_zoo.data.mix_and_separate import MixAndSeparate
from avsep_zoo.data.pools import Pools
from avsep_zoo.errors import DataError


def clips(*labels: str, copies: int = 1) -> list[Clip]:
    """A clip for each text, whose letters are its classes."""
    return [Clip(f"{text}{k}", Path(f"{text}{k}.wav"), tuple(text)) for text in labels for k in range(copies)]


def drawn(pools: Pools, count: int = 300) -> list[list[Clip]]:
    rng = np.random.default_rng(0)
    return [[clip for recording in pools.draw(rng) for clip in recording] for _ in range(count)]


def test_recordings_of_any_number_of_sounds_go_together() -> None:
    """Of two, one or three classes, never two with one in common, and all of them are drawn."""
    pools = Pools(clips("ab", "c", "bde", "f"), sources=2, whole=True)
    assert pools.skipped == [] and (pools.cued, pools.per_mixture) == (1, 2)
    seen: Counter[frozenset[str]] = Counter()
    for first, second in drawn(pools):
        assert not set(first.labels) & set(second.labels)
        seen[frozenset({first.id, second.id})] += 1
    assert len(seen) == 5 and frozenset({"ab0", "bde0"}) not in seen


def test_recordings_are_drawn_uniformly() -> None:
    """Not their sets of classes: one that is everywhere comes first as often as its recordings are."""
    pools = Pools([*clips("ab", copies=8), *clips("c", "d")], sources=2, whole=True)
    first = Counter(mixture[0].id[:-1] for mixture in drawn(pools, 1000))
    assert first["ab"] == pytest.approx(800, abs=50) and first["c"] + first["d"] == pytest.approx(200, abs=50)


def test_another_recording_has_the_same_classes() -> None:
    pools = Pools([*clips("ab", copies=2), *clips("c")], sources=2, whole=True)
    by_name = {clip.id: clip for clip in clips("ab", copies=2)}
    rng = np.random.default_rng(0)
    other = pools.another(replace(by_name["ab0"], labels=("b", "a")), {"ab0"}, rng)
    assert other is not None and other.id == "ab1"
    assert pools.another(by_name["ab0"], {"ab0", "ab1"}, rng) is None


def test_whole_recordings_are_no_groups_of_members() -> None:
    pools = Pools(clips("ab", "cd", "e"), sources=2, members=2, whole=True)
    assert (pools.cued, pools.per_mixture, pools.skipped) == (1, 2, [])


def test_recordings_without_classes_are_left_out_beside_others() -> None:
    pools = Pools([*clips("ab", "c"), Clip("x", Path("x.wav"))], sources=2, whole=True)
    assert [entry.where for entry in pools.skipped] == ["x"]
    unnamed = Pools([Clip(name, Path(f"{name}.wav")) for name in "xy"], sources=2, whole=True)
    assert {clip.id for recording in unnamed.draw(np.random.default_rng(0)) for clip in recording} == {"x", "y"}


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (("ab", "bc", "ca"), "no 2 recordings without a common class; add clips of other classes"),
        (("a",), "have 1 classes; mixtures of 2 sources need 2 different ones"),
        ((), "None of 0 clips can be used"),
    ],
)
def test_too_few_recordings(texts: tuple[str, ...], why: str) -> None:
    with pytest.raises(DataError, match=why):
        Pools(clips(*texts), sources=2, whole=True)


def told(cues: Sequence[Cue], *, video: Any, time: float, rng: Any) -> CueBatch:
    """A small ``prepare``: the label and the rows of what sounds of each cue."""
    sounding = [[] if cue.detections is None else [one.label for one in cue.detections.sounding] for cue in cues]  # type: ignore[union-attr]
    return CueBatch({"label": [[cue.label for cue in cues]], "sounding": [sounding]})


@pytest.fixture
def duets(tmp_path: Path) -> list[Clip]:
    """Noises with boxes: duets of a and b, c and d, and a solo of e."""
    made = []
    for number, text in enumerate(("ab", "cd", "e")):
        noise = 0.1 * np.random.default_rng(number).standard_normal(11025).astype(np.float32)
        soundfile.write(tmp_path / f"{text}.wav", noise, 11025, "FLOAT")
        boxes = [[frame, "abcde".index(label) + 1, 0.9, 0, 0, 9, 9] for label in text for frame in (1, 2)]
        np.save(tmp_path / f"{text}.npy", np.array(boxes))
        clip = Clip(text, tmp_path / f"{text}.wav", tuple(text), detections=tmp_path / f"{text}.npy")
        made.append(replace(clip, detector_classes=tuple("abcde")))
    return made


def whole(made: Sequence[Clip], **change: Any) -> MixAndSeparate:
    settings = {"rate": 8000, "length": 4000, "items": 20, "reads": frozenset({"detections"}), "whole": True}
    return MixAndSeparate(made, told, **{**settings, **change})


def test_one_cue_shows_all_that_sounds(duets: list[Clip]) -> None:
    """With the class of a solo, and none of its own for a duet."""
    items = whole(duets)
    for number in range(6):
        item = items[number]
        assert item["sources"].shape == (2, 4000) and item["skipped"] == []
        for label, sounding in zip(item["cues"].get("label")[0], item["cues"].get("sounding")[0], strict=True):
            assert sounding == (["e"] if label == "e" else list("ab") if "a" in sounding else list("cd"))
    assert torch.equal(items[3]["sources"], whole(duets)[3]["sources"])


def test_a_broken_recording_makes_way(duets: list[Clip], tmp_path: Path) -> None:
    spare = replace(duets[0], id="spare", labels=("b", "a"))
    broken = replace(duets[0], detections=tmp_path / "no_boxes.npy")
    (tmp_path / "no_boxes.npy").write_bytes(b"no boxes")
    items = whole([broken, spare, duets[2]])
    found = [items[number]["skipped"] for number in range(10)]
    skipped = [entry for entries in found for entry in entries]
    assert {entry.where for entry in skipped} == {"ab"} and "no_boxes.npy" in skipped[0].why
