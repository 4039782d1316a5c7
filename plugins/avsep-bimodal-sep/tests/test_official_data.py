"""Rules of the published loaders: by hand, and those of the protocols on the files of golden cases."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from avsep_bimodal_sep.official_data import mono, segment_centre
from avsep_bimodal_sep.parity_data import dataset, label_prompts, metrics
from avsep_zoo.data.reader import open_data
from avsep_zoo.errors import DataError
from avsep_zoo.evaluation.contender import Contender, Setting
from avsep_zoo.evaluation.protocols import find_protocol
from avsep_zoo.evaluation.run import ALL_CUES
from avsep_zoo.evaluation.scorer import Scorer, Separated
from avsep_zoo.parity.case import Case, load_case

CASES = Path(__file__).parents[3] / "tests" / "parity" / "bimodal_sep"
NAMES = ("audiocaps_train", "music_test", "vggsound_test")


def read(name: str) -> Case:
    case = load_case(CASES / f"{name}.json")
    assert case is not None
    return case


def mixture(root: Path, name: str, **files: tuple[np.ndarray, int]) -> Separated:
    """The first mixture of a data folder under the protocol of its data set, of sounds and their rates."""
    (root / "audio").mkdir(exist_ok=True)
    for file, (sound, rate) in files.items():
        path = root / "audio" / f"{file.replace('__', '/')}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, sound, rate, "PCM_16" if sound.dtype == np.int16 else "FLOAT")
    protocol, contender = find_protocol(f"bimodal_sep.{name}"), Contender("mixture")
    setting = Setting.of(protocol, contender)
    reader = open_data(root, name, protocol=protocol.loader)
    assert protocol.lists[0] in reader.mixture_lists()
    scorer = Scorer(contender, protocol, setting, use=ALL_CUES, consistency=protocol.consistency)
    [found] = scorer.separate(reader.mixtures(protocol.lists[0])[:1])
    assert isinstance(found, Separated), found
    return found


def music(root: Path, *frames: int) -> None:
    rows = [f"/{label}/{label}.wav,/{label}/{label}.mp4,{n}\n" for label, n in zip("ab", frames, strict=True)]
    (root / "test.csv").write_text("".join(rows))
    (root / "test_sep_2.csv").write_text("/a/a.wav,/b/b.wav\n")


def vggsound(root: Path) -> None:
    (root / "test.csv").write_text("a.wav,playing accordion\nb.wav,dog barking, growling\n")
    (root / "test_sep_2.csv").write_text("a.wav,b.wav\n")


def audiocaps(root: Path) -> None:
    captions = {n: {"file_id": f, "caption": f"Cap {f}", "sources": ["s"]} for n, f in (("1", "a_0"), ("2", "b_0"))}
    (root / "parsed_all_caps.json").write_text(json.dumps(captions))
    (root / "test_sep2_ids.csv").write_text("1,2\n")


@pytest.mark.parametrize("name", NAMES)
def test_protocols_cut_and_mix_as_published(tmp_path: Path, name: str) -> None:
    """Mixtures and sources of the official loader, from files and lists as they are on disk."""
    case, kind = read(f"data_{name}"), name.split("_")[0]
    first, second = ((case.inputs[f"wav_{i}"], 16000) for i in range(2))
    if kind == "music":
        music(tmp_path, *(item["frames"] for item in case.inputs["items"]))
        found = mixture(tmp_path, kind, a__a=first, b__b=second)
    elif kind == "vggsound":
        vggsound(tmp_path)
        found = mixture(tmp_path, kind, a=first, b=second)
    else:
        audiocaps(tmp_path)
        found = mixture(tmp_path, kind, a_0=first, b_0=second)
    assert found.rate == 16000 and found.mixture.shape == (131070,)
    np.testing.assert_allclose(found.mixture[::64], case.expected["mix"], atol=1e-6)
    np.testing.assert_allclose(found.sources[:, ::64], case.expected["audios"], atol=1e-6)


def ramp(samples: int) -> np.ndarray:
    """A sound that tells its place."""
    return np.arange(1, samples + 1, dtype=np.float32) / samples


def test_short_sounds_are_repeated_by_the_protocols_of_classes(tmp_path: Path) -> None:
    """Also where the segment begins after their end."""
    music(tmp_path, 9, 16)
    short, long = ramp(50001), ramp(160000)
    found = mixture(tmp_path, "music", a__a=(short, 16000), b__b=(long, 16000))
    start = int(4.5 * 16000) - 65535
    want = np.tile(short, 3)[start : start + 131070]
    np.testing.assert_allclose(2 * found.sources[0, : len(want)], want, atol=1e-6)
    assert not found.sources[0, len(want) :].any()
    brief = mixture(tmp_path, "music", a__a=(short, 16000), b__b=(ramp(16000), 16000))
    start = int(8.5 * 16000) - 65535
    np.testing.assert_allclose(2 * brief.sources[1, :1000], np.tile(ramp(16000), 9)[start : start + 1000], atol=1e-6)


def test_short_sounds_lie_in_the_middle_of_silence_in_audiocaps(tmp_path: Path) -> None:
    audiocaps(tmp_path)
    found = mixture(tmp_path, "audiocaps", a_0=(ramp(50001), 16000), b_0=(ramp(160001), 16000))
    start = 65535 - 25000
    np.testing.assert_allclose(2 * found.sources[0, start : start + 50001], ramp(50001), atol=1e-6)
    assert not found.sources[0, :start].any() and not found.sources[0, start + 50001 :].any()
    np.testing.assert_allclose(2 * found.sources[1], ramp(160001)[80000 - 65535 : 80000 + 65535], atol=1e-6)


def test_vggsound_is_cut_around_four_and_a_half_seconds(tmp_path: Path) -> None:
    vggsound(tmp_path)
    found = mixture(tmp_path, "vggsound", a=(ramp(160000), 16000), b=(ramp(40000), 16000))
    np.testing.assert_allclose(2 * found.sources[0], ramp(160000)[72000 - 65535 : 72000 + 65535], atol=1e-6)
    repeated = np.tile(ramp(40000), 4)[72000 - 65535 : 72000 + 65535]
    np.testing.assert_allclose(2 * found.sources[1], repeated, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "samples", "length", "frames", "centre"),
    [
        ("audiocaps", 101, 50, None, 50),
        ("audiocaps", 20, 50, None, 10),
        ("music", 101, 50, 10, 550),
        ("music", 101, 50, 7, 350),
        ("vggsound", 1000, 50, None, 450),
        ("vggsound", 449, 50, None, 224),
        ("vggsound", 300, 400, None, 450),
        ("vggsound", 30, 50, None, 30),
    ],
)
def test_where_a_segment_is_cut(name: str, samples: int, length: int, frames: int | None, centre: int) -> None:
    """At 100 Hz; the last two are repeated to 600 and to 60 samples first."""
    assert segment_centre(name, samples, length, rate=100, frames=frames) == centre


def test_places_that_cannot_be_known() -> None:
    with pytest.raises(DataError, match="The data set is 'ave'; give audiocaps, music, vggsound"):
        segment_centre("ave", 10, 5, rate=100)
    with pytest.raises(DataError, match="no number of frames"):
        segment_centre("music", 10, 5, rate=100)


@pytest.mark.parametrize(("channels", "factor"), [(1, 1.0), (2, 0.5), (3, 1.0)])
def test_channels_and_rates(channels: int, factor: float) -> None:
    """A tone in the first channel at 44.1 kHz is the same tone at 16 kHz."""
    time = np.arange(44100) / 44100
    pcm = np.zeros((44100, channels), np.int16)
    pcm[:, 0] = np.round(16000 * np.sin(2 * np.pi * 500 * time))
    got = mono(pcm, 44100, 16000)
    want = factor * 16000 / 32768 * np.sin(2 * np.pi * 500 * np.arange(16000) / 16000)
    assert got.shape == (16000,) and got.dtype == np.float32
    np.testing.assert_allclose(got[100:-100], want[100:-100], atol=1e-3)


def changed(name: str, inputs: dict[str, Any], **config: Any) -> Case:
    """A golden case with other inputs and settings."""
    spec = copy.deepcopy(read(name).spec)
    spec["config"] |= config
    spec["inputs"] = {}
    case = Case(CASES / f"{name}.json", spec)
    case.inputs.update(inputs)
    return case


def item(kind: str, files: int, drawn: dict[str, Any] | None = None, *, length: int = 400, **config: Any) -> Case:
    """A small item of noises at 100 Hz, with classes a_0, a_1, ... or phrases as many as the place of the file."""
    rng = np.random.default_rng(files)
    made: dict[str, Any] = {f"wav_{i}": rng.integers(-9000, 9000, (900, 1)).astype(np.int16) for i in range(files)}
    made["items"] = [
        {"label": f"a_{i}", "caption": f"cap {i}", "phrases": [f"p{k}" for k in range(i + 1)], "frames": 9}
        for i in range(files)
    ]
    made["choices"] = {"gains": None, "centres": None, "phrases": None} | (drawn or {})
    settings = {"dataset": kind, "audLen": length, "audRate": 100, "file_rate": 100}
    return changed("data_music_train", made, **settings, **config)


@pytest.mark.parametrize("kind", ["music", "vggsound"])
def test_recordings_of_three(kind: str) -> None:
    """Targets are divided by their number of sounds once more than the mixture."""
    drawn: dict[str, list[Any]] = {"centres": [400 + i for i in range(6)], "gains": [0.5, 1.5, 1.0, 0.7, 1.2, 0.9]}
    case = item(kind, 6, drawn, n_sources=3)
    got = dataset(case)
    parts = [
        gain * case.inputs[f"wav_{i}"][centre - 200 : centre + 200, 0] / 32768
        for i, (centre, gain) in enumerate(zip(drawn["centres"], drawn["gains"], strict=True))
    ]
    np.testing.assert_allclose(got["audios"], np.reshape(parts, (2, 3, 400)).sum(axis=1) / 18, atol=1e-6)
    np.testing.assert_allclose(got["mix"], 3 * got["audios"].sum(dim=0), atol=1e-6)
    assert got["conds"] == ["The sound mixture of a 0 and a 1 and a 2", "The sound mixture of a 3 and a 4 and a 5"]
    assert got["source_conds"][1] == ["The sound of a 3", "The sound of a 4", "The sound of a 5"]
    assert np.array_equal(got["source_weights"], np.ones((2, 3)))
    with pytest.raises(DataError, match="The item has 6 files; give num_mix 2 times n_sources 2"):
        dataset(item(kind, 6, drawn))


def test_captions_of_one_to_four_phrases() -> None:
    """Repeats follow all that there are; of more those that were drawn."""
    case = item("audiocaps", 4, {"phrases": [[0, 0], [1], None, [3, 0, 2]]}, num_mix=4, n_sources=3)
    got = dataset(case)
    assert got["source_conds"] == [["p0"] * 3, ["p0", "p1", "p1"], ["p0", "p1", "p2"], ["p3", "p0", "p2"]]
    np.testing.assert_allclose(got["source_weights"], np.array([[1 / 3] * 3, [1, 0.5, 0.5], [1, 1, 1], [1, 1, 1]]))
    assert got["conds"] == [f"cap {i}" for i in range(4)]
    middle = torch.from_numpy(case.inputs["wav_0"][250:650, 0].astype(np.float32) / 32768)
    torch.testing.assert_close(got["audios"][0], middle / 4)


def test_tests_mix_solos_of_any_number() -> None:
    case = item("music", 3, split="test", num_mix=3, length=401)
    got = dataset(case)
    assert set(got) == {"mix", "audios", "conds"} and got["conds"] == [f"The sound of a {i}" for i in range(3)]
    want = case.inputs["wav_1"][250:650, 0] / 32768 / 3
    np.testing.assert_allclose(got["audios"][1], [*want, 0.0], atol=1e-6)  # the last of an odd number is silent
    with pytest.raises(DataError, match="The item has 3 recordings and num_mix is 2"):
        dataset(item("music", 3, split="test"))


def test_a_loud_segment_is_clipped_after_its_gain() -> None:
    case = item("vggsound", 2, {"gains": [1.5, 0.5]}, num_mix=2, n_sources=1)
    for i in range(2):
        case.inputs[f"wav_{i}"][:] = 30000
    got = dataset(case)
    np.testing.assert_allclose(2 * got["audios"][:, 0], [1.0, 0.5 * 30000 / 32768], atol=1e-6)
    assert got["conds"] == ["The sound mixture of a 0", "The sound mixture of a 1"]


def test_prompts_of_groups() -> None:
    case = changed("label_prompts", {"labels": ["x_y__z"], "label_groups": [["a_b"], ["c", "d_e", "f"]]})
    assert label_prompts(case) == {
        "single": ["The sound of x y  z"],
        "mixture": ["The sound mixture of a b", "The sound mixture of c and d e and f"],
    }


def test_scores_of_three() -> None:
    """The mixture is scored as each of them."""
    truth = np.random.default_rng(0).standard_normal((3, 4000))
    inputs = {"ref": truth, "est": truth + 1e-3 * truth[::-1], "mix": truth.sum(axis=0)}
    got = metrics(changed("bss_metrics", inputs, filter_length=8))
    assert (got["sdr"][[0, 2]] > 55).all() and got["sdr_mix"].shape == (3,) and (got["sdr_mix"] < 0).all()
    with pytest.raises(DataError, match="set compute_permutation to false"):
        metrics(changed("bss_metrics", inputs, compute_permutation=True))
