"""The command line: what it prints, what it writes, what it refuses, and what it does not import."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner, Result

from avsep_zoo import __version__
from avsep_zoo.cli import app
from avsep_zoo.cli.cue_options import parse_cue
from avsep_zoo.cli.stems import levels
from avsep_zoo.errors import MediaError
from avsep_zoo.weights.cards import card_folder

ROOT = Path(__file__).resolve().parents[1]
DUET = ROOT / "avsep_zoo" / "demo" / "duet.mp4"
RATE = 16000


def avsep(*arguments: object, columns: int = 100) -> Result:
    """Run a command in this process."""
    settings = {"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, [str(a) for a in arguments], env=settings, prog_name="avsep")


def spawn(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in another process, in the checkout's place on the path."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def sentence(result: Result) -> str:
    """Return the one line on stderr of a command that ended with exit code 1."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights card of an untrained iquery.mini."""
    import torch

    from avsep_zoo.load import load
    from avsep_zoo.weights.cards import write_card

    folder = tmp_path_factory.mktemp("cards") / "untrained"
    torch.manual_seed(0)
    write_card(
        folder,
        load("iquery.mini", weights=None),
        half=True,
        manifest={"training": {"steps": 0, "loss": float("nan")}},
    )
    return folder


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.5 s of stereo noise."""
    file = tmp_path_factory.mktemp("media") / "noise [1].wav"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE * 3 // 2, 2))
    soundfile.write(file, noise.astype(np.float32), RATE, "FLOAT")
    return file


# Start-up, in processes of their own


def test_start_imports_no_torch() -> None:
    """Help of every command, list, info and plugins, one after another in one process without torch."""
    code = """
import sys
from typer.testing import CliRunner
from avsep_zoo.cli import app
names = [command.name for command in app.registered_commands]
for arguments in [["--help"], *([n, "--help"] for n in names), ["list"], ["info", "iquery"], ["plugins"]]:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (arguments, result.output)
    heavy = {"torch", "scipy", "av", "accelerate"} & sys.modules.keys()
    assert "torch" not in heavy and (arguments[-1] != "--help" or not heavy), (arguments, heavy)
print(*names)
"""
    ran = spawn("-c", code)
    assert ran.returncode == 0, ran.stderr
    assert set(ran.stdout.split()) == {
        "separate", "detect", "demo", "train", "evaluate", "synth", "parity", "prepare",
        "convert", "publish", "pull", "list", "info", "plugins", "doctor", "new", "parts", "compose",
    }  # fmt: skip


def test_a_mistake_is_one_sentence_and_exit_code_1() -> None:
    ran = spawn("-m", "avsep_zoo", "separate", "missing.mp4", "--cue", "violin")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "The file missing.mp4 does not exist; check the path.\n"


def test_a_broken_plugin_is_one_warning_and_fails_only_the_list_of_plugins(tmp_path: Path) -> None:
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('out of order')\n")
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[avsep_zoo]\nbroken = broken_plugin\n")
    path = os.pathsep.join((str(tmp_path), str(ROOT)))

    listed = spawn("-m", "avsep_zoo", "list", "--json", PYTHONPATH=path)
    assert listed.returncode == 0
    assert "iquery" in [method["name"] for method in json.loads(listed.stdout)]
    assert listed.stderr.startswith("Warning: ") and listed.stderr.count("\n") == 1
    assert "out of order" in listed.stderr

    plugins = spawn("-m", "avsep_zoo", "plugins", "--verbose", PYTHONPATH=path)
    assert (plugins.returncode, plugins.stderr) == (1, "")
    assert re.search(r"broken +failed +installed +broken 1\.0", plugins.stdout)
    assert "Traceback" in plugins.stdout and "out of order" in plugins.stdout


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_an_interrupt_ends_with_exit_code_130(tmp_path: Path) -> None:
    """The command waits for a card that comes through a pipe, and is interrupted there."""
    pipe = tmp_path / "README.md"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, "-m", "avsep_zoo", "info", f"{tmp_path}/"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)  # fails until the command reads
            break
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.02)
    time.sleep(0.5)  # from opening the pipe to waiting for its content; in between Python may lose an interrupt
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    os.close(writer)
    assert (process.returncode, out, err) == (130, "", "Stopped.\n")


# Usage and errors


def test_version() -> None:
    result = avsep("--version")
    assert (result.exit_code, result.stdout) == (0, f"avsep-zoo {__version__}\n")


def test_help_fits_80_columns_and_groups_the_commands() -> None:
    text = avsep("--help", columns=80).stdout
    assert max(map(len, text.splitlines())) <= 80
    panels = ("╭─ Separate ─", "╭─ Train and evaluate ─", "╭─ Look around ─")
    order = [panels[0], "│ separate ", "│ demo ", panels[1], "│ train ", panels[2], "│ list ", "│ doctor "]
    places = [text.index(word) for word in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["frob"], "No such command"),
        (["separate", "a.wav"], "Nothing is asked for; give --cue, --text or --example."),
        (["separate", "a.wav", "--cue", "violin@1,2,3"], "has the box '1,2,3'"),
        (["separate", "a.wav", "--cue", "violin@a,b,c,d"], "has the box 'a,b,c,d'"),
        (["separate", "a.wav", "--cue", "violin@5,5,5,9"], "no area"),
        (["separate", "a.wav", "--cue", "@nan,0,1,1"], "finite"),
        (["separate", "a.wav", "--cue", " "], "names nothing"),
        (["separate", "a.wav", "--cue", "violin", "--overlap", "0.9"], "0.75"),
    ],
)
def test_a_wrong_call_ends_with_exit_code_2(arguments: list[str], reason: str) -> None:
    result = avsep(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert reason in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "iqery"], "There is no method 'iqery'; did you mean 'iquery'."),
        (["info", "iquery.minni"], "iquery has no variant 'minni'"),
        (["info", "no/card"], "The card 'no/card/README.md' cannot be read"),
        (["separate", str(ROOT), "--cue", "violin"], "is a directory; give a media file."),
    ],
)
def test_errors_are_sentences(arguments: list[str], message: str) -> None:
    assert message in sentence(avsep(*arguments))


def test_a_folder_that_is_no_card_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its name has no slash, so that it could be a method's."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for call in (["info", "data"], ["train", "--from", "data", "--data", "data", "-o", "run"]):
        assert "The card 'data/README.md' cannot be read" in sentence(avsep(*call))
    assert not Path("run").exists()


def test_debug_shows_where_an_error_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVSEP_ZOO_DEBUG", "1")
    result = avsep("separate", "missing.mp4", "--cue", "violin")
    assert isinstance(result.exception, MediaError)


def test_a_path_that_cannot_be_used_is_a_sentence(tmp_path: Path, recording: Path, card: Path) -> None:
    """A file where a folder should be made: the system's error, with the name."""
    (tmp_path / "file").write_text("")
    result = avsep("separate", recording, "--cue", "violin", "--model", card, "-o", tmp_path / "file" / "x")
    assert str(tmp_path / "file") in sentence(result)


# separate


def test_cues_of_the_command_line() -> None:
    cue = parse_cue("violin@0, 20,190,180.5", 1)
    assert (cue.label, cue.box, cue.title) == ("violin", [0, 20, 190, 180.5], "violin")
    cue = parse_cue("@0,20,190,180", 2)
    assert (cue.label, cue.title) == (None, "source-2")
    assert parse_cue("french horn", 1).describe() == {"label": "french horn"}
    with pytest.raises(typer.BadParameter):
        parse_cue("a@b@1,2", 1)


def test_separate_writes_stems_that_add_up_and_says_what_was_used(tmp_path: Path, recording: Path, card: Path) -> None:
    out = tmp_path / "stems"
    result = avsep("separate", recording, "--cue", "violin", "--cue", "flute", "--model", card, "-o", out, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert [stem["name"] for stem in document["stems"]] == ["violin", "flute"]
    assert (document["rate"], document["channels"], document["seconds"]) == (RATE, 2, 1.5)
    assert document["notes"] == ["violin: by label.", "flute: by label."]
    tracks = [*document["stems"], document["residual"]]
    read = [soundfile.read(track["file"], always_2d=True)[0] for track in tracks]
    mixture = soundfile.read(recording)[0]
    np.testing.assert_allclose(sum(read), mixture, atol=1e-5)
    for track, sound in zip(tracks, read, strict=True):
        assert track["rms_dbfs"] == pytest.approx(10 * np.log10(np.mean(sound**2)), abs=0.01)
        assert track["peak_dbfs"] == pytest.approx(20 * np.log10(np.abs(sound).max()), abs=0.01)
    assert Path(document["report"]).read_text(encoding="utf-8").startswith("<!doctype html>")


def test_separate_points_at_sources_in_the_picture(tmp_path: Path, card: Path) -> None:
    out = tmp_path / "stems"
    boxes = ("--cue", "flute@0,0,190,190", "--cue", "@190,0,384,190", "--cue", "piano")
    result = avsep("separate", DUET, *boxes, "--weights", card, "-o", out, "--no-report", "--no-consistency")
    assert result.exit_code == 0, result.output
    assert "flute: by label; the video's pictures were not used." in result.stdout
    assert "source-2: by the video's frames in its box." in result.stdout
    assert "piano: by label; the video's pictures were not used" in result.stdout
    assert re.search(r"source-2 +source-2\.wav +-\d+\.\d +-\d+\.\d", result.stdout)
    assert sorted(f.name for f in out.iterdir()) == [
        "flute.wav", "piano.wav", "separation.json", "source-2.wav",
    ]  # fmt: skip


def test_separate_replaces_an_earlier_separation_only_when_told(tmp_path: Path, recording: Path, card: Path) -> None:
    out = tmp_path / "stems"
    call = ("separate", recording, "--model", card, "-o", out)
    assert avsep(*call, "--cue", "violin").exit_code == 0
    before = sorted(f.name for f in out.iterdir())
    assert before == ["report.html", "residual.wav", "separation.json", "violin.wav"]
    assert sentence(avsep(*call, "--cue", "flute")) == (
        f"The folder {out} is not empty; give another one with -o, or --overwrite."
    )
    assert sorted(f.name for f in out.iterdir()) == before
    (out / "mine.txt").write_text("stays")
    assert avsep(*call, "--cue", "flute", "--overwrite", "--no-report").exit_code == 0
    assert sorted(f.name for f in out.iterdir()) == [
        "flute.wav",
        "mine.txt",
        "residual.wav",
        "separation.json",
    ]


@pytest.mark.parametrize(
    ("file", "cue", "message"),
    [
        ("sound", "violin@0,0,9,9", "noise [1].wav has no pictures, so leave out the box of 'violin'."),
        ("video", "flute@400,0,500,90", "outside the picture"),
        ("sound", "violine", "This model has no class 'violine'; did you mean 'violin'."),
    ],
)
def test_separate_refuses_cues_that_mean_nothing(
    tmp_path: Path, recording: Path, card: Path, file: str, cue: str, message: str
) -> None:
    media = {"sound": recording, "video": DUET}[file]
    out = tmp_path / "stems"
    assert message in sentence(avsep("separate", media, "--cue", cue, "--model", card, "-o", out))
    assert not out.exists()


def test_separate_without_cuda_says_so(recording: Path, card: Path, tmp_path: Path) -> None:
    import torch

    call = (
        "separate",
        recording,
        "--cue",
        "violin",
        "--model",
        card,
        "-o",
        tmp_path / "o",
        "--device",
        "cuda",
    )
    result = avsep(*call, "--json")
    if torch.cuda.is_available():
        assert json.loads(result.stdout)["device"].startswith("cuda")
    else:
        assert sentence(result).startswith("There is no CUDA device here")


def test_levels() -> None:
    wave = np.array([[0.5, -1.0], [0.0, 0.5]], dtype=np.float32)
    peak, rms = levels(wave)
    assert peak == 0.0
    assert rms == pytest.approx(10 * np.log10(1.5 / 4))
    assert levels(np.zeros((2, 3))) == (-np.inf, -np.inf)


# demo


def test_demo_measures_its_stems(tmp_path: Path, card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run from another place, where the usual folder is taken."""
    monkeypatch.chdir(tmp_path)
    Path("avsep-demo").mkdir()
    result = avsep("demo", "--model", card)
    assert (result.exit_code, result.stderr) == (0, "")
    scores = json.loads(Path("avsep-demo-2/separation.json").read_text(encoding="utf-8"))["scores"]
    assert len(scores) == 2
    for name, score in scores.items():
        assert score["before"] == pytest.approx(0, abs=0.5)
        row = re.search(rf"^{name} +(\S+) +(\S+) +(\S+)$", result.stdout, re.MULTILINE)
        numbers = (score["before"], score["after"], score["after"] - score["before"])
        assert row and [float(n) for n in row.groups()] == pytest.approx(numbers, abs=0.051)
    report = Path("avsep-demo-2/report.html").read_text(encoding="utf-8")
    assert "SDR" in report and len(report) > 100_000
    assert "Report: avsep-demo-2/report.html" in result.stdout


@pytest.mark.skipif(card_folder("iquery.mini") is None, reason="the weights iquery.mini are not here")
def test_demo_separates(tmp_path: Path) -> None:
    """With the published weights both sources come out at least 3 dB better than the mixture."""
    result = avsep("demo", "-o", tmp_path / "stems")
    assert (result.exit_code, result.stderr) == (0, "")
    scores = json.loads((tmp_path / "stems" / "separation.json").read_text(encoding="utf-8"))["scores"]
    assert min(score["after"] - score["before"] for score in scores.values()) > 3
