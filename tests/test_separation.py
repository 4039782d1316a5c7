"""The result object: lookup, saving whole or not at all, and the report."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from avsep_zoo.errors import CueError, MediaError
from avsep_zoo.media import read_audio
from avsep_zoo.separation import Separation, Stem, safe_names
from avsep_zoo.spectrogram import Axes, band_powers, mask_picture, regrid

RATE = 8000


def tone(hertz: float, seconds: float, level: float = 0.3, rate: int = RATE) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def separation(names: tuple[str, ...] = ("violin", "flute"), seconds: float = 1.0, **more: object) -> Separation:
    """Stereo tones of 200, 400, ... Hz and a quiet residual; masks of 65 rows."""
    waves = [np.stack([tone(200 * k, seconds), tone(200 * k, seconds)]) for k in range(1, len(names) + 1)]
    noise = np.random.default_rng(0).normal(0, 0.01, waves[0].shape).astype(np.float32)
    stems = [Stem(n, w, np.full((65, 32), 0.5, np.float32)) for n, w in zip(names, waves, strict=True)]
    settings: dict[str, object] = {
        "residual": Stem("residual", noise),
        "mixture": sum(waves) + noise,
        "rate": RATE,
        "method": "iquery.mini",
        "cues": [{"label": n} for n in names],
        "notes": ["Motion was not given."],
        "mask_seconds": seconds / 32,
        "mask_frequencies": np.linspace(0, RATE / 2, 65),
    }
    return Separation(stems=stems, **(settings | more))  # type: ignore[arg-type]


class Broken(np.ndarray):
    """A waveform that cannot be read, like a memory map on a disk that fails."""

    def __getitem__(self, key: object) -> np.ndarray:
        raise OSError(5, "Input/output error")


def broken(shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, np.float32).view(Broken)


def test_stems_are_found_by_name() -> None:
    result = separation()
    assert result.stem("flute") is result.stems[1]
    with pytest.raises(CueError, match="No stems are called 'oboe'; the stems are 'violin', 'flute'"):
        result.stem("oboe")
    with pytest.raises(CueError, match="2 stems are called 'violin'"):
        separation(("violin", "violin")).stem("violin")
    assert repr(result) == "Separation(violin, flute, residual: 1.00 s, 2 ch, 8000 Hz, by iquery.mini)"


def test_parts_that_do_not_belong_together() -> None:
    with pytest.raises(ValueError, match="the shape of the mixture"):
        separation(mixture=np.zeros((2, 5), np.float32))
    with pytest.raises(ValueError, match="1 cues for 2 stems"):
        separation(cues=[{}])
    with pytest.raises(ValueError, match=r"mask of 'violin' has shape \(65, 32\); give \(9, T\)"):
        separation(mask_frequencies=np.linspace(0, 4000, 9))
    with pytest.raises(ValueError, match="channels, samples"):
        separation(mixture=np.zeros(8000, np.float32))


def test_saved_stems_and_residual_add_up_to_the_mixture(tmp_path: Path) -> None:
    result = separation(scores={"violin": {"before": np.float32(1.5), "after": float("inf")}})
    paths = result.save(tmp_path / "new" / "stems")
    assert [p.name for p in paths] == ["violin.wav", "flute.wav", "residual.wav", "separation.json"]
    waves = [read_audio(p) for p in paths[:-1]]
    assert {rate for _, rate in waves} == {RATE}
    np.testing.assert_allclose(sum(w for w, _ in waves), result.mixture, atol=1e-6)
    np.testing.assert_array_equal(waves[0][0], result.stems[0].waveform)
    assert soundfile.info(paths[0]).subtype == "FLOAT"
    content = json.loads(paths[-1].read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))
    assert content["stems"][1] == {"name": "flute", "file": "flute.wav", "cue": {"label": "flute"}}
    assert content["residual"] == {"file": "residual.wav"}
    assert (content["rate"], content["channels"], content["samples"]) == (RATE, 2, RATE)
    assert (content["method"], content["notes"]) == ("iquery.mini", ["Motion was not given."])
    assert content["scores"] == {"violin": {"before": 1.5, "after": None}}
    assert {p.name for p in tmp_path.rglob("*")} == {"new", "stems", *(p.name for p in paths)}


def test_memory_maps_are_saved(tmp_path: Path) -> None:
    wave = np.memmap(tmp_path / "stem.f32", np.float32, "w+", shape=(2, 200_000))
    wave[:] = np.random.default_rng(0).uniform(-1, 1, wave.shape)
    result = Separation(stems=[Stem("a", wave)], mixture=wave, rate=RATE, method="m")
    np.testing.assert_array_equal(read_audio(result.save(tmp_path / "out")[0])[0], wave)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["violin", "violin", "violin-2", "Violin"], ["violin", "violin-2", "violin-2-2", "Violin-3"]),
        (["../../etc/x", "a/b", "a\\b", "/"], ["_.._etc_x", "a_b", "a_b-2", "stem"]),
        (["", "...", " . ", "\0"], ["stem", "stem-2", "stem-3", "stem-4"]),
        (
            ["residual", "Residual", "小提琴", "é", "e\u0301"],
            ["residual-2", "Residual-3", "小提琴", "é", "é-2"],
        ),
        (["CON", "nul.txt", 'a:b*c?"<>|', "x\ny"], ["_CON", "_nul.txt", "a_b_c_____", "x_y"]),
    ],
)
def test_stem_names_become_safe_file_names(names: list[str], expected: list[str]) -> None:
    assert safe_names(names) == expected


def test_long_names_are_cut_between_characters(tmp_path: Path) -> None:
    names = ("🎻" * 400, "🎻" * 401)
    paths = separation(names).save(tmp_path / "out")
    assert [p.name for p in paths[:2]] == ["🎻" * 30 + ".wav", "🎻" * 30 + "-2.wav"]


def test_hostile_names_stay_in_the_folder(tmp_path: Path) -> None:
    paths = separation(("../../etc/x", "a/b", "")).save(tmp_path / "a" / "out")
    assert all(p.parent == tmp_path / "a" / "out" and p.is_file() for p in paths)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["out"]


def test_a_save_that_fails_leaves_nothing(tmp_path: Path) -> None:
    result = separation()
    result.stems[1].waveform = broken(result.mixture.shape)
    with pytest.raises(MediaError, match=r"could not be written .*Input/output error"):
        result.save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_keeps_the_earlier_one(tmp_path: Path) -> None:
    paths = separation().save(tmp_path / "out")
    before = {p: p.read_bytes() for p in paths}
    result = separation(("violin", "oboe"))
    result.stems[1].waveform = broken(result.mixture.shape)
    with pytest.raises(MediaError):
        result.save(tmp_path / "out", overwrite=True)
    assert {p: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_with_files_is_replaced_only_on_request(tmp_path: Path) -> None:
    separation(("violin", "flute")).save(tmp_path)
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(MediaError, match="not empty; give another or overwrite=True"):
        separation().save(tmp_path)
    separation(("oboe",)).save(tmp_path, overwrite=True)
    assert {p.name for p in tmp_path.iterdir()} == {"oboe.wav", "residual.wav", "separation.json", "mine.txt"}
    with pytest.raises(MediaError, match="is a file"):
        separation().save(tmp_path / "mine.txt")


def test_overwriting_removes_only_what_a_separation_wrote(tmp_path: Path) -> None:
    """A manifest that was tampered with cannot name files elsewhere."""
    (tmp_path / "victim.wav").write_text("keep")
    (tmp_path / "out").mkdir()
    hostile = {"stems": [{"file": "../victim.wav"}, {"file": "notes.txt"}], "residual": None}
    (tmp_path / "out" / "notes.txt").write_text("keep")
    for content in (json.dumps(hostile), "no JSON", "[]", '{"stems": 1, "residual": 2}'):
        (tmp_path / "out" / "separation.json").write_text(content)
        separation().save(tmp_path / "out", overwrite=True)
        assert (tmp_path / "victim.wav").exists() and (tmp_path / "out" / "notes.txt").exists()


class Page(HTMLParser):
    """Collects the elements of a page and checks that they are closed in order."""

    VOID = frozenset({"meta", "img", "link", "br", "hr", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def payload(uri: str | None) -> io.BytesIO:
    assert uri is not None and uri.startswith("data:")
    return io.BytesIO(base64.b64decode(uri.partition(",")[2]))


def test_the_report_is_one_file_that_needs_no_other(tmp_path: Path) -> None:
    frame = np.zeros((60, 100, 3), np.uint8)
    result = separation(
        frames=[frame, None],
        boxes=[(20, 10, 60, 50), None],
        scores={"violin": {"before": -1.25, "after": 8.5}, "flute": {"before": 0.0, "after": float("nan")}},
    )
    path = result.report(tmp_path / "report.html", title="A & B")
    html = path.read_text(encoding="utf-8")
    assert not re.search(r"""(src|href|action|poster|data)\s*=\s*["'](?!data:)""", html)
    assert "http:" not in html and "https:" not in html and "@import" not in html and "url(" not in html
    page = Page(html)
    assert "A & B" in page.text and "violin and flute" in page.text and "Motion was not given." in page.text
    assert all(image["alt"] for image in page.all("img"))
    assert [a["aria-label"] for a in page.all("audio")] == [
        "Play Mixture",
        "Play violin",
        "Play flute",
        "Play Residual",
    ]
    assert {"−1.2", "8.5", "+9.8"} <= set(page.text.split())
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]

    sounds = [soundfile.read(payload(a["src"]), always_2d=True) for a in page.all("audio")]
    for (x, rate), expected in zip(sounds[:2], (result.mixture, result.stems[0].waveform), strict=False):
        assert rate == RATE and x.shape == (RATE, 2)
        assert np.abs(x.T - expected)[:, 500:-500].max() < 0.05

    pictures = [Image.open(payload(image["src"])) for image in page.all("img")]
    assert [p.format for p in pictures] == ["PNG", "JPEG", "PNG", "PNG", "PNG", "PNG", "PNG"]
    photo = np.asarray(pictures[1]).astype(int)
    assert photo.shape == (192, 320, 3)
    assert photo[32:36, 64:190].mean() > 100 and photo[60:120, 90:160].mean() < 10  # the box, and inside it


def test_the_report_escapes_everything(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'"
    result = separation((evil,), method=evil, notes=[evil], cues=[{evil: evil}], scores={evil: {"before": 1}})
    page = Page(result.report(tmp_path / "r.html", title=evil).read_text(encoding="utf-8"))
    assert len(page.all("script")) == 1
    assert all(image["src"] and image["src"].startswith("data:image/") for image in page.all("img"))
    assert page.text.count(evil) >= 6


def test_a_long_sound_is_shown_in_part(tmp_path: Path) -> None:
    x = np.zeros((6, 61 * 1000), np.float32)
    x[0, -500:] = 2.0
    x[0, :500] = 2.0
    result = Separation(stems=[Stem("a", x)], mixture=x, rate=1000, method="m")
    page = Page(result.report(tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "first 60 s" in page.text and "turned down by 6.0 dB" in page.text
    sound, rate = soundfile.read(payload(page.all("audio")[0]["src"]), always_2d=True)
    assert (rate, sound.shape[1]) == (8000, 1) and sound.shape[0] == 60 * 8000


@pytest.mark.parametrize("shape", [(1, 1), (2, 40)])
def test_a_report_of_almost_nothing(tmp_path: Path, shape: tuple[int, int]) -> None:
    silence = np.zeros(shape, np.float32)
    mask = np.zeros((3, 1), np.float32)
    result = Separation(
        stems=[Stem("a", silence, mask)],
        mixture=silence,
        rate=100,
        method="m",
        mask_seconds=0.1,
        mask_frequencies=np.array([0.0, 10.0, 20.0]),
    )
    Page(result.report(tmp_path / "r.html").read_text(encoding="utf-8"))


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="create it first"):
        separation().report(tmp_path / "no" / "r.html")


def test_a_tone_is_drawn_at_its_frequency_and_time() -> None:
    axes = Axes(seconds=2.0, low=50.0, high=4000.0, columns=100)
    x = np.concatenate([np.zeros(RATE, np.float32), tone(1000, 1.0)])[None]
    power = band_powers(x, RATE, axes)
    edges = axes.frequency_edges()
    row = int(power[:, 75].argmax())
    assert edges[row] < 1030 and edges[row + 1] > 970
    assert power[:, 60:].max(axis=0).min() > 1e4 * power[:, :40].max()
    assert axes.time_ticks() == [(0.0, "0"), (0.25, "0.5"), (0.5, "1"), (0.75, "1.5"), (1.0, "2")]
    assert [label for _, label in axes.frequency_ticks()] == ["50", "100", "200", "500", "1k", "2k"]


def test_a_mask_is_drawn_in_its_place_and_grey_elsewhere() -> None:
    """The mask covers 0 to 1000 Hz and the first half of the time; it is 1 above 500 Hz."""
    axes = Axes(seconds=2.0, low=50.0, high=4000.0, columns=100)
    mask = np.zeros((101, 10), np.float32)
    mask[51:] = 1
    png = mask_picture(mask, np.linspace(0, 1000, 101), 0.1, axes)
    index = np.asarray(Image.open(io.BytesIO(png)))[::-1]  # palette index, lowest row first
    middle = np.sqrt(axes.frequency_edges()[1:] * axes.frequency_edges()[:-1])
    assert (index[middle > 1030] == 0).all() and (index[:, 55:] == 0).all()
    assert (index[(middle > 520) & (middle < 980), :45] == 255).all()
    assert (index[middle < 490, :45] == 1).all()


def test_regridding_keeps_the_integral() -> None:
    values = np.random.default_rng(0).uniform(size=(40, 3))
    edges = np.sort(np.random.default_rng(1).uniform(0, 10, 41))
    new = np.concatenate([[edges[0]], np.sort(np.random.default_rng(2).uniform(*edges[[0, -1]], 7)), [edges[-1]]])
    got = regrid(values, edges, new)
    np.testing.assert_allclose(np.diff(new) @ got, np.diff(edges) @ values)
