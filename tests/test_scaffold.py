"""The package that ``avsep new`` writes: its names, its files, and the way from there to torch.hub."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import avsep_zoo
from avsep_zoo.errors import PluginError
from avsep_zoo.plugins import plugin_reports
from avsep_zoo.registry import registry
from avsep_zoo.scaffold import Names, files, write_package
from avsep_zoo.testing.loopback_hub import LoopbackHub

ROOT = Path(avsep_zoo.__file__).parents[1]
JOURNEY = Path(__file__).with_name("stranger") / "new_method.py"
LONGEST = "a23456789-123456789-123456789x"


def refusal(name: str) -> tuple[str, str]:
    """Return what is said of a bad name, and the name that is proposed."""
    with pytest.raises(PluginError) as caught:
        Names.parse(name)
    said = str(caught.value)
    return said, said.rpartition("avsep new ")[2].removesuffix(".")


@pytest.mark.parametrize("text", ["my-method", "my_method"])
def test_all_names_come_from_one(text: str) -> None:
    names = Names.parse(text)
    every = (names.method, names.dashed, names.distribution, names.package, names.classes)
    assert every == ("my_method", "my-method", "avsep-my-method", "avsep_my_method", "MyMethod")


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("MyMethod", "my-method"),
        ("My Method!", "my-method"),
        ("my--method", "my-method"),
        ("my-method-", "my-method"),
        ("my-method\n", "my-method"),
        ("2d-net", "d-net"),
        ("../../etc/passwd", "etc-passwd"),
        ("a.b:c", "a-b-c"),
        ("\u97f3", "my-method"),
        ("", "my-method"),
        ("-", "my-method"),
    ],
)
def test_what_is_no_name(text: str, instead: str) -> None:
    """The sentence says what a name is, and which one to type."""
    said, proposed = refusal(text)
    assert "is no name of a method" in said
    assert proposed == instead
    assert Names.parse(proposed)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("iquery", "the plugin 'iquery' has a method 'iquery'"),
        ("davis-flow", "the plugin 'davis' has a method 'davis_flow'"),
        ("core", "there is a plugin 'core'"),
        ("class", "it is a keyword of Python"),
        ("compose", "torch.hub means something else by it"),
        ("zoo", "there is a package avsep_zoo"),
    ],
)
def test_what_is_taken(text: str, why: str) -> None:
    """The sentence says by what, and proposes a name that is free."""
    said, proposed = refusal(text)
    assert f"The name {text!r} is taken: {why};" in said
    assert proposed == f"{text}-2"
    assert Names.parse(proposed)


@pytest.mark.parametrize(
    ("text", "instead"), [("avsep-thing", "thing"), ("x" * 31, "x" * 30), ("avsep-iquery", "iquery-2")]
)
def test_other_refusals_propose_a_name_too(text: str, instead: str) -> None:
    assert refusal(text)[1] == instead
    assert Names.parse(instead)


@pytest.mark.parametrize("name", ["a", "my-method", LONGEST])
def test_files_are_whole(name: str) -> None:
    """Python, TOML and texts that nothing was left out of, each under a plain relative path."""
    names = Names.parse(name)
    written = files(names)
    for path, text in written.items():
        assert not Path(path).is_absolute() and ".." not in Path(path).parts
        assert "${" not in text and "\r" not in text
        if path.endswith(".py"):
            assert ast.get_docstring(ast.parse(text))
            assert len(text.splitlines()) < 120, path
    project = tomllib.loads(written["pyproject.toml"])
    assert project["project"]["entry-points"]["avsep_zoo"] == {names.method: f"{names.package}.plugin"}
    (needed,) = map(Requirement, project["project"]["dependencies"])
    assert (needed.name, avsep_zoo.__version__ in needed.specifier, "99.0" in needed.specifier) == (
        "avsep-zoo",
        True,
        False,
    )
    assert f"avsep_zoo_api = {avsep_zoo.API_VERSION} " in written[f"src/{names.package}/plugin.py"]


@pytest.mark.parametrize("name", ["a", "my-method", LONGEST])
def test_ruff_accepts_it(name: str, tmp_path: Path) -> None:
    """Neither lint nor format has anything to say, however long the name is."""
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("ruff is not installed")
    write_package(Names.parse(name), tmp_path / "new")
    for command in (["check"], ["format", "--check"]):
        ran = [sys.executable, "-m", "ruff", *command, "--no-cache", "."]
        done = subprocess.run(ran, cwd=tmp_path / "new", capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_templates_are_no_source() -> None:
    """Nothing that is written can be mistaken for code of this repository."""
    folder = Path(avsep_zoo.__file__).with_name("scaffold") / "templates"
    assert {path.suffix for path in folder.iterdir()} == {".txt"}
    assert "my_method" not in registry().methods()
    assert "my_method" not in {report.name for report in plugin_reports()}


def environment(folder: Path, package: Path) -> Path:
    """Make a virtual environment with what is installed here and the package; return its Python."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    site = folder / sysconfig.get_path("purelib", "venv", vars={"base": "."})
    installed = [entry for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))]
    (site / "here.pth").write_text("".join(f"{path}\n" for path in (package / "src", ROOT, *installed)))
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = "".join(f"{name} = {value}\n" for name, value in project["entry-points"]["avsep_zoo"].items())
    (info / "entry_points.txt").write_text(f"[avsep_zoo]\n{points}")
    return folder / "bin" / "python"


def test_from_new_to_torch_hub(hub: LoopbackHub, tones: Path, tmp_path: Path) -> None:
    """Installed beside the zoo, it passes its tests, is listed, learns, is published, loads anywhere, and converts."""
    package = tmp_path / "avsep-my-method"
    write_package(Names.parse("my-method"), package)
    python = environment(tmp_path / "environment", package)
    hub.token = "hf_secret"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-I", *map(str, arguments)],
            cwd=tmp_path,
            env={**clean, "HF_TOKEN": "hf_secret"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    tested = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", package)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    done = run(JOURNEY, ROOT, tones)
    lines = [line.removeprefix("SAID ") for line in done.stdout.splitlines() if line.startswith("SAID ")]
    assert lines, done.stdout + done.stderr
    said = json.loads(lines[0])
    assert said["package"] == str(package / "src" / "avsep_my_method" / "__init__.py")
    assert said["list"] == ["my_method.base", "my_method.tiny"]
    first, last = (sum(losses) / 6 for losses in (said["losses"][:6], said["losses"][-6:]))
    assert (len(said["losses"]), last < 0.8 * first) == (24, True), (first, last)
    assert said["sdr"][-1] > said["sdr"][0] + 6  # dB of the mixture as it is
    assert said["check"] == "runs/tiny: no problems\n"
    assert said["fetched"] is True
    assert said["hub"] == said["named"] == ["my_method.tiny", True]
    assert said["untrained"] == ["my_method.base", "avsep_my_method.separator"]
    assert said["stems"] == [[24000, True], [24000, True]]
    assert said["converted"] is True
    assert list(hub.repos) == ["someone/my-method"]
