"""What is not published: cards that are not fit for it, places that refuse them, and uploads that break off."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import constants
from huggingface_hub.utils import _http
from safetensors.torch import save_file

from avsep_zoo.errors import WeightsError
from avsep_zoo.testing.loopback_hub import Answer, LoopbackHub, Request
from avsep_zoo.weights.cards import file_sha256, read_card
from avsep_zoo.weights.publish import publish

REPO = "someone/tiny-card"
OLD = "0123456789abcdef0123456789abcdef01234567"

pytestmark = pytest.mark.usefixtures("logged_in")


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the front matter of a card."""
    _, head, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    front = yaml.safe_load(head)
    edit(front)
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n{text}", encoding="utf-8")


def content(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# Refused before anything is sent


def _not_stated(front: dict[str, Any]) -> None:
    front["avsep"]["licences"]["weights"] = "not stated"
    front.update(license="other", license_name="not-stated")


def _to_convert(front: dict[str, Any]) -> None:
    for name in ("file", "bytes", "sha256"):
        del front["avsep"][name]


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (
            _to_convert,
            "The card iquery.tiny has no weights to publish; convert the files of the method's authors first",
        ),
        (_not_stated, "states no licence of the weights, so you may not be allowed .* write avsep.licences.weights"),
        (lambda front: front["avsep"].pop("licences"), "states no licence of the weights"),
        (
            lambda front: front["avsep"]["licences"].update(weights=[{"of": "the encoder", "licence": "not stated"}]),
            "states no licence of the weights",
        ),
        (
            lambda front: (front.pop("license"), front.pop("tags")),
            r"The card iquery.tiny is not ready \(2 found, the first: .*\); 'avsep card check .*' shows all",
        ),
        (lambda front: front["avsep"].update(bytes=3), "is not the file that its card describes, by size or sha256"),
        (lambda front: front["avsep"].update(sha256="0" * 64), "is not the file that its card describes"),
        (lambda front: front["avsep"].update(file="more.safetensors"), "There is no '.*more.safetensors' to publish"),
        (lambda front: front["avsep"].update(file="../x.safetensors"), "has avsep.file '../x.safetensors'"),
    ],
    ids=["convert", "not stated", "no licences", "in a list", "not ready", "size", "hash", "missing", "outside"],
)
def test_cards_that_are_not_published(
    edit: Callable[[dict[str, Any]], object], text: str, hub: LoopbackHub, ready: Path
) -> None:
    change(ready, edit)
    before = content(ready)
    with pytest.raises(WeightsError, match=text) as caught:
        publish(ready, REPO)
    assert str(caught.value).count(". ") == 0
    assert hub.requests == []
    assert content(ready) == before


def test_other_weights_than_the_cards(hub: LoopbackHub, ready: Path) -> None:
    """Of the right size, with one other bit."""
    weights = ready / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    with pytest.raises(WeightsError, match="is not the file that its card describes, by size or sha256"):
        publish(ready, REPO)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["README.md", "model.safetensors"])
def test_links_are_not_followed(name: str, hub: LoopbackHub, ready: Path, tmp_path: Path) -> None:
    """Not even to a file with the right content."""
    outside = tmp_path / "outside"
    (ready / name).rename(outside)
    (ready / name).symlink_to(outside)
    with pytest.raises(WeightsError, match=f"'.*{name}' is a link, and links are not followed"):
        publish(ready, REPO)
    assert hub.requests == []


def test_a_readme_that_could_not_be_pinned(hub: LoopbackHub, ready: Path) -> None:
    """It is found out before the upload, not after."""
    text = (ready / "README.md").read_text()
    _, head, rest = text.split("---\n", 2)
    front = yaml.safe_load(head)
    block = yaml.safe_dump({"avsep": front.pop("avsep")}, default_flow_style=True, width=10000)
    (ready / "README.md").write_text(f"---\n{yaml.safe_dump(front)}{block.strip()[1:-1]}\n---\n{rest}")
    with pytest.raises(WeightsError, match=r"cannot be pinned, .* write it with one entry per line"):
        publish(ready, REPO)
    assert hub.requests == []


@pytest.mark.parametrize(
    "repo", ["tiny", "a/b/c", "../x", "a b/c", "org/näme", "org/a--b", "org/x.git", "", f"org/{'n' * 96}", "org/n\n"]
)
def test_names_that_are_none(repo: str, hub: LoopbackHub, ready: Path) -> None:
    with pytest.raises(WeightsError, match="is no name of a model on the Hub; write org/name"):
        publish(ready, repo)
    assert hub.requests == []


def test_without_a_token(hub: LoopbackHub, ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(WeightsError, match=r"You are not logged in .* run 'hf auth login' .* or set HF_TOKEN"):
        publish(ready, REPO)
    assert hub.requests == []


def test_without_the_client(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"needs the package huggingface_hub, .* run 'pip install huggingface-hub'"):
        publish(ready, REPO)


def test_offline(hub: LoopbackHub, ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _http.close_session()  # the setting is read when a session begins
    try:
        with pytest.raises(
            WeightsError,
            match=r"HF_HUB_OFFLINE keeps this process .* .the card iquery.tiny here is as it was",
        ):
            publish(ready, REPO)
    finally:
        _http.close_session()
    assert hub.requests == []


# Refused by the Hub, or broken off


@pytest.fixture
def refused(hub: LoopbackHub, ready: Path) -> Callable[[str], None]:
    """Publishing fails with one sentence, nothing new is on the Hub, and the card is as it was."""

    def publish_in_vain(text: str, **options: Any) -> None:
        before = content(ready)
        commits = {name: list(repo.commits) for name, repo in hub.repos.items()}
        with pytest.raises(WeightsError, match=text) as caught:
            publish(ready, REPO, **options)
        assert "\n" not in str(caught.value)
        assert content(ready) == before
        assert {name: list(hub.repos[name].commits) for name in commits} == commits

    return publish_in_vain


def test_front_matter_that_the_hub_refuses(hub: LoopbackHub, refused: Callable[[str], None]) -> None:
    """Its words are quoted, and no empty repository is left behind."""
    hub.card_errors = ['"license" must be one of [mit, ...].', "second\nerror"]
    refused(r'refuses the front matter of the card: "license" must be one of \[mit, ...\]; second error; change it')
    assert hub.repos == {}


def test_without_a_network(refused: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at the Hub's address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        refused(r"http://127.0.0.1:[0-9]+ cannot be reached .* connect and try again .the card iquery.tiny here is as")


def test_a_token_that_does_not_count(
    hub: LoopbackHub, refused: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    refused("The Hub does not know your token; log in with 'hf auth login' again")
    assert hub.repos == {}


@pytest.mark.parametrize("there", [True, False])
def test_a_token_that_may_only_read(there: bool, hub: LoopbackHub, refused: Callable[[str], None]) -> None:
    """Whether there is such a repository or not."""
    if there:
        hub.add_repo(REPO)
    hub.writable = False
    refused(f"Your token may not write to {REPO}; log in .* a token of the role 'write' of a member of someone")


def test_a_repository_that_is_public(hub: LoopbackHub, refused: Callable[..., None]) -> None:
    """What is meant to be private is not put there."""
    hub.add_repo(REPO)
    refused(f"The repository {REPO} is there and public; make it private", private=True)


def test_a_repository_of_another_card(hub: LoopbackHub, ready: Path, refused: Callable[[str], None]) -> None:
    readme = (ready / "README.md").read_bytes().replace(b"iquery.tiny", b"iquery.huge")
    hub.add_repo(REPO, {"README.md": readme, "model.safetensors": b"huge"})
    refused(f"The repository {REPO} holds the card iquery.huge and is not one of iquery.tiny; name another")


def test_a_repository_of_another_kind_of_model(hub: LoopbackHub, refused: Callable[[str], None]) -> None:
    hub.add_repo(REPO, {"README.md": b"# A language model\n", "config.json": b"{}", "pytorch_model.bin": b"0"})
    refused("holds the file 'config.json' and is not one of iquery.tiny")


def test_somebody_else_was_faster(
    hub: LoopbackHub, refused: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit builds on the one that was looked at, or is none."""
    hub.add_repo(REPO, {".gitattributes": b""})
    answer = hub.answer

    def late(request: Request, **more: Any) -> Answer:
        if "preupload" in request.path:
            hub.repos[REPO].branches["main"] = OLD
            hub.repos[REPO].commits.setdefault(OLD, {})
        return answer(request, **more)

    hub.repos[REPO].commits[OLD] = {}
    monkeypatch.setattr(hub, "answer", late)
    refused(f"Somebody else changed {REPO} meanwhile; .* try again")


@pytest.mark.parametrize("broken", [("lfs", 0), ("commit", 4)], ids=["weights", "commit"])
def test_an_upload_that_is_cut_off(
    broken: tuple[str, int],
    hub: LoopbackHub,
    ready: Path,
    refused: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connection ends for good while the weights or the commit are sent; afterwards it can be done again."""
    hub.add_repo(REPO, {".gitattributes": b""})
    answer, (part, place) = hub.answer, broken

    def cut(request: Request, **more: Any) -> Answer:
        if (
            request.method in ("PUT", "POST")
            and request.path[place : place + 1] == (part,)
            and "verify" not in request.path
        ):
            raise ConnectionResetError
        return answer(request, **more)

    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)  # between the client's own attempts
    with monkeypatch.context() as patch:
        patch.setattr(hub, "answer", cut)
        refused(f"broke off before {REPO} was complete; try again .the card iquery.tiny here is as it was")
    assert publish(ready, REPO).uploaded


@pytest.mark.parametrize("status", [500, 429])
def test_a_hub_in_trouble(status: int, hub: LoopbackHub, refused: Callable[[str], None]) -> None:
    hub.fail_next = [status]
    refused(f"The Hub answers {status} to what is sent to {REPO}; try again later")


def test_an_answer_that_gets_lost(hub: LoopbackHub, ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit is made and its answer never arrives: nothing is pinned, and the next attempt finds it."""
    answer = hub.answer

    def lose(request: Request, **more: Any) -> Answer:
        answered = answer(request, **more)
        if "commit" in request.path:
            raise ConnectionResetError
        return answered

    with monkeypatch.context() as patch:
        patch.setattr(hub, "answer", lose)
        with pytest.raises(WeightsError, match=f"broke off before {REPO} was complete"):
            publish(ready, REPO)
    assert read_card(ready).hub is None
    done = publish(ready, REPO)
    assert (done.uploaded, done.revision) == (False, hub.repos[REPO].branches["main"])


@pytest.mark.parametrize("name", ["README.md", "model.safetensors"])
@pytest.mark.parametrize("kind", ["missing", "changed"])
def test_what_arrived_is_verified(
    name: str, kind: str, hub: LoopbackHub, ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that the Hub does not list as ours, by size or hash, keeps the card from being pinned."""
    before, commit = content(ready), hub.commit
    lost = None if kind == "missing" else bytes(len(before[name]))

    def spoilt(repo: str, files: dict[str, Any], **more: Any) -> str:
        return commit(repo, {**files, **({name: lost} if name in files else {})}, **more)

    monkeypatch.setattr(hub, "commit", spoilt)
    with pytest.raises(WeightsError, match=f"The Hub does not list our {name} in {REPO}@[0-9a-f]{{40}}; publish it"):
        publish(ready, REPO)
    assert content(ready) == before


def test_a_card_that_changed_during_the_upload(hub: LoopbackHub, ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are replaced meanwhile do not get the pin of the old ones."""
    answer = hub.answer

    def replace(request: Request, **more: Any) -> Answer:
        if "commit" in request.path:
            save_file({"a": torch.zeros(3)}, ready / "model.safetensors")
            weights = ready / "model.safetensors"
            change(ready, lambda f: f["avsep"].update(sha256=file_sha256(weights), bytes=weights.stat().st_size))
        return answer(request, **more)

    monkeypatch.setattr(hub, "answer", replace)
    with pytest.raises(WeightsError, match=r"is published as .* has other weights by now and was not pinned; publish"):
        publish(ready, REPO)
    assert read_card(ready).hub is None
