"""Pictures of a clip around a time: from stored frames or a video, cropped to what a detector found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from avsep_zoo.data.clip import Clip
from avsep_zoo.data.frames import clip_frames, published_frames
from avsep_zoo.errors import CueError, DataError, MediaError


def shades(levels: Sequence[int], size: tuple[int, int] = (8, 8)) -> list[np.ndarray]:
    return [np.full((*size, 3), level, np.uint8) for level in levels]


def stored(folder: Path, pictures: Sequence[np.ndarray], kind: str = "jpg", **known: Any) -> Clip:
    """A clip with pictures, numbered from 1."""
    (folder / "frames").mkdir()
    for number, picture in enumerate(pictures, 1):
        Image.fromarray(picture).save(folder / f"frames/{number:06d}.{kind}", quality=100, subsampling=0)
    return Clip("a", folder / "a.wav", ("violin",), frames=folder / "frames", frame_count=len(pictures), **known)


def boxed(folder: Path, rows: Any) -> Clip:
    """A clip of three pictures of 40 x 30 that are white in x 10 to 20, y 5 to 25, with detections."""
    picture = np.zeros((30, 40, 3), np.uint8)
    picture[5:25, 10:20] = 255
    np.save(folder / "boxes.npy", np.asarray(rows, np.float32))
    return stored(folder, [picture] * 3, detections=folder / "boxes.npy")


def levels(frames: np.ndarray | None) -> list[float]:
    assert frames is not None
    return frames.mean(axis=(1, 2, 3)).round().tolist()


def video(path: Path, pictures: Sequence[np.ndarray], rate: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.options = "yuv420p", {"qscale": "1"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("time", "wanted"), [(0.0, (40, 40, 120)), (1.9, (40, 120, 240)), (9.0, (240, 240, 240))])
def test_frames_are_those_around_the_time(tmp_path: Path, time: float, wanted: Sequence[int]) -> None:
    clip = stored(tmp_path, shades((40, 120, 240)))
    assert levels(clip_frames(clip, time)) == pytest.approx(wanted, abs=2)


def test_number_of_frames(tmp_path: Path) -> None:
    clip = stored(tmp_path, shades(range(20, 220, 20)), frame_rate=2.0)
    for count, wanted in ((1, [100]), (2, [80, 100]), (5, [60, 80, 100, 120, 140])):
        assert levels(clip_frames(clip, 2.2, count)) == pytest.approx(wanted, abs=2)


def test_frames_may_be_some_of_the_list_apart(tmp_path: Path) -> None:
    """Beyond the ends they are the first and the last one."""
    clip = stored(tmp_path, shades(range(20, 220, 20)))
    assert levels(clip_frames(clip, 4.5, 5, stride=2)) == pytest.approx([20, 60, 100, 140, 180], abs=2)
    found = published_frames(clip, 4.5, 5, stride=3)
    assert found is not None
    assert levels(found[0]) == pytest.approx([20, 40, 100, 160, 200], abs=2)


def test_frames_are_counted_where_the_list_does_not(tmp_path: Path) -> None:
    clip = replace(stored(tmp_path, shades((40, 120, 240))), frame_count=0)
    assert levels(clip_frames(clip, 9.0)) == pytest.approx((240, 240, 240), abs=2)
    Image.fromarray(shades((10,))[0]).save(tmp_path / "frames/000004.jpg")
    os.utime(tmp_path / "frames", ns=(1, 1))
    assert levels(clip_frames(clip, 9.0)) == pytest.approx((10, 10, 10), abs=2)


def test_png_frames(tmp_path: Path) -> None:
    """Official duets have them; other files in the folder do not count."""
    clip = replace(stored(tmp_path, shades((40, 120, 240)), "png"), frame_count=0)
    (tmp_path / "frames/Thumbs.db").touch()
    assert levels(clip_frames(clip, 9.0)) == [240, 240, 240]


def test_gap_does_not_move_the_last_frame(tmp_path: Path) -> None:
    clip = replace(stored(tmp_path, shades((40, 120, 200, 240))), frame_count=0)
    (tmp_path / "frames/000002.jpg").unlink()
    assert levels(clip_frames(clip, 9.0)) == pytest.approx((240, 240, 240), abs=2)
    with pytest.raises(CueError, match="000002"):
        clip_frames(clip, 1.0)


def test_published_box_of_damaged_detections_stays_near_the_picture(tmp_path: Path) -> None:
    """A crop to it must not ask for terabytes."""
    found = published_frames(boxed(tmp_path, [[2, 1, 0.9, -1e9, -5, 20, 1e9]]), 1.5, 1)
    assert found is not None and found[1] is not None
    assert found[1][0, 1:].tolist() == [-40, -5, 20, 60]


def test_video_is_asked_where_no_frames_are_stored(tmp_path: Path) -> None:
    """The same times as stored frames of its rate, from where the clip begins."""
    path = video(tmp_path / "a.mp4", shades(range(0, 240, 10), (32, 32)), rate=4)  # 6 s
    clip = Clip("a", path, video=path, frames=tmp_path / "none")
    assert levels(clip_frames(clip, 3.0)) == pytest.approx((100, 140, 180), abs=4)
    assert levels(clip_frames(replace(clip, start=1.0), 2.0)) == pytest.approx((100, 140, 180), abs=4)
    assert levels(clip_frames(replace(clip, frame_rate=4.0), 3.0)) == pytest.approx((110, 120, 130), abs=4)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(MediaError, match=r"a\.mp4"):
        clip_frames(clip, 3.0)


def test_clip_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    clip = Clip("a", tmp_path / "a.wav", frames=tmp_path / "frames", frame_count=3, video=tmp_path / "gone.mp4")
    for without in (clip, replace(clip, frames=None, video=None)):
        assert clip_frames(without, 1.0) is None
        assert published_frames(without, 1.0) is None


@pytest.mark.parametrize("damage", ["missing", "text", "cut"])
def test_picture_that_cannot_be_read(tmp_path: Path, damage: str) -> None:
    clip = stored(tmp_path, [np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)] * 3)
    path = tmp_path / "frames/000002.jpg"
    whole = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(b"no picture" if damage == "text" else whole[: len(whole) // 2])
    with pytest.raises(CueError, match=r"000002\.jpg' cannot be read"):
        clip_frames(clip, 0.0)


@pytest.mark.parametrize(
    ("box", "shape", "brightness"),
    [
        ((10, 5, 20, 25), (20, 10), 255),
        ((9.6, 4.7, 20.2, 25.4), (22, 12), 200 / 264 * 255),
        ((-50, -50, 10, 30), (30, 10), 0),
        ((20, 0, 900, 900), (30, 20), 0),
        ((-50, -50, -10, -10), (30, 40), 200 / 1200 * 255),  # outside: the whole picture
        ((90, 0, 99, 30), (30, 40), 200 / 1200 * 255),
    ],
)
def test_frames_are_cropped_to_the_part_of_the_box_inside(
    tmp_path: Path, box: Sequence[float], shape: tuple[int, int], brightness: float
) -> None:
    frames = clip_frames(boxed(tmp_path, [(n, 7, 1.0, *box) for n in (1, 2, 3)]), 1.5)
    assert frames is not None and frames.dtype == np.uint8
    assert frames.shape == (3, *shape, 3)
    assert frames.mean() == pytest.approx(brightness, abs=6)


def test_crops_of_several_sizes_are_centred_on_black(tmp_path: Path) -> None:
    boxes = [(1, 7, 1.0, 10, 5, 20, 25), (2, 7, 1.0, 10, 5, 14, 9), (3, 7, 1.0, 10, 5, 20, 9)]
    frames = clip_frames(boxed(tmp_path, boxes), 1.5)
    assert frames is not None and frames.shape == (3, 20, 10, 3)
    assert (frames[1, 8:12, 3:7] > 200).all()
    assert int((frames[1] > 128).sum()) == 4 * 4 * 3


def test_box_of_the_nearest_frame_is_taken(tmp_path: Path) -> None:
    frames = clip_frames(boxed(tmp_path, [(1, 7, 0.9, 10, 5, 20, 25)]), 1.5)
    assert frames is not None and frames.shape == (3, 20, 10, 3)


def test_recording_of_two_sounds_is_not_cropped(tmp_path: Path) -> None:
    clip = replace(boxed(tmp_path, [(1, 7, 0.9, 10, 5, 20, 25)]), labels=("violin", "flute"))
    frames = clip_frames(clip, 1.5)
    assert frames is not None and frames.shape == (3, 30, 40, 3)


def test_detections_that_are_damaged(tmp_path: Path) -> None:
    clip = boxed(tmp_path, np.zeros((4, 5)))
    with pytest.raises(DataError, match=r"boxes\.npy' are .*\(4, 5\)"):
        clip_frames(clip, 1.5)


def test_published_frames_are_whole_with_the_best_box_of_each(tmp_path: Path) -> None:
    rows = [(1, 7, 0.4, 0, 0, 9, 9), (1, 3, 0.9, 10, 5, 20, 25), (3, 7, 0.2, 1, 2, 3, 4)]
    found = published_frames(boxed(tmp_path, rows), 1.5)
    assert found is not None
    frames, boxes = found
    assert frames.shape == (3, 30, 40, 3)
    np.testing.assert_array_equal(boxes, [[-1, 10, 5, 20, 25], [0, 0, 0, 40, 30], [1, 1, 2, 3, 4]])


def test_published_frames_without_detections(tmp_path: Path) -> None:
    found = published_frames(stored(tmp_path, shades((40, 120, 240))), 1.5)
    assert found is not None and found[1] is None
