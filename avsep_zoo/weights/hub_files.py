"""Files on the Hugging Face Hub: a pinned commit of a model, or a folder here in its place, and their hashes.

The client stores what it fetched as ``models--org--name/snapshots/<commit>/<file>``, links to ``blobs/<hash>``:
the sha256 of a large file, the Git blob hash of a small one. The client never compares content and hash; this does.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avsep_zoo.errors import WeightsError
from avsep_zoo.weights.cards import file_sha256
from avsep_zoo.weights.hub_errors import hub_errors

__all__ = ["HubFiles", "download", "fetch", "fetch_file", "forget", "pinned", "snapshot_file"]

_BUSY = (408, 429, 500, 502, 503, 504)  # after these the client tries again, some seconds later
_PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors", "*.pth")
_NAME = re.compile(r"([\w][\w.-]*/[\w][\w.-]*)(?:@(.*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubFiles:
    """Files that are here and are what they should be.

    Args:
        path: their folder, or a single file.
        source: ``org/name``, or the name of a folder or file of the user's.
        revision: commit on the Hub, 40 hexadecimal digits; None for the user's own.
        sha256: of every file, by its path below ``path``.
    """

    path: Path
    source: str
    revision: str | None
    sha256: Mapping[str, str]


def fetch(spec: str | Path, *, patterns: Sequence[str] = _PATTERNS, what: str = "weights") -> HubFiles:
    """Return the files that ``spec`` names, after checking the content of those from the Hub.

    Args:
        spec: a folder in the Hub's layout (``config.json``, ``model.safetensors``, ...), a weights file, or
            ``org/name@commit``; from the cache where they are there, also without a network.
        patterns: of the names of the files that are wanted; nothing else is fetched.
        what: they are, in errors.

    Raises:
        WeightsError: nothing is there, the commit is not given in full, the files cannot be fetched, or one is
            not what its hash says; that one is removed from the cache.
    """
    local = Path(spec).expanduser()
    if local.exists():
        return _own_files(local, patterns, what)
    name, revision = pinned(str(spec), what, ask="@" in str(spec))
    folder = _snapshot(name, revision, patterns)
    title = f"{name}@{revision[:7]}"
    files = _matching(folder, patterns)
    if not files:
        raise WeightsError(f"{title} holds no {what}; check name and commit.")
    sha256 = {file.relative_to(folder).as_posix(): _checked(file, folder, title) for file in files}
    return HubFiles(folder, name, revision, sha256)


def pinned(spec: str, what: str = "weights", *, ask: bool = True, prefix: str = "") -> tuple[str, str]:
    """Split ``org/name@commit`` into the name and the commit.

    Args:
        spec: with all 40 hexadecimal digits of the commit.
        what: is there, in errors.
        ask: the Hub, where it can be reached, which commit a branch or a name alone means now; the error tells.
        prefix: what the user writes before the name.

    Raises:
        WeightsError: it has another form, or names a branch or no revision at all.
    """
    match = _NAME.fullmatch(spec)
    if match is None:
        raise WeightsError(f"The {what} {spec!r} do not exist; give a folder, a file, or org/name@commit.")
    name, revision = match.groups()
    if revision is not None and _COMMIT.fullmatch(revision):
        return name, revision
    now = _commit_now(name, revision or "main") if ask else None
    if now is not None:
        raise WeightsError(
            f"The {what} {spec!r} may change at any time, as no commit is named; write {prefix}{name}@{now}, where "
            f"{revision or 'main'} is now."
        )
    raise WeightsError(
        f"The {what} {spec!r} are no folder here and no fixed revision of a model on the Hub; write "
        f"{prefix}{name}@ and the 40 hexadecimal digits of its commit."
    )


def fetch_file(name: str, commit: str, file: str) -> Path:
    """Return one file of a commit, fetched if it is not in the cache, after checking its content.

    Args:
        name: ``org/name``.
        commit: 40 hexadecimal digits.
        file: path in the repository.

    Raises:
        WeightsError: it cannot be fetched, or is not what its hash says; then it is removed from the cache.
    """
    with hub_errors(f"{name}@{commit}"):
        path = download(name, commit, file)
    _checked(path, path.parents[file.count("/")], f"{name}@{commit[:7]}")
    return path


def download(name: str, commit: str, file: str, *, size: int | None = None) -> Path:
    """Return a file of a commit in the client's cache, fetched if it is not there; its content is not checked.

    Args:
        name, commit, file: as for :func:`fetch_file`.
        size: in bytes, of the file that is wanted.

    Raises:
        WeightsError: the Hub has one of another size; it is not fetched.
        Exception: whatever the client raises (:func:`~avsep_zoo.weights.hub_errors.hub_errors` makes sentences of it).
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    cached = snapshot_file(name, commit, file)
    if cached.is_file():
        return cached
    try:  # once: the client tries for 23 seconds to reach a Hub that cannot be reached
        there = get_hf_file_metadata(hf_hub_url(name, file, revision=commit), timeout=10)
    except HfHubHTTPError as error:
        if error.response.status_code not in _BUSY:
            raise
    else:
        if size is not None and there.size not in (None, size):
            raise WeightsError(
                f"{file} of {name}@{commit[:7]} has {there.size} bytes on the Hub and its card says {size}; take a "
                "card and a commit that belong together."
            )
    return Path(hf_hub_download(name, file, revision=commit))


def snapshot_file(name: str, commit: str, file: str) -> Path:
    """Where the client's cache has a file of a commit, if it has it."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE, f"models--{name.replace('/', '--')}")
    return folder / "snapshots" / commit / file


def forget(file: Path) -> str:
    """Remove a file of the client's cache, with what it links to there, and say in half a sentence what to do."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).resolve()
    chain = [file]
    while chain[-1].is_symlink() and len(chain) < 9:
        chain.append(Path(os.path.normpath(chain[-1].parent / chain[-1].readlink())))
    try:
        for path in chain:
            if cache in path.parent.resolve().parents:
                path.unlink(missing_ok=True)
    except OSError:
        return f"delete {str(chain[-1])!r} and try again"
    return "it was removed from the cache, so try again"


def _own_files(path: Path, patterns: Sequence[str], what: str) -> HubFiles:
    if path.is_file():
        return HubFiles(path, path.name, None, {path.name: file_sha256(path)})
    found = {name for pattern in patterns for name in path.glob(pattern) if name.is_file()}
    if not found:
        needed = "a .safetensors or .pth file" if patterns is _PATTERNS else f"a file {' or '.join(patterns)}"
        raise WeightsError(f"The folder {str(path)!r} holds no {what}; it needs {needed}.")
    return HubFiles(path, path.resolve().name, None, {file.name: file_sha256(file) for file in sorted(found)})


def _commit_now(name: str, revision: str) -> str | None:
    """The commit that a branch is at, where the Hub can be reached and knows it."""
    with hub_errors(name):
        from huggingface_hub import HfApi
        from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError
        from huggingface_hub.utils import httpx

        try:
            return HfApi().model_info(name, revision=revision, timeout=10).sha
        except RepositoryNotFoundError:
            raise
        except (httpx.HTTPError, OfflineModeIsEnabled):
            return None


def _snapshot(name: str, revision: str, patterns: Sequence[str]) -> Path:
    """The folder of a commit with all files that are wanted, if need be from the Hub, if that can be reached."""
    with hub_errors(f"{name}@{revision}"):
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
        from huggingface_hub.utils import httpx

        wanted: dict[str, Any] = {"repo_id": name, "revision": revision, "allow_patterns": list(patterns)}
        listing = snapshot_file(name, revision, "").parents[1] / "trees" / f"{revision}.json"
        folder = None
        with suppress(LocalEntryNotFoundError):
            folder = Path(snapshot_download(**wanted, local_files_only=True))
        if folder is not None and listing.is_file():
            return folder
        try:  # once: the client tries for 23 seconds to reach a Hub that cannot be reached
            HfApi().model_info(name, revision=revision, timeout=10)
        except (httpx.HTTPError, OfflineModeIsEnabled) as error:
            if folder is not None and _matching(folder, patterns):
                return folder  # what the Hub has lost is still here
            if not isinstance(error, HfHubHTTPError) or error.response.status_code not in _BUSY:
                raise
        return Path(snapshot_download(**wanted))


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    return [file for file in files if any(file.match(pattern) for pattern in patterns)]


def _checked(file: Path, snapshot: Path, title: str) -> str:
    """Return the sha256 of a file of a snapshot whose content has the hash that its blob is named by.

    Raises:
        WeightsError: it has not, or there is no such hash; the file is removed from the cache.
    """
    blobs = snapshot.parents[1] / "blobs"
    blob = Path(os.path.normpath(file.parent / file.readlink())) if file.is_symlink() else file
    if blob.parent != blobs or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
        raise WeightsError(
            f"{file.name} of {title} is in the cache without the hash of its content; delete "
            f"{str(snapshot.parents[1])!r} and fetch it again, or give a folder that you trust."
        )
    try:
        sha256 = file_sha256(file)
        found = sha256 if len(blob.name) == 64 else _git_hash(file)
    except OSError as error:
        raise WeightsError(f"{file.name} of {title} cannot be read ({error.strerror}); fetch it again.") from error
    if found != blob.name:
        raise WeightsError(
            f"{file.name} of {title} was changed: its content has the hash {found[:12]}… and not {blob.name[:12]}…; "
            f"{forget(file)}."
        )
    return sha256


def _git_hash(file: Path) -> str:
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
