"""Files from the Hub: what names them, the check of their content, and what is removed when it fails."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from avsep_zoo.errors import WeightsError
from avsep_zoo.testing.loopback_hub import LoopbackHub
from avsep_zoo.weights.hub_files import fetch, forget

NAME = "someone/tiny-net"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = {
    "config.json": b'{"model_type": "owlv2"}\n',
    "model.safetensors": b"\x02\0\0\0\0\0\0\0{}" + b"weights" * 100,
    "text/vocab.txt": b"cello\ntuba\n",
}


@pytest.fixture
def commit(hub: LoopbackHub) -> str:
    """That of the model on the Hub."""
    return hub.add_repo(NAME, CONTENT)


@pytest.fixture
def spec(hub: LoopbackHub, commit: str) -> str:
    """The model's name, after it was fetched."""
    spec = f"{NAME}@{commit}"
    fetch(spec)
    hub.requests.clear()
    return spec


def cache_of(commit: str) -> Path:
    return Path(constants.HF_HUB_CACHE, "models--someone--tiny-net", "snapshots", commit)


def test_a_pinned_model_is_fetched_once(hub: LoopbackHub, commit: str) -> None:
    """The folder, the commit, and the sha256 of every file; the second time the Hub is not asked."""
    for _ in range(2):
        files = fetch(f"{NAME}@{commit}")
        assert files.path == cache_of(commit)
        assert (files.source, files.revision) == (NAME, commit)
        assert files.sha256 == {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
        requests, hub.requests = hub.requests, []
    assert requests == []


def test_a_pinned_model_comes_from_the_cache(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also offline."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert len(fetch(spec).sha256) == len(CONTENT)


def test_what_the_hub_has_lost(hub: LoopbackHub, commit: str, spec: str) -> None:
    """A model that is gone there, but whole here, is used; even where the client did not note that it is whole."""
    hub.repos.clear()
    assert len(fetch(spec).sha256) == len(CONTENT) and hub.requests == []
    shutil.rmtree(cache_of(commit).parents[1] / "trees")
    assert len(fetch(spec).sha256) == len(CONTENT)
    with pytest.raises(WeightsError, match="The Hub has no model someone/tiny-net"):
        fetch(spec, patterns=("*.bin",))


@pytest.mark.parametrize("name", list(CONTENT))
def test_changed_content_is_refused(hub: LoopbackHub, commit: str, spec: str, name: str) -> None:
    """One changed bit in a large or a small file is noticed; the blob is removed, and fetched anew the next time."""
    blob = (cache_of(commit) / name).resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{Path(name).name} of someone/tiny-net@{commit[:7]} was changed.*removed"):
        fetch(spec)
    assert not blob.exists() and hub.requests == []
    assert fetch(spec).sha256[name] == hashlib.sha256(CONTENT[name]).hexdigest()
    assert sum(request.startswith("GET /someone") for request in hub.requests) == 1


def test_a_file_without_a_blob_is_refused(commit: str, spec: str) -> None:
    """A plain file in the cache has no hash to be checked against."""
    (cache_of(commit) / "extra.safetensors").write_bytes(b"planted")
    with pytest.raises(WeightsError, match="without the hash of its content"):
        fetch(spec)


def test_a_link_elsewhere_is_refused(commit: str, spec: str, tmp_path: Path) -> None:
    """A file that was linked to something outside the cache is not what was fetched, whatever its name is."""
    file = cache_of(commit) / "model.safetensors"
    elsewhere = tmp_path / hashlib.sha256(b"planted").hexdigest()
    elsewhere.write_bytes(b"planted")
    file.unlink()
    file.symlink_to(elsewhere)
    with pytest.raises(WeightsError, match="without the hash of its content"):
        fetch(spec)


def test_only_the_cache_is_cleaned(tmp_path: Path, hub: LoopbackHub) -> None:
    """Removing a file never follows a link out of the client's cache."""
    snapshot = Path(constants.HF_HUB_CACHE, "models--a--b", "snapshots", COMMIT)
    snapshot.mkdir(parents=True)
    (tmp_path / "mine").write_bytes(b"mine")
    (snapshot / "model.safetensors").symlink_to(tmp_path / "mine")
    assert forget(snapshot / "model.safetensors") == "it was removed from the cache, so try again"
    assert (tmp_path / "mine").read_bytes() == b"mine" and not (snapshot / "model.safetensors").is_symlink()


def test_a_lost_blob_is_fetched_again(commit: str, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to nothing is not taken for a complete model."""
    (cache_of(commit) / "model.safetensors").resolve().unlink()
    with monkeypatch.context() as offline, pytest.raises(WeightsError, match="is not complete in the cache"):
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        fetch(spec)
    assert len(fetch(spec).sha256) == len(CONTENT)


def test_a_model_that_is_not_cached(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, the sentence says what is missing and what to do."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError) as caught:
        fetch(f"someone/other@{COMMIT}")
    assert str(caught.value) == (
        "someone/other@0123456 is not complete in the cache and HF_HUB_OFFLINE keeps this process from the Hub; unset "
        "it and connect once, or give a folder with the files."
    )


@pytest.mark.parametrize("revision", ["", "@main", f"@{COMMIT[:39]}", f"@{COMMIT.upper()}"])
def test_the_commit_must_be_given_in_full(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, revision: str) -> None:
    """Names, branches and short commits are not fixed revisions; offline, nothing more can be said."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="40 hexadecimal digits of its commit"):
        fetch(f"{NAME}{revision}")
    assert hub.requests == []


def test_a_branch_is_told_by_its_commit(hub: LoopbackHub, commit: str) -> None:
    """What to write instead, where the Hub knows; a name alone may be a folder that is not there, and is not sent."""
    with pytest.raises(WeightsError, match=rf"may change .*; write {NAME}@{commit}, where main is now"):
        fetch(f"{NAME}@main")
    assert hub.requests == [f"GET /api/models/{NAME}/revision/main"]
    with pytest.raises(WeightsError, match="40 hexadecimal digits"):
        fetch(NAME)
    assert len(hub.requests) == 1


@pytest.mark.parametrize("spec", ["", "nowhere", "a/b/c", "../x@1", f"some one/net@{COMMIT}", "https://host/a/b"])
def test_other_texts_are_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    """What is neither a path nor a name on the Hub is refused."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r"do not exist|holds no weights"):
        fetch(spec)


def test_a_name_that_the_hub_does_not_allow(hub: LoopbackHub) -> None:
    """The client's own rules for names end in a sentence too."""
    with pytest.raises(WeightsError, match="no name of a model"):
        fetch(f"some--one/net..x@{COMMIT}")


def test_a_folder_and_a_file_of_ones_own(tmp_path: Path) -> None:
    """Local weights have hashes and no commit; files that are no weights are not read."""
    (tmp_path / "net").mkdir()
    for name in ("config.json", "model.safetensors", "movie.mp4"):
        (tmp_path / "net" / name).write_bytes(name.encode())
    files = fetch(str(tmp_path / "net"))
    assert (files.path, files.source, files.revision) == (tmp_path / "net", "net", None)
    assert set(files.sha256) == {"config.json", "model.safetensors"}
    one = fetch(tmp_path / "net" / "model.safetensors")
    assert one.sha256 == {"model.safetensors": hashlib.sha256(b"model.safetensors").hexdigest()}


def test_an_empty_folder_is_no_weights(tmp_path: Path) -> None:
    """A folder without any file of weights is refused."""
    with pytest.raises(WeightsError, match="holds no weights"):
        fetch(tmp_path)


def test_only_what_is_wanted(hub: LoopbackHub, commit: str, spec: str) -> None:
    """Files that no pattern names are neither needed nor checked."""
    (cache_of(commit) / "model.safetensors").resolve().write_bytes(b"changed")
    files = fetch(spec, patterns=("vocab.txt", "config.json"), what="words")
    assert set(files.sha256) == {"config.json", "text/vocab.txt"}
    with pytest.raises(WeightsError, match="holds no words"):
        fetch(spec, patterns=("*.bin",), what="words")
