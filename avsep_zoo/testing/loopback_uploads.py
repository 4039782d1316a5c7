"""The writing side of the loopback Hub: new repositories, large files, commits."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

from avsep_zoo.testing.loopback_hub import Answer, Request, git_hash

if TYPE_CHECKING:
    from avsep_zoo.testing.loopback_hub import LoopbackHub

__all__ = ["upload"]


def upload(hub: LoopbackHub, request: Request) -> Answer:
    """Answer a request that is no GET and no HEAD."""
    match (request.method, *request.path):
        case ("POST", "api", "validate-yaml"):
            errors = [{"message": error} for error in hub.card_errors]
            return Answer.json({"errors": errors, "warnings": []}, 400 if errors else 200)
        case ("PUT", "lfs", oid):  # the address is the permission
            return _put(hub, request, oid)
    if not hub.signed_in(request) or (hub.token and not request.headers.get("authorization")):
        return Answer.error(401, message="Invalid username or password.")
    if not hub.writable:
        return Answer.error(403, message="You do not have the rights to write here: use a token with the role 'write'.")
    match (request.method, *request.path):
        case ("POST", "api", "repos", "create"):
            return _create(hub, request)
        case ("POST", "api", "models", org, name, "preupload", revision):
            return hub.denied(request, f"{org}/{name}") or _preupload(hub, request, f"{org}/{name}", revision)
        case ("POST", "api", "models", org, name, "commit", revision):
            return hub.denied(request, f"{org}/{name}") or _commit(hub, request, f"{org}/{name}", revision)
        case ("POST", org, name, "info", "lfs", "objects", "batch"):
            name = name.removesuffix(".git")
            return hub.denied(request, f"{org}/{name}") or _batch(hub, request)
        case ("POST", "lfs", oid, "verify"):
            size = request.json()["size"]
            there = len(hub.blobs.get(oid, b"")) == size
            return Answer.json({}) if there else Answer.error(404, message="The object was not uploaded.")
    return Answer.error(404, message="Not found")


def _create(hub: LoopbackHub, request: Request) -> Answer:
    wanted = request.json()
    name = f"{wanted.get('organization') or hub.user}/{wanted['name']}"
    url = f"{hub.url}/{name}"
    if name in hub.repos:
        return Answer.json({"error": "You already created this model repo", "url": url}, 409)
    private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
    hub.add_repo(name, {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}, private=private)
    return Answer.json({"url": url, "id": name, "name": name})


def _preupload(hub: LoopbackHub, request: Request, name: str, revision: str) -> Answer:
    repo = hub.repos[name]
    if (commit := repo.resolve(revision)) is None:
        return Answer.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    files = []
    for file in request.json()["files"]:
        path, content = file["path"], repo.commits[commit].get(file["path"])
        large = path.endswith(hub.large) and file["size"] > 0
        entry: dict[str, Any] = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        entry["oid"] = None
        if content is not None:
            entry["oid"] = hashlib.sha256(content).hexdigest() if large else git_hash(content)
        files.append(entry)
    return Answer.json({"files": files})


def _batch(hub: LoopbackHub, request: Request) -> Answer:
    objects = []
    for wanted in request.json()["objects"]:
        oid = wanted["oid"]
        entry = {"oid": oid, "size": wanted["size"]}
        if oid not in hub.blobs:
            href = f"{hub.url}/lfs/{oid}"
            entry["actions"] = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
        objects.append(entry)
    return Answer.json({"transfer": "basic", "objects": objects})


def _put(hub: LoopbackHub, request: Request, oid: str) -> Answer:
    if hashlib.sha256(request.body).hexdigest() != oid:
        return Answer.error(400, message="The content does not have this hash.")
    hub.blobs[oid] = request.body
    return Answer()


def _commit(hub: LoopbackHub, request: Request, name: str, branch: str) -> Answer:
    repo = hub.repos[name]
    if branch not in repo.branches:
        return Answer.error(404, "RevisionNotFound", f"Invalid rev id: {branch}")
    files: dict[str, bytes | None] = {}
    message = ""
    for line in request.body.splitlines():
        entry = json.loads(line)
        value = entry["value"]
        match entry["key"]:
            case "header":
                message = value["summary"]
                if value.get("parentCommit") not in (None, repo.branches[branch]):
                    return Answer.error(412, message="A commit has happened since. Please refresh and try again.")
            case "file":
                files[value["path"]] = base64.b64decode(value["content"])
            case "lfsFile":
                if value["oid"] not in hub.blobs:
                    return Answer.error(
                        400, message=f"LFS pointer pointed to a file that does not exist: {value['path']}"
                    )
                files[value["path"]] = hub.blobs[value["oid"]]
            case "deletedFile":
                files[value["path"]] = None
            case "deletedFolder":
                inside = repo.commits[repo.branches[branch]]
                files |= {path: None for path in inside if path.startswith(value["path"].rstrip("/") + "/")}
    commit = hub.commit(name, files, branch=branch, message=message)
    url = f"{hub.url}/{name}/commit/{commit}"
    return Answer.json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})
