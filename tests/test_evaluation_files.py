"""What an evaluation leaves on disk, how it goes on after it was killed, and that processes change nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from threadpoolctl import threadpool_info, threadpool_limits

from avsep_zoo.errors import DataError
from avsep_zoo.evaluation.contender import Contender, Setting, find_contenders
from avsep_zoo.evaluation.examples import choose
from avsep_zoo.evaluation.protocols import PROTOCOLS
from avsep_zoo.evaluation.results import ItemFile
from avsep_zoo.evaluation.run import evaluate
from avsep_zoo.evaluation.scorer import Scorer
from avsep_zoo.evaluation.workers import Workers
from avsep_zoo.folder_lock import folder_lock
from avsep_zoo.weights.cards import read_card

RATE = 8000
MIXTURES = 20  # three batches
SCORE = {"sdr": [1.0, 2.0]}
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Noises of three classes, one second each; every mixture of two classes, again and again."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    names = [f"{label}/{k}" for label in ("violin", "flute", "drum") for k in range(2)]
    for name in names:
        path = root / "audio" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.uniform(-0.7, 0.7, 9000), RATE)
    pairs = [(a, b) for a in names for b in names if a[0] != b[0]][:MIXTURES]
    (root / "test.csv").write_text("".join(f"/{name}.wav,/{name}.mp4,0\n" for name in names))
    (root / "testsep.csv").write_text("".join(f"/{a}.wav, /{b}.wav\n" for a, b in pairs))
    return root


@pytest.fixture
def tiny(card: Path) -> Contender:
    """The tiny model by its card."""
    return Contender("iquery.tiny", read_card(card))


def run(data: Path, contender: Contender, out: Path | None, protocol: str = "own", **options: Any) -> dict[str, Any]:
    results = evaluate([contender], data, protocol=PROTOCOLS[protocol], out=out, **options)
    return dict(results["models"][0]["lists"][0])


def lines(out: Path) -> list[bytes]:
    return (out / "iquery.tiny" / "testsep.jsonl").read_bytes().splitlines(keepends=True)


def test_everything_is_written(data: Path, tiny: Contender, tmp_path: Path) -> None:
    out = tmp_path / "out"
    entry = run(data, tiny, out)
    results = json.loads((out / "results.json").read_text())
    assert results["models"][0]["lists"][0] == entry
    assert len(lines(out)) == 1 + MIXTURES
    page = (out / "report.html").read_text()
    assert "iquery.tiny" in page and "data:audio/flac" in page
    assert sorted(entry["audio"]) == ["best", "median", "worst"]
    gains = {i["id"]: np.mean(i["sdr"]) - np.mean(i["mixture_sdr"]) for i in entry["items"]}
    assert gains[entry["audio"]["best"]["id"]] == max(gains.values())
    assert gains[entry["audio"]["worst"]["id"]] == min(gains.values())
    assert not list(out.rglob("*.part"))


def test_sounds_of_examples_belong_together(data: Path, tiny: Contender, tmp_path: Path) -> None:
    """16-bit FLAC files below the folder; sources add up to their mixture, turned down alike."""
    entry = run(data, tiny, tmp_path / "out")
    clip = entry["audio"]["worst"]
    sounds = {
        name: soundfile.read(tmp_path / "out" / name)[0]
        for name in (clip["mixture"], *clip["sources"], *clip["estimates"])
    }
    info = soundfile.info(tmp_path / "out" / clip["mixture"])
    assert (info.format, info.subtype, info.samplerate) == ("FLAC", "PCM_16", RATE)
    mixture, first, second = (sounds[name] for name in (clip["mixture"], *clip["sources"]))
    np.testing.assert_allclose(mixture, first + second, atol=1e-4)
    assert 0.99 < max(np.abs(mixture).max(), 0.7) <= 1.0
    assert clip["labels"] == next(item for item in entry["items"] if item["id"] == clip["id"])["labels"]


def test_of_few_mixtures_none_is_shown_twice() -> None:
    items = [{"id": str(k), "sdr": [float(k)], "mixture_sdr": [0.0]} for k in range(4)]
    assert {name: item["id"] for name, item in choose(items).items()} == {"best": "3", "median": "2", "worst": "0"}
    assert {name: item["id"] for name, item in choose(items[:2]).items()} == {"best": "1", "worst": "0"}
    assert [item["id"] for item in choose(items[:1]).values()] == ["0"]
    assert choose([]) == {}


def test_without_a_folder_nothing_is_written(
    data: Path, tiny: Contender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert "audio" not in run(data, tiny, None)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("protocol", ["own", "iquery.ave"])
def test_scores_do_not_depend_on_processes(data: Path, tiny: Contender, tmp_path: Path, protocol: str) -> None:
    """Two processes write the same bytes as one, in the order of the list, whole segments or separated as by a user."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    first = run(data, tiny, alone, protocol, limit=10)
    assert run(data, tiny, shared, protocol, limit=10, workers=2) == first
    assert lines(alone) == lines(shared)


def test_a_killed_run_goes_on_and_ends_the_same(data: Path, tiny: Contender, tmp_path: Path) -> None:
    """SIGKILL between mixtures; what was finished is not scored again."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    want = run(data, tiny, whole)
    assert tiny.card is not None
    command = [sys.executable, "-m", "avsep_zoo", "evaluate", str(tiny.card.folder), "--data", str(data)]
    process = subprocess.Popen([*command, "-o", str(killed)], env={**os.environ, "PYTHONPATH": _path()})
    file, limit = killed / "iquery.tiny" / "testsep.jsonl", time.monotonic() + 60
    while time.monotonic() < limit and not (file.is_file() and file.read_bytes().count(b"\n") > 2):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = lines(killed)
    assert len(kept) > 2 and not (killed / "results.json").exists()
    done: list[tuple[Any, ...]] = []
    assert run(data, tiny, killed, progress=lambda *at: done.append(at)) == want
    assert done[0][2] == len(kept) - 1
    assert lines(killed)[: len(kept)] == kept and lines(killed) == lines(whole)


def _path() -> str:
    places = [ROOT, *(folder / "src" for folder in (ROOT / "plugins").iterdir() if folder.is_dir())]
    return os.pathsep.join(map(str, places))


def test_a_half_written_line_is_dropped(data: Path, tiny: Contender, tmp_path: Path) -> None:
    """In the middle of a batch: the batch is run again, and its missing mixtures are scored as before."""
    out = tmp_path / "out"
    want = run(data, tiny, out)
    whole = lines(out)
    (out / "iquery.tiny" / "testsep.jsonl").write_bytes(b"".join(whole[:12]) + whole[12][:40])
    assert run(data, tiny, out) == want
    assert lines(out) == whole


def test_a_limit_is_a_beginning(data: Path, tiny: Contender, tmp_path: Path) -> None:
    """The rest is scored later, as if it had been scored at once; a smaller limit shows less."""
    out = tmp_path / "out"
    part = run(data, tiny, out, limit=5)
    assert [item["id"] for item in part["items"]] == [f"testsep-{k:04d}" for k in range(1, 6)]
    whole = run(data, tiny, out)
    assert whole == run(data, tiny, tmp_path / "other")
    assert run(data, tiny, out, limit=5) == part


def test_what_was_skipped_is_tried_again(data: Path, tiny: Contender, tmp_path: Path) -> None:
    file, out = data / "audio/violin/0.wav", tmp_path / "out"
    sound = file.read_bytes()
    file.write_bytes(sound[:50])
    assert run(data, tiny, out)["mixtures"] < MIXTURES
    file.write_bytes(sound)
    assert run(data, tiny, out)["mixtures"] == MIXTURES


@pytest.mark.parametrize(
    ("options", "changed"),
    [({"protocol": "common"}, "protocol, setting"), ({"use": frozenset({"label"})}, "use"), ({}, "list")],
)
def test_another_evaluation_is_refused_and_kept(
    data: Path, tiny: Contender, tmp_path: Path, options: dict[str, Any], changed: str
) -> None:
    out = tmp_path / "out"
    run(data, tiny, out, limit=2)
    before = lines(out)
    if not options:
        rows = (data / "testsep.csv").read_text().splitlines(keepends=True)
        (data / "testsep.csv").write_text("".join(rows[1:]))
    with pytest.raises(DataError, match=rf"testsep\.jsonl' holds scores of another evaluation \({changed} changed\)"):
        run(data, tiny, out, **options)
    assert lines(out) == before


def test_records_are_kept_by_position_the_last_one_counts(tmp_path: Path) -> None:
    path = tmp_path / "a" / "x.jsonl"
    with ItemFile(path, {"use": ["label"]}) as file:
        file.append(3, {"skipped": "a reason"})
        file.append(1, SCORE)
        file.append(3, SCORE)
    with ItemFile(path, {"use": ["label"]}) as again:
        assert again.rows == {3: SCORE, 1: SCORE}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n', "does not begin with the settings"),
        (b"[]\n", "Line 1 of .* is damaged"),
        (b"\xff\xfe\n", "Line 1 of .* is damaged"),
        (b'{"format": 1, "settings": {}}\ngarbage\n{"position": 0, "sdr": []}\n', "Line 2 of .* is damaged"),
        (b'{"format": 1, "settings": {}}\n{"position": "0", "sdr": []}\n', "Line 2 of .* is no scored mixture"),
        (b'{"format": 1, "settings": {}}\n{"position": 0}\n', "Line 2 of .* is no scored mixture"),
    ],
)
def test_damaged_files_are_refused_and_kept(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        ItemFile(path, {})
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b'{"format": 1, "set'])
def test_a_file_without_a_whole_line_begins_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with ItemFile(path, {}) as file:
        file.append(0, SCORE)
    with ItemFile(path, {}) as again:
        assert again.rows == {0: SCORE}


def test_one_evaluation_writes_into_a_folder_at_a_time(data: Path, tiny: Contender, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with folder_lock(tmp_path / "out"), pytest.raises(DataError, match=r"Another process writes into .* now"):
        run(data, tiny, tmp_path / "out")
    assert len(run(data, tiny, tmp_path / "out", limit=1)["items"]) == 1


def test_results_do_not_go_among_the_data(data: Path, tiny: Contender, tmp_path: Path) -> None:
    for out in (data, data / "audio" / "new"):
        with pytest.raises(DataError, match="give a folder beside it"):
            run(data, tiny, out)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        run(data, tiny, tmp_path / "file")
    assert not (data / "audio" / "new").exists()


def test_sums_are_taken_on_one_thread() -> None:
    """Of the linear algebra, too: its rounding would depend on the machine; afterwards it is as before."""
    setting = Setting(RATE, RATE, RATE, "sum")
    scorer = Scorer(Contender("mixture"), PROTOCOLS["own"], setting, use=frozenset(), consistency=False)
    with threadpool_limits(2):
        before = threadpool_info()
        with Workers(scorer):
            assert {pool["num_threads"] for pool in threadpool_info()} == {1}
        assert threadpool_info() == before


def test_cards_of_the_same_name_are_told_apart(data: Path, card: Path, tmp_path: Path) -> None:
    """Two runs of one recipe: both are scored, in folders of their own."""
    twin = tmp_path / "twin"
    twin.mkdir()
    for file in card.iterdir():
        (twin / file.name).write_bytes(file.read_bytes())
    contenders = find_contenders([str(card), str(twin)])
    assert [contender.name for contender in contenders] == [f"iquery.tiny ({card})", f"iquery.tiny ({twin})"]
    out = tmp_path / "out"
    evaluate(contenders, data, protocol=PROTOCOLS["own"], limit=2, out=out)
    assert len(list(out.glob("*/testsep.jsonl"))) == 2
    assert all(file.resolve().is_relative_to(out.resolve()) for file in out.rglob("*.jsonl"))
    with pytest.raises(DataError, match="hold one twice"):
        find_contenders([str(card), f"{card}/"])
