"""A Hugging Face Hub on this computer, for tests: it speaks the Hub's protocol to the real client.

::

    with LoopbackHub() as hub:
        commit = hub.add_repo("someone/net", {"model.safetensors": content})
        hf_hub_download("someone/net", "model.safetensors", revision=commit, endpoint=hub.url)
        assert hub.requests == [f"HEAD /someone/net/resolve/{commit}/model.safetensors", ...]

Code that takes no ``endpoint`` needs ``HF_ENDPOINT`` set to :attr:`LoopbackHub.url` before huggingface_hub is imported.
``HF_HUB_DISABLE_XET=1`` belongs to it: large files go through Git LFS here. It proves the use of the client, not the
real service.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

__all__ = ["Answer", "LoopbackHub", "Repo", "Request", "git_hash"]

_LARGE = (".safetensors", ".pth", ".pt", ".bin")
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Request:
    """One request: ``path`` is split at slashes and unquoted."""

    method: str
    path: tuple[str, ...]
    headers: Mapping[str, str]
    body: bytes = b""

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What is sent back; ``download`` bodies are those that faults change."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    download: bool = False

    @classmethod
    def json(cls, document: Any, status: int = 200) -> Answer:
        """Answer with a JSON document."""
        return cls(status, {"Content-Type": "application/json"}, json.dumps(document).encode())

    @classmethod
    def error(cls, status: int, code: str = "", message: str = "", **headers: str) -> Answer:
        """Answer with an error as the Hub names it."""
        named = {"X-Error-Code": code, "X-Error-Message": message} | {
            k.replace("_", "-"): v for k, v in headers.items()
        }
        return cls(status, {k: v for k, v in named.items() if v}, json.dumps({"error": message or code}).encode())


@dataclass
class Repo:
    """A model repository: commit -> path -> content, oldest first, and the commits that branches are at."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> str | None:
        """The commit of a branch, or the commit itself."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)


def git_hash(content: bytes) -> str:
    """Git's name for a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class LoopbackHub:
    """A Hub at ``url`` on 127.0.0.1 while the ``with`` block runs; every attribute may be changed at any time.

    Args:
        large: what the names of files end in that are stored with Git LFS and named by their sha256.

    Attributes:
        requests: ``"GET /path"`` of every request, in order; those of the CDN are ``"CDN GET /path"``.
        repos: by ``org/name``.
        token: the only token that counts: private repositories, writing and asking who one is need it. None: nobody
            needs any.
        writable: whether the token may write; if not, writing is refused (403).
        user: whom the token belongs to.
        cdn: large files are redirected to another origin, which takes no token.
        fail_next: status codes that the next requests are answered with, one each.
        cut: after how many bytes the next downloads break off, one each, with the connection.
        short: how many bytes are missing at the end of every download, whose length is stated accordingly.
        spoil: every download has the right size and other bytes.
        gate: every download waits for this event before its first byte.
        card_errors: why the front matter of a README.md is refused.
        blobs: contents that were uploaded to Git LFS, by sha256.
    """

    def __init__(self, *, large: tuple[str, ...] = _LARGE) -> None:
        self.large = large
        self._changed = threading.Condition()
        self._servers = [_server(self, cdn=False), _server(self, cdn=True)]
        self.url = f"http://127.0.0.1:{self._servers[0].server_address[1]}"
        self.cdn_url = f"http://localhost:{self._servers[1].server_address[1]}"  # another host: another origin
        self.clear()

    def clear(self) -> None:
        """Forget all repositories, requests and faults."""
        self.requests: list[str] = []
        self.repos: dict[str, Repo] = {}
        self.token: str | None = None
        self.writable = True
        self.user = "tester"
        self.cdn = False
        self.fail_next: list[int] = []
        self.cut: list[int] = []
        self.short = 0
        self.spoil = False
        self.gate: threading.Event | None = None
        self.card_errors: list[str] = []
        self.blobs: dict[str, bytes] = {}

    def __enter__(self) -> LoopbackHub:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.gate is not None:
            self.gate.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def add_repo(
        self, name: str, files: Mapping[str, bytes] | None = None, *, private: bool = False, gated: bool = False
    ) -> str:
        """Make the model ``org/name`` and return its first commit, 40 hexadecimal digits."""
        self.repos[name] = Repo(private, gated)
        return self.commit(name, files or {})

    def commit(
        self, name: str, files: Mapping[str, bytes | None], *, branch: str = "main", message: str = "commit"
    ) -> str:
        """Add a commit to a branch, on top of the files that are there; None as content removes one."""
        repo = self.repos[name]
        before = repo.branches.get(branch)
        merged = {**(repo.commits[before] if before else {}), **files}
        kept = {path: content for path, content in sorted(merged.items()) if content is not None}
        listing = [
            name,
            branch,
            message,
            str(before),
            *(f"{path} {git_hash(content)}" for path, content in kept.items()),
        ]
        commit = hashlib.sha1("\n".join(listing).encode(), usedforsecurity=False).hexdigest()
        repo.commits[commit] = kept
        repo.branches[branch] = commit
        return commit

    def wait_until(self, happened: Callable[[list[str]], bool], timeout: float = 60) -> None:
        """Return when ``happened(requests)`` is true.

        Raises:
            TimeoutError: it was not, for ``timeout`` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: happened(self.requests), timeout):
                raise TimeoutError(f"The hub waited {timeout} s and had {self.requests}.")

    def is_large(self, path: str, content: bytes) -> bool:
        """Whether a file is stored with Git LFS."""
        return path.endswith(self.large) and len(content) > 0

    def signed_in(self, request: Request) -> bool:
        """Whether a request has the token, or none is needed."""
        return self.token is None or request.headers.get("authorization") == f"Bearer {self.token}"

    def answer(self, request: Request, *, cdn: bool = False) -> Answer:
        """Note a request and answer it."""
        from avsep_zoo.testing.loopback_uploads import upload

        with self._changed:
            self.requests.append(f"{'CDN ' if cdn else ''}{request.method} /{'/'.join(request.path)}")
            self._changed.notify_all()
            if self.fail_next:
                return Answer.error(self.fail_next.pop(0), message="The test wants this.")
        if cdn:
            return self._blob(request)
        if request.headers.get("authorization") and not self.signed_in(request):
            return Answer.error(401, message="Invalid credentials in Authorization header")
        if request.method in ("GET", "HEAD"):
            match request.path:
                case ("api", "whoami-v2"):
                    return self._whoami(request)
                case ("api", "models", org, name):
                    return self._listing(request, f"{org}/{name}", "main", tree=False)
                case ("api", "models", org, name, ("revision" | "tree") as kind, revision):
                    return self._listing(request, f"{org}/{name}", revision, tree=kind == "tree")
                case (org, name, "resolve", revision, *parts):
                    return self._file(request, f"{org}/{name}", revision, "/".join(parts))
            return Answer.error(404, message="Not found")
        return upload(self, request)

    def denied(self, request: Request, name: str, *, content: bool = False) -> Answer | None:
        """Why a request may not see a repository, or, with ``content``, its files."""
        repo = self.repos.get(name)
        if repo is None or (repo.private and not self.signed_in(request)):
            known = bool(request.headers.get("authorization"))
            return Answer.error(404 if known else 401, "RepoNotFound", "Repository not found")
        if content and repo.gated:
            known = bool(request.headers.get("authorization"))
            return Answer.error(403 if known else 401, "GatedRepo", f"Access to model {name} is restricted.")
        return None

    def _whoami(self, request: Request) -> Answer:
        if not self.signed_in(request) or not request.headers.get("authorization"):
            return Answer.error(401, message="Invalid username or password.")
        role = "write" if self.writable else "read"
        about = {"type": "user", "name": self.user, "orgs": [], "auth": {"accessToken": {"role": role}}}
        return Answer.json(about)

    def _listing(self, request: Request, name: str, revision: str, *, tree: bool) -> Answer:
        if (denied := self.denied(request, name)) is not None:
            return denied
        repo = self.repos[name]
        if (commit := repo.resolve(revision)) is None:
            return Answer.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = repo.commits[commit]
        if not tree:
            about = {"id": name, "sha": commit, "private": repo.private, "gated": repo.gated and "auto"}
            siblings = [{"rfilename": path} for path in files]
            return Answer.json(about | {"siblings": siblings, "tags": [], "downloads": 0, "likes": 0})
        entries: list[dict[str, Any]] = []
        for path, content in files.items():
            entries.append({"type": "file", "path": path, "size": len(content), "oid": git_hash(content)})
            if self.is_large(path, content):
                sha256 = hashlib.sha256(content).hexdigest()
                entries[-1]["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
        return Answer.json(entries)

    def _file(self, request: Request, name: str, revision: str, path: str) -> Answer:
        if (denied := self.denied(request, name, content=True)) is not None:
            return denied
        repo = self.repos[name]
        if (commit := repo.resolve(revision)) is None:
            return Answer.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        content = repo.commits[commit].get(path)
        if content is None:
            return Answer.error(404, "EntryNotFound", "Entry not found", X_Repo_Commit=commit)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{git_hash(content)}"', "Accept-Ranges": "bytes"}
        if self.is_large(path, content):
            sha256 = hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{sha256}"', "ETag": f'"{sha256}"'}
            if self.cdn:
                self.blobs[sha256] = content
                return Answer(302, headers | {"Location": f"{self.cdn_url}/blobs/{sha256}"})
        return _ranged(request, content, headers)

    def _blob(self, request: Request) -> Answer:
        """A large file on the other origin."""
        if request.headers.get("authorization"):
            return Answer.error(400, message="Only one way to authorise a request is allowed.")
        content = self.blobs.get(request.path[-1])
        return Answer.error(404, message="Not found") if content is None else _ranged(request, content, {})


def _ranged(request: Request, content: bytes, headers: Mapping[str, str]) -> Answer:
    start = request.headers.get("range", "").removeprefix("bytes=").partition("-")[0]
    if not start.isdigit() or int(start) >= len(content):
        return Answer(200, headers, content, download=True)
    stated = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
    return Answer(206, {**headers, **stated}, content[int(start) :], download=True)


def _server(hub: LoopbackHub, *, cdn: bool) -> ThreadingHTTPServer:
    class Handler(_Handler):
        pass

    Handler.hub, Handler.cdn = hub, cdn
    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LoopbackHub
    cdn: bool

    def log_message(self, *_: object) -> None:
        """Say nothing: the hub keeps the log."""

    def do_GET(self) -> None:
        path = tuple(unquote(part) for part in urlsplit(self.path).path.strip("/").split("/"))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            self._send(self.hub.answer(Request(self.command, path, headers, self._body()), cdn=self.cdn))
        except ConnectionError:  # the client went away
            self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, answer: Answer) -> None:
        hub, body, ends = self.hub, answer.body, None
        if answer.download and self.command == "GET":
            if hub.gate is not None:
                hub.gate.wait()
            if hub.spoil:
                body = bytes(byte ^ 0x55 for byte in body)
            body = body[: len(body) - hub.short]
            ends = hub.cut.pop(0) if hub.cut else None
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            sent = body if ends is None else body[:ends]
            for start in range(0, len(sent), _BLOCK):
                self.wfile.write(sent[start : start + _BLOCK])
        if ends is not None:
            self.close_connection = True
