"""The HTML page of an evaluation: complete, alone, escaped, and what it does with files that are not there."""

from __future__ import annotations

import base64
import copy
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from avsep_zoo.errors import AvsepError, DataError, MediaError
from avsep_zoo.evaluation.histogram import histograms
from avsep_zoo.evaluation.report import write_report
from avsep_zoo.evaluation.statistics import summarise

RATE = 8000
PROTOCOL = {"name": "common", "summary": "all on equal terms", "rate": RATE, "seconds": 0.5, "source": "this test"}
REPORTED = [
    {"metric": "sdr", "value": 11.17, "method": "iQuery", "source": "Chen et al., table 1"},
    {"metric": "sir", "value": 15.84, "method": "iQuery", "source": "Chen et al., table 1"},
    {"metric": "pesq", "value": 2.5, "method": "iQuery", "source": "Chen et al., table 1"},
]


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text; checks that tags are closed in order."""

    VOID = frozenset({"meta", "br", "img", "input", "link", "wbr", "line", "rect"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", list[str]()
        self.feed(html)
        self.close()
        assert self.open == []
        ids = [attributes["id"] for _, attributes in self.found if "id" in attributes]
        assert len(ids) == len(set(ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag != "wbr":
            self.text += " "

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open and "script" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def scored(level: float, count: int = 6) -> list[dict[str, Any]]:
    """Mixtures of violin or oboe with flute; the improvements are ``level`` plus 0, 1, 2, ... dB."""
    return [
        {
            "id": f"m{k}",
            "clips": [f"a/{k}.mp4", f"b/{k}.mp4"],
            "labels": ["violin" if k % 2 else "oboe", "flute"],
            "sdr": [level + k + 1.0, level + k - 1.0],
            "sir": [20.0, 21.0],
            "sar": [15.0, 16.0],
            "si_sdr": [level + k - 2.0, level + k - 3.0],
            "mixture_sdr": [1.0, -1.0],
            "mixture_si_sdr": [0.5, -0.5],
        }
        for k in range(count)
    ]


def model(name: str, level: float, kind: str = "model", lists: tuple[str, ...] = ("testsep",)) -> dict[str, Any]:
    items = scored(level)
    summary = {key: value for key, value in summarise(items).items() if key != "worst"}
    entry = {"mixtures": len(items), "skipped": [], **summary, "reported": REPORTED, "items": items}
    sha256 = "7b42" * 16 if kind == "model" else None
    return {
        "name": name,
        "kind": kind,
        "sha256": sha256,
        "use": ["frames", "label"],
        "consistency": True,
        "lists": [{"name": name, **copy.deepcopy(entry)} for name in lists],
    }


def results(*models: dict[str, Any]) -> dict[str, Any]:
    return {"format": 1, "protocol": PROTOCOL, "data": "my data", "created": "2025-01-02", "models": list(models)}


def with_sounds(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Give the first model's first list sounds of its best, median and worst mixture."""
    rng = np.random.default_rng(0)
    audio = {}
    for choice, key in (("best", "m5"), ("median", "m3"), ("worst", "m0")):
        names = {"mixture": [f"{key}.wav"]} | {
            role: [f"{key}.{role}.{n}.wav" for n in range(2)] for role in ("sources", "estimates")
        }
        for name in [name for files in names.values() for name in files]:
            soundfile.write(folder / name, 0.1 * rng.standard_normal(RATE // 2), RATE, subtype="FLOAT")
        audio[choice] = {**names, "mixture": names["mixture"][0], "id": key, "labels": ["violin", "flute"]}
    document["models"][0]["lists"][0]["audio"] = audio
    return document


def show(document: dict[str, Any], folder: Path) -> Page:
    write_report(document, folder, folder / "report.html")
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_page_needs_no_other(tmp_path: Path) -> None:
    """No address but those within the page; the policy in it forbids all others."""
    document = with_sounds(results(model("a.b", 5.0), model("mixture", 0.0, "baseline")), tmp_path)
    page = show(document, tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href|action|poster|data)\s*=\s*["'](?!data:|#)""", html)
    assert "http:" not in html and "https:" not in html and "@import" not in html and "url(" not in html
    assert "default-src 'none'" in str([tag["content"] for tag in page.all("meta") if "content" in tag])
    anchors = {str(a["href"])[1:] for a in page.all("a")}
    assert anchors and anchors <= {attributes.get("id") for _, attributes in page.found}


def test_what_was_measured_is_said(tmp_path: Path) -> None:
    text = show(results(model("a.b", 5.0)) | {"versions": {"torch": "9.9"}}, tmp_path).words
    for said in ("common: all on equal terms", "this test", "8000 Hz, 0.5 s", "my data", "2025-01-02", "torch 9.9"):
        assert said in text
    assert "given frames, label; stems and residual add up to the mixture; weights 7b427b427b42" in text


def test_models_stand_in_one_table(tmp_path: Path) -> None:
    """With means, intervals, and paired differences to the first model; baselines are marked as bounds."""
    models = [model("mixture", -9.0, "baseline"), model("one", 5.0), model("two", 7.5), model("irm", 20.0, "baseline")]
    text = show(results(*models), tmp_path).words
    mean = models[1]["lists"][0]["mean"]["sdr"]
    assert f" {mean['mean']:.2f} {mean['low']:.2f} to {mean['high']:.2f}" in text
    assert "against one" in text
    assert "+2.50 2.50 to 2.50" in text and "−14.00 −14.00 to −14.00" in text and "+15.00 15.00 to 15.00" in text
    assert "mixture lower bound" in text and "irm upper bound" in text and "one lower" not in text


def test_reported_numbers_stand_beside_the_measured_ones(tmp_path: Path) -> None:
    """Each row once although both models name it, with its source; other metrics are kept too."""
    page = show(results(model("one", 5.0), model("two", 7.5)), tmp_path)
    assert page.text.count("11.17") == page.text.count("15.84") == 1
    assert "Chen et al., table 1; pesq 2.50" in page.words and "Reported by papers" in page.words


def test_the_published_mean_and_notes_are_shown(tmp_path: Path) -> None:
    """Beside the plain means, under the name that says how it was taken."""
    document = results(model("one", 5.0)) | {"notes": ["The data is another set."]}
    mean = {"name": "mean over batches of 8 mixtures", "sdr": 6.54, "sir": 11.31, "sar": 10.43, "mixture_sdr": 0.12}
    document["models"][0]["lists"][0]["published_mean"] = mean
    page = show(document, tmp_path)
    assert "Averaged as published: mean over batches of 8 mixtures" in page.words
    assert all(page.text.count(value) == 1 for value in ("6.54", "11.31", "10.43", "0.12"))
    assert "Note The data is another set." in page.words


def test_a_mean_over_fewer_mixtures_says_so(tmp_path: Path) -> None:
    one = model("one", 5.0)
    items = one["lists"][0]["items"]
    items[0]["si_sdr"][1] = math.inf
    one["lists"][0] |= {key: value for key, value in summarise(items).items() if key != "worst"}
    assert "SI-SDR, SI-SDR improvement of one: over 5 of 6 mixtures" in show(results(one), tmp_path).words


def test_histograms_are_drawn_and_described(tmp_path: Path) -> None:
    page = show(results(model("one", -2.0), model("two", 7.5)), tmp_path)
    pictures = page.all("svg")
    ids = {attributes.get("id") for _, attributes in page.found}
    assert len(pictures) == 2 and all(p["role"] == "img" for p in pictures)
    assert all(set(str(p["aria-labelledby"]).split()) <= ids for p in pictures)
    assert "6 mixtures from −2.0 to 3.0 dB, median 0.5 dB; 2 below 0 dB." in page.words


def test_every_value_is_in_a_histogram_on_axes_that_are_shared() -> None:
    """Also those beyond the axis, which are counted in the outermost bars."""
    values = [np.array([-200.0, 0.2, 0.3, 5.0, 300.0, np.nan]), np.linspace(-5, 10, 50)]
    drawn = [h for h in histograms(values) if h is not None]
    counts = [[int(text.split(": ")[1]) for *_, text in h.bars] for h in drawn]
    assert [sum(c) for c in counts] == [5, 50]
    assert drawn[0].x_ticks == drawn[1].x_ticks and drawn[0].y_ticks == drawn[1].y_ticks
    assert "2 beyond the axis" in drawn[0].text and "beyond" not in drawn[1].text
    assert all(x >= h.LEFT and x + w <= h.RIGHT + 1 and y >= h.TOP for h in drawn for x, y, w, _, _ in h.bars)


@pytest.mark.parametrize("values", [[], [np.nan], [2.0], [0.0, 0.0]])
def test_what_does_not_spread_is_not_drawn(values: list[float]) -> None:
    assert histograms([np.array(values)]) == [None]


def test_classes_pairs_and_worst_are_listed(tmp_path: Path) -> None:
    """The lowest first."""
    text = show(results(model("one", 5.0)), tmp_path).words
    assert "Classes testsep" in text and "oboe 3 +7.00" in text
    assert text.index("oboe 3") < text.index("flute 6") < text.index("violin 3")
    assert "flute + oboe 3 +7.00 flute + violin 3 +8.00" in text
    assert "oboe + flute m0: a/0.mp4, b/0.mp4 +5.00 5.00 20.50 15.50 violin + flute m1:" in text


def test_a_table_of_many_classes_is_cut_and_says_so(tmp_path: Path) -> None:
    one = model("one", 5.0)
    one["lists"][0]["by_class"] = [{"label": f"c{k}", "sources": 1, "sdr_improvement": float(k)} for k in range(1000)]
    text = show(results(one), tmp_path).words
    assert "The 200 lowest of 1000" in text and "c199" in text and "c200" not in text


def test_what_was_left_out_is_said_with_why(tmp_path: Path) -> None:
    """Once for all models; with the model where not all left it out."""
    one, two = model("one", 5.0), model("two", 6.0)
    for entry in (one, two):
        entry["lists"][0]["skipped"] = [{"where": "row 7", "why": "The sound is silent."}]
    two["lists"][0]["skipped"].append({"where": "m9", "why": "The estimate is silent."})
    page = show(results(one, two), tmp_path)
    assert page.text.count("The sound is silent.") == 1
    assert "row 7 The sound is silent. all" in page.words
    assert "m9 The estimate is silent. two" in page.words
    assert "Nothing: every mixture of the list was scored." in show(results(model("one", 5.0)), tmp_path).words


def test_sounds_are_in_the_page(tmp_path: Path) -> None:
    """As they were, to 16 bits, with their scores."""
    page = show(with_sounds(results(model("one", 5.0)), tmp_path), tmp_path)
    players = page.all("audio")
    assert [p["aria-label"] for p in players[:5]] == [
        "Play mixture",
        *(f"Play {role}: {label}" for label in ("violin", "flute") for role in ("true source", "estimate")),
    ]
    assert len(players) == 15
    sound, rate = soundfile.read(io.BytesIO(base64.b64decode(str(players[2]["src"]).partition(",")[2])))
    assert rate == RATE
    assert np.abs(sound - soundfile.read(tmp_path / "m5.estimates.0.wav")[0]).max() < 1e-4
    assert "Best: violin + flute" in page.words and "SDR 10.00 dB (+10.00 dB)" in page.words
    assert "violin, estimate: SDR 11.0, SIR 20.0, SAR 15.0, SI-SDR 8.0" in page.words


def test_long_and_loud_sounds_are_cut_and_turned_down(tmp_path: Path) -> None:
    document = with_sounds(results(model("one", 5.0)), tmp_path)
    noise = np.random.default_rng(0).uniform(-2.0, 2.0, (40 * RATE, 3))
    soundfile.write(tmp_path / "m5.wav", noise, RATE, subtype="FLOAT")
    page = show(document, tmp_path)
    content = base64.b64decode(str(page.all("audio")[0]["src"]).partition(",")[2])
    sound, _ = soundfile.read(io.BytesIO(content), always_2d=True)
    assert 150_000 < len(content) <= 200_000
    assert sound.shape[1] == 1 and f"The first {len(sound) / RATE:.3g} s." in page.words
    assert "turned down by" in page.words and np.abs(sound).max() <= 1.0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "mixture: The file m5.wav is missing."),
        (b"", "mixture: The file m5.wav cannot be read"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "mixture: The file m5.wav cannot be read"),
    ],
)
def test_a_sound_that_cannot_be_played_is_a_sentence(content: bytes | None, said: str, tmp_path: Path) -> None:
    document = with_sounds(results(model("one", 5.0)), tmp_path)
    (tmp_path / "m5.wav").unlink()
    if content is not None:
        (tmp_path / "m5.wav").write_bytes(content)
    page = show(document, tmp_path)
    assert said in page.words and len(page.all("audio")) == 14


def test_sounds_of_nothing_and_of_nan(tmp_path: Path) -> None:
    document = with_sounds(results(model("one", 5.0)), tmp_path)
    soundfile.write(tmp_path / "m5.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "m0.wav", np.array([np.nan, np.inf, 0.5]), RATE, subtype="FLOAT")
    page = show(document, tmp_path)
    assert "The file m5.wav holds no sound." in page.words and len(page.all("audio")) == 14


@pytest.mark.parametrize("name", ["../secret.wav", "/etc/hostname", "a/../../secret.wav", "link.wav", "a\0b", None])
def test_a_name_that_leads_out_of_the_folder_is_refused(name: Any, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    soundfile.write(tmp_path / "secret.wav", np.zeros(8), RATE)
    (folder / "link.wav").symlink_to(tmp_path / "secret.wav")
    document = with_sounds(results(model("one", 5.0)), folder)
    document["models"][0]["lists"][0]["audio"]["best"]["estimates"][0] = name
    with pytest.raises(DataError, match="which is not in"):
        write_report(document, folder, folder / "report.html")
    assert not list(folder.glob("*report*"))


def test_everything_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'"
    one = model(evil, 5.0, lists=(evil,))
    entry = one["lists"][0]
    entry["skipped"] = [{"where": evil, "why": evil}]
    entry["reported"] = [{"metric": evil, "value": 1.0, "method": evil, "source": evil}]
    for item in entry["items"]:
        item |= {"id": f"{item['id']}{evil}", "labels": [evil, evil], "clips": [evil, evil]}
    entry |= {key: value for key, value in summarise(entry["items"]).items() if key != "worst"}
    sound = {"id": evil, "labels": [evil], "mixture": evil[:9], "sources": ["x.wav"], "estimates": ["y.wav"]}
    entry["audio"] = {"best": sound}
    protocol = dict.fromkeys(("name", "summary", "source"), evil)
    document = results(one) | {"protocol": protocol, "data": evil, "created": evil, "versions": {evil: evil}}
    page = show(document, tmp_path)
    assert len(page.all("script")) == 1 and page.all("img") == []
    assert page.text.count("<script>alert(1)</script>") > 15


def test_almost_nothing_makes_a_page(tmp_path: Path) -> None:
    """A list without a score, a model without a list, no model at all."""
    empty = model("one", 5.0)
    empty["lists"][0] |= {"mixtures": 0, "items": [], **summarise([]), "audio": {}}
    assert "0 mixtures" in show(results(empty, model("two", 5.0, lists=())), tmp_path).words
    assert "Nothing scored" in show(results(), tmp_path).words


def test_rounding_noise_is_not_shown_as_a_score(tmp_path: Path) -> None:
    """The SAR of the mixture is beyond any recording; a mean that rounds to 0 has no sign."""
    document = results(model("mixture", 0.0, "baseline"))
    document["models"][0]["lists"][0]["mean"] |= {
        "sar": {"mean": 151.81, "low": 151.66, "high": 152.01},
        "si_sdr": {"mean": -0.004, "low": -1.25, "high": 0.004},
    }
    words = show(document, tmp_path).words
    assert ">120" in words and "151" not in words and "152" not in words
    assert "−1.25 to 0.00" in words and "−0.00" not in words and "+0.00" not in words


def test_models_may_have_different_lists(tmp_path: Path) -> None:
    one, two = model("one", 5.0, lists=("a", "b")), model("two", 6.0, lists=("b", "c"))
    page = show(results(one, two), tmp_path)
    tables = [str(t.get("class")) for t in page.all("table")]
    assert tables.count("wide") == 3 and "against one" in page.words and "against two" not in page.words


@pytest.mark.parametrize("damage", [{"format": 2}, {"format": None}, {"models": [{}]}, {"protocol": None}])
def test_a_document_of_another_form_is_refused(damage: dict[str, Any], tmp_path: Path) -> None:
    """And the report that was there stays."""
    (tmp_path / "report.html").write_text("before")
    with pytest.raises(DataError, match=r"evaluate again|cannot be shown"):
        show(results(model("one", 5.0)) | damage, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "before"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="create it first") as caught:
        write_report(results(), tmp_path, tmp_path / "no" / "report.html")
    assert isinstance(caught.value, AvsepError)
