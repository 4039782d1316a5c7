"""Weights from the Hub: what names them, and the check of their content, on a cache in the client's own layout."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from avsep_zoo.errors import WeightsError
from avsep_zoo.weights.hub_files import fetch

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SPEC = f"someone/tiny-net@{COMMIT}"
CONTENT = {
    "config.json": b'{"model_type": "owlv2"}\n',
    "model.safetensors": b"\x02\0\0\0\0\0\0\0{}" + b"weights" * 100,
    "text/vocab.txt": b"cello\ntuba\n",
}


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def large(name: str) -> bool:
    return name.endswith(".safetensors")


@pytest.fixture
def cache() -> Iterator[Path]:
    """The folder of a model in the client's cache, as after a download; the tests are offline."""
    assert constants.HF_HUB_OFFLINE
    storage = Path(constants.HF_HUB_CACHE) / "models--someone--tiny-net"
    tree = {}
    for name, content in CONTENT.items():
        sha256 = hashlib.sha256(content).hexdigest()
        blob = storage / "blobs" / (sha256 if large(name) else git_hash(content))
        file = storage / "snapshots" / COMMIT / name
        for path in (blob, file):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        file.symlink_to("../" * (2 + name.count("/")) + f"blobs/{blob.name}")
        tree[name] = {"size": len(content), "blob_id": git_hash(content)}
        if large(name):
            tree[name] |= {"lfs_sha256": sha256, "lfs_size": len(content)}
    for folder in ("refs", "trees"):
        (storage / folder).mkdir()
    (storage / "refs" / "main").write_text(COMMIT)
    (storage / "trees" / f"{COMMIT}.json").write_text(json.dumps({"format_version": 1, "files": tree}))
    yield storage
    shutil.rmtree(storage)


def blob_of(cache: Path, name: str) -> Path:
    return (cache / "snapshots" / COMMIT / name).resolve()


def test_a_pinned_model_comes_from_the_cache(cache: Path) -> None:
    """The folder, the commit, and the sha256 of every file."""
    files = fetch(SPEC)
    assert files.path == cache.resolve() / "snapshots" / COMMIT
    assert (files.source, files.revision) == ("someone/tiny-net", COMMIT)
    assert files.sha256 == {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}


@pytest.mark.parametrize("name", list(CONTENT))
def test_changed_content_is_refused(cache: Path, name: str) -> None:
    """One changed bit in a large or a small file is noticed, and the sentence names the blob to delete."""
    blob = blob_of(cache, name)
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{Path(name).name} of someone/tiny-net@0123456 was changed.*{blob.name}"):
        fetch(SPEC)


def test_a_file_without_a_blob_is_refused(cache: Path) -> None:
    """A plain file in the cache has no hash to be checked against."""
    (cache / "snapshots" / COMMIT / "extra.safetensors").write_bytes(b"planted")
    with pytest.raises(WeightsError, match="without the hash of its content"):
        fetch(SPEC)


def test_a_link_elsewhere_is_refused(cache: Path, tmp_path: Path) -> None:
    """A file that was linked to something outside the cache is not what was fetched, whatever its name is."""
    file = cache / "snapshots" / COMMIT / "model.safetensors"
    elsewhere = tmp_path / hashlib.sha256(b"planted").hexdigest()
    elsewhere.write_bytes(b"planted")
    file.unlink()
    file.symlink_to(elsewhere)
    with pytest.raises(WeightsError, match="without the hash of its content"):
        fetch(SPEC)


def test_a_lost_blob_is_refused(cache: Path) -> None:
    """A link to nothing is not taken for a complete model."""
    blob_of(cache, "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"not complete in the cache|fetch it again"):
        fetch(SPEC)


def test_a_model_that_is_not_cached(cache: Path) -> None:
    """Without a network, the sentence says what is missing and what to do."""
    with pytest.raises(WeightsError, match=r"someone/other@0123456 is not complete .* connect once"):
        fetch(f"someone/other@{COMMIT}")


@pytest.mark.parametrize(
    "spec",
    [
        "someone/tiny-net",
        "someone/tiny-net@main",
        f"someone/tiny-net@{COMMIT[:39]}",
        f"someone/tiny-net@{COMMIT.upper()}",
    ],
)
def test_the_commit_must_be_given_in_full(cache: Path, spec: str) -> None:
    """Names, branches and short commits are not fixed revisions."""
    with pytest.raises(WeightsError, match="40 hexadecimal digits of its commit"):
        fetch(spec)


@pytest.mark.parametrize("spec", ["", "nowhere", "a/b/c", "../x@1", f"some one/net@{COMMIT}", "https://host/a/b"])
def test_other_texts_are_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    """What is neither a path nor a name on the Hub is refused."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r"do not exist|holds no weights"):
        fetch(spec)


def test_a_name_that_the_hub_does_not_allow(cache: Path) -> None:
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


def test_only_what_is_wanted(cache: Path) -> None:
    """Files that no pattern names are neither needed nor checked."""
    blob_of(cache, "model.safetensors").write_bytes(b"changed")
    files = fetch(SPEC, patterns=("vocab.txt", "config.json"), what="words")
    assert set(files.sha256) == {"config.json", "text/vocab.txt"}
    with pytest.raises(WeightsError, match="holds no words"):
        fetch(SPEC, patterns=("*.bin",), what="words")
