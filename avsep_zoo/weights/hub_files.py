"""Weights of other people's models: a folder here, or a pinned commit on the Hugging Face Hub, and their hashes.

The client stores what it fetched as ``models--org--name/snapshots/<commit>/<file>``, links to ``blobs/<hash>``:
the sha256 of a large file, the Git blob hash of a small one. The client never compares content and hash; this does.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avsep_zoo.errors import WeightsError
from avsep_zoo.weights.cards import file_sha256

__all__ = ["HubFiles", "fetch"]

_PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors", "*.pth")
_NAME = re.compile(r"([\w][\w.-]*/[\w][\w.-]*)(?:@(.*))?")


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
            not what its hash says.
    """
    local = Path(spec).expanduser()
    if local.exists():
        return _own_files(local, patterns, what)
    match = _NAME.fullmatch(str(spec))
    if match is None:
        raise WeightsError(f"The {what} {str(spec)!r} do not exist; give a folder, a file, or org/name@commit.")
    name, revision = match.groups()
    if revision is None or re.fullmatch(r"[0-9a-f]{40}", revision) is None:
        raise WeightsError(
            f"The {what} {str(spec)!r} are no folder here and no fixed revision of a model on the Hub; write "
            f"{name}@ and the 40 hexadecimal digits of its commit."
        )
    folder = _snapshot(name, revision, patterns)
    sha256 = {}
    for file in sorted(path for path in folder.rglob("*") if not path.is_dir()):
        if any(file.match(pattern) for pattern in patterns):
            sha256[file.relative_to(folder).as_posix()] = _checked(file, folder, f"{name}@{revision[:7]}")
    if not sha256:
        raise WeightsError(f"{name}@{revision[:7]} holds no {what}; check name and commit.")
    return HubFiles(folder, name, revision, sha256)


def _own_files(path: Path, patterns: Sequence[str], what: str) -> HubFiles:
    if path.is_file():
        return HubFiles(path, path.name, None, {path.name: file_sha256(path)})
    found = {name for pattern in patterns for name in path.glob(pattern) if name.is_file()}
    if not found:
        needed = "a .safetensors or .pth file" if patterns is _PATTERNS else f"a file {' or '.join(patterns)}"
        raise WeightsError(f"The folder {str(path)!r} holds no {what}; it needs {needed}.")
    return HubFiles(path, path.resolve().name, None, {file.name: file_sha256(file) for file in sorted(found)})


def _snapshot(name: str, revision: str, patterns: Sequence[str]) -> Path:
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except hub.HFValidationError as error:
        raise WeightsError(f"{name!r} is no name of a model on the Hub; write org/name@commit.") from error
    except hub.GatedRepoError as error:
        raise WeightsError(
            f"{name} asks for your consent on the Hub; give it there and log in with 'hf auth'."
        ) from error
    except hub.RepositoryNotFoundError as error:
        raise WeightsError(f"The Hub has no model {name} that you may see; check the name or log in.") from error
    except hub.RevisionNotFoundError as error:
        raise WeightsError(f"{name} has no commit {revision}; take one from its page on the Hub.") from error
    except hub.LocalEntryNotFoundError as error:
        raise WeightsError(
            f"{name}@{revision[:7]} is not complete in the cache and the Hub cannot be reached; connect once, or "
            "give a folder with the files."
        ) from error
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(f"{name}@{revision[:7]} cannot be fetched ({why}); try again or give a folder.") from error


def _checked(file: Path, snapshot: Path, title: str) -> str:
    """Return the sha256 of a file of a snapshot whose content has the hash that its blob is named by.

    Raises:
        WeightsError: it has not, or there is no such hash.
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
            f"delete {str(blob)!r} and fetch it again."
        )
    return sha256


def _git_hash(file: Path) -> str:
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
