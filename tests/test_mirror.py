"""Mirrors: folders and addresses that have the weights of cards, and the file that is kept of them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

import avsep_zoo
from avsep_zoo.errors import WeightsError
from avsep_zoo.testing.loopback_hub import LoopbackHub
from avsep_zoo.weights.cards import Card
from avsep_zoo.weights.download import MIRROR, find_weights, weights_file, weights_state

FETCH = """
import sys
from pathlib import Path
from avsep_zoo.weights.cards import read_card
from avsep_zoo.weights.download import weights_file
print("ready", flush=True)
weights_file(read_card(Path(sys.argv[1])), mirror=sys.argv[2])
"""


@pytest.fixture
def folder(hub: LoopbackHub, card_on_hub: Card, tmp_path: Path) -> Path:
    """A mirror of the card, laid out as weights_cards/."""
    (files,) = hub.repos["someone/tiny"].commits.values()
    place = tmp_path / "mirror" / "iquery.tiny"
    place.mkdir(parents=True)
    for name, content in files.items():
        (place / name).write_bytes(content)
    return tmp_path / "mirror"


class Server(ThreadingHTTPServer):
    """Serves a folder; what it was asked for, and what it does wrong."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.paths: list[str] = []
        self.status = 200
        self.cut: int | None = None
        self.gate: threading.Event | None = None


class _Handler(SimpleHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        if self.server.gate is not None:
            self.server.gate.wait()
        if self.server.status != 200:
            self.send_error(self.server.status)
        else:
            super().do_GET()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        outputfile.write(source.read(self.server.cut if self.server.cut is not None else -1))


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    """The mirror as an address."""
    with Server(folder) as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield running
        running.shutdown()


def kept() -> list[str]:
    """Names of what is kept of mirrors, locks aside."""
    files = Path(constants.HF_HOME, "avsep-zoo").glob("*")
    return [file.name for file in files if file.suffix != ".lock"]


def sentence(card: Card, mirror: object) -> str:
    """What a failed copy says; nothing is kept, and the Hub is not asked."""
    with pytest.raises(WeightsError) as caught:
        weights_file(card, mirror=str(mirror))
    said = str(caught.value)
    assert said.endswith(".") and "\n" not in said and kept() == []
    return said


@pytest.mark.parametrize("form", ["folder", "folder/", "file", "http", "http/"])
def test_a_mirror(form: str, hub: LoopbackHub, card_on_hub: Card, folder: Path, server: Server) -> None:
    """A folder or an address; what is fetched once is kept, and the Hub is never asked."""
    ends = "/" if form.endswith("/") else ""
    places = {"folder": str(folder), "file": folder.as_uri(), "http": server.url}
    found = find_weights(card_on_hub, mirror=places[form.rstrip("/")] + ends)
    assert found == (Path(constants.HF_HOME, "avsep-zoo", f"{card_on_hub.sha256}.safetensors"), "mirror")
    assert found.path.read_bytes() == (folder / "iquery.tiny" / "model.safetensors").read_bytes()
    assert weights_state(card_on_hub) == "cached" and kept() == [found.path.name]
    assert find_weights(card_on_hub) == (found.path, "cache")
    assert hub.requests == []


def test_the_variable_names_a_mirror(
    hub: LoopbackHub, card_on_hub: Card, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also for ``load``; one that is given counts more."""
    monkeypatch.setenv(MIRROR, str(tmp_path / "nothing"))
    weights_file(card_on_hub, mirror=str(folder)).unlink()
    monkeypatch.setenv(MIRROR, str(folder))
    assert avsep_zoo.load(card_on_hub.folder).name == "iquery.tiny"
    assert hub.requests == [] and len(kept()) == 1


def test_the_query_of_an_address(card_on_hub: Card, server: Server) -> None:
    """A key behind the path stays there, and is told to nobody else."""
    weights_file(card_on_hub, mirror=f"{server.url}/?key=secret").unlink()
    assert server.paths == ["/iquery.tiny/model.safetensors?key=secret"]
    server.status = 403
    said = sentence(card_on_hub, f"{server.url}/?key=secret")
    assert "The mirror answers 403 to 'http://127.0.0.1" in said and "secret" not in said


def test_a_mirror_without_the_weights(hub: LoopbackHub, card_on_hub: Card, server: Server, tmp_path: Path) -> None:
    """The Hub is not asked instead, even though it has them."""
    for mirror in (tmp_path / "nothing", f"{server.url}/nothing", tmp_path / "card" / "README.md"):
        assert "name one that has <name of the card>/<file> for the weights iquery.tiny" in sentence(
            card_on_hub, mirror
        )
    assert hub.requests == []


@pytest.mark.parametrize("by_address", [False, True])
@pytest.mark.parametrize("change", ["other bytes", "shorter", "longer", "empty"])
def test_other_content(change: str, by_address: bool, card_on_hub: Card, folder: Path, server: Server) -> None:
    """Whatever is not the file that the card describes is not kept."""
    file = folder / "iquery.tiny" / "model.safetensors"
    content = file.read_bytes()
    changed = {"other bytes": content[::-1], "shorter": content[:-1], "longer": content + b"x", "empty": b""}[change]
    file.write_bytes(changed)
    said = sentence(card_on_hub, server.url if by_address else folder)
    wanted = "is not the file that" if change in ("other bytes", "longer") else f"ends after {len(changed)} of"
    assert wanted in said and "nothing of it was kept" in said
    file.write_bytes(content)
    assert weights_file(card_on_hub, mirror=str(folder)).read_bytes() == content


def test_the_connection_breaks(card_on_hub: Card, server: Server) -> None:
    """A body that ends before its stated length."""
    server.cut = 1000
    assert "ends after 1000 of" in sentence(card_on_hub, server.url)


def test_a_mirror_that_is_down(card_on_hub: Card, server: Server) -> None:
    server.status = 503
    assert "The mirror answers 503 to" in sentence(card_on_hub, server.url)


@pytest.mark.parametrize("mirror", ["http://127.0.0.1:9", "http://nowhere.invalid", "http://127.0.0.1:port/x"])
def test_a_mirror_that_is_not_there(hub: LoopbackHub, card_on_hub: Card, mirror: str) -> None:
    """A closed port, an unknown name, and no port at all."""
    said = sentence(card_on_hub, mirror)
    assert f"'{mirror}/iquery.tiny/model.safetensors' cannot be reached (" in said
    assert hub.requests == []


@pytest.mark.parametrize(
    "mirror", ["ftp://host/x", "s3://bucket", "https://", "https://me:secret@host/x", "http://[host"]
)
def test_addresses_of_another_kind(hub: LoopbackHub, card_on_hub: Card, mirror: str) -> None:
    """A password is not repeated."""
    said = sentence(card_on_hub, mirror)
    assert "The mirror '" in said and "secret" not in said


@pytest.mark.parametrize("name", ["..", ".", "..evil", "a/b", "../x", ""])
def test_names_that_lead_elsewhere(hub: LoopbackHub, card_on_hub: Card, folder: Path, name: str) -> None:
    """A card's name is one folder of the mirror, whatever somebody calls it."""
    evil = replace(card_on_hub, manifest={**card_on_hub.manifest, "name": name})
    (folder.parent / "model.safetensors").write_bytes(b"elsewhere")
    assert "which no folder of a mirror is" in sentence(evil, folder)


def test_a_wrong_kept_file(card_on_hub: Card, folder: Path) -> None:
    """It is checked every time, removed where it is wrong, and fetched anew."""
    path = weights_file(card_on_hub, mirror=str(folder))
    content = path.read_bytes()
    path.write_bytes(content[::-1])
    with pytest.raises(WeightsError, match="its card says otherwise; do not use it, it was removed from the cache"):
        weights_file(card_on_hub, mirror=str(folder))
    assert weights_file(card_on_hub, mirror=str(folder)).read_bytes() == content


def test_what_a_killed_process_left(card_on_hub: Card, folder: Path) -> None:
    """Half a file under its temporary name is in nobody's way, and does not stay."""
    path = weights_file(card_on_hub, mirror=str(folder))
    from avsep_zoo.replaced import part_name

    path.rename(part_name(path))
    assert weights_file(card_on_hub, mirror=str(folder)) == path and kept() == [path.name]


def test_too_little_space(hub: LoopbackHub, card_on_hub: Card, server: Server) -> None:
    """Both numbers are told, before anything is asked of the mirror."""
    huge = replace(card_on_hub, manifest={**card_on_hub.manifest, "bytes": 10**15})
    assert "have 1,000,000,000.0 MB and" in sentence(huge, server.url)
    assert server.paths == []


def test_a_limit_on_files(card_on_hub: Card, folder: Path) -> None:
    """What this user may write is full; nothing is left behind."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
    command = [sys.executable, "-c", limit + FETCH, str(card_on_hub.folder), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "WeightsError: There is no space left for the weights iquery.tiny in" in done.stderr and kept() == []


def test_two_processes_copy_once(card_on_hub: Card, server: Server) -> None:
    """The second waits for the first, and takes what that one fetched."""
    server.gate = threading.Event()
    command = [sys.executable, "-c", FETCH, str(card_on_hub.folder), server.url]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [subprocess.Popen(command, text=True, **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in both if process.stdout] == ["ready\n"] * 2
    while not server.paths and any(process.poll() is None for process in both):
        threading.Event().wait(0.01)
    server.gate.set()
    assert [(process.communicate(timeout=60), process.returncode) for process in both] == [(("", ""), 0)] * 2
    assert len(server.paths) == 1
