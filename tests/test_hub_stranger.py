"""torch.hub as strangers meet it: GitHub's zip, a fresh virtual environment with the listed dependencies, no network.

The environment holds links to the distributions that provide hubconf's ``dependencies`` and what they require, and
nothing else. The zip is what GitHub makes of the files here; torch.hub fetches and unpacks it itself, and only its
addresses at GitHub are answered by a server of the test.
"""

from __future__ import annotations

import ast
import http.server
import io
import json
import os
import shutil
import subprocess
import sysconfig
import threading
import venv
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import avsep_zoo

ROOT = Path(avsep_zoo.__file__).parents[1]
SCRIPTS = Path(__file__).with_name("stranger")
METHODS = ("avsgs", "bimodal_sep", "davis", "davis_flow", "ial_cms", "iquery")
UNTRAINED = ("film_unet", "sound_of_pixels")  # no weights are published
COMMIT = "3f0c9a1d5b7e2468ace013579bdf02468ace1357"
SITE = sysconfig.get_path("purelib", "venv", vars={"base": "."})


@dataclass
class Stranger:
    """Somebody who has the dependencies and a copy of the repository in torch.hub's cache.

    Args:
        root: folder of everything.
        first: what the script that fetched the repository said.
    """

    root: Path
    first: dict[str, Any]

    @property
    def repository(self) -> Path:
        """Where torch.hub unpacked it."""
        return self.root / "home" / ".cache" / "torch" / "hub" / "avsep-zoo_avsep-zoo_main"


def dependencies() -> list[str]:
    """Import names in hubconf.py."""
    source = ast.parse((ROOT / "hubconf.py").read_text(encoding="utf-8"))
    assigned = [node for node in source.body if isinstance(node, ast.Assign)]
    return list(ast.literal_eval(next(n.value for n in assigned if ast.unparse(n.targets[0]) == "dependencies")))


def distributions(names: Iterable[str], without: Iterable[str] = ()) -> list[metadata.Distribution]:
    """The distributions of the import names, and what they require here, but for those of ``without``."""
    providers = metadata.packages_distributions()
    found: dict[str, metadata.Distribution] = {}
    left_out = {canonicalize_name(providers[name][0]) for name in without}
    todo = [Requirement(providers[name][0]) for name in names]
    visited = set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *sorted(requirement.extras)):
            if name in left_out or (name, extra) in visited:
                continue
            visited.add((name, extra))
            try:
                found[name] = metadata.distribution(requirement.name)
            except metadata.PackageNotFoundError:  # the tests do without it, and so does the stranger
                continue
            for line in found[name].requires or ():
                inner = Requirement(line)
                if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                    todo.append(inner)
    return list(found.values())


def make_environment(folder: Path, without: Iterable[str] = ()) -> Path:
    """Make a virtual environment of links to the distributions of hubconf's dependencies; return its site-packages."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    site = folder / SITE
    for distribution in distributions(dependencies(), without):
        tops = {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            if not (site / top).is_symlink():
                (site / top).symlink_to(Path(str(distribution.locate_file(top))).resolve())
    shutil.copy(SCRIPTS / "network_off.py", site)
    (site / "network_off.pth").write_text("import network_off\n")
    return site


def install(site: Path, name: str, version: str, modules: dict[str, str], entry_points: str = "") -> None:
    """Put a distribution into ``site``, the way pip leaves it there; ``modules`` are paths with their text."""
    for path, text in modules.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in modules))
    if entry_points:
        (info / "entry_points.txt").write_text(f"[avsep_zoo]\n{entry_points}\n")


def zipball() -> bytes:
    """The zip that GitHub would make of the files here once they are committed: folders first, files as they are."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    tracked = (ROOT / ".git").exists() and shutil.which("git")
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True) if tracked else None
    if done is not None and done.returncode == 0:
        files = [Path(name) for name in done.stdout.split("\0") if (ROOT / name).is_file()]
    else:
        walked = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
        files = [path for path in walked if not any(p == "__pycache__" or p[0] == "." for p in path.parts)]
    top = f"avsep-zoo-avsep-zoo-{COMMIT[:7]}"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        folders = {parent for file in files for parent in file.parents}
        for path in sorted({*files, *folders}):
            if path in folders:
                archive.writestr(f"{Path(top, path).as_posix()}/", "")
            else:
                archive.write(ROOT / path, Path(top, path).as_posix())
    return content.getvalue()


def run(stranger: Stranger, script: str, *, environment: str = "bare", server: str = "") -> dict[str, Any]:
    """Run a script of this folder with the Python of an environment, in an empty folder; return what it said.

    Nothing of the user's reaches it: no variables, no packages, no caches but that of torch.hub. Every attempt to reach
    another address than ``server`` fails, and the test with it.
    """
    work = stranger.root / f"{script}-{environment}"
    work.mkdir()
    attempts = work / "attempts"
    done = subprocess.run(
        [stranger.root / environment / "bin" / "python", "-I", SCRIPTS / f"{script}.py"],
        cwd=work,
        env={
            "PATH": os.defpath,
            "HOME": str(stranger.root / "home"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "STRANGER_SERVER": server,
            "STRANGER_ATTEMPTS": str(attempts),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [line.removeprefix("SAID ") for line in done.stdout.splitlines() if line.startswith("SAID ")]
    assert lines, done.stderr
    assert not attempts.exists(), attempts.read_text()
    said: dict[str, Any] = json.loads(lines[0])
    return {**said, "stderr": done.stderr}


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    """A stranger after the first contact: torch.hub has fetched the repository."""
    root = tmp_path_factory.mktemp("stranger")
    (root / "home").mkdir()
    make_environment(root / "bare")
    repository = "repos/avsep-zoo/avsep-zoo"
    branches = [{"name": "main", "commit": {"sha": COMMIT}}]
    answers = {
        "/github.com/avsep-zoo/avsep-zoo/tree/main/": b"<html></html>",
        f"/api.github.com/{repository}/branches?per_page=100&page=1": json.dumps(branches).encode(),
        "/github.com/avsep-zoo/avsep-zoo/zipball/main": zipball(),
    }

    class GitHub(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path)
            self.send_response(200 if answer is not None else 404)
            self.send_header("Content-Length", str(len(answer or b"")))
            self.end_headers()
            self.wfile.write(answer or b"")

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), GitHub) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            made = Stranger(root, {})
            made.first = run(made, "first_contact", server=f"127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
    return made


def test_the_first_contact(stranger: Stranger) -> None:
    """The zip goes through torch.hub's own hands, and what it unpacks is the repository."""
    asked = stranger.first["asked"]
    assert [url.rpartition("avsep-zoo/avsep-zoo/")[2].partition("?")[0] for url in asked] == [
        "tree/main/",
        "branches",
        "zipball/main",
    ]
    assert stranger.first["names"] == sorted([*METHODS, *UNTRAINED, "compose"])
    assert (stranger.repository / "hubconf.py").read_bytes() == (ROOT / "hubconf.py").read_bytes()
    assert not (stranger.repository / ".git").exists()


def test_every_method_from_the_cache_alone(stranger: Stranger) -> None:
    """List, help, load, separate, save and report, with the listed dependencies only and the network off."""
    said = run(stranger, "every_method")
    assert said["present"] == []
    assert said["names"] == sorted([*METHODS, *UNTRAINED, "compose"])
    for name, text in said["help"].items():
        assert text.strip(), name
        if name in UNTRAINED:
            assert "\nWeights: none are published.\n" in text
        elif name != "compose":
            assert f"\nWeights: {name}.mini, " in text
            assert " MB, licence: Apache-2.0.\n" in text
            assert '"hf://org/name@commit"' in text
    assert said["failed"] == {}
    assert said["loaded"] == {name: [f"{name}.mini", False, True] for name in (*METHODS, *UNTRAINED)}
    assert set(said["better"]) == set(METHODS)
    for name, better in said["better"].items():
        assert min(better) > 2, (name, better)  # dB of SDR
    for name, files in said["files"].items():
        assert len([file for file in files if file.endswith(".wav")]) >= 2, (name, files)
    assert said["report"] == "<!doctype html>"


def test_a_missing_dependency_is_named(stranger: Stranger) -> None:
    """By torch.hub itself, by import name; what it cannot list it says."""
    make_environment(stranger.root / "lacking", without=["PIL", "pluggy"])
    said = run(stranger, "missing", environment="lacking")
    assert said["list"] == ["[]", ["The methods cannot be listed (ModuleNotFoundError: No module named 'pluggy')."]]
    assert said["load"] == said["help"] == "RuntimeError: Missing dependencies: PIL, pluggy"


def test_what_is_asked_for_later(stranger: Stranger) -> None:
    """Weights on the Hub, encoders of transformers, and reports each name the package and the command, if it lacks."""
    make_environment(stranger.root / "small", without=["jinja2"])
    said = run(stranger, "asked_for_later", environment="small")
    assert said["pictures"].endswith(" davis.clip needs transformers; install it: pip install transformers.")
    assert said["texts"].endswith(" needs transformers; install it: pip install transformers tokenizers.")
    for place in ("address", "card"):
        assert said[place].startswith("WeightsError: "), said[place]
        assert "pip install huggingface-hub" in said[place], said[place]
    assert said["report"] == "AvsepError: A report needs jinja2; install it: pip install jinja2."


def test_beside_an_older_one(stranger: Stranger) -> None:
    """The code of the repository is used, not the installed one, here and in spawned workers; a warning says so."""
    site = make_environment(stranger.root / "older")
    broken = 'raise RuntimeError("the installed one is imported")\n'
    install(site, "avsep-zoo", "0.0.1", {f"avsep_zoo/{name}.py": broken for name in ("__init__", "load", "registry")})
    modules = {f"avsep_iquery/{name}.py": broken for name in ("__init__", "encoder", "plugin", "old")}
    points = "iquery = avsep_iquery.plugin\niquery_old = avsep_iquery.old"
    install(site, "avsep-iquery", "0.0.1", modules, points)
    said = run(stranger, "beside_older", environment="older")
    assert said["names"] == sorted([*METHODS, *UNTRAINED, "compose"])
    assert said["loaded"] == [f"{name}.mini" for name in METHODS]
    plugin = stranger.repository / "plugins" / "avsep-iquery" / "src"
    assert said["here"] == {
        "core": str(stranger.repository / "avsep_zoo" / "inference.py"),
        "plugin": str(plugin / "avsep_iquery" / "encoder.py"),
        "version": avsep_zoo.__version__,
    }
    assert said["worker"] == said["here"]
    assert said["warnings"] == [
        "This checkout of avsep-zoo uses its own avsep-iquery 0.1.0 and not the installed avsep-iquery 0.0.1; "
        "upgrade or uninstall what is installed."
    ]
    before = said["order"].index(str(site))
    assert {str(stranger.repository), str(plugin)} == set(said["order"][before - 2 : before])
    after = set(said["order"][before + 1 :])
    assert after == {str(path) for path in (stranger.repository / "plugins").glob("*/src")} - {str(plugin)}


def test_with_a_plugin_of_somebody_else(stranger: Stranger) -> None:
    """Its method appears and loads, untrained or with the card in its package; it has no say in others' methods."""
    site = make_environment(stranger.root / "third")
    folder = SCRIPTS / "avsep_third"
    modules = {f"avsep_third/{file.name}": file.read_text(encoding="utf-8") for file in folder.glob("*.py")}
    install(site, "avsep-third", "2.3", modules, "third = avsep_third.plugin")
    said = run(stranger, "third_party", environment="third")
    assert said["names"] == sorted([*METHODS, *UNTRAINED, "compose", "third"])
    assert "\nWeights: third.tiny, of which there is no card here.\n" in said["help"]
    assert said["untrained"] == ["third.tiny", "avsep_third.separator"]
    assert (said["loaded"], said["same"], said["finite"]) == ("third.tiny", True, True)
    assert ", licence: CC-BY-NC-4.0.\n" in said["help with card"]
    assert said["foreign"].startswith("WeightsError: There are no weights 'iquery.tiny' here;")
