"""From a folder in the MUSIC layout to batches: lists, segments, pictures, mixtures, augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch.utils.data import DataLoader

from avsep_zoo.contracts import CueBatch
from avsep_zoo.cue import Cue
from avsep_zoo.data.augment import Augmentation, background
from avsep_zoo.data.mix_and_separate import (
    FixedMixtures,
    MixAndSeparate,
    clip_frames,
    collate,
    read_segment,
)
from avsep_zoo.data.music import Clip, read_clips, read_mixtures
from avsep_zoo.errors import CueError, DataError
from avsep_zoo.model import SeparationModel

RATE, LENGTH = 8000, 8191  # of the tiny model
COLOURS = {"violin": (200, 0, 0), "flute": (0, 200, 0), "drum": (0, 0, 200)}
EVERYTHING = Augmentation(
    semitones=2, gain=6, equaliser=6, room=0.5, noise=0.5, silence=0.1, drop_frames=0.3, drop_label=0.3
)


def write_sound(path: Path, sound: np.ndarray, rate: int = 11025) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate, "FLOAT")


def write_frames(folder: Path, count: int, colour: Sequence[int], size: tuple[int, int] = (40, 30)) -> None:
    """Pictures of one colour; the number of the picture is the value of its top left corner's blue... red."""
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        Image.new("RGB", size, tuple(colour)).save(folder / f"{number:06d}.jpg", quality=95)


def sine(frequency: float, seconds: float, rate: int = 11025) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """Three classes of two clips of 3 s, tones of 300 Hz and up, with pictures in the colour of the class."""
    root, rows = tmp_path / "music", []
    for c, (label, colour) in enumerate(COLOURS.items()):
        for n in range(2):
            stem = f"{label}/{n}"
            write_sound(root / "audio" / f"{stem}.wav", sine(300 * (c + 1) + 40 * n, 3))
            write_frames(root / "frames" / f"{stem}.mp4", 3, colour)
            rows.append(f"/{stem}.wav,/{stem}.mp4,3\n")
    (root / "train.csv").write_text("".join(rows))
    return root


def listed(root: Path, text: str, name: str = "train") -> Path:
    root.mkdir(exist_ok=True)
    (root / f"{name}.csv").write_text(text)
    return root


def labels_only(cues: Sequence[Cue], *, video: Any, time: float) -> CueBatch:
    """A small ``prepare``: the place of each label among the classes, -1 without one."""
    numbers = [-1 if cue.label is None else list(COLOURS).index(cue.label) for cue in cues]
    return CueBatch({"label": torch.tensor([numbers])})


# lists


def test_clips_of_a_list(tmp_path: Path) -> None:
    rows = "/cello/a b.wav,/cello/a b.mp4,137\nonly one column\n\nflute/x.y.wav , flute/x.y.mp4\n"
    root = listed(tmp_path / "d", rows)
    cello, flute = read_clips(root, "train")
    assert cello == Clip(
        "cello/a b",
        "cello",
        root / "audio/cello/a b.wav",
        root / "frames/cello/a b.mp4",
        137,
        root / "detection_results/cello/a b.mp4.npy",
        root / "motion_features/cello/a b.mp4.npy",
    )
    assert (flute.id, flute.label, flute.frame_count) == ("flute/x.y", "flute", 0)


@pytest.mark.parametrize(
    "row",
    [
        "/../secret.wav,/a/b.mp4,3",
        "/a/../../b.wav,/a/b.mp4,3",
        "/a/b.wav,/a/../../b.mp4,3",
        "b.wav,a/b.mp4,3",
        "a/b.wav,,3",
        "a/b.wav,b.mp4,3",
        "a/..\\..\\b.wav,a/b.mp4,3",
        "a/b\0.wav,a/b.mp4,3",
        "a/b.wav,a/b.mp4,three",
    ],
)
def test_rows_that_leave_the_data_folder_or_make_no_sense(tmp_path: Path, row: str) -> None:
    root = listed(tmp_path / "d", f"/a/b.wav,/a/b.mp4,3\n{row}\n")
    with pytest.raises(DataError, match=r"^train\.csv row 2 has the (path|frame count) .*give .*\.$"):
        read_clips(root, "train")


def test_absolute_paths_stay_inside_the_data_folder(tmp_path: Path) -> None:
    (clip,) = read_clips(listed(tmp_path / "d", "//etc/passwd,//etc/passwd,1\n"), "train")
    assert clip.audio == tmp_path / "d/audio/etc/passwd"


def test_lists_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv' cannot be read \(No such file"):
        read_clips(tmp_path, "gone")
    with pytest.raises(DataError, match=r"train\.csv' has no rows"):
        read_clips(listed(tmp_path, "\n\n"), "train")
    (tmp_path / "train.csv").write_bytes("/a/ä.wav,/a/ä.mp4,3\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"train\.csv' cannot be read \('utf-8' codec"):
        read_clips(tmp_path, "train")


def test_mixtures_of_a_list(music: Path) -> None:
    clips = read_clips(music, "train")
    listed(music, "/violin/0.wav, /flute/1.wav\n/drum/1.wav,/violin/0.wav\n", "pairs")
    assert [[clip.id for clip in mixture] for mixture in read_mixtures(music, "pairs", clips)] == [
        ["violin/0", "flute/1"],
        ["drum/1", "violin/0"],
    ]
    listed(music, "/violin/0.wav,/flute/7.wav\n", "pairs")
    with pytest.raises(DataError, match=r"pairs\.csv row 1 names 'flute/7\.wav'"):
        read_mixtures(music, "pairs", clips)
    listed(music, "/violin/0.wav,/flute/0.wav\n/violin/0.wav,/flute/0.wav,/drum/0.wav\n", "pairs")
    with pytest.raises(DataError, match=r"pairs\.csv row 2 has 3 clips and the first one 2"):
        read_mixtures(music, "pairs", clips)


# sounds


def test_segment_is_cut_resampled_and_padded(tmp_path: Path) -> None:
    """A second of 440 Hz after a second of silence, in the left of two channels."""
    path = tmp_path / "a.wav"
    left = np.concatenate([np.zeros(22050, np.float32), sine(440, 1, 22050)])
    write_sound(path, np.stack([left, np.zeros_like(left)], axis=1), 22050)
    expected = np.concatenate([np.zeros(4000), sine(440, 1, 8000) / 2, np.zeros(4000)])
    got = read_segment(path, 8000, 16000, 0.5)
    assert got.dtype == np.float32
    assert np.abs(got - expected).mean() < 1e-3
    assert np.abs(got[12100:]).max() == 0
    assert not read_segment(path, 8000, 100, 5.0).any()


def test_speed_raises_pitch_and_tempo(tmp_path: Path) -> None:
    write_sound(tmp_path / "a.wav", sine(440, 2))
    fast = read_segment(tmp_path / "a.wav", 8000, 16000, 0.0, speed=1.25)
    spectrum = np.abs(np.fft.rfft(fast[:8000]))
    assert int(spectrum.argmax()) == 550
    assert np.abs(fast[: int(8000 / 1.25 * 2) - 50]).max() > 0.2
    assert np.abs(fast[int(8000 / 1.25 * 2) + 50 :]).max() < 0.01


def test_sounds_that_cannot_be_used(music: Path) -> None:
    """The trainer and the evaluation name the file, whatever is wrong with it."""
    bad = music / "audio/violin/0.wav"
    clips = [clip for clip in read_clips(music, "train") if clip.id != "violin/1"]
    training = MixAndSeparate(clips, labels_only, rate=RATE, length=LENGTH, items=9, sources=3)
    fixed = FixedMixtures([clips[:2]], labels_only, rate=RATE, length=LENGTH)
    nan = np.where(np.arange(20000) == 5000, np.nan, 0.1).astype(np.float32)

    def check(message: str) -> None:
        for items in (training, fixed):
            with pytest.raises(DataError, match=rf"violin/0\.wav'.* {message}"):
                _ = [items[i] for i in range(len(items))]

    write_sound(bad, nan[:11025])
    check("holds NaN or infinity")
    bad.write_bytes(b"RIFF of nothing")
    check("cannot be read")
    bad.unlink()
    check("cannot be read")


def test_empty_and_short_sounds_are_silence_and_padded(music: Path) -> None:
    write_sound(music / "audio/violin/0.wav", np.zeros(0, np.float32))
    write_sound(music / "audio/flute/0.wav", sine(600, 0.25))
    clips = {clip.id: clip for clip in read_clips(music, "train")}
    fixed = FixedMixtures([(clips["violin/0"], clips["flute/0"])], labels_only, rate=RATE, length=LENGTH)
    empty, short = fixed[0]["sources"]
    assert not empty.any()
    assert float(short[:1990].abs().max()) > 0.25
    assert not short[2010:].any()


# pictures


def clip_with_boxes(music: Path, rows: Any, size: tuple[int, int] = (40, 30)) -> Clip:
    """A clip whose three pictures are white in x 10 to 20, y 5 to 25, with detections."""
    folder = music / "frames/violin/0.mp4"
    for number in (1, 2, 3):
        picture = np.zeros((size[1], size[0], 3), np.uint8)
        picture[5:25, 10:20] = 255
        Image.fromarray(picture).save(folder / f"{number:06d}.jpg", quality=100)
    (music / "detection_results/violin").mkdir(parents=True)
    np.save(music / "detection_results/violin/0.mp4.npy", np.asarray(rows, np.float32))
    return read_clips(music, "train")[0]


def test_best_usable_box_of_every_frame(music: Path) -> None:
    nan = float("nan")
    rows = [
        (1, 7, 0.4, 0, 0, 9, 9),
        (1, 7, 0.9, 1, 2, 3, 4),
        (2, 7, 0.8, 5, 5, 5, 9),  # no area
        (3, 7, 0.7, nan, 0, 9, 9),
        (3, 7, 0.2, 1, 1, 8, 8),
    ]
    boxes = clip_with_boxes(music, rows).boxes(frame_rate=2.0)
    np.testing.assert_array_equal(boxes, [[0.25, 1, 2, 3, 4], [1.25, 1, 1, 8, 8]])


def test_no_usable_boxes(music: Path) -> None:
    assert read_clips(music, "train")[0].boxes(1.0) is None
    clip = clip_with_boxes(music, np.zeros((0, 7)))
    assert clip.boxes(1.0) is None
    np.save(clip.detections, np.zeros((4, 5)))
    with pytest.raises(DataError, match=r"0\.mp4\.npy' have shape \(4, 5\)"):
        clip.boxes(1.0)
    clip.detections.write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match=r"0\.mp4\.npy' cannot be read"):
        clip.boxes(1.0)


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
    music: Path, box: Sequence[float], shape: tuple[int, int], brightness: float
) -> None:
    clip = clip_with_boxes(music, [(n, 7, 1.0, *box) for n in (1, 2, 3)])
    frames = clip_frames(clip, 1.5, 1.0)
    assert frames is not None and frames.dtype == np.uint8
    assert frames.shape == (3, *shape, 3)
    assert frames.mean() == pytest.approx(brightness, abs=6)


def test_crops_of_several_sizes_are_centred_on_black(music: Path) -> None:
    boxes = [(1, 7, 1.0, 10, 5, 20, 25), (2, 7, 1.0, 10, 5, 14, 9), (3, 7, 1.0, 10, 5, 20, 9)]
    frames = clip_frames(clip_with_boxes(music, boxes), 1.5, 1.0)
    assert frames is not None and frames.shape == (3, 20, 10, 3)
    assert (frames[1, 8:12, 3:7] > 200).all()
    assert int((frames[1] > 128).sum()) == 4 * 4 * 3


def test_frames_are_those_around_the_time(music: Path) -> None:
    clip = read_clips(music, "train")[0]
    for number, level in ((1, 40), (2, 120), (3, 240)):
        Image.new("RGB", (8, 8), (level,) * 3).save(clip.frames / f"{number:06d}.jpg")
    for time, levels in ((0.0, (40, 40, 120)), (1.9, (40, 120, 240)), (9.0, (240, 240, 240))):
        frames = clip_frames(clip, time, 1.0)
        assert frames is not None
        assert frames.mean(axis=(1, 2, 3)).round().tolist() == pytest.approx(levels, abs=2)


def test_missing_pictures(music: Path) -> None:
    """None at all is a clip without frames; one that the list counts is an error that names it."""
    clip = read_clips(music, "train")[0]
    (clip.frames / "000002.jpg").unlink()
    with pytest.raises(CueError, match=r"000002\.jpg' cannot be read"):
        clip_frames(clip, 0.0, 1.0)
    for path in clip.frames.iterdir():
        path.unlink()
    assert clip_frames(clip, 0.0, 1.0) is None


# mixtures


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    cues_a, cues_b = a["cues"], b["cues"]
    return (
        torch.equal(a["sources"], b["sources"])
        and torch.equal(a["background"], b["background"])
        and cues_a.values.keys() == cues_b.values.keys()
        and all(torch.equal(v, cues_b.values[k]) for k, v in cues_a.values.items())
        and all(torch.equal(v, cues_b.present[k]) for k, v in cues_a.present.items())
    )


def test_item_depends_on_seed_and_index_only(music: Path, tiny_model: SeparationModel) -> None:
    """Not on the order, the process that makes it, or the number of items."""

    def make(**change: Any) -> MixAndSeparate:
        settings = {"rate": RATE, "length": LENGTH, "items": 8, "seed": 3, "augmentation": EVERYTHING}
        return MixAndSeparate(read_clips(music, "train"), tiny_model.encoder.prepare, **{**settings, **change})

    forward, backward = make(), make(items=100)
    items = [forward[i] for i in range(8)]
    for i in reversed(range(8)):
        assert equal(items[i], backward[i])
    loader = DataLoader(make(), batch_size=None, sampler=range(4, 8), num_workers=1)
    for i, item in zip(range(4, 8), loader, strict=True):
        assert equal(items[i], item)
    assert not any(equal(items[i], make(seed=4)[i]) for i in range(8))
    assert not any(equal(items[i], items[i + 1]) for i in range(7))


def test_sources_of_a_mixture_are_of_different_classes(music: Path) -> None:
    """Without augmentation each is a piece of one of its class's clips, as it is stored."""
    clips = read_clips(music, "train")
    data = MixAndSeparate(clips, labels_only, rate=RATE, length=LENGTH, items=20)
    pitches = set()
    for i in range(20):
        item = data[i]
        labels = item["cues"].values["label"][0].tolist()
        assert len(set(labels)) == 2
        assert item["sources"].shape == (2, LENGTH) and item["sources"].dtype == torch.float32
        assert not item["background"].any()
        for label, source in zip(labels, item["sources"], strict=True):
            pitch = int(torch.fft.rfft(source, 8 * RATE).abs().argmax()) / 8
            assert min(abs(pitch - 300 * (label + 1) - extra) for extra in (0, 40)) < 1.5
            assert float(source[100:-100].abs().max()) == pytest.approx(0.3, abs=0.003)
            pitches.add(round(pitch / 20) * 20)
    assert len(pitches) == 6
    with pytest.raises(DataError, match="have 2 classes; mixtures of 3 sources"):
        MixAndSeparate(clips[:4], labels_only, rate=RATE, length=LENGTH, items=1, sources=3)


def test_silent_parts_are_avoided(music: Path) -> None:
    """Half of the clip is silent: one draw in two would be, three draws in a row rarely are."""
    for n in range(2):
        write_sound(music / f"audio/violin/{n}.wav", np.pad(sine(300, 8), (0, 8 * 11025)))
    data = MixAndSeparate(read_clips(music, "train"), labels_only, rate=RATE, length=800, items=60, sources=3)
    violins = [item["sources"][item["cues"].values["label"][0] == 0][0] for item in map(data.__getitem__, range(60))]
    silent = sum(not violin.any() for violin in violins)
    assert 0 < silent < 20


@pytest.mark.parametrize(
    ("change", "present"),
    [
        (Augmentation(), (True, True)),
        (Augmentation(drop_frames=1), (True, False)),
        (Augmentation(drop_label=1), (False, True)),
        (Augmentation(drop_frames=1, drop_label=1), (True, False)),  # never both
    ],
)
def test_modalities_are_dropped(
    music: Path, tiny_model: SeparationModel, change: Augmentation, present: tuple[bool, bool]
) -> None:
    tiny_model.train()  # in eval mode a label makes frames unnecessary
    clips, prepare = read_clips(music, "train"), tiny_model.encoder.prepare
    cues = MixAndSeparate(clips, prepare, rate=RATE, length=LENGTH, items=1, augmentation=change)[0]["cues"]
    assert (cues.has("label").all(), cues.has("frames").all()) == present
    assert (cues.has("label").any(), cues.has("frames").any()) == present


def test_silent_sources_make_no_noise(music: Path) -> None:
    change = Augmentation(silence=1, noise=1)
    data = MixAndSeparate(
        read_clips(music, "train"), labels_only, rate=RATE, length=LENGTH, items=1, augmentation=change
    )
    assert not data[0]["sources"].any()
    assert not data[0]["background"].any()


def test_batch_marks_what_some_items_lack(music: Path, tiny_model: SeparationModel) -> None:
    tiny_model.train()  # in eval mode a label makes frames unnecessary
    clips = read_clips(music, "train")
    for path in clips[0].frames.iterdir():
        path.unlink()
    for path in clips[2].frames.iterdir():
        path.unlink()
    pairs = [(clips[0], clips[2]), (clips[1], clips[4])]
    batch = collate([FixedMixtures(pairs, tiny_model.encoder.prepare, rate=RATE, length=LENGTH)[i] for i in (0, 1)])
    assert batch["sources"].shape == (2, 2, LENGTH)
    assert batch["cues"].values["frames"].shape == (2, 2, 3, 2, 32, 32)
    assert batch["cues"].has("frames").tolist() == [[False, False], [True, True]]
    assert batch["cues"].has("label").all()


@pytest.mark.parametrize(
    ("use", "present"),
    [({"label", "frames"}, (True, True)), ({"label"}, (True, False)), ({"frames"}, (False, True))],
)
def test_fixed_mixtures_are_cut_from_the_middle(
    music: Path, tiny_model: SeparationModel, use: set[str], present: tuple[bool, bool]
) -> None:
    tiny_model.train()  # in eval mode a label makes frames unnecessary
    clips = read_clips(music, "train")
    ramp = np.linspace(0, 1, 3 * 8000, dtype=np.float32)
    write_sound(clips[0].audio, ramp, 8000)
    items = FixedMixtures(
        [(clips[0], clips[2])], tiny_model.encoder.prepare, rate=RATE, length=LENGTH, use=frozenset(use)
    )
    item = items[0]
    first = (24000 - LENGTH) // 2
    np.testing.assert_allclose(item["sources"][0], ramp[first : first + LENGTH], atol=1e-6)
    assert (bool(item["cues"].has("label").all()), bool(item["cues"].has("frames").all())) == present


# augmentation


def test_nothing_is_changed_by_default() -> None:
    sound, rng = sine(440, 1), np.random.default_rng(0)
    assert Augmentation().speed(rng) == 1.0
    np.testing.assert_array_equal(Augmentation().colour(sound, 11025, rng), sound)


def repeated(draw: Callable[[np.random.Generator], float]) -> np.ndarray:
    return np.array([draw(np.random.default_rng(seed)) for seed in range(60)])


def test_speed_and_level_spread_over_their_range() -> None:
    speeds = 12 * np.log2(repeated(Augmentation(semitones=2).speed))
    assert -2 <= speeds.min() < -1.5 and 1.5 < speeds.max() <= 2
    sound = sine(440, 0.1)
    gains = 20 * np.log10(repeated(lambda rng: float(Augmentation(gain=6).colour(sound, 11025, rng)[100] / sound[100])))
    assert -6.001 <= gains.min() < -4.5 and 4.5 < gains.max() <= 6.001


def test_equaliser_stays_within_its_gains() -> None:
    sound = np.zeros(11025, np.float32)
    sound[5000] = 1.0
    for seed in range(10):
        out = Augmentation(equaliser=5).colour(sound, 11025, np.random.default_rng(seed))
        assert out.shape == sound.shape and out.dtype == np.float32
        gains = 20 * np.log10(np.abs(np.fft.rfft(out))[50:-50])
        assert gains.max() - gains.min() > 1
        assert gains.max() < 10.5 and gains.min() > -10.5


def test_room_keeps_the_direct_sound_in_place() -> None:
    sound = np.zeros(11025, np.float32)
    sound[1000] = 1.0
    out = Augmentation(room=1).colour(sound, 11025, np.random.default_rng(1))
    assert np.abs(out[:1000]).max() < 1e-5
    assert out[1000] == pytest.approx(1.0, abs=1e-4)
    tail = np.square(out[1001:], dtype=np.float64).sum()
    assert 10 ** (-12 / 10) * 0.9 < tail < 10 ** (3 / 10) * 1.1


def test_background_lies_15_to_45_db_below() -> None:
    levels = 20 * np.log10(repeated(lambda rng: float(background(8191, 0.1, rng).std())) / 0.1)
    assert -45.001 <= levels.min() < -38
    assert -22 < levels.max() <= -14.999
    assert not background(100, 0.0, np.random.default_rng(0)).any()
