"""What the licences of a card permit, and what is said about those that do not."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from avsep_zoo.errors import LicenceWarning
from avsep_zoo.weights import licences
from avsep_zoo.weights.cards import Card
from avsep_zoo.weights.licences import commercial, entries, inherited, notice, permits, remind

OPEN = {"code": "Apache-2.0", "weights": "MIT", "training_data": "CC0-1.0"}


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(licences, "_told", set())


def card(stated: Any = None, origin: str | None = None, **manifest: Any) -> Card:
    """A card with a block ``licences``."""
    block = {} if stated is None else {"licences": stated}
    return Card(Path("cards/x.y"), {"name": "x.y", "sha256": "a" * 64, **block, **manifest}, origin=origin)


def weights(**entry: Any) -> Card:
    """A card whose weights have one entry."""
    return card({**OPEN, "weights": [{"of": "all of it", **entry}]})


@pytest.mark.parametrize(
    "licence",
    ["Apache-2.0", "MIT", "mit", "BSD-3-Clause", "ISC", "CC0-1.0", "CC-BY-4.0", "CC-BY-3.0-US", "CC-BY-SA-4.0",
     "OFL-1.1", "GPL-2.0-or-later", "LGPL-2.1-only", "AGPL-3.0", "MPL-2.0", "Unlicense", "Zlib"],
)  # fmt: skip
def test_licences_that_permit_commercial_use(licence: str) -> None:
    assert permits(licence) and commercial(card({**OPEN, "weights": licence}))


@pytest.mark.parametrize(
    "licence",
    ["CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "not stated", "", "MIT-ish", "LicenseRef-mine", "all rights",
     "GPL", "MIT OR CC-BY-NC-4.0", "PolyForm-Noncommercial-1.0.0"],
)  # fmt: skip
def test_licences_that_are_not_known_to(licence: str) -> None:
    assert not permits(licence) and not commercial(card({**OPEN, "weights": licence}))


@pytest.mark.parametrize("field", OPEN)
def test_every_field_counts(field: str) -> None:
    assert commercial(card(OPEN))
    assert not commercial(card({**OPEN, field: "CC-BY-NC-4.0"}))
    assert not commercial(card({name: value for name, value in OPEN.items() if name != field}))


def test_every_entry_of_a_list_counts() -> None:
    good, bad = {"of": "a", "licence": "MIT"}, {"of": "b", "licence": "not stated"}
    assert commercial(card({**OPEN, "training_data": [good, good]}))
    assert not commercial(card({**OPEN, "training_data": [good, bad]}))


def test_terms_permit_what_no_known_licence_does() -> None:
    """Only in words, and only if the card says so; they do not overrule a licence that forbids it."""
    terms = "free to use in any work"
    assert commercial(weights(licence="LicenseRef-mine", terms=terms, commercial=True))
    assert commercial(weights(licence="not stated", terms=terms, commercial=True))
    assert not commercial(weights(licence="LicenseRef-mine", terms=terms))
    assert not commercial(weights(licence="LicenseRef-mine", commercial=True))
    assert not commercial(weights(licence="LicenseRef-mine", terms=terms, commercial="yes"))
    assert not commercial(weights(licence="CC-BY-NC-4.0", terms=terms, commercial=True))
    assert not commercial(weights(licence="MIT", commercial=False))


@pytest.mark.parametrize("stated", [None, [], "MIT", {"weights": []}, {"weights": [1, None]}, {"code": {"of": "x"}}])
def test_a_block_of_another_form_states_nothing(stated: Any) -> None:
    assert not any(entry.stated for entry in entries({"licences": stated}))
    assert not commercial(card(stated))


def test_notice_names_the_fields_and_is_one_sentence() -> None:
    data = [{"of": "clips", "licence": "not stated"}, {"of": "notes", "licence": "MIT"}]
    assert notice(card({**OPEN, "weights": "CC-BY-NC-4.0", "training_data": data})) == (
        "The card of x.y states no licence that permits commercial use for its weights (CC-BY-NC-4.0) and training "
        "data (clips: not stated); ask whoever made them what you may do with it."
    )


def test_no_notice_without_a_reason() -> None:
    """Everything is permitted, or the card is that of a run of the user's own."""
    assert notice(card(OPEN)) is None
    assert notice(card()) is None
    assert notice(card(training={"steps": 1})) is None


def test_a_published_card_without_licences_gets_a_notice() -> None:
    assert "weights (not stated)" in str(notice(card(origin=f"org/x@{'0' * 40}")))
    assert "weights (not stated)" in str(notice(card(repo="org/x", revision="0" * 40)))


def test_reminder_comes_once_per_card() -> None:
    with pytest.warns(LicenceWarning, match="CC-BY-NC-4.0") as told:
        for _ in range(3):
            remind(card({**OPEN, "weights": "CC-BY-NC-4.0"}))
            remind(card({**OPEN, "weights": "CC-BY-NC-4.0"}, name="x.z"))
    assert [str(one.message).split()[3] for one in told] == ["x.y", "x.z"]


def test_reminder_of_the_command_line_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from avsep_zoo.cli.terminal import warn

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        monkeypatch.setattr(warnings, "showwarning", warn)
        remind(card({**OPEN, "weights": "not stated"}))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Warning: The card of x.y states no licence") and "weights (not stated)" in line


def derived(start: Card, data: str = "mine") -> Card:
    """A card as a run writes it that starts from another one."""
    return card(inherited(start, data), started_from={"name": start.name})


def test_weights_that_start_from_non_commercial_ones_stay_so() -> None:
    start = card({**OPEN, "weights": "CC-BY-NC-4.0"})
    for run in (derived(start), derived(derived(start), "more")):
        assert not commercial(run) and "weights (CC-BY-NC-4.0)" in str(notice(run))


def test_training_data_add_up() -> None:
    """And the same ones are there once."""
    run = derived(derived(derived(card(OPEN)), "more"), "mine")
    assert [(e.of, e.licence) for e in entries(run.manifest) if e.field == "training_data"] == [
        ("what x.y was trained on", "CC0-1.0"), ("mine", "not stated"), ("more", "not stated"),
    ]  # fmt: skip


def test_data_of_a_run_are_the_users_to_know() -> None:
    """They are not permitted for sure, which matters to others only."""
    run = derived(card(OPEN))
    assert not commercial(run) and notice(run) is None
    published = card(run.manifest["licences"], **{**run.manifest, "repo": "org/x", "revision": "0" * 40})
    assert "training data (mine: not stated)" in str(notice(published))


def test_a_run_from_a_run_without_licences_has_none() -> None:
    assert inherited(card(), "mine") is None
    stated = inherited(card(origin=f"org/x@{'0' * 40}"), "mine")
    assert stated is not None and stated["weights"] == "not stated"
