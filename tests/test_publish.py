"""Publishing: what arrives on the Hub, what does not, and the pin of the local card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors.torch import load_file

import avsep_zoo
from avsep_zoo.model import SeparationModel
from avsep_zoo.testing.loopback_hub import LoopbackHub
from avsep_zoo.weights.cards import read_card, write_card
from avsep_zoo.weights.pin import with_pin
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


def on_hub(hub: LoopbackHub, commit: str) -> dict[str, bytes]:
    """The files at a commit, without the one the Hub adds."""
    return {name: found for name, found in hub.repos[REPO].commits[commit].items() if name != ".gitattributes"}


def sent(hub: LoopbackHub, *parts: str) -> list[str]:
    """The requests that one of these occurs in."""
    return [request for request in hub.requests if any(part in request for part in parts)]


def test_readme_and_weights_arrive_in_one_commit(hub: LoopbackHub, ready: Path) -> None:
    """Byte by byte, in a new public repository; then the local README differs by its pin alone."""
    before = content(ready)
    done = publish(ready, REPO)
    repo = hub.repos[REPO]
    assert (done.revision, done.uploaded, done.private) == (repo.branches["main"], True, False)
    assert not repo.private
    assert len(repo.commits) == 2  # the first one is the Hub's own
    assert on_hub(hub, done.revision) == before
    assert done.address == f"{hub.url}/{REPO}/tree/{done.revision}"
    assert done.card == read_card(ready) and done.card.hub == f"{REPO}@{done.revision}"
    assert with_pin((ready / "README.md").read_text(), {}).encode() == before["README.md"]
    assert (ready / "model.safetensors").read_bytes() == before["model.safetensors"]


def test_only_two_files_of_a_run_arrive(hub: LoopbackHub, ready: Path) -> None:
    """Checkpoints, logs, curves, what was skipped, another card, secrets: they stay here."""
    before = content(ready)
    for name in (
        "checkpoint.pt", "log.jsonl", "training.yaml", "skipped.jsonl", "tensorboard/events.out.tfevents.1",
        "last/README.md", "last/model.safetensors", "other.safetensors", ".env", "README.md.part",
    ):  # fmt: skip
        (ready / name).parent.mkdir(exist_ok=True)
        (ready / name).write_bytes(b"private")
    commit = publish(ready, REPO).revision
    assert on_hub(hub, commit) == before
    assert len(hub.blobs) == 1


def test_a_private_repository(hub: LoopbackHub, ready: Path) -> None:
    assert publish(ready, REPO, private=True).private
    assert hub.repos[REPO].private
    assert publish(ready, REPO).private  # it stays so


def test_the_message_of_the_commit(hub: LoopbackHub, ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages, commit = [], hub.commit

    def note(repo: str, files: Mapping[str, bytes | None], *, branch: str = "main", message: str = "") -> str:
        messages.append(message)
        return commit(repo, files, branch=branch, message=message)

    monkeypatch.setattr(hub, "commit", note)
    publish(ready, REPO)
    change(ready, lambda front: front.update(tags=["music"]))
    publish(ready, REPO, message="Tags")
    assert messages[1:] == [f"iquery.tiny, by avsep-zoo {avsep_zoo.__version__}", "Tags"]


@pytest.mark.parametrize("pinned", [True, False])
def test_nothing_is_uploaded_twice(pinned: bool, hub: LoopbackHub, ready: Path) -> None:
    """The same files are at the newest commit: no upload, no commit, and the card is pinned to it."""
    before = content(ready)
    first = publish(ready, REPO)
    after = content(ready)
    if not pinned:
        (ready / "README.md").write_bytes(before["README.md"])
    hub.requests.clear()
    again = publish(ready, REPO)
    assert (again.revision, again.uploaded) == (first.revision, False)
    assert sent(hub, "PUT", "commit", "preupload") == []
    assert content(ready) == after


def test_another_repository_is_not_told_of_the_first(hub: LoopbackHub, ready: Path) -> None:
    """A pinned card is uploaded without its pin, then pinned anew."""
    before = content(ready)
    first = publish(ready, "someone/first")
    second = publish(ready, REPO)
    assert on_hub(hub, second.revision) == before
    assert read_card(ready).hub == f"{REPO}@{second.revision}" != first.card.hub


def test_a_changed_readme_alone(hub: LoopbackHub, ready: Path) -> None:
    """The weights are not sent again, the new commit has both files, and the old one is as it was."""
    before = content(ready)
    first = publish(ready, REPO)
    change(ready, lambda front: front.update(tags=["music"]))
    hub.requests.clear()
    second = publish(ready, REPO)
    assert second.uploaded and second.revision != first.revision
    assert sent(hub, "PUT") == []
    assert on_hub(hub, first.revision) == before
    assert on_hub(hub, second.revision)["model.safetensors"] == before["model.safetensors"]
    assert b"music" in on_hub(hub, second.revision)["README.md"]
    assert OLD.encode() not in on_hub(hub, second.revision)["README.md"]


def test_changed_weights(hub: LoopbackHub, ready: Path, tiny_model: SeparationModel) -> None:
    """A model that was trained on replaces its predecessor under the same name."""
    first = publish(ready, REPO)
    before = read_card(ready)
    with torch.no_grad():
        next(tiny_model.parameters()).add_(1)
    card = write_card(ready, tiny_model, manifest={"licences": before.manifest["licences"]}, front=before.front)
    second = publish(ready, REPO)
    assert second.revision != first.revision
    assert on_hub(hub, second.revision)["model.safetensors"] == card.weights.read_bytes()


def test_line_ends_stay(hub: LoopbackHub, ready: Path) -> None:
    readme = ready / "README.md"
    readme.write_bytes(readme.read_bytes().replace(b"\n", b"\r\n"))
    before = readme.read_bytes()
    done = publish(ready, REPO)
    assert on_hub(hub, done.revision)["README.md"] == before
    assert readme.read_bytes().count(b"\r\n") == before.count(b"\n") + 2


def test_a_repository_made_by_hand(hub: LoopbackHub, ready: Path) -> None:
    """The README and the licence that the Hub's page makes are no model; a licence stays."""
    hub.add_repo(REPO, {"README.md": b"---\nlicense: mit\n---\n", "LICENSE": b"free", ".gitattributes": b""})
    files = on_hub(hub, publish(ready, REPO).revision)
    assert sorted(files) == ["LICENSE", "README.md", "model.safetensors"]


@pytest.mark.parametrize("large", [(), (".safetensors", ".md")], ids=["nothing", "everything"])
def test_how_the_hub_stores_files(large: tuple[str, ...], hub: LoopbackHub, ready: Path) -> None:
    """It says which are large; both kinds are verified by their own hash."""
    before, usual = content(ready), hub.large
    hub.large = large
    try:
        done = publish(ready, REPO)
        assert on_hub(hub, done.revision) == before
        assert not publish(ready, REPO).uploaded
    finally:
        hub.large = usual


def test_what_was_published_loads_again(
    hub: LoopbackHub, ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its address, and by the pinned README alone: the same weights, out of an empty cache each time."""
    expected = load_file(ready / "model.safetensors")
    done = publish(ready, REPO, private=True)
    (ready / "model.safetensors").unlink()
    for number, place in enumerate((f"hf://{REPO}@{done.revision}", str(ready))):
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / f"cache{number}"))
        state = avsep_zoo.load(place).state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert sorted(p.name for p in ready.iterdir()) == ["README.md"]
