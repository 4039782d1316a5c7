"""Generative models under evaluation: the published protocols of DAVIS, and how sampling is chosen and recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import avsep_zoo
from avsep_zoo.cli import app
from avsep_zoo.compose import compose_recipe
from avsep_zoo.data.reader import open_data
from avsep_zoo.data.segment import published_segment
from avsep_zoo.errors import CompositionError, DataError
from avsep_zoo.evaluation.contender import Contender, Setting
from avsep_zoo.evaluation.protocols import PROTOCOLS
from avsep_zoo.evaluation.run import ALL_CUES, evaluate
from avsep_zoo.evaluation.scorer import Scorer, Separated
from avsep_zoo.recipe import PartConfig
from avsep_zoo.weights.cards import read_card, write_card

MUSIC = {"rate": 11025, "length": 65535, "n_fft": 1022, "hop_length": 256}
AVE = {"rate": 11000, "length": 110000, "n_fft": 1022, "hop_length": 256, "warp_frames": 256}


def write_clip(root: Path, name: str, shade: int, seconds: float, frames: int) -> None:
    """Write a sound at 11025 Hz and plain frames of a clip where the official layout has them."""
    sound, folder = root / "audio" / f"{name}.wav", root / "frames" / f"{name}.mp4"
    sound.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(shade)
    soundfile.write(sound, rng.uniform(-0.5, 0.5, int(seconds * 11025)), 11025)
    folder.mkdir(parents=True)
    for number in range(1, frames + 1):
        Image.new("RGB", (16, 16), (shade, shade, shade)).save(folder / f"{number:06d}.jpg")


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """Three clips and two mixtures in the official layout of MUSIC."""
    root = tmp_path / "music"
    names = ("violin/a", "flute/b", "drum/c")
    for k, name in enumerate(names):
        write_clip(root, name, 40 + 60 * k, 8, 10)
    (root / "test.csv").write_text("".join(f"/{name}.wav,/{name}.mp4,10\n" for name in names))
    (root / "testsep.csv").write_text("/violin/a.wav, /flute/b.wav\n/drum/c.wav, /violin/a.wav\n")
    return root


@pytest.fixture
def ave(tmp_path: Path) -> Path:
    """Two clips and a mixture in the layout of DAVIS' AVE; the second one is shorter than a segment."""
    root = tmp_path / "ave"
    write_clip(root, "a", 60, 10.2, 12)
    write_clip(root, "b", 120, 7, 12)
    (root / "test.csv").write_text('a.wav,a.mp4,12,"Race car, auto racing"\nb.wav,b.mp4,12,Flute\n')
    (root / "testsep.csv").write_text("/Race_car/a.wav, /Flute/b.wav\n")
    return root


def contender(parts: dict[str, PartConfig], folder: Path, sound: dict[str, Any]) -> Contender:
    """A card of the small DAVIS-Flow with a front end of a published rate and length."""
    front = parts["front_end"].changed(sound)
    model = compose_recipe(parts | {"front_end": front}, "davis_flow.tiny")
    return Contender("davis_flow.tiny", write_card(folder, model))


def avsep(*arguments: object) -> Result:
    settings = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, [str(a) for a in arguments], env=settings, prog_name="avsep")


def separated(found: Contender, protocol: str, data: Path) -> list[Separated]:
    rules = PROTOCOLS[protocol]
    reader = open_data(data, rules.dataset, protocol=rules.loader, frame_rate=rules.frame_rate)
    scorer = Scorer(found, rules, Setting.of(rules, found), use=ALL_CUES, consistency=rules.consistency)
    results = scorer.separate(reader.mixtures("testsep"))
    assert all(isinstance(result, Separated) for result in results), results
    return [result for result in results if isinstance(result, Separated)]


def test_davis_music_scores_65280_samples_against_sources_at_full_level(
    generative_parts: dict[str, PartConfig], music: Path, tmp_path: Path
) -> None:
    """The segment lies around an eighth of the time of the middle frame; the mixture is the mean."""
    first, second = separated(contender(generative_parts, tmp_path / "card", MUSIC), "davis.music", music)
    for result in (first, second):
        assert result.sources.shape == result.estimates.shape == (2, 65280)
        torch.testing.assert_close(result.mixture, result.sources.mean(dim=0))
        assert result.estimates.isfinite().all()
    wanted = published_segment(music / "audio/violin/a.wav", rate=11025, length=65535, centre=5.5 / 8)[:65280]
    np.testing.assert_array_equal(first.sources[0], wanted)
    np.testing.assert_array_equal(second.sources[1], wanted)
    assert not wanted[:20000].any() and wanted[40000:].all()


def test_davis_ave_scores_109824_samples(generative_parts: dict[str, PartConfig], ave: Path, tmp_path: Path) -> None:
    """Files at 11025 Hz are resampled to 11000, a short one is repeated, the segment lies around 5 s."""
    [result] = separated(contender(generative_parts, tmp_path / "card", AVE), "davis.ave", ave)
    assert result.sources.shape == result.estimates.shape == (2, 109824)
    for n, name in enumerate("ab"):
        wanted = published_segment(ave / f"audio/{name}.wav", rate=11000, length=110000, centre=5.0)
        np.testing.assert_array_equal(result.sources[n], wanted[:109824])
    torch.testing.assert_close(result.mixture, result.sources.mean(dim=0))


def test_an_evaluation_records_its_sampling(
    generative_parts: dict[str, PartConfig], music: Path, tmp_path: Path
) -> None:
    """In the results, the report and the card; a run with another one does not go on in the same folder."""
    found = contender(generative_parts, tmp_path / "card", MUSIC)
    rules = PROTOCOLS["davis.music"]
    first = evaluate([found, Contender("mixture")], music, protocol=rules, steps=1, seed=3, out=tmp_path / "out")
    model, baseline = first["models"]
    assert model["sampling"] == {"seed": 3, "steps": 1, "solver": "euler", "evaluations": 1}
    assert baseline["sampling"] is None
    [entry] = model["lists"]
    assert entry["mixtures"] == 2
    assert entry["published_mean"]["name"].startswith("mean over batches of 8 mixtures")
    assert "1 step of euler, seed 3" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(DataError, match="scores of another evaluation \\(sampling changed\\)"):
        evaluate([found], music, protocol=rules, steps=1, seed=4, out=tmp_path / "out")
    again = evaluate([found], music, protocol=rules, steps=1, seed=3, limit=1)
    [alone] = again["models"][0]["lists"][0]["items"]
    assert alone["sdr"] == pytest.approx(entry["items"][0]["sdr"], abs=0.01)


def test_wrong_sampling_is_refused_before_the_data_is_read(
    generative_parts: dict[str, PartConfig], tmp_path: Path
) -> None:
    found = contender(generative_parts, tmp_path / "card", MUSIC)
    with pytest.raises(CompositionError, match="solver is 'ddim'; choose one of euler"):
        evaluate([found], tmp_path / "none", protocol=PROTOCOLS["own"], solver="ddim")
    with pytest.raises(CompositionError, match="mixture makes nothing out of noise step by step; leave out steps 2"):
        evaluate([Contender("mixture")], tmp_path / "none", protocol=PROTOCOLS["own"], steps=2)


def test_the_command_writes_the_dial_into_the_card(
    generative_parts: dict[str, PartConfig], music: Path, tmp_path: Path
) -> None:
    folder = contender(generative_parts, tmp_path / "card", MUSIC).card.folder  # type: ignore[union-attr]
    dial = ("--steps", 2, "--solver", "ab2", "--seed", 5)
    done = avsep("evaluate", folder, "--data", music, "--protocol", "davis.music", *dial, "--write-card")
    assert done.exit_code == 0, done.output
    [model] = read_card(folder).front["model-index"]
    [result] = model["results"]
    assert result["source"]["name"].endswith("--protocol davis.music --steps 2 --solver ab2 --seed 5")
    arguments = result["dataset"]["args"]
    assert {name: arguments[name] for name in ("seed", "steps", "solver", "evaluations")} == {
        "seed": 5,
        "steps": 2,
        "solver": "ab2",
        "evaluations": 2,
    }


def test_commands_of_a_generative_model(generative_parts: dict[str, PartConfig], tmp_path: Path) -> None:
    """``info`` lists solvers; ``separate`` takes the dial, needs boxes, and says what it does not know."""
    torch.manual_seed(0)
    card = write_card(tmp_path / "card", compose_recipe(generative_parts, "davis_flow.tiny")).folder
    about = json.loads(avsep("info", card, "--json").stdout)
    assert about["sampling"]["steps"] == 2 and about["sampling"]["solver"] == "euler"
    assert about["sampling"]["solvers"]["heun"] == 2
    assert "Sampling: 2 steps of euler" in avsep("info", card).stdout

    duet = Path(avsep_zoo.__file__).parent / "demo" / "duet.mp4"
    boxes = ("--cue", "left@0,20,150,180", "--cue", "right@160,20,310,180")
    out = tmp_path / "stems"
    done = avsep(
        "separate", duet, *boxes, "--model", card, "--steps", 1, "--seed", 9, "-o", out, "--no-report", "--json"
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["sampling"] == {"seed": 9, "steps": 1, "solver": "euler", "evaluations": 1}
    assert json.loads((out / "separation.json").read_text())["sampling"]["seed"] == 9

    for wrong, sentence in (
        (("--cue", "violin", "--cue", "flute"), "neither frames nor a box"),
        ((*boxes, "--solver", "ddim"), "solver is 'ddim'; choose one of euler"),
    ):
        refused = avsep("separate", duet, *wrong, "--model", card, "-o", tmp_path / "other")
        assert refused.exit_code == 1, refused.output
        assert sentence in " ".join(refused.stderr.split())
        assert not (tmp_path / "other").exists()
