"""Preparing a data set: what is made of raw videos, what is reported, and what the copy is good for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from avsep_zoo.data.fixed_mixtures import FixedMixtures
from avsep_zoo.data.reader import open_data
from avsep_zoo.errors import DataError, WeightsError
from avsep_zoo.media import read_audio
from avsep_zoo.prepare import DetectorChoice, MotionChoice, Settings, prepare_dataset
from avsep_zoo.synth.files import write_mp4

FPS, RATE = 8, 44100


def write_video(path: Path, seconds: float = 3.0, pitch: float = 440.0) -> Path:
    """A video that gets brighter by 40 per second, with a tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = (np.arange(round(seconds * FPS)) + 0.5) / FPS
    video = np.broadcast_to((40 + 40 * times)[:, None, None, None], (len(times), 48, 64, 3)).astype(np.uint8)
    clock = np.arange(round(seconds * RATE)) / RATE
    write_mp4(path, np.ascontiguousarray(video), (0.5 * np.sin(2 * np.pi * pitch * clock)).astype(np.float32))
    return path


def write_raw(root: Path) -> Path:
    """Videos as they are downloaded, in three kinds of places, and lists in the form of MUSIC."""
    write_video(root / "cello" / "AbC.mp4", pitch=220)
    write_video(root / "new" / "cello" / "x-1.mp4", seconds=2.0)
    write_video(root / "EfG.mp4", pitch=330)
    (root / "tuba").mkdir()
    (root / "tuba" / "torn.mp4").write_bytes((root / "EfG.mp4").read_bytes()[:900])
    (root / "train.csv").write_text(
        "/cello/AbC.wav,/cello/AbC.mp4,99\r\n/tuba/EfG.wav,/tuba/EfG.mp4,99\r\n"
        "/tuba/torn.wav,/tuba/torn.mp4,99\r\n/tuba/gone.wav,/tuba/gone.mp4,99\r\n"
        "/../../etc/passwd.wav,/cello/AbC.mp4,9\r\n/cello/AbC2.wav,/cello/AbC.mp4,9\r\n"
    )
    (root / "test.csv").write_text("/cello/x-1.wav,/cello/x-1.mp4,9\n/tuba/EfG.wav,/tuba/EfG.mp4,9\n")
    (root / "testsep.csv").write_text("/cello/x-1.wav, /tuba/EfG.wav\n/cello/x-1.wav, /tuba/gone.wav\n")
    return root


def run(source: Path, out: Path, name: str = "music", **changes: Any) -> dict[str, Any]:
    workers = changes.pop("workers", 1)
    reader = open_data(source, name, frame_rate=changes.get("fps"))
    settings = Settings(name, **{"rate": 8000, "fps": float(reader.frame_rate), **changes})
    manifest: dict[str, Any] = json.loads(prepare_dataset(reader, out, settings, workers=workers).read_text())
    return manifest


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw videos; tests only read them."""
    return write_raw(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def prepared(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their prepared copy at 2 frames per second, with motion features; tests only read it."""
    out = tmp_path_factory.mktemp("prepared") / "copy"
    run(raw, out, fps=2.0, motion=MotionChoice("frame_difference"))
    return out


def test_the_copy_has_the_layout_of_the_data_set(prepared: Path) -> None:
    """Sound, frames and motion features of every usable clip lie where the lists say, and nothing else is there."""
    folders = {"/".join(Path(name).parts[:-1]) for name in contents(prepared)}
    clips = ("cello/AbC", "cello/x-1", "tuba/EfG")
    frames = {f"frames/{clip}.mp4" for clip in clips}
    classes = {f"{kind}/{label}" for kind in ("audio", "motion_features") for label in ("cello", "tuba")}
    assert folders == frames | classes | {""}
    assert all((prepared / "audio" / f"{clip}.wav").is_file() for clip in clips)


def test_sound_is_mono_16_bit_at_the_rate(prepared: Path) -> None:
    """The tone of the video is there, at its pitch, level and length."""
    info = soundfile.info(prepared / "audio" / "cello" / "AbC.wav")
    assert (info.samplerate, info.channels, info.subtype, info.format) == (8000, 1, "PCM_16", "WAV")
    sound, _ = soundfile.read(prepared / "audio" / "cello" / "AbC.wav")
    assert abs(len(sound) - 3 * 8000) < 400
    middle = sound[8000:16000]
    assert np.abs(np.fft.rfft(middle)).argmax() == 220
    assert middle.std() == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


def test_frames_show_the_middle_of_their_time(prepared: Path) -> None:
    """Frame n shows the time (n - 0.5) / fps."""
    files = sorted((prepared / "frames" / "cello" / "AbC.mp4").iterdir())
    assert [file.name for file in files] == [f"{n:06d}.jpg" for n in range(1, 7)]
    times = (np.arange(6) + 0.5) / 2
    shown = np.floor(times * FPS) / FPS + 0.5 / FPS
    pictures = np.stack([np.asarray(Image.open(file)) for file in files])
    assert pictures.shape == (6, 48, 64, 3)
    np.testing.assert_allclose(pictures.mean(axis=(1, 2, 3)), 40 + 40 * shown, atol=3)


def test_lists_hold_what_was_made_with_true_counts(prepared: Path) -> None:
    """Rows of unusable clips and mixtures are gone, frame counts are those of the copy."""
    train = (prepared / "train.csv").read_text().splitlines()
    assert train == ["/cello/AbC.wav,/cello/AbC.mp4,6"]
    assert (prepared / "test.csv").read_text().splitlines() == [
        "/cello/x-1.wav,/cello/x-1.mp4,4",
        "/tuba/EfG.wav,/tuba/EfG.mp4,6",
    ]
    mixed = [row.replace(" ", "") for row in (prepared / "testsep.csv").read_text().splitlines()]
    assert mixed == ["/cello/x-1.wav,/tuba/EfG.wav"]


def test_the_manifest_says_what_was_found(raw: Path, prepared: Path) -> None:
    """Missing and broken clips and bad rows are named with the reason."""
    manifest = json.loads((prepared / "prepare.json").read_text())
    assert manifest["complete"] is True and manifest["prepared"] == 3
    assert manifest["missing"] == ["tuba/gone"]
    reasons = {entry["clip"]: entry["why"] for entry in manifest["broken"]}
    assert set(reasons) == {"tuba/torn", "cello/AbC2"}
    assert "tuba/torn.mp4" in reasons["tuba/torn"] and str(raw) not in reasons["tuba/torn"]
    assert "those of cello/AbC" in reasons["cello/AbC2"]
    assert any("row 5" in row["where"] for row in manifest["rows_left_out"])
    assert manifest["settings"]["rate"] == 8000 and manifest["versions"]["av"]


def test_the_manifest_identifies_the_splits(prepared: Path) -> None:
    """Hashes are those of the sorted ids, as listed and as prepared."""
    splits = json.loads((prepared / "prepare.json").read_text())["splits"]
    both = hashlib.sha256(b"cello/x-1\ntuba/EfG\n").hexdigest()
    assert splits["test"] == {"listed": 2, "listed_sha256": both, "prepared": 2, "prepared_sha256": both}
    assert splits["train"]["prepared_sha256"] == hashlib.sha256(b"cello/AbC\n").hexdigest()
    assert splits["train"]["listed"] == 4 and splits["train"]["listed_sha256"] != splits["train"]["prepared_sha256"]


def test_the_copy_gives_items(prepared: Path) -> None:
    """The reader of the data set reads the copy, and mixtures of it become items with frames."""
    reader = open_data(prepared, "music", frame_rate=2.0)
    (mixture,) = reader.mixtures("testsep")
    items = FixedMixtures([mixture], None, rate=8000, length=4096, reads=frozenset({"label", "frames"}))
    item = items[0]
    assert item["sources"].shape == (2, 4096) and item["sources"].std() > 0.1
    assert [cue.label for cue in item["cues"]] == ["cello", "tuba"]
    assert not item["skipped"] and all(np.asarray(cue.frames).shape == (3, 48, 64, 3) for cue in item["cues"])


def test_motion_features_cover_the_clip(prepared: Path) -> None:
    """Two steps per second of what changes in a video that gets brighter."""
    features = np.load(prepared / "motion_features" / "cello" / "AbC.mp4.npy", allow_pickle=False)
    assert features.dtype == np.float32 and features.shape[0] == 1024 and features.shape[1] in (6, 7)
    np.testing.assert_allclose(features[:, 1:5].mean(), 40 / FPS / 255, rtol=0.2)


def test_files_do_not_depend_on_the_workers(raw: Path, prepared: Path, tmp_path: Path) -> None:
    """Three processes make the same bytes as one."""
    run(raw, tmp_path / "copy", fps=2.0, motion=MotionChoice("frame_difference"), workers=3)
    assert contents(tmp_path / "copy") == contents(prepared)


def test_a_folder_becomes_the_layout_of_music(tmp_path: Path) -> None:
    """Own recordings in class/clip.* get lists, and sound alone is enough."""
    for name in ("a", "b", "c"):
        write_video(tmp_path / "raw" / "theremin" / f"{name}.mp4", seconds=1.0)
        (tmp_path / "raw" / "kalimba").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "raw" / "kalimba" / f"{name}.wav", np.full((8000, 2), 0.25), 16000)
    manifest = run(tmp_path / "raw", tmp_path / "copy", "folder")
    assert manifest["prepared"] == 6 and manifest["sound_only"] == 3 and not manifest["broken"]
    reader = open_data(tmp_path / "copy", "music")
    clips = [clip for split in reader.splits() for clip in reader.clips(split)]
    assert {clip.label for clip in clips} == {"theremin", "kalimba"} and len(clips) == 6
    assert all(clip.audio.is_file() for clip in clips) and reader.mixtures("testsep")


def test_parts_are_cut_out_of_whole_videos(tmp_path: Path) -> None:
    """A clip that is a part of a video is cut, sound and all, and begins at 0 in the copy."""
    raw = tmp_path / "raw"
    write_video(raw / "videos" / "Ab_C.mp4", seconds=14.0)
    captions = {
        str(start): {"file_id": f"Ab_C_{start}", "caption": "a tone", "sources": ["A tone"]} for start in (3, 99)
    }
    raw.joinpath("parsed_all_caps.json").write_text(json.dumps(captions))
    raw.joinpath("train_ids.csv").write_text("3\n99\n")
    manifest = run(raw, tmp_path / "copy", "audiocaps", rate=16000)
    assert manifest["prepared"] == 1 and "99 s" in manifest["broken"][0]["why"]
    (clip,) = open_data(tmp_path / "copy", "audiocaps").clips("train")
    assert soundfile.info(clip.audio).frames == 160000 and clip.start == 0
    assert clip.frames is not None
    first = np.asarray(Image.open(clip.frames / "000001.jpg")).mean()
    assert first == pytest.approx(40 + 40 * (3.5 + 0.5 / FPS), abs=3)


def test_a_video_without_sound_or_pictures_is_broken(tmp_path: Path) -> None:
    """A clip whose half is missing is left out, whole, with the reason."""
    raw = tmp_path / "raw"
    soundfile.write(write_video(raw / "a" / "1.mp4").with_name("x.wav"), np.zeros(9000), 9000)
    (raw / "a" / "x.wav").rename(raw / "a" / "2.mp4")
    manifest = run(raw, tmp_path / "copy", "folder")
    assert manifest["broken"] == [{"clip": "a/2", "why": "a/2.mp4 has no video track; give a video or a picture."}]
    assert not (tmp_path / "copy" / "audio" / "a" / "2.wav").exists()


def test_a_cut_off_video_is_used_and_reported(tmp_path: Path) -> None:
    """What can be decoded of a file that was cut off is used, and the manifest says so."""
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 30000)
    raw = tmp_path / "raw"
    (raw / "a").mkdir(parents=True)
    soundfile.write(raw / "a" / "1.wav", sound, 10000, "PCM_16")
    (raw / "a" / "1.wav").write_bytes((raw / "a" / "1.wav").read_bytes()[:40000])
    manifest = run(raw, tmp_path / "copy", "folder")
    assert manifest["doubtful"][0]["clip"] == "a/1" and "cut off" in manifest["doubtful"][0]["why"]
    assert soundfile.info(tmp_path / "copy" / "audio" / "a" / "1.wav").duration == pytest.approx(2.0, abs=0.01)


def test_hostile_names(tmp_path: Path) -> None:
    """Names that lead outside, are too long for files, or stand for two clips are left out; odd ones work."""
    raw = tmp_path / "raw"
    long, odd = "n" * 248, "50 % “ü” \U0001f3bb; -rf"
    video = write_video(raw / "cello" / "a.mp4", seconds=1.0).read_bytes()
    for name in (long, odd):
        (raw / "cello" / f"{name}.mp4").write_bytes(video)
    rows = [f"/cello/{name}.wav,/cello/{name}.mp4,1" for name in ("a", long, odd, "../../a", "../a")]
    rows += ["/cello/a.wav/a.wav,/cello/b/a.mp4,1", ",,", "/cello/\x07.wav,/cello/a.mp4,1"]
    (raw / "train.csv").write_text("\n".join(rows) + "\n", encoding="utf-8-sig")
    manifest = run(raw, tmp_path / "copy", motion=MotionChoice("frame_difference"))
    (left,) = [entry for entry in manifest["broken"] if entry["clip"] == f"cello/{long}"]
    assert left["why"] == "Its name cannot be used for a file here (File name too long)."
    assert (tmp_path / "copy" / "audio" / "cello" / f"{odd}.wav").is_file()
    assert manifest["prepared"] == 2 and len(manifest["broken"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "raw"]


def test_detections_that_come_with_the_data_are_kept(tmp_path: Path) -> None:
    """The copy of ASIW has its sounds at another rate and its folders of detections as they are."""
    raw = tmp_path / "raw"
    frames = raw / "Extracted_Frames" / "train" / "abc"
    for folder in (frames, raw / "Extracted_Audio" / "train"):
        folder.mkdir(parents=True)
    soundfile.write(raw / "Extracted_Audio" / "train" / "abc.aac", np.full((8000, 2), 0.25), 16000, format="WAV")
    (frames / "Vision_Text_Labels.csv").write_text("1,817,0,0\n")
    (frames / "Image_feature_20obj.h5").write_bytes(b"boxes")
    (raw / "train.txt").write_text("abc\n")
    assert run(raw, tmp_path / "copy", "asiw")["prepared"] == 1
    (clip,) = open_data(tmp_path / "copy", "asiw").clips("train")
    assert clip.detections is not None and clip.labels == ("bell",)
    assert (clip.detections / "Image_feature_20obj.h5").read_bytes() == b"boxes"
    sound, rate = read_audio(clip.audio)
    assert rate == 8000 and sound.shape == (1, 4000)


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    """When no clip can be made, the sentence says how many lack a file, and the manifest is there."""
    raw = tmp_path / "raw"
    (raw / "cello").mkdir(parents=True)
    (raw / "cello" / "b.mp4").write_bytes(b"no video")
    (raw / "train.csv").write_text("/cello/a.wav,/cello/a.mp4,5\n/cello/b.wav,/cello/b.mp4,5\n")
    with pytest.raises(DataError, match="None of the 2 clips can be prepared: 1 have no file and 1 cannot be used"):
        run(raw, tmp_path / "copy")
    manifest = json.loads((tmp_path / "copy" / "prepare.json").read_text())
    assert manifest["missing"] == ["cello/a"] and manifest["prepared"] == 0


def test_weights_are_tried_before_the_first_clip(raw: Path, tmp_path: Path) -> None:
    """A detector that cannot be built ends the run while nothing is written."""
    with pytest.raises(WeightsError, match="--detector-weights"):
        run(raw, tmp_path / "copy", detector=DetectorChoice("faster_rcnn"))
    assert not (tmp_path / "copy").exists()


def test_a_data_set_without_frames_has_no_motion(tmp_path: Path) -> None:
    """Motion features that have no place in the data set are refused before the run."""
    raw = tmp_path / "raw"
    (raw / "data" / "audio" / "cello").mkdir(parents=True)
    soundfile.write(raw / "data" / "audio" / "cello" / "a.wav", np.full(9000, 0.1), 9000)
    (raw / "train.csv").write_text("data/audio/cello/a.wav,data/frames/cello/a,data/detect/cello/a.npy\n")
    with pytest.raises(DataError, match="no place for motion features"):
        run(raw, tmp_path / "copy", "duets", motion=MotionChoice("frame_difference"))


@pytest.mark.parametrize("changes", [{"rate": 10}, {"fps": 0.0}, {"fps": float("nan")}])
def test_settings_out_of_range(changes: dict[str, Any]) -> None:
    """Rates that no data has are refused."""
    with pytest.raises(DataError, match="rate is"):
        Settings(**{"dataset": "music", "rate": 8000, "fps": 1.0, **changes})


def test_copy_is_read_at_the_frame_rate_it_was_made_with(tmp_path: Path) -> None:
    """What a reader is not told it finds in the manifest."""
    run(write_raw(tmp_path / "raw"), tmp_path / "copy", fps=4.0)
    reader = open_data(tmp_path / "copy", "music")
    assert reader.frame_rate == 4.0
    assert {clip.frame_rate for clip in reader.clips("train")} == {4.0}
    assert open_data(tmp_path / "copy", "music", frame_rate=2.0).frame_rate == 2.0
