"""Where in the picture a sound is: collected while a recording is separated, and saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from avsep_zoo import Cue, SeparationModel, compose
from avsep_zoo.cli import app
from avsep_zoo.contracts import CueBatch
from avsep_zoo.guide import Guide
from avsep_zoo.media import VideoSource
from avsep_zoo.separation import Localisation, Separation, Stem
from avsep_zoo.synth.files import write_mp4
from avsep_zoo.weights.cards import write_card

RATE, LENGTH = 8000, 2047
LEFT, RIGHT = Cue(name="left", box=(0, 0, 48, 48)), Cue(name="right", box=(48, 0, 120, 48))

MakeModel = Callable[..., SeparationModel]


@pytest.fixture
def make_model() -> MakeModel:
    """A function that makes a tiny IAL-CMS: maps of 4 x 4, segments of 0.26 s; settings are those of its attention."""

    def make(**attention: Any) -> SeparationModel:
        torch.manual_seed(0)
        small = {"width": 4, "pyramid": 4, "details": 4, "space": 8, "frozen": False, "image_size": 32}
        return compose(
            encoder={"name": "ial_cms.deeplab", **small},
            conditioner={"name": "ial_cms.attention", "width": 4, "hidden": 8, **attention},
            separator={"name": "ial_cms.unet", "width": 4, "levels": 3},
            front_end={
                "name": "stft", "rate": RATE, "length": LENGTH, "n_fft": 126, "hop_length": 64, "warp_rows": 32,
                "pad_mode": "reflect", "align_corners": True, "log_offset": 1e-8,
            },
            name="ial_cms.tiny",
        )  # fmt: skip

    return make


@pytest.fixture
def model(make_model: MakeModel) -> SeparationModel:
    return make_model()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds, 8 pictures per second: noise on the left, red on the right that gets brighter."""
    rng = np.random.default_rng(0)
    pictures = np.zeros((16, 48, 96, 3), np.uint8)
    pictures[:, :, :48] = rng.integers(0, 255, (48, 48, 3))
    pictures[:, :, 48:, 0] = np.linspace(40, 250, 16)[:, None, None]
    path = tmp_path_factory.mktemp("video") / "duet.mp4"
    write_mp4(path, pictures, noise(2 * 44100))
    return path


def noise(samples: int) -> np.ndarray:
    """(samples,) that get brighter: no two segments are alike."""
    x = np.random.default_rng(1).standard_normal(samples)
    ramp = np.linspace(0, 1, samples)
    return (0.1 * (ramp * x + (1 - ramp) * np.cumsum(x) / 20)).astype(np.float32)


def found_by(model: SeparationModel, media: Any, *cues: Cue, **more: Any) -> list[Localisation | None]:
    result = model.separate(media, list(cues), **more).localisations
    assert result is not None
    return list(result)


def test_every_segment_has_a_map_of_every_source(model: SeparationModel, video: Path) -> None:
    """At the middle of the segment, of the middle of the box; what lies outside the picture is not seen."""
    left, right = found_by(model, video, LEFT, RIGHT)
    assert left is not None and right is not None
    step = LENGTH // 2 / RATE
    assert len(left.times) == 15
    np.testing.assert_allclose(left.times[:-1], LENGTH / RATE / 2 + step * np.arange(14), atol=0.01)
    for found, region in ((left, (3, 3, 45, 45)), (right, (51, 3, 93, 45))):
        assert found.maps.shape == (15, 4, 4) and found.maps.dtype == np.float16
        assert found.regions.shape == (15, 4)
        np.testing.assert_allclose(found.regions, np.tile(region, (15, 1)), atol=1)
    assert (left.maps.astype(float).std(axis=(1, 2)) > 0).all()
    assert (left.maps[0] != left.maps[-1]).any() and (left.maps != right.maps).any()


def test_the_maps_are_those_of_the_conditioner(model: SeparationModel) -> None:
    """Those of a recording of one segment, whose middle is 0.1 s."""
    sound = noise(1600)
    cues = [Cue(name=name, frames=np.array(Image.new("RGB", (20, 20), name))) for name in ("red", "blue")]
    found = found_by(model, sound, *cues, rate=RATE)
    batch = model.encoder.prepare(cues, video=None, time=0.1)
    with torch.inference_mode():
        padded = torch.from_numpy(np.pad(sound, (0, LENGTH - 1600)))[None]
        estimate = model({"mixture": padded, "cues": batch})
    assert estimate.localisation is not None and estimate.localisation.shape == (1, 2, 4, 4)
    for n, one in enumerate(found):
        assert one is not None and one.times.tolist() == [0.1]
        np.testing.assert_allclose(one.maps[0], estimate.localisation[0, n], atol=1e-3)
        np.testing.assert_array_equal(one.pictures[0], cues[n].frames)


def test_a_few_pictures_are_kept(model: SeparationModel, video: Path) -> None:
    """Evenly spread, as the video shows them at the middle of their segments; stems share them."""
    left, right = found_by(model, video, LEFT, RIGHT)
    assert left is not None and right is not None
    assert list(left.pictures) == [1, 5, 9, 13]
    with VideoSource(video) as source:
        for number, picture in left.pictures.items():
            np.testing.assert_array_equal(picture, source.frames_at([left.times[number]])[0])
            assert right.pictures[number] is picture


def test_batches_do_not_matter(model: SeparationModel, video: Path) -> None:
    (one,), (many,) = (found_by(model, video, LEFT, batch=batch) for batch in (1, 7))
    assert one is not None and many is not None
    np.testing.assert_allclose(one.maps, many.maps, atol=2e-3)
    np.testing.assert_array_equal(one.regions, many.regions)


def test_still_pictures_of_a_sound_without_video(model: SeparationModel, tmp_path: Path) -> None:
    """The region stays, the map changes with the sound, and the picture is that of the cue."""
    frames = np.random.default_rng(0).integers(0, 255, (5, 40, 64, 3), np.uint8)
    Image.fromarray(frames[0]).save(tmp_path / "still.png")
    cues = Cue(name="a", frames=frames, box=(8, 8, 24, 24)), Cue(name="b", frames=tmp_path / "still.png")
    a, b = found_by(model, noise(16000), *cues, rate=RATE)
    assert a is not None and b is not None
    assert len(a.maps) == 15 and (a.regions == a.regions[0]).all()
    np.testing.assert_allclose(a.regions[0], (9, 9, 23, 23), atol=0.5)
    np.testing.assert_allclose(b.regions[0], (4, 2.5, 60, 37.5), atol=1.5)
    assert (a.maps[0] != a.maps[-1]).any() and np.diff(a.times).min() > 0
    for found, picture in ((a, frames[2]), (b, frames[0])):
        assert all(np.array_equal(shown, picture) for shown in found.pictures.values())


def test_one_look_at_a_recording(model: SeparationModel, video: Path) -> None:
    """An encoder that looks once per clip shows the middle of the video for all segments."""
    model.encoder.per_clip = True
    (found,) = found_by(model, video, RIGHT)
    assert found is not None and len(found.maps) == 15
    assert len({id(picture) for picture in found.pictures.values()}) == 1
    with VideoSource(video) as source:
        np.testing.assert_array_equal(found.pictures[1], source.frames_at([1.0])[0])


def test_cues_with_and_without_own_pictures(model: SeparationModel, video: Path) -> None:
    """Beside a source in the video, one that is seen elsewhere: a picture of a single pixel."""
    own = Cue(name="own", frames=np.full((1, 1, 3), 9, np.uint8))
    left, dot = found_by(model, video, LEFT, own)
    assert left is not None and dot is not None
    assert left.pictures[1].shape == (48, 96, 3) and dot.pictures[1].shape == (1, 1, 3)


def test_models_that_do_not_say_where_stay_as_they_are(
    tiny_model: SeparationModel, make_model: MakeModel, video: Path, tmp_path: Path
) -> None:
    for silent, cue in ((tiny_model, Cue(label="violin", box=LEFT.box)), (make_model(spatial=False), LEFT)):
        result = silent.separate(video, cue)
        assert result.localisations is None
        names = [path.name for path in result.save(tmp_path / silent.name)]
        assert names == [f"{cue.title}.wav", "residual.wav", "separation.json"]
        assert "localisation" not in (tmp_path / silent.name / "separation.json").read_text(encoding="utf-8")


def test_a_driven_separator_says_where(generative_model: SeparationModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has that from the conditioner its network is bound to."""
    bind, maps = generative_model.conditioner.bind, torch.rand(1, 1, 3, 5)

    def bound(embedding: Any) -> Any:
        inject = bind(embedding)
        inject.localisation = maps
        return inject

    monkeypatch.setattr(generative_model.conditioner, "bind", bound)
    cue = Cue(name="a", frames=np.zeros((2, 32, 32, 3), np.uint8))
    batch = generative_model.encoder.prepare([cue], video=None, time=0.0)
    estimate = generative_model({"mixture": torch.zeros(1, 8191), "cues": batch})
    assert estimate.localisation is maps


@pytest.mark.parametrize("told", [None, float("nan")])
def test_a_source_without_a_picture(
    model: SeparationModel, video: Path, monkeypatch: pytest.MonkeyPatch, told: float | None
) -> None:
    """An encoder that does not say what its maps show leaves out the place, not the sound."""
    prepare = model.encoder.prepare

    def untold(*cues: Any, **more: Any) -> CueBatch:
        batch = prepare(*cues, **more)
        if told is None:
            del batch.values["map_region"]
        else:
            batch.values["map_region"][0, 0, 1] = told
        return batch

    monkeypatch.setattr(model.encoder, "prepare", untold)
    result = model.separate(video, [LEFT, RIGHT])
    if told is None:
        assert result.localisations is None
    else:
        assert result.localisations is not None
        assert result.localisations[0] is None and result.localisations[1] is not None


def test_maps_that_are_no_numbers_are_left_out(model: SeparationModel, video: Path) -> None:
    with VideoSource(video) as source:
        guide = Guide(model, [LEFT, RIGHT], source)
        with torch.inference_mode():
            guide.embed([0.5, 1.0])
            maps = torch.rand(2, 2, 3, 3) * 1.2
            maps[0, 0, 1, 1] = maps[0, 1] = maps[1, 1, 0, 0] = torch.nan
            guide.heard(maps)
            guide.embed([1.5])
            guide.heard(None)
        found = guide.localisations()
    assert found is not None and found[0] is not None and found[1] is None
    assert found[0].times.tolist() == [1.0] and list(found[0].pictures) == [0]
    np.testing.assert_allclose(found[0].maps[0], maps[1, 0].clamp(0, 1), atol=1e-3)


def localisation(**more: Any) -> Localisation:
    """Two maps of 2 x 3, and the picture of the second one."""
    values: dict[str, Any] = {
        "times": np.array([0.5, 1.5]),
        "regions": np.array([[0, 0, 8, 8], [1, 1, 9, 9.0]]),
        "maps": np.linspace(0.25, 0.75, 12, dtype=np.float16).reshape(2, 2, 3),
        "pictures": {1: np.zeros((10, 20, 3), np.uint8)},
    }
    return Localisation(**(values | more))


def separation(*found: Localisation | None, names: tuple[str, ...] = ("violin", "flute")) -> Separation:
    silence = np.zeros((1, 800), np.float32)
    stems = [Stem(name, silence) for name in names]
    return Separation(stems=stems, mixture=silence, rate=RATE, method="m", localisations=found or None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"times": np.zeros(3)},
        {"times": np.array([0, np.inf])},
        {"regions": np.zeros((2, 5))},
        {"regions": np.full((2, 4), np.nan)},
        {"maps": np.zeros((2, 2), np.float16)},
        {"maps": np.zeros((2, 0, 3), np.float16)},
        {"maps": np.full((2, 2, 3), np.nan, np.float16)},
        {"maps": np.full((2, 2, 3), 1.5, np.float16)},
        {"pictures": {2: np.zeros((10, 20, 3), np.uint8)}},
        {"pictures": {-1: np.zeros((10, 20, 3), np.uint8)}},
        {"pictures": {0: np.zeros((10, 20), np.uint8)}},
        {"pictures": {0: np.zeros((0, 20, 3), np.uint8)}},
        {"pictures": {0: np.zeros((10, 20, 3), np.float32)}},
    ],
)
def test_parts_that_do_not_belong_together(wrong: dict[str, Any]) -> None:
    assert repr(localisation()) == "Localisation(2 x 2 x 3, 1 pictures)"
    with pytest.raises(ValueError, match=r"localisation|picture"):
        localisation(**wrong)


def test_there_is_one_per_stem() -> None:
    with pytest.raises(ValueError, match="There are 1 localisations for 2 stems"):
        separation(localisation())


def test_places_are_saved_beside_the_stems(tmp_path: Path) -> None:
    found = localisation()
    paths = separation(None, found, names=("violin", "../flute")).save(tmp_path / "out")
    assert [p.name for p in paths] == ["violin.wav", "_flute.wav", "_flute.localisation.npz", "separation.json"]
    with np.load(paths[2], allow_pickle=False) as saved:
        assert sorted(saved) == ["maps", "regions", "times"]
        for name in saved:
            np.testing.assert_array_equal(saved[name], getattr(found, name))
        assert saved["maps"].dtype == np.float16
    violin, flute = json.loads(paths[3].read_text(encoding="utf-8"))["stems"]
    assert "localisation" not in violin and flute["localisation"] == "_flute.localisation.npz"
    assert {p.name for p in (tmp_path / "out").iterdir()} == {p.name for p in paths}


def test_a_later_separation_replaces_them(tmp_path: Path) -> None:
    separation(localisation(), localisation()).save(tmp_path / "out")
    (tmp_path / "out" / "mine.localisation.npz").write_text("keep")
    names = {p.name for p in separation(None, localisation()).save(tmp_path / "out", overwrite=True)}
    assert names == {"violin.wav", "flute.wav", "flute.localisation.npz", "separation.json"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == names | {"mine.localisation.npz"}


@pytest.mark.parametrize("named", ["../victim.localisation.npz", "notes.npz", 7, None])
def test_a_manifest_that_was_tampered_with_removes_nothing_else(tmp_path: Path, named: Any) -> None:
    (tmp_path / "out").mkdir()
    kept = [tmp_path / "victim.localisation.npz", tmp_path / "out" / "notes.npz"]
    for path in kept:
        path.write_text("keep")
    manifest = {"stems": [{"file": "a.wav", "localisation": named}], "residual": None}
    (tmp_path / "out" / "separation.json").write_text(json.dumps(manifest))
    separation().save(tmp_path / "out", overwrite=True)
    assert all(path.read_text() == "keep" for path in kept)


def test_the_command_line_names_the_files(model: SeparationModel, video: Path, tmp_path: Path) -> None:
    card, out = write_card(tmp_path / "card", model).folder, tmp_path / "out"
    call = [
        "separate",
        str(video),
        "--cue",
        "a@0,0,48,48",
        "--cue",
        "b@48,0,96,48",
        "--model",
        str(card),
        "--no-report",
    ]
    result = CliRunner().invoke(app, [*call, "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "Where in the picture: a.localisation.npz, b.localisation.npz" in result.stdout
    result = CliRunner().invoke(app, [*call, "-o", str(out), "--overwrite", "--json"])
    stems = json.loads(result.stdout)["stems"]
    assert [stem["localisation"] for stem in stems] == [str(out / f"{name}.localisation.npz") for name in "ab"]
