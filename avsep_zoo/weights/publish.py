"""Publishing a card on the Hugging Face Hub: README and weights in one commit, then the pin in the local card.

The README on the Hub does not say where its weights are: they lie beside it. Only the local card is pinned, and only
after the Hub's listing of the new commit has shown both files with our sizes and hashes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsep_zoo import __version__
from avsep_zoo.errors import WeightsError
from avsep_zoo.weights.card_check import check
from avsep_zoo.weights.cards import Card, file_sha256, pin_card, read_card
from avsep_zoo.weights.hub_errors import hub_errors
from avsep_zoo.weights.licences import entries
from avsep_zoo.weights.pin import with_pin

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

__all__ = ["Published", "publish"]

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_ANY_COMMIT = "0" * 40
_NO_MODEL = re.compile(r"\.gitattributes|\.gitignore|README\.md|LICEN[CS]E.*")


@dataclass(frozen=True)
class Published:
    """Where a card is now.

    Args:
        card: the local one, pinned.
        repo: ``org/name``.
        revision: its commit, 40 hexadecimal digits.
        address: of its page.
        private: only its owners see it.
        uploaded: whether there was something to upload; if not, the newest commit held the same files.
    """

    card: Card
    repo: str
    revision: str
    address: str
    private: bool
    uploaded: bool


@dataclass(frozen=True)
class _File:
    """A file to upload, by its name on the Hub."""

    name: str
    content: bytes | Path
    size: int
    sha256: str

    def is_in(self, listing: Mapping[str, RepoFile]) -> bool:
        """Whether the Hub has it, by the hash it is stored under."""
        from huggingface_hub.utils.sha import git_hash

        there = listing.get(self.name)
        if there is None or there.size != self.size:
            return False
        if there.lfs is not None:
            return there.lfs.sha256 == self.sha256
        return there.blob_id == git_hash(self.content if isinstance(self.content, bytes) else self.content.read_bytes())


def publish(folder: Path, repo: str, *, private: bool = False, message: str | None = None) -> Published:
    """Upload a card's README and weights, nothing else of its folder, and pin the commit into the local card.

    Args:
        folder: of the card.
        repo: ``org/name``, made if needed.
        private: a new repository is seen by its owners only.
        message: of the commit.

    Raises:
        WeightsError: the card is not fit to be published, you may not write there, the repository holds another model,
            or the upload failed; the local card is then as it was.
    """
    card = read_card(folder)
    files = _files(card, repo)
    unchanged = f"the card {card.name} here is as it was"
    with hub_errors(repo, otherwise="publish it later", writing=True, what=unchanged):
        api = _client()
        _validate(api, files[0].content)
        api.create_repo(repo, private=private or None, exist_ok=True)
        about = api.model_info(repo)
        revision = about.sha or ""
        listing = _listing(api, repo, revision)
        if private and not about.private:
            raise WeightsError(f"The repository {repo} is there and public; make it private on its page first.")
        _refuse_other_model(card, repo, revision, listing)
        uploaded = not all(file.is_in(listing) for file in files)
        if uploaded:
            revision = _commit(api, repo, files, revision, message or f"{card.name}, by avsep-zoo {__version__}")
            listing = _listing(api, repo, revision)
    if wrong := [file.name for file in files if not file.is_in(listing)]:
        raise WeightsError(
            f"The Hub does not list our {wrong[0]} in {repo}@{revision}; publish it again ({unchanged})."
        )
    if read_card(folder).sha256 != card.sha256:
        raise WeightsError(
            f"{card.name} is published as {repo}@{revision}, but the card in {str(folder)!r} has other weights by now "
            "and was not pinned; publish it again."
        )
    try:
        pinned = pin_card(card, repo, revision)
    except OSError as error:
        raise WeightsError(
            f"{card.name} is published, but its card in {str(folder)!r} cannot be written ({error.strerror}); "
            f"write repo: {repo} and revision: {revision} into its block 'avsep'."
        ) from error
    return Published(pinned, repo, revision, f"{api.endpoint}/{repo}/tree/{revision}", bool(about.private), uploaded)


def _client() -> HfApi:
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise WeightsError(
            "You are not logged in to the Hugging Face Hub; run 'hf auth login' with a token that may write, or set "
            "HF_TOKEN."
        )
    return HfApi(library_name="avsep-zoo", library_version=__version__)


def _files(card: Card, repo: str) -> tuple[_File, _File]:
    """Return the README as it is uploaded and the weights, if the card is fit to be published.

    Raises:
        WeightsError: it is not.
    """
    if _REPO.fullmatch(repo) is None or re.search(r"--|\.\.|\.git$", repo) or len(repo) > 96:
        raise WeightsError(f"{repo!r} is no name of a model on the Hub; write org/name.")
    readme, weights = card.folder / "README.md", card.weights
    if card.sha256 is None:
        raise WeightsError(
            f"The card {card.name} has no weights to publish; convert the files of the method's authors first, with "
            "'avsep convert'."
        )
    for file in (readme, weights):
        if file.is_symlink():
            raise WeightsError(f"{str(file)!r} is a link, and links are not followed; put the file itself there.")
        if not file.is_file():
            raise WeightsError(f"There is no {str(file)!r} to publish; put the file there that the card describes.")
    if not all(licence.stated for licence in entries(card.manifest) if licence.field == "weights"):
        raise WeightsError(
            f"The card {card.name} states no licence of the weights, so you may not be allowed to pass them on; write "
            "avsep.licences.weights."
        )
    text = readme.read_bytes().decode("utf-8")  # before the weights, which a run in progress replaces first
    sha256 = file_sha256(weights)
    if sha256 != card.sha256 or weights.stat().st_size != card.manifest["bytes"]:
        raise WeightsError(
            f"{str(weights)!r} is not the file that its card describes, by size or sha256; put that file there, or "
            "write a card of this one."
        )
    if problems := check(card.folder):
        raise WeightsError(
            f"The card {card.name} is not ready ({len(problems)} found, the first: {problems[0].rstrip('.')}); "
            f"'avsep card check {card.folder}' shows all."
        )
    try:
        with_pin(text, {"repo": repo, "revision": _ANY_COMMIT})  # so that it can be pinned afterwards
        content = with_pin(text, {}).encode("utf-8")
    except ValueError as error:
        raise WeightsError(
            f"{str(readme)!r} cannot be pinned, as its block 'avsep' has an unusual form; write it with one entry per "
            "line."
        ) from error
    return (
        _File("README.md", content, len(content), hashlib.sha256(content).hexdigest()),
        _File(weights.name, weights, weights.stat().st_size, sha256),
    )


def _validate(api: HfApi, readme: Any) -> None:
    """Ask the Hub what is wrong with the front matter, before a repository is made for it.

    Raises:
        WeightsError: the Hub refuses it.
    """
    from huggingface_hub.utils import get_session, hf_raise_for_status

    document = {"repoType": "model", "content": readme.decode("utf-8")}
    response = get_session().post(f"{api.endpoint}/api/validate-yaml", json=document)
    if response.status_code == 400:
        wrong = [" ".join(str(error.get("message")).split()).rstrip(".") for error in response.json().get("errors", [])]
        raise WeightsError(f"The Hub refuses the front matter of the card: {'; '.join(wrong)}; change it.")
    hf_raise_for_status(response)


def _listing(api: HfApi, repo: str, revision: str) -> dict[str, RepoFile]:
    from huggingface_hub.hf_api import RepoFile

    if not revision:
        return {}  # a repository without a commit
    return {file.path: file for file in api.list_repo_tree(repo, revision=revision) if isinstance(file, RepoFile)}


def _refuse_other_model(card: Card, repo: str, revision: str, listing: Mapping[str, RepoFile]) -> None:
    from huggingface_hub import hf_hub_download

    others = sorted(name for name in listing if _NO_MODEL.fullmatch(name) is None)
    found = f"the file {others[0]!r}" if others else None
    if "README.md" in listing:
        try:
            name = read_card(Path(hf_hub_download(repo, "README.md", revision=revision)).parent).name
        except WeightsError:
            pass  # no card of ours: an empty repository that was made by hand has a README, too
        else:
            found = None if name == card.name else f"the card {name}"
    if found:
        raise WeightsError(f"The repository {repo} holds {found} and is not one of {card.name}; name another one.")


def _commit(api: HfApi, repo: str, files: tuple[_File, ...], parent: str, message: str) -> str:
    from huggingface_hub import CommitOperationAdd

    added = [CommitOperationAdd(file.name, file.content) for file in files]
    return api.create_commit(repo, added, commit_message=message, parent_commit=parent or None).oid
