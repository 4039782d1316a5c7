"""The loopback Hub with the real client: what is fetched, refused, broken off and uploaded."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
from huggingface_hub import errors as client
from huggingface_hub.file_download import get_hf_file_metadata, hf_hub_url

from avsep_zoo.testing.loopback_hub import LoopbackHub, git_hash

NET = "someone/net"
FILES = {"model.safetensors": b"weights" * 5000, "config.json": b"{}", "more/näme.txt": b"violin\n"}


def fetched(name: str, revision: str = "main", repo: str = NET, **more: str) -> bytes:
    return Path(hf_hub_download(repo, name, revision=revision, **more)).read_bytes()


@pytest.mark.parametrize("name", list(FILES))
def test_a_pinned_file_is_asked_for_once(hub: LoopbackHub, name: str) -> None:
    """HEAD and GET, then the cache."""
    commit = hub.add_repo(NET, FILES)
    assert fetched(name, commit) == FILES[name]
    assert hub.requests == [f"{method} /{NET}/resolve/{commit}/{name}" for method in ("HEAD", "GET")]
    hub.requests.clear()
    assert fetched(name, commit) == FILES[name] and hub.requests == []


def test_a_snapshot(hub: LoopbackHub) -> None:
    """All files by the listing; the second time, one request tells that the branch is where it was."""
    commit = hub.add_repo(NET, FILES)
    for _ in range(2):
        folder = Path(snapshot_download(NET))
        assert {path: (folder / path).read_bytes() for path in FILES} == FILES and folder.name == commit
        hub.requests, before = [], hub.requests
    assert before == [f"GET /api/models/{NET}/revision/main"]


def test_large_files_have_their_sha256(hub: LoopbackHub) -> None:
    """Others Git's hash; by both the client names what it stores."""
    hub.add_repo(NET, FILES)
    etags = {name: get_hf_file_metadata(hf_hub_url(NET, name)).etag for name in FILES}
    assert etags.pop("model.safetensors") == hashlib.sha256(FILES["model.safetensors"]).hexdigest()
    assert etags == {name: git_hash(FILES[name]) for name in etags}


def test_revisions(hub: LoopbackHub) -> None:
    """A branch moves, a commit stays."""
    old = hub.add_repo(NET, FILES)
    new = hub.commit(NET, {"config.json": b"[]", "more/näme.txt": None})
    assert (fetched("config.json", old), fetched("config.json", new), fetched("config.json")) == (b"{}", b"[]", b"[]")
    assert HfApi().model_info(NET).sha == new != old
    assert HfApi().list_repo_files(NET) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("large", [(), (".json",)])
def test_what_is_large(tmp_path: Path, large: tuple[str, ...]) -> None:
    """A hub of one's own decides what it stores with Git LFS."""
    with LoopbackHub(large=large) as hub:
        hub.add_repo(NET, FILES)
        info = HfApi(endpoint=hub.url).model_info(NET, files_metadata=False)
        tree = list(HfApi(endpoint=hub.url).list_repo_tree(NET, recursive=True))
    assert info.sha and [file.path for file in tree if file.lfs] == (["config.json"] if large else [])


def test_large_files_come_from_elsewhere(hub: LoopbackHub) -> None:
    """They are redirected to another origin, which the token is not sent to."""
    commit = hub.add_repo(NET, FILES)
    hub.cdn = True
    assert fetched("model.safetensors", commit, token="hf_secret") == FILES["model.safetensors"]
    sha256 = hashlib.sha256(FILES["model.safetensors"]).hexdigest()
    assert hub.requests == [f"HEAD /{NET}/resolve/{commit}/model.safetensors", f"CDN GET /blobs/{sha256}"]


@pytest.mark.parametrize(
    ("repo", "name", "revision", "error"),
    [
        ("someone/nothing", "config.json", "main", client.RepositoryNotFoundError),
        ("someone/private", "config.json", "main", client.RepositoryNotFoundError),
        ("someone/gated", "config.json", "main", client.GatedRepoError),
        (NET, "config.json", "0" * 40, client.RevisionNotFoundError),
        (NET, "nothing.json", "main", client.RemoteEntryNotFoundError),
    ],
)
def test_refusals(hub: LoopbackHub, repo: str, name: str, revision: str, error: type[Exception]) -> None:
    """Each is the one that the client has a class for."""
    hub.token = "hf_secret"
    hub.add_repo(NET, FILES)
    hub.add_repo("someone/private", FILES, private=True)
    hub.add_repo("someone/gated", FILES, gated=True)
    with pytest.raises(client.HfHubHTTPError) as caught:
        fetched(name, revision, repo)
    assert type(caught.value) is error


def test_a_token_opens_what_is_private(hub: LoopbackHub) -> None:
    """The right one does; a wrong one does not even open what is public."""
    hub.token = "hf_secret"
    hub.add_repo(NET, FILES)
    hub.add_repo("someone/private", FILES, private=True)
    assert fetched("config.json", repo="someone/private", token="hf_secret") == b"{}"
    with pytest.raises(client.HfHubHTTPError, match="Invalid credentials"):
        HfApi(token="hf_wrong").model_info(NET)


def test_status_codes(hub: LoopbackHub) -> None:
    """One request each fails as the test wants it, the next one does not."""
    hub.add_repo(NET, FILES)
    hub.fail_next = [500]
    with pytest.raises(client.HfHubHTTPError, match="500"):
        get_hf_file_metadata(hf_hub_url(NET, "config.json"))
    assert get_hf_file_metadata(hf_hub_url(NET, "config.json")).size == 2


def test_a_broken_connection_is_taken_up_again(hub: LoopbackHub) -> None:
    """The client asks for the rest."""
    commit = hub.add_repo(NET, FILES)
    hub.cut = [1000]
    assert fetched("model.safetensors", commit) == FILES["model.safetensors"]
    assert [request.split()[0] for request in hub.requests] == ["HEAD", "GET", "GET"]


def test_a_body_that_is_too_short(hub: LoopbackHub) -> None:
    """A file that lacks its end is not stored."""
    hub.add_repo(NET, FILES)
    hub.short = 1
    with pytest.raises(OSError, match="Consistency check failed"):
        fetched("model.safetensors")


def test_a_body_of_other_bytes(hub: LoopbackHub) -> None:
    """The client does not notice."""
    hub.add_repo(NET, FILES)
    hub.spoil = True
    content = fetched("model.safetensors")
    assert len(content) == len(FILES["model.safetensors"]) and content != FILES["model.safetensors"]


def test_bodies_wait_for_the_gate(hub: LoopbackHub) -> None:
    """A test holds a download for as long as it likes."""
    hub.add_repo(NET, FILES)
    hub.gate = threading.Event()
    got: list[bytes] = []
    download = threading.Thread(target=lambda: got.append(fetched("config.json")))
    download.start()
    hub.wait_until(lambda requests: any(request.startswith("GET") for request in requests))
    assert not got
    hub.gate.set()
    download.join()
    assert got == [b"{}"]


def test_waiting_ends(hub: LoopbackHub) -> None:
    """What never happens is an error that tells what did."""
    with pytest.raises(TimeoutError, match=r"waited 0\.01 s and had \[\]"):
        hub.wait_until(lambda requests: bool(requests), timeout=0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files, to be uploaded."""
    for name, content in FILES.items():
        (tmp_path / "net" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "net" / name).write_bytes(content)
    (tmp_path / "net" / "README.md").write_text("---\nlicense: mit\n---\n# Net\n")
    return tmp_path / "net"


def test_an_upload_comes_back(hub: LoopbackHub, folder: Path) -> None:
    """A new repository, a folder of large and small files, and the same content downloaded."""
    api = HfApi(token="hf_secret")
    hub.token = "hf_secret"
    assert api.whoami()["name"] == "tester"
    api.create_repo(NET)
    commit = api.upload_folder(repo_id=NET, folder_path=folder).oid
    assert {name: fetched(name, commit) for name in FILES} == FILES
    assert hub.repos[NET].branches == {"main": commit}
    assert "POST /api/validate-yaml" in hub.requests
    assert f"PUT /lfs/{hashlib.sha256(FILES['model.safetensors']).hexdigest()}" in hub.requests


def test_an_unchanged_folder_makes_no_commit(hub: LoopbackHub, folder: Path) -> None:
    """The client compares hashes, of large files and of small ones."""
    api = HfApi(token="hf_secret")
    api.create_repo(NET)
    commits = [api.upload_folder(repo_id=NET, folder_path=folder).oid for _ in range(2)]
    assert commits[0] == commits[1] and len(hub.repos[NET].commits) == 2


def test_a_repository_that_exists(hub: LoopbackHub) -> None:
    """It is kept, or an error."""
    commit = hub.add_repo(NET, FILES)
    HfApi(token="hf_secret").create_repo(NET, exist_ok=True)
    with pytest.raises(client.HfHubHTTPError, match="409"):
        HfApi(token="hf_secret").create_repo(NET)
    assert hub.repos[NET].resolve("main") == commit


def test_files_are_removed(hub: LoopbackHub) -> None:
    """One by its name, others by their folder."""
    hub.add_repo(NET, FILES)
    gone = [CommitOperationDelete("config.json"), CommitOperationDelete("more/")]
    HfApi(token="hf_secret").create_commit(NET, gone, commit_message="less")
    assert HfApi().list_repo_files(NET) == ["model.safetensors"]


def test_a_commit_in_between(hub: LoopbackHub) -> None:
    """What is meant to go on top of another commit than the last is refused."""
    first = hub.add_repo(NET, FILES)
    hub.commit(NET, {"config.json": b"[]"})
    change = [CommitOperationAdd("config.json", b"null")]
    with pytest.raises(client.HfHubHTTPError, match="412"):
        HfApi(token="hf_secret").create_commit(NET, change, commit_message="late", parent_commit=first)


@pytest.mark.parametrize(("token", "status"), [(False, 401), ("hf_wrong", 401), ("hf_secret", 403)])
def test_who_may_not_write(hub: LoopbackHub, token: str | bool, status: int) -> None:
    """Nobody, somebody else, and a token that only reads."""
    hub.add_repo(NET, FILES)
    hub.token, hub.writable = "hf_secret", False
    with pytest.raises(client.HfHubHTTPError) as caught:
        HfApi(token=token).upload_file(path_or_fileobj=b"[]", path_in_repo="config.json", repo_id=NET)
    assert caught.value.response.status_code == status
    assert hub.repos[NET].commits[hub.repos[NET].branches["main"]] == FILES


def test_front_matter_that_is_refused(hub: LoopbackHub, folder: Path) -> None:
    """The Hub's own check of a README.md."""
    hub.add_repo(NET, FILES)
    hub.card_errors = ['"license" must be one of ...']
    with pytest.raises(ValueError, match='"license" must be one of'):
        HfApi(token="hf_secret").upload_folder(repo_id=NET, folder_path=folder)


def test_large_files_are_checked(hub: LoopbackHub) -> None:
    """Content that does not have the hash it is sent under is not taken."""
    hub.add_repo(NET, FILES)
    change = CommitOperationAdd("other.safetensors", b"some weights")
    change.upload_info.sha256 = hashlib.sha256(b"other weights").digest()
    with pytest.raises(RuntimeError, match=r"uploading .other\.safetensors.") as caught:
        HfApi(token="hf_secret").create_commit(NET, [change], commit_message="wrong")
    assert isinstance(caught.value.__cause__, client.HfHubHTTPError) and hub.blobs == {}
