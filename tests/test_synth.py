"""The generator of test material: layout, determinism, resuming, hostile input, sound and motion."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import typer
from PIL import Image
from typer.testing import CliRunner

from avsep_zoo.cli.synth import synth
from avsep_zoo.errors import AvsepError, DataError, MediaError
from avsep_zoo.synth import INSTRUMENTS, motion_features, write_dataset, write_duet
from avsep_zoo.synth import soundfont as soundfont_module
from avsep_zoo.synth import sprites as sprites_module
from avsep_zoo.synth.clip import generator
from avsep_zoo.synth.files import write_mp4
from avsep_zoo.synth.instruments import playable
from avsep_zoo.synth.scene import FPS, Actor, Player, render_scene
from avsep_zoo.synth.score import Note, Score, compose_score
from avsep_zoo.synth.solos import find_onsets, list_solos, read_solo
from avsep_zoo.synth.soundfont import RATE, render_score

SPLITS = ("train", "val", "test")


def plucks(times: tuple[float, ...], pitch: float = 330.0, seconds: float = 10.0, rate: int = 22050) -> np.ndarray:
    """Decaying tones that begin at the given times."""
    clock = np.arange(round(seconds * rate)) / rate
    sound = np.zeros_like(clock)
    for start in times:
        since = np.clip(clock - start, 0, None)
        sound += (clock >= start) * np.exp(-since / 0.15) * np.sin(2 * np.pi * pitch * since)
    return (0.5 * sound).astype(np.float32)


def write_solos(root: Path, classes: tuple[str, ...] = ("cello", "tuba")) -> Path:
    """One recording per split and class; the classes are drawn by the generator itself, no font is needed."""
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for split in SPLITS:
            pitch = 200.0 + 40 * number + 13 * len(split)
            soundfile.write(root / name / f"{split}_000.wav", plucks((0.5, 2.0, 3.1, 6.0), pitch), 22050)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def solos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_solos(tmp_path_factory.mktemp("recordings") / "solos")


@pytest.fixture(scope="module")
def made(solos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of six recorded solos; tests only read it."""
    out = tmp_path_factory.mktemp("made") / "set"
    assert write_dataset(out, clips=0, solos=solos) == out / "synth.json"
    return out


def test_index_files_follow_the_official_layout(made: Path) -> None:
    assert (made / "train.csv").read_text() == (
        "/cello/solo_train_000.wav,/cello/solo_train_000.mp4,10\n/tuba/solo_train_000.wav,/tuba/solo_train_000.mp4,10\n"
    )
    assert (made / "val.csv").read_text().count("\n") == 2
    assert not (made / "test.csv").exists(), "no soundfont was used"
    assert (made / "test_recorded.csv").read_text().splitlines()[1].startswith("/tuba/solo_test_000.wav,")
    assert (made / "testsep_recorded.csv").read_text() == (
        "/cello/solo_test_000.wav, /tuba/solo_test_000.wav\n/tuba/solo_test_000.wav, /cello/solo_test_000.wav\n"
    )


def test_clip_files_can_be_read_and_agree(made: Path, solos: Path) -> None:
    for name in ("cello", "tuba"):
        sound, rate = soundfile.read(made / f"audio/{name}/solo_train_000.wav")
        original, _ = soundfile.read(solos / name / "train_000.wav")
        assert rate == 22050 and sound.shape == (220500,)
        assert np.corrcoef(sound, original)[0, 1] > 0.999
        with av.open(str(made / f"videos/{name}/solo_train_000.mp4")) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
            assert audio.rate == RATE and video.average_rate == FPS
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video)]
        assert np.shape(frames) == (80, 192, 192, 3)
        stills = sorted((made / f"frames/{name}/solo_train_000.mp4").iterdir())
        assert [still.name for still in stills] == [f"{number:06d}.jpg" for number in range(1, 11)]
        fifth = np.asarray(Image.open(stills[4]), float)
        assert np.abs(fifth - frames[4 * FPS + FPS // 2]).mean() < 12, "still 5 is the middle of second 5"


def test_detections_and_motion_have_their_shapes(made: Path) -> None:
    for name in ("cello", "tuba"):
        rows = np.load(made / f"detection_results/{name}/solo_val_000.mp4.npy")
        assert rows.shape == (10, 7) and rows.dtype == np.float32
        assert rows[:, 0].tolist() == list(range(1, 11))
        assert set(rows[:, 1]) == {list(INSTRUMENTS).index(name) + 1}
        assert np.all(rows[:, 3:5] >= 0) and np.all(rows[:, 5:] <= 192)
        assert np.all(rows[:, 5:] - rows[:, 3:5] > 20)
        motion = np.load(made / f"motion_features/{name}/solo_val_000.mp4.npy")
        assert motion.shape == (1024, 20, 1, 1) and motion.dtype == np.float32
        assert 0 < motion.max() <= 1 and motion.min() >= 0


def test_manifest_names_settings_versions_and_sources(made: Path) -> None:
    manifest = json.loads((made / "synth.json").read_text())
    assert manifest["complete"] and manifest["classes"] == list(INSTRUMENTS) and len(INSTRUMENTS) == 20
    assert manifest["rows"] == {"train": 2, "val": 2, "test_recorded": 2, "testsep_recorded": 2}
    assert manifest["settings"]["sources"][0]["licence"] == "not stated by the folder"
    assert str(made.parent) not in (made / "synth.json").read_text()


def test_files_depend_on_the_settings_only(made: Path, solos: Path, tmp_path: Path) -> None:
    """Another folder and two processes give the same bytes, .mp4 included; another seed does not."""
    seen: list[tuple[int, int]] = []
    write_dataset(tmp_path / "set", clips=0, solos=solos, workers=2, progress=lambda *at: seen.append(at))
    assert contents(tmp_path / "set") == contents(made)
    assert seen == [(done, 6) for done in range(1, 7)]


def test_video_bytes_do_not_depend_on_the_state_of_memory(tmp_path: Path) -> None:
    """x264's macroblock tree does by default; blocks of noise that slide are what shows it."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 255, (24, 24, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    video = np.stack([np.roll(blocks, 3 * step, axis=1) for step in range(80)])
    seen, held = set(), []
    for _ in range(10):
        held = [*held[-4:], np.ones(rng.integers(1, 200_000))]
        write_mp4(tmp_path / "blocks.mp4", video, np.zeros(RATE, np.float32))
        seen.add((tmp_path / "blocks.mp4").read_bytes())
    assert len(seen) == 1


def test_half_written_clip_is_made_again_and_finished_ones_are_kept(made: Path, solos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    expected = contents(made)
    for name, data in expected.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    torn = out / "videos/tuba/solo_val_000.mp4"
    torn.rename(torn.with_name(f".{torn.name}.part"))
    (out / "frames/tuba/solo_val_000.mp4/000003.jpg").unlink()
    kept = out / "videos/tuba/solo_test_000.mp4"
    before = kept.stat().st_mtime_ns
    write_dataset(out, clips=0, solos=solos)
    assert contents(out) == expected
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize("change", ["seed", "recording"])
def test_other_settings_are_refused(made: Path, solos: Path, tmp_path: Path, change: str) -> None:
    before = contents(made)
    if change == "recording":
        solos = write_solos(tmp_path / "solos")
        soundfile.write(solos / "cello" / "val_000.wav", plucks((1.0,)), 22050)
    with pytest.raises(DataError, match="made with other settings") as raised:
        write_dataset(made, clips=0, solos=solos, seed=int(change == "seed"))
    assert ("seed" if change == "seed" else "sources") in str(raised.value)
    assert contents(made) == before


def test_foreign_folder_is_refused(solos: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(DataError, match="not empty"):
        write_dataset(tmp_path, clips=0, solos=solos)
    with pytest.raises(DataError, match="is a file"):
        write_dataset(tmp_path / "thesis.tex", clips=0, solos=solos)
    assert contents(tmp_path) == {"thesis.tex": b"precious"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clips": 3}, "clips is 3"),
        ({"clips": -1}, "clips is -1"),
        ({"clips": 0}, "no solos"),
        ({"clips": 8, "workers": 0}, "workers is 0"),
        ({"clips": 0, "solos": Path("nowhere")}, "does not exist"),
        ({"clips": 8, "soundfonts": [Path("nowhere.sf2")]}, "cannot be read"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        write_dataset(tmp_path / "set", timbre_soundfont=Path("other.sf2"), **arguments)
    assert not (tmp_path / "set").exists()


def test_unusable_recordings_are_left_out_and_named(tmp_path: Path) -> None:
    root = tmp_path / "solos"
    (root / "cello").mkdir(parents=True)
    soundfile.write(root / "cello" / "train_good.wav", plucks((0.5,), seconds=1.5), 22050)
    soundfile.write(root / "cello" / "train_silent.wav", np.zeros(22050), 22050)
    (root / "cello" / "train_text.wav").write_text("not a sound")
    (root / "cello" / "notes.txt").write_text("not listed")
    manifest = json.loads(write_dataset(tmp_path / "set", clips=0, solos=root).read_text())
    assert manifest["rows"] == {"train": 1}
    assert [entry["recording"] for entry in manifest["skipped"]] == [
        "cello/train_silent.wav",
        "cello/train_text.wav",
    ]
    assert not list((tmp_path / "set").rglob("*silent*"))


@pytest.mark.parametrize("name", ["a,b", "-x", "x..", "with space", "line\nbreak", "ÿ"])
def test_folder_names_that_cannot_be_classes_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="cannot be a class"):
        list_solos(tmp_path)


def test_file_names_become_harmless_and_distinct_ids(tmp_path: Path) -> None:
    (tmp_path / "cello").mkdir()
    for name in ("..;a,b.wav", "..;a b.wav", "train_x.wav", "train_x.flac", ",.wav"):
        (tmp_path / "cello" / name).touch()
    ids = [solo.id for solo in list_solos(tmp_path)]
    assert len(set(ids)) == 5
    assert all(name.replace("_", "").isalnum() for name in ids)


def test_unknown_class_gets_the_generic_picture_and_the_manifest_says_so(tmp_path: Path) -> None:
    root = tmp_path / "solos"
    (root / "erhu").mkdir(parents=True)
    soundfile.write(root / "erhu" / "train_1.wav", plucks((0.5, 1.2), seconds=2), 22050)
    manifest = json.loads(write_dataset(tmp_path / "set", clips=0, solos=root).read_text())
    assert manifest["generic_picture"] == ["erhu"] and manifest["classes"][20] == "erhu"
    assert np.load(tmp_path / "set/detection_results/erhu/solo_train_1.mp4.npy")[0, 1] == 21


@pytest.mark.parametrize(("name", "package"), [("FLUID_R3", "fluid-soundfont-gm"), ("TIM_GM", "timgm6mb-soundfont")])
def test_missing_soundfont_names_its_package(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundfont_module, "_FOLDERS", ())
    with pytest.raises(DataError, match=f"apt-get install {package}"):
        soundfont_module.find_soundfont(getattr(soundfont_module, name))


def test_missing_font_names_its_package_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sprites_module, "_FOLDERS", ())
    with pytest.raises(DataError, match="apt-get install fonts-noto-color-emoji"):
        write_dataset(tmp_path / "set", clips=0, solos=write_solos(tmp_path / "solos", ("violin",)))
    assert not (tmp_path / "set").exists()


def test_missing_module_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fluidsynth", None)
    soundfont_module._fluidsynth.cache_clear()
    with pytest.raises(DataError, match=r"pip install pyfluidsynth"):
        soundfont_module.fluidsynth_version()


def test_scores_stay_in_range_and_vary() -> None:
    seen = set()
    for name in playable():
        for number in range(12):
            score = compose_score(generator(name, number), INSTRUMENTS[name], 10.0)
            pitches = [note.pitch for note in score.notes]
            assert score.voice.low <= min(pitches) <= max(pitches) <= score.voice.high
            starts = [note.start for note in score.notes]
            assert starts == sorted(starts) and 0 <= starts[0] < 8 and starts[-1] < 10
            assert all(1 <= note.velocity <= 127 and note.duration > 0 for note in score.notes)
            assert abs(score.tuning) <= 40
            seen.add(tuple(pitches))
    assert len(seen) == 12 * len(playable())


def test_rendered_pitch_timing_and_tuning(needs_fluidsynth: None, sine_soundfont: Path) -> None:
    font = sine_soundfont
    voice = INSTRUMENTS["violin"].voices[0]
    score = Score(voice, (Note(0.5, 1.0, 69, 100), Note(2.0, 0.5, 81, 60)), tuning=25.0)
    sound = render_score(score, font, 3.0)
    assert sound.dtype == np.float32 and sound.shape == (3 * RATE,)
    assert np.abs(sound[: RATE // 2 - 512]).max() == 0 and np.abs(sound[int(1.7 * RATE) : 2 * RATE - 512]).max() < 1e-3
    first, second = sound[int(0.6 * RATE) : int(1.4 * RATE)], sound[int(2.1 * RATE) : int(2.4 * RATE)]
    for part, hertz in ((first, 441), (second, 882)):
        spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 1 << 19))
        assert spectrum.argmax() * RATE / (1 << 19) == pytest.approx(hertz * 2 ** (25 / 1200), rel=1e-3)
    assert np.abs(first).max() > 1.5 * np.abs(second).max() > 0
    assert np.array_equal(render_score(score, font, 3.0), sound)


def test_soundfont_without_the_program_is_named(needs_fluidsynth: None, sine_soundfont: Path, tmp_path: Path) -> None:
    font = tmp_path / "sine.sf2"
    font.write_bytes(sine_soundfont.read_bytes().replace(struct.pack("<HHHIII", 40, 0, 0, 0, 0, 0)[:4], b"\x7b\0\0\0"))
    score = Score(INSTRUMENTS["violin"].voices[0], (Note(0.0, 1.0, 69, 100),), tuning=0.0)
    with pytest.raises(DataError, match="has no program 40"):
        render_score(score, font, 1.0)


def test_soundfont_data_set_has_every_split(
    needs_fluidsynth: None, needs_font: None, sine_soundfont: Path, tmp_path: Path
) -> None:
    fonts = [Path(shutil.copy(sine_soundfont, tmp_path / "Sine One.sf2"))]
    other = Path(shutil.copy(sine_soundfont, tmp_path / "timbre2.sf2"))
    with pytest.raises(DataError, match="use two"):
        write_dataset(tmp_path / "set", clips=8, soundfonts=fonts, timbre_soundfont=fonts[0])
    manifest = write_dataset(tmp_path / "set", clips=8, seed=5, soundfonts=fonts, timbre_soundfont=other)
    rows = json.loads(manifest.read_text())["rows"]
    assert rows == {"train": 3, "val": 1, "test": 2, "test_timbre": 2, "testsep": 2, "testsep_timbre": 2}
    test = (tmp_path / "set/test.csv").read_text().splitlines()
    timbre = (tmp_path / "set/test_timbre.csv").read_text().splitlines()
    assert test[0] == "/accordion/sineone_test_00000.wav,/accordion/sineone_test_00000.mp4,10"
    assert timbre == [row.replace("sineone_test", "timbre2_timbre") for row in test]
    for wav in (tmp_path / "set/audio").rglob("*.wav"):
        sound, _ = soundfile.read(wav)
        assert -14.1 < 20 * np.log10(np.abs(sound).max()) < -0.9
        assert np.sqrt(np.mean(sound**2)) > 1e-3


def test_motion_features_are_the_mean_change_of_each_cell() -> None:
    video = np.zeros((16, 64, 96, 3), np.uint8)
    video[6:, 2:4, 3:6] = 255  # one cell of 2 x 3 pixels: row 1, column 1, brightens at frame 6
    features = motion_features(video, 8)
    assert features.shape == (1024, 4, 1, 1)
    expected = np.zeros((32, 32, 4))
    expected[1, 1, 1] = 0.25  # one frame of the four that make step 1
    assert np.allclose(features[..., 0, 0].reshape(32, 32, 4), expected, atol=1e-6)


def test_picture_moves_when_notes_are_played() -> None:
    player = Player([(5.0, 1.0), (7.0, 0.8)], np.repeat((0.0, 1.0), 40))
    scores = []
    for seed in range(6):
        video, boxes = render_scene(generator("scene", seed), [Actor("cello", player)], 80)
        sway = np.abs(np.diff(boxes[:, 0], axis=0)).sum(axis=1)
        assert not sway[:39].any(), "nothing is played, nothing moves"
        scores.append(sway[39:].sum())
        assert video.shape == (80, 192, 192, 3)
    assert min(scores) > 10


def test_onsets_of_plucks_are_found() -> None:
    times = (0.5, 1.3, 2.0, 2.4, 3.9)
    onsets = find_onsets(plucks(times, seconds=5.0, rate=RATE), RATE)
    assert [start for start, _ in onsets] == pytest.approx(times, abs=0.03)
    assert max(strength for _, strength in onsets) == 1.0


def test_recordings_are_cut_to_their_loudest_part_or_repeated(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", plucks((14.0, 15.0, 16.0), seconds=20.0), 22050)
    soundfile.write(tmp_path / "short.wav", plucks((0.0,), seconds=1.0), 22050)
    long, short = (read_solo(tmp_path / f"{name}.wav", 5.0, 22050) for name in ("long", "short"))
    assert long.shape == short.shape == (5 * 22050,)
    assert len(find_onsets(long, 22050)) == 3
    assert np.array_equal(short[:22050], short[4 * 22050 :])
    soundfile.write(tmp_path / "nan.wav", np.full(1000, np.nan, np.float32), 22050, "FLOAT")
    with pytest.raises(MediaError, match=r"nan\.wav is empty, silent or damaged"):
        read_solo(tmp_path / "nan.wav", 5.0, 22050)


def test_duet_is_the_sum_of_its_sources(solos: Path, tmp_path: Path) -> None:
    path = write_duet(tmp_path, ("cello", "tuba"), sources=(solos, solos / "tuba/test_000.wav"))
    with av.open(str(path)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    parts = [soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("cello", "tuba")]
    assert np.corrcoef(sound[: 6 * RATE : 2], sum(parts))[0, 1] > 0.98
    assert np.std(parts[0]) == pytest.approx(np.std(parts[1]), rel=0.01)
    boxes = json.loads((tmp_path / "boxes.json").read_text())
    rows = {name: np.array(boxes[name]) for name in ("cello", "tuba")}
    assert rows["cello"].shape == rows["tuba"].shape == (48, 5)
    assert rows["cello"][:, 1:4:2].mean() < 192 < rows["tuba"][:, 1:4:2].mean()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 1_000_000


@pytest.mark.parametrize("classes", [("cello", "cello"), ("mandolin", "cello"), ("../x", "cello")])
def test_duets_that_cannot_be_are_refused(classes: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(DataError):
        write_duet(tmp_path / "duet", classes)
    assert not list(tmp_path.iterdir())


def test_command_prints_what_it_wrote(made: Path, solos: Path) -> None:
    app = typer.Typer()
    app.command()(synth)
    result = CliRunner().invoke(app, [str(made), "--clips", "0", "--solos", str(solos), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rows"]["train"] == 2
    result = CliRunner().invoke(app, [str(made), "--clips", "0", "--solos", str(solos)])
    assert "train.csv" in result.stdout and f"Manifest: {made}" in result.stdout
    result = CliRunner().invoke(app, [str(made), "--clips", "3"])
    assert isinstance(result.exception, AvsepError)


def test_nothing_imports_torch() -> None:
    code = "import sys, avsep_zoo.cli.synth, avsep_zoo.synth; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
