"""What the Hub's client reports, as sentences that say what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from avsep_zoo.errors import AvsepError, WeightsError

__all__ = ["LOG_IN", "hub_errors", "is_full"]

LOG_IN = "log in with 'hf auth login'"
_CLIENT = "huggingface_hub"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def hub_errors(
    spec: str, *, otherwise: str = "give a folder with the files", writing: bool = False, what: str | None = None
) -> Iterator[None]:
    """Turn whatever the client of the Hub raises into one sentence; other errors pass unchanged.

    Args:
        spec: what is asked for or written to: ``org/name`` or ``org/name@commit``.
        otherwise: what the user may do instead, without the Hub.
        writing: the block uploads.
        what: is read or written, named at the end of the sentence.

    Raises:
        WeightsError: for any of them.
    """
    try:
        yield
    except AvsepError:
        raise
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != _CLIENT:
            raise
        raise WeightsError(
            f"The Hub needs the package {_CLIENT}, which is not installed; run 'pip install huggingface-hub', or "
            f"{otherwise}."
        ) from error
    except Exception as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
        sentence = _sentence(cause, spec, otherwise, writing)
        if sentence is None:
            raise
        raise WeightsError(f"{sentence} ({what})." if what else f"{sentence}.") from error


def is_full(error: OSError) -> bool:
    """Whether a file could not be written because the disk, or what this user may take of it, is full."""
    return error.errno in _FULL


def _sentence(error: BaseException, spec: str, otherwise: str, writing: bool) -> str | None:
    """What to tell the user, without the full stop; None where the error has nothing to do with the Hub."""
    from huggingface_hub import constants
    from huggingface_hub import errors as hub
    from huggingface_hub.utils import httpx

    name, _, commit = spec.partition("@")
    title = f"{name}@{commit[:7]}" if commit else name
    absent = "" if writing else f"{title} is not complete in the cache and "
    if isinstance(error, hub.LocalEntryNotFoundError) and isinstance(error.__cause__, hub.HfHubHTTPError):
        error = error.__cause__  # the Hub answered, though with an error
    if isinstance(error, hub.HFValidationError):
        return f"{name!r} is no name of a model on the Hub; write org/name@commit"
    if isinstance(error, hub.LocalTokenNotFoundError):
        return f"The Hub has to know who asks for {name}; {LOG_IN}"
    if isinstance(error, hub.OfflineModeIsEnabled | hub.LocalEntryNotFoundError) and constants.HF_HUB_OFFLINE:
        return f"{absent}HF_HUB_OFFLINE keeps this process from the Hub; unset it and connect once, or {otherwise}"
    if isinstance(error, hub.LocalEntryNotFoundError):
        return f"{absent}the Hub cannot be reached; connect once, or {otherwise}"
    if isinstance(error, hub.HfHubHTTPError):
        return _refusal(error, name, title, commit, otherwise) if not writing else _refused_writing(error, name)
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError):
        return f"The connection to {constants.ENDPOINT} broke off before {title} was complete; try again"
    if isinstance(error, httpx.TransportError):
        why = f"{constants.ENDPOINT} cannot be reached ({_why(error)})"
        return f"{absent}{why}; connect once, or {otherwise}" if absent else f"{why}; connect and try again"
    if isinstance(error, OSError) and is_full(error):
        return f"There is no space left for {title} in {constants.HF_HOME!r}; free some or set HF_HOME to a larger disk"
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return f"{title} arrived incomplete, and nothing of it was kept; try again"
    if isinstance(error, OSError | ValueError | httpx.HTTPError):
        return f"{title} cannot be {'sent' if writing else 'fetched'} ({_why(error)}); try again or {otherwise}"
    return None


def _refusal(error: Exception, name: str, title: str, commit: str, otherwise: str) -> str:
    """The Hub answers a download with an error."""
    from huggingface_hub import errors as hub

    status = _status(error)
    if isinstance(error, hub.GatedRepoError):
        return f"{name} asks for your consent on the Hub; give it on the page of {name} there and {LOG_IN}"
    if isinstance(error, hub.RepositoryNotFoundError):
        return f"The Hub has no model {name} that you may see; check the name, or {LOG_IN} if it is private"
    if isinstance(error, hub.RevisionNotFoundError):
        return f"{name} has no commit {commit}; take one from its page on the Hub"
    if isinstance(error, hub.RemoteEntryNotFoundError):
        file = str(error.response.url).partition("?")[0].rpartition("/")[2]
        return f"{title} has no file {file}; check name and commit, or {otherwise}"
    if status == 401:
        return f"The Hub does not know your token; {LOG_IN} again, or unset HF_TOKEN"
    if status == 403:
        return f"You may not read {name} on the Hub; ask its owners, or {otherwise}"
    return f"The Hub answers {status} instead of {title}; try again later, or {otherwise}"


def _refused_writing(error: Exception, name: str) -> str:
    """The Hub answers an upload with an error."""
    from huggingface_hub import errors as hub

    status, owner = _status(error), name.partition("/")[0]
    if status == 401 and "Invalid credentials" in str(error):
        return f"The Hub does not know your token; {LOG_IN} again, or unset HF_TOKEN"
    if status == 401:
        return f"The Hub does not let strangers write to {name}; {LOG_IN} and a token of the role 'write'"
    if status == 403:
        return f"Your token may not write to {name}; {LOG_IN} and a token of the role 'write' of a member of {owner}"
    if isinstance(error, hub.RepositoryNotFoundError):
        return f"The Hub has no model {name} that you may see; check the name, or {LOG_IN}"
    if status in (409, 412):
        return f"Somebody else changed {name} meanwhile; look at its page on the Hub, then try again"
    if status == 400:
        return f"The Hub refuses what is sent to {name} ({_why(error)}); correct it and try again"
    return f"The Hub answers {status} to what is sent to {name}; try again later"


def _status(error: Exception) -> int:
    response = getattr(error, "response", None)
    return 0 if response is None else int(response.status_code)


def _why(error: BaseException) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
