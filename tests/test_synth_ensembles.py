"""Ensembles: two players among props, as a data set: sounds, pictures, detections, splits, resuming, hostile input."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import typer
from PIL import Image
from typer.testing import CliRunner

from avsep_zoo.cli.synth import synth
from avsep_zoo.data.detections import Detections, read_detections
from avsep_zoo.data.reader import open_data
from avsep_zoo.data.readers.music import MusicReader
from avsep_zoo.errors import DataError
from avsep_zoo.synth import INSTRUMENTS, write_dataset, write_ensembles
from avsep_zoo.synth import sprites as sprites_module
from avsep_zoo.synth.clip import generator
from avsep_zoo.synth.ensemble_set import plan_ensembles
from avsep_zoo.synth.instruments import playable
from avsep_zoo.synth.props import PROPS, Prop, place_props
from avsep_zoo.synth.scene import FPS, SIDE, Actor, Player, Pose, Scene, stage_scene
from avsep_zoo.synth.solos import list_solos
from avsep_zoo.synth.sprites import make_look

CLASSES = (*INSTRUMENTS, "erhu")
ROWS = {
    "train": 6, "train_duets": 2, "train_half": 2, "train_semi": 3,
    "val": 6, "val_duets": 2, "val_half": 2, "val_semi": 3,
}  # fmt: skip


def write_solos(root: Path, classes: tuple[str, ...] = ("erhu", "mandolin", "tuba")) -> Path:
    """A recording of plucked tones per split and class: erhu is no class of the generator, mandolin no program."""
    clock = np.arange(3 * 22050) / 22050
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for split, hertz in (("train", 200), ("val", 240), ("test", 280)):
            sound = 0.5 * np.exp(-(clock % 1) / 0.2) * np.sin(2 * np.pi * (hertz + 10 * number) * clock)
            soundfile.write(root / name / f"{split}_0.wav", sound, 22050)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of one box with others."""
    width, height = np.clip(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0, None).T
    areas = [np.prod(one[..., 2:] - one[..., :2], axis=-1) for one in (box, others)]
    return width * height / (areas[0] + areas[1] - width * height)


def drawn(thing: Pose) -> np.ndarray:
    """The pixels that a thing covers: bool (SIDE, 2 SIDE)."""
    rows, columns = np.nonzero(np.asarray(thing.picture.getchannel("A")) >= 64)
    rows, columns = rows + thing.top, columns + thing.left
    inside = (rows >= 0) & (rows < SIDE) & (columns >= 0) & (columns < 2 * SIDE)
    mask = np.zeros((SIDE, 2 * SIDE), bool)
    mask[rows[inside], columns[inside]] = True
    return mask


@pytest.fixture(scope="module")
def solos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_solos(tmp_path_factory.mktemp("recordings") / "solos")


@pytest.fixture(scope="module")
def made(
    needs_fluidsynth: None,
    needs_font: None,
    sine_soundfont: Path,
    solos: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Two ensembles for training and two for validation; tests only read them."""
    out = tmp_path_factory.mktemp("made") / "set"
    write_ensembles(out, ensembles=4, seed=2, solos=solos, soundfonts=[sine_soundfont])
    return out


@pytest.fixture(scope="module")
def manifest(made: Path) -> dict:
    return json.loads((made / "synth.json").read_text())


@pytest.fixture(scope="module")
def reader(made: Path) -> MusicReader:
    found = open_data(made)
    assert isinstance(found, MusicReader)
    return found


@pytest.fixture(scope="module")
def scenes(needs_font: None) -> list[tuple[Scene, list[Prop]]]:
    """Scenes of two players, with their props."""
    found = []
    for number in range(6):
        rng = generator("scenes", number)
        player = Player([(start + 0.3, 1.0) for start in range(10)], rng.random(80))
        classes = rng.permutation(["cello", "tuba", "bassoon", "xylophone"])
        scene = stage_scene(rng, [Actor(classes[0], player, 0, 0.5), Actor(classes[1], player, 0.5, 1)], 80, 2 * SIDE)
        found.append((scene, place_props(rng, scene.poses[4::8], 2 * SIDE)))
    return found


def test_reader_finds_the_duet_and_both_stems_of_every_ensemble(reader: MusicReader) -> None:
    lists = ("train", "train_duets", "train_half", "train_semi", "val", "val_duets", "val_half", "val_semi")
    assert reader.splits() == lists
    for split in ("train", "val"):
        clips = reader.clips(split)
        assert len(clips) == 6
        for duet, first, second in (clips[:3], clips[3:]):
            assert duet.labels == (*first.labels, *second.labels) and len(first.labels) == 1
            assert first.labels < second.labels
            assert len({(clip.frames, clip.detections, clip.motion, clip.video) for clip in (duet, first, second)}) == 1
            for clip in (duet, first, second):
                assert all(path and path.exists() for path in (clip.audio, clip.frames, clip.detections, clip.motion))
                assert clip.video and clip.video.parent.name == "+".join(duet.labels)
        assert reader.clips(f"{split}_duets") == [clip for clip in clips if len(clip.labels) == 2]
        assert reader.clips(f"{split}_half") == clips[1:3]
        assert reader.clips(f"{split}_semi") == clips[1:4]
    assert not reader.skipped


def test_stems_add_up_to_the_duet_and_are_about_equally_loud(reader: MusicReader) -> None:
    ratios = []
    for split in ("train", "val"):
        sounds = [soundfile.read(clip.audio, dtype="int16") for clip in reader.clips(split)]
        assert all(rate == 22050 and sound.shape == (220500,) for sound, rate in sounds)
        whole = [sound.astype(int) for sound, _ in sounds]
        for duet, first, second in (whole[:3], whole[3:]):
            assert np.abs(duet - first - second).max() <= 2
            assert -14.1 < 20 * np.log10(np.abs(duet).max() / 32768) < -0.9
            ratios.append(20 * np.log10(np.std(first) / np.std(second)))
    assert max(np.abs(ratios)) < 6.5 and min(np.abs(ratios)) > 0.01


def test_pictures_and_sound_of_the_videos(made: Path, reader: MusicReader) -> None:
    duet = reader.clips("val")[0]
    with av.open(str(duet.video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(duet.video)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert np.shape(frames) == (80, SIDE, 2 * SIDE, 3)
    low, _ = soundfile.read(duet.audio)
    assert np.corrcoef(sound[: 2 * len(low) : 2], low)[0, 1] > 0.98
    assert duet.frames and duet.motion
    stills = sorted(duet.frames.iterdir())
    assert [still.name for still in stills] == [f"{number:06d}.jpg" for number in range(1, 11)]
    third = np.asarray(Image.open(stills[2]), float)
    assert np.abs(third - frames[2 * FPS + FPS // 2]).mean() < 12
    assert np.load(duet.motion).shape == (1024, 20, 1, 1)


def test_detections_are_two_players_and_props_that_overlap_them(reader: MusicReader, manifest: dict) -> None:
    names = manifest["classes"]
    for clip in (clip for split in ("train_duets", "val_duets") for clip in reader.clips(split)):
        assert clip.detections
        found = read_detections(clip.detections)
        assert sorted(set(found.frames.tolist())) == list(range(1, 11))
        assert np.load(clip.detections).dtype == np.float32
        first = found.take(np.flatnonzero(found.frames == 1))
        for frame in range(1, 11):
            rows: Detections = found.take(np.flatnonzero(found.frames == frame))
            kinds = [names[number - 1] for number in rows.classes]
            assert sorted(kinds[:2]) == list(clip.labels) and set(kinds[2:]) <= set(manifest["props"])
            assert 2 <= len(kinds[2:]) <= 4
            assert (rows.scores[:2] == 1).all() and ((rows.scores[2:] >= 0.3) & (rows.scores[2:] <= 1)).all()
            best = [overlaps(box, rows.boxes[:2]).max() for box in rows.boxes[2:]]
            assert min(best) > 0.1
            assert np.array_equal(rows.boxes[2:], first.boxes[2:]), "props stand still"
            assert rows.boxes[0].reshape(2, 2).mean(axis=0)[0] < SIDE < rows.boxes[1].reshape(2, 2).mean(axis=0)[0]


def test_manifest_names_the_classes_of_the_detections(manifest: dict, reader: MusicReader) -> None:
    assert manifest["complete"] and manifest["rows"] == ROWS and manifest["skipped"] == []
    assert manifest["classes"] == [*CLASSES, *PROPS] and manifest["props"] == list(PROPS)
    assert manifest["generic_picture"] == ["erhu"]
    assert [source["used_for"] for source in manifest["settings"]["sources"]] == ["train, val", "train, val"]
    assert reader.clips("train")[0].detector_classes == tuple(manifest["classes"])


def test_files_depend_on_the_settings_only(made: Path, solos: Path, sine_soundfont: Path, tmp_path: Path) -> None:
    """Two processes go on with a torn copy elsewhere: the same bytes in the end, finished ensembles are kept."""
    out = tmp_path / "set"
    expected = contents(made)
    for name, data in expected.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    videos = sorted((out / "videos").rglob("*.mp4"))
    stemless, blind = videos[:2]
    (out / "audio" / stemless.parent.name.split("+")[1] / f"{stemless.stem}.wav").unlink()
    (out / "detection_results" / blind.parent.name / f"{blind.name}.npy").unlink()
    before = [video.stat().st_mtime_ns for video in videos]
    write_ensembles(out, ensembles=4, seed=2, solos=solos, soundfonts=[sine_soundfont], workers=2)
    assert contents(out) == expected
    changed = [video.stat().st_mtime_ns != time for video, time in zip(videos, before, strict=True)]
    assert changed == [True, True, False, False]


def test_folders_of_other_settings_and_of_solos_are_refused(
    made: Path, solos: Path, sine_soundfont: Path, tmp_path: Path
) -> None:
    before = contents(made)
    with pytest.raises(DataError, match="ensembles"):
        write_ensembles(made, ensembles=5, seed=2, solos=solos, soundfonts=[sine_soundfont])
    with pytest.raises(DataError, match="clips, ensembles"):
        write_dataset(made, clips=0, seed=2, solos=solos)
    assert contents(made) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ensembles": 2}, "ensembles is 2"),
        ({"ensembles": -1}, "ensembles is -1"),
        ({"ensembles": 4, "workers": 0}, "workers is 0"),
        ({"ensembles": 4, "soundfonts": [Path("nowhere.sf2")]}, "cannot be read"),
        ({"ensembles": 4, "solos": Path("nowhere")}, "does not exist"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict, message: str, sine_soundfont: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        write_ensembles(tmp_path / "set", **{"soundfonts": [sine_soundfont], **arguments})
    assert not (tmp_path / "set").exists()


def test_class_that_is_called_like_a_prop_is_refused(sine_soundfont: Path, tmp_path: Path) -> None:
    write_solos(tmp_path / "solos", ("cat",))
    with pytest.raises(DataError, match="'cat', which is a prop"):
        write_ensembles(tmp_path / "set", ensembles=4, solos=tmp_path / "solos", soundfonts=[sine_soundfont])
    assert not (tmp_path / "set").exists()


def test_missing_font_is_named_before_anything_is_written(
    sine_soundfont: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sprites_module, "_FOLDERS", ())
    with pytest.raises(DataError, match="apt-get install fonts-noto-color-emoji"):
        write_ensembles(tmp_path / "set", ensembles=4, soundfonts=[sine_soundfont])
    assert not (tmp_path / "set").exists()


def test_splits_share_no_recording_and_no_melody(solos: Path) -> None:
    plan = list(plan_ensembles(600, 1, [Path("a.sf2"), Path("b.sf2")], list_solos(solos), CLASSES))
    assert Counter(one.index for one in plan) == {"train": 552, "val": 48}
    parts = [(one, part) for one in plan for part in one.parts]
    recorded = [(one.index, part) for one, part in parts if part.melody is None]
    assert {(index, part.source.name) for index, part in recorded} == {("train", "train_0.wav"), ("val", "val_0.wav")}
    assert {part.class_name for _, part in recorded} == {"erhu", "mandolin", "tuba"}
    melodies = [part.melody for _, part in parts if part.melody is not None]
    assert len(set(melodies)) == len(melodies) and all(name.startswith("ensemble/") for name in melodies)
    assert {part.source.name for _, part in parts if part.melody} == {"a.sf2", "b.sf2"}
    tuba = [part.melody is None for _, part in parts if part.class_name == "tuba"]
    assert 0.3 < np.mean(tuba) < 0.7


def test_classes_pairs_and_sides_are_balanced(solos: Path) -> None:
    plan = [one for one in plan_ensembles(600, 1, [Path("a.sf2")], list_solos(solos), CLASSES) if one.index == "train"]
    pairs = Counter(one.folder for one in plan)
    assert len(pairs) == 20 * 19 // 2, "18 programs, and mandolin and erhu from recordings"
    assert set(pairs.values()) == {552 // 190, 552 // 190 + 1}
    assert 0.4 < np.mean([one.parts[0].class_name == one.classes[0] for one in plan]) < 0.6
    assert all(part.detector_id == CLASSES.index(part.class_name) + 1 for one in plan for part in one.parts)
    assert {one.first_prop for one in plan} == {len(CLASSES) + 1}


def test_without_recordings_only_playable_classes_play() -> None:
    plan = list(plan_ensembles(200, 0, [Path("a.sf2")], [], tuple(INSTRUMENTS)))
    assert {part.class_name for one in plan for part in one.parts} == set(playable())


def test_ensemble_of_an_unusable_recording_is_left_out_and_named(
    needs_fluidsynth: None, needs_font: None, sine_soundfont: Path, tmp_path: Path
) -> None:
    solos = write_solos(tmp_path / "solos", ("erhu",))
    (solos / "erhu" / "train_0.wav").write_text("not a sound")
    for seed in range(1000):
        plan = list(plan_ensembles(3, seed, [sine_soundfont], list_solos(solos), CLASSES))
        if any(part.class_name == "erhu" for part in plan[0].parts):
            break
    out = tmp_path / "set"
    manifest = json.loads(
        write_ensembles(out, ensembles=3, seed=seed, solos=solos, soundfonts=[sine_soundfont]).read_text()
    )
    assert manifest["rows"] == {"val": 6, "val_duets": 2, "val_half": 2, "val_semi": 3}
    assert [entry["ensemble"] for entry in manifest["skipped"]] == [f"{plan[0].folder}/ensemble_train_00000"]
    assert "cannot be decoded" in manifest["skipped"][0]["reason"]
    assert not (out / "train.csv").exists() and not list(out.rglob("*train_00000*"))


def test_every_prop_is_in_the_font(needs_font: None) -> None:
    for kind, character in PROPS.items():
        look = make_look(generator("prop", kind), character, 60)
        assert max(look.size) >= 50 and look.getchannel("A").getextrema()[1] == 255
    assert list(PROPS) == sorted(PROPS) and not set(PROPS) & set(INSTRUMENTS)


def test_props_overlap_their_player_and_do_not_cover_it(scenes: list[tuple[Scene, list[Prop]]]) -> None:
    for scene, props in scenes:
        assert Counter(prop.player for prop in props).keys() == {0, 1} and len(props) <= 4
        assert len({prop.kind for prop in props}) == len(props)
        assert all(min(p.box) >= 0 and p.box[2] <= 2 * SIDE and p.box[3] <= SIDE for p in props)
        for prop in props:
            share = overlaps(np.array(prop.box), scene.boxes[4::8, prop.player])
            assert share.min() >= 0.12 and share.max() <= 0.5
        for frame in range(4, 80, 8):
            before = np.zeros((SIDE, 2 * SIDE), bool)
            for prop in props:
                if prop.before:
                    before |= drawn(prop.pose)
            for player in scene.poses[frame]:
                own = drawn(player)
                assert (own & before).sum() <= 0.25 * own.sum()


def test_props_are_drawn_where_their_boxes_are(scenes: list[tuple[Scene, list[Prop]]]) -> None:
    scene, props = scenes[0]
    thing = props[0]
    left, top, right, bottom = (round(value) for value in thing.box)
    change = np.abs(scene.draw(before=[thing.pose]).astype(int) - scene.draw()).sum(axis=-1).max(axis=0)
    rows, columns = np.nonzero(change > 150)
    assert left <= columns.min() and columns.max() < right and top <= rows.min() and rows.max() < bottom
    assert columns.max() - columns.min() > 0.7 * (right - left) and rows.max() - rows.min() > 0.7 * (bottom - top)


def test_command_writes_ensembles(made: Path, solos: Path, sine_soundfont: Path) -> None:
    app = typer.Typer()
    app.command()(synth)
    sources = ["--solos", str(solos), "--soundfont", str(sine_soundfont)]
    result = CliRunner().invoke(app, [str(made), "--clips", "0", "--ensembles", "4", "--seed", "2", *sources, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rows"] == ROWS
    result = CliRunner().invoke(app, [str(made), "--ensembles", "4", "--seed", "2", *sources])
    assert result.exit_code == 0 and "val.csv" in result.stdout


@pytest.mark.parametrize(("option", "value"), [("--clips", "8"), ("--timbre-soundfont", "x.sf2")])
def test_command_refuses_what_ensembles_do_not_have(option: str, value: str, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(synth)
    result = CliRunner().invoke(app, [str(tmp_path / "set"), "--ensembles", "4", option, value])
    assert isinstance(result.exception, DataError)
    assert not (tmp_path / "set").exists()
