"""Weights from a mirror: a folder or an address with ``<name of a card>/<file>``, like ``weights_cards/`` itself.

What comes from a mirror is kept by its content: ``HF_HOME/avsep-zoo/<sha256>.safetensors``.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit

from avsep_zoo.errors import WeightsError
from avsep_zoo.replaced import replaced
from avsep_zoo.weights.hub_errors import is_full

if TYPE_CHECKING:
    from avsep_zoo.weights.cards import Card

__all__ = ["fetch", "kept_file"]

_BLOCK = 1 << 20
_PATIENCE = 20.0  # seconds without a byte


def kept_file(card: Card) -> Path:
    """Where the weights of a card are once they came from a mirror."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME, "avsep-zoo", f"{card.sha256}.safetensors")


def fetch(card: Card, mirror: str) -> Path:
    """Copy or download the weights of a card from a mirror, check them, and keep them.

    Other processes that want the same file wait for this one.

    Args:
        card: with weights.
        mirror: a folder, or a ``file://``, ``http://`` or ``https://`` address.

    Raises:
        WeightsError: the mirror cannot be reached, does not have them, or has other ones; nothing of these is kept.
    """
    from filelock import FileLock

    kept = kept_file(card)
    place = _place(card, mirror)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(kept.with_suffix(".lock"))
        with suppress(NotImplementedError):  # a file system without locks: everybody fetches
            lock.acquire()
        try:
            if not kept.is_file():
                with replaced(kept) as part, _opened(card, place) as source:
                    _copy(card, source, part, place)
        finally:
            lock.release()
    except OSError as error:
        if is_full(error):
            raise WeightsError(
                f"There is no space left for the weights {card.name} in {str(kept.parent)!r}; free some, or set "
                "HF_HOME to a folder on a larger disk."
            ) from error
        raise WeightsError(
            f"The weights {card.name} of the mirror cannot be kept ({_why(error)}); check {str(kept.parent)!r}."
        ) from error
    return kept


def _place(card: Card, mirror: str) -> str:
    """The path or address of the file; names of cards never lead out of the mirror."""
    name, file = card.name, card.weights.name
    if re.fullmatch(r"\w[\w.-]*", name) is None:
        raise WeightsError(f"The card is called {name!r}, which no folder of a mirror is; correct its avsep.name.")
    if "://" not in mirror:
        return str(Path(mirror).expanduser() / name / file)
    try:
        parts = urlsplit(mirror)
    except ValueError as error:
        raise WeightsError(f"The mirror {mirror!r} is no address ({error}); write https://host/folder.") from error
    if parts.scheme == "file":
        return str(Path(urllib.request.url2pathname(parts.path), name, file))
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or not parts.hostname:
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        raise WeightsError(
            f"The mirror {shown!r} cannot be used; give a folder or an address that begins with https://, http:// or "
            "file:// and has no password in it."
        )
    path = f"{parts.path.rstrip('/')}/{quote(name)}/{quote(file)}"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


@contextmanager
def _opened(card: Card, place: str) -> Iterator[IO[bytes]]:
    """Open a file of a mirror for reading."""
    shown = _shown(place)
    missing = WeightsError(
        f"The mirror has no {shown!r}; name one that has <name of the card>/<file> for the weights {card.name}."
    )
    if "://" not in place:
        try:
            source = Path(place).open("rb")  # noqa: SIM115
        except (FileNotFoundError, NotADirectoryError) as error:
            raise missing from error
        except OSError as error:
            raise WeightsError(f"{shown!r} cannot be read ({_why(error)}); check its permissions.") from error
        with source:
            yield source
        return
    request = urllib.request.Request(place, headers={"User-Agent": "avsep-zoo", "Accept-Encoding": "identity"})
    try:
        answer = urllib.request.urlopen(request, timeout=_PATIENCE)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (404, 410):
            raise missing from error
        raise WeightsError(
            f"The mirror answers {error.code} to {shown!r}; try again later, or ask who runs it."
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise WeightsError(
            f"{shown!r} cannot be reached ({_why(error)}); check the mirror's name, or connect."
        ) from error
    with answer:
        yield answer


def _copy(card: Card, source: IO[bytes], part: Path, place: str) -> None:
    """Write all of ``source`` into ``part``, if it is what the card describes."""
    from huggingface_hub.utils import tqdm

    shown, expected = _shown(place), card.manifest["bytes"]
    digest, size = hashlib.sha256(), 0
    with part.open("wb") as file, tqdm(total=expected, unit="B", unit_scale=True, desc=card.name, disable=None) as bar:
        while size <= expected:
            try:
                block = source.read(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise WeightsError(f"The connection to {shown!r} broke off ({_why(error)}); try again.") from error
            if not block:
                break
            file.write(block)
            digest.update(block)
            size += len(block)
            bar.update(len(block))
    if size < expected:
        raise WeightsError(f"{shown!r} ends after {size} of {expected} bytes, and nothing of it was kept; try again.")
    if size > expected or digest.hexdigest() != card.sha256:
        raise WeightsError(
            f"{shown!r} is not the file that the card {card.name} describes, and nothing of it was kept; name another "
            "mirror."
        )


def _shown(place: str) -> str:
    """A place as errors tell it: without what follows the path, which may be a key."""
    return place.partition("?")[0] if "://" in place else place


def _why(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return " ".join(str(reason).split())[:200] or type(error).__name__
