"""Installed plugins that hang, crash, miss packages or meddle: contained, and explained where a person looks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import avsep_zoo
from avsep_zoo.errors import PluginError
from avsep_zoo.plugin_guard import SECONDS, plugin_seconds

ROOT = Path(avsep_zoo.__file__).parents[1]
HOOK = """
import avsep_zoo

@avsep_zoo.hookimpl
def avsep_register(register):
    register.front_end("{name}.stft", "avsep_zoo.front_end:StftFrontEnd", "as a test")
"""
RECIPE = """
import avsep_zoo
from avsep_zoo import PartConfig, Recipe

@avsep_zoo.hookimpl
def avsep_register(register):
    register.method(Recipe(
        name="{name}", summary="A test.", paper="none", cues="a label", encoder=PartConfig("frames"),
        conditioner=PartConfig("film"), separator=PartConfig("mask_unet"), front_end=PartConfig("stft"),
        objective=PartConfig("masks"), {more}
    ))
"""
LOST = {
    "crashes": (
        "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
        "Plugin 'crashes' was not imported: its import ends the process (SIGSEGV); AVSEP_ZOO_DISABLE=crashes leaves",
    ),
    "hangs": (
        "import threading\nthreading.Event().wait()",
        "Plugin 'hangs' was not imported: its import does not come back within 4 s; AVSEP_ZOO_DISABLE=hangs leaves",
    ),
    "hook_hangs": (
        HOOK.format(name="hook_hangs") + "    import time\n    time.sleep(1000)",
        "Plugin 'hook_hangs' was not imported: its import does not come back within 4 s; AVSEP_ZOO_DISABLE=hook_hangs",
    ),
    "leaves": (
        "import os\nos._exit(0)",
        "Plugin 'leaves' was not imported: its import ends the process (exit code 0); AVSEP_ZOO_DISABLE=leaves leaves",
    ),
}
FAILING: dict[str, tuple[str, Sequence[str], str]] = {
    "asks_stdin": ("input('Licence? ')", (), "EOFError: EOF when reading a line"),
    "exits": (
        "import sys\nsys.exit(0)",
        (),
        "SystemExit: 0; it ends the program when it is imported, report that to its author",
    ),
    "mute": (
        "class Mute(Exception):\n  def __str__(self):\n    raise ValueError\nraise Mute",
        (),
        "Mute: its message cannot be shown",
    ),
    "needs": (
        "import no_such_package.part",
        ("torch>=2", 'no.such_PACKAGE>=2 ; python_version > "3"'),
        "ModuleNotFoundError: No module named 'no_such_package'; avsep-needs requires it: "
        "pip install 'no.such_PACKAGE>=2'",
    ),
    "needs_extra": (
        "import cv2",
        ('opencv-python ; extra == "video"',),
        "ModuleNotFoundError: No module named 'cv2'; its extra needs it: pip install 'avsep-needs_extra[video]'",
    ),
    "needs_known": (
        "import bs4",
        (),
        "ModuleNotFoundError: No module named 'bs4'; avsep-needs_known does not list it as a requirement, report that "
        "to its author: pip install beautifulsoup4",
    ),
    "newer": (HOOK.format(name="newer") + "avsep_zoo_api = 2", (), "Plugin 'newer' needs avsep-zoo API 2 and this is"),
    "newer_core": (
        "from avsep_zoo.recipe import Hologram",
        ("avsep-zoo>=9,<11",),
        "ImportError: cannot import name 'Hologram' from 'avsep_zoo.recipe'",
    ),
}


def install(site: Path, name: str, code: str, *, requires: Sequence[str] = ()) -> None:
    """Put the distribution ``avsep-<name>`` 1.0 into a folder of ``sys.path``, the way pip leaves it there."""
    info = site / f"avsep_{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (site / f"demo_{name}.py").write_text(code + "\n")
    needed = "".join(f"Requires-Dist: {line}\n" for line in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: avsep-{name}\nVersion: 1.0\n{needed}")
    (info / "entry_points.txt").write_text(f"[avsep_zoo]\n{name} = demo_{name}\n")


def avsep(site: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``avsep`` in a process where the core and what is in ``site`` are installed."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AVSEP_", "PYTHON"))}
    clean |= {"PYTHONPATH": str(site), "NO_COLOR": "1", "COLUMNS": "200", **environment}
    command = [sys.executable, "-m", "avsep_zoo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=clean, cwd=site)


def reports(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """What ``avsep plugins --json`` says, by name; stdout holds nothing else."""
    return {report["name"]: report for report in json.loads(done.stdout)}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with the core and no plugins."""
    shutil.copytree(ROOT / "avsep_zoo", tmp_path / "avsep_zoo", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """What ``avsep plugins --json`` says where every broken plugin and two whole ones are installed."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "avsep_zoo", site / "avsep_zoo", ignore=shutil.ignore_patterns("__pycache__"))
    for name, (code, _) in LOST.items():
        install(site, name, f"from pathlib import Path\nPath('{name}').open('a').write('x')\n{code}")
    for name, (code, requires, _) in FAILING.items():
        install(site, name, code, requires=requires)
    install(site, "submodule", "import pluggy.nothing", requires=["pluggy>=99"])
    install(site, "vanished", "")
    (site / "demo_vanished.py").unlink()
    install(site, "a_good", HOOK.format(name="a_good"))
    install(site, "z_good", HOOK.format(name="z_good"))
    done = avsep(site, "plugins", "--json", **{SECONDS: "4"})
    assert [(site / name).read_text() for name in LOST] == ["x"] * len(LOST)  # imported once, in the trial
    return done


@pytest.mark.parametrize("name", LOST)
def test_what_hangs_or_crashes_is_tried_elsewhere(name: str, broken: subprocess.CompletedProcess[str]) -> None:
    """``avsep plugins`` comes back, names it, says how to do without it, and never imports it itself."""
    report = reports(broken)[name]
    assert report["status"] == "failed"
    assert report["error"].startswith(LOST[name][1])
    assert broken.returncode == 1


@pytest.mark.parametrize("name", ["crashes", "hangs", "hook_hangs"])
def test_where_it_hangs_or_crashes(name: str, broken: subprocess.CompletedProcess[str]) -> None:
    assert f"demo_{name}.py" in reports(broken)[name]["traceback"]


@pytest.mark.parametrize("name", FAILING)
def test_what_fails_is_explained(name: str, broken: subprocess.CompletedProcess[str]) -> None:
    report = reports(broken)[name]
    assert report["status"] == "failed"
    assert report["error"].startswith(FAILING[name][2])


def test_packages_that_lack_something(broken: subprocess.CompletedProcess[str]) -> None:
    """The version that is here and the one that the plugin asks for."""
    found = reports(broken)
    version = avsep_zoo.__version__
    asked = f"; avsep-zoo {version} is here and it asks for avsep-zoo>=9,<11, install one that has it"
    assert found["newer_core"]["error"].endswith(asked)
    assert found["submodule"]["error"].endswith("is here and it asks for pluggy>=99, install one that has it")
    assert found["vanished"]["error"].endswith("; its own package is not there, install avsep-vanished again")


def test_the_others_are_not_affected(broken: subprocess.CompletedProcess[str]) -> None:
    found = reports(broken)
    for name in ("core", "a_good", "z_good"):
        assert (found[name]["status"], found[name]["remarks"]) == ("ok", [])


def test_a_disabled_plugin_is_not_tried(site: Path) -> None:
    install(site, "crashes", "open('imported', 'w')\n" + LOST["crashes"][0])
    done = avsep(site, "plugins", AVSEP_ZOO_DISABLE="crashes")
    assert (done.returncode, (site / "imported").exists()) == (0, False)


def test_meddling_is_undone_and_told(site: Path) -> None:
    """Prints, ``sys.path``, the current folder and the environment; --json stays JSON."""
    (site / "torch.py").write_text("")  # imported like the real one, but at once
    install(site, "prints", HOOK.format(name="prints") + "print('hello')\n")
    install(site, "first", HOOK.format(name="first") + "import sys\nsys.path.insert(0, 'vendored')\n")
    install(site, "forgets", HOOK.format(name="forgets") + "import sys\nsys.path = []\n")
    install(site, "moves", HOOK.format(name="moves") + "import os\nos.chdir('/')\n")
    install(site, "sets", HOOK.format(name="sets") + "import os\nos.environ['SET_BY_ONE'] = '1'\n")
    install(site, "heavy", HOOK.format(name="heavy") + "import torch\n")
    install(site, "z_looks", f"import os, sys\nraise ValueError([os.getcwd() == {str(site)!r}, sys.path[-1]])")
    done = avsep(site, "plugins", "--json")
    found = reports(done)
    assert found["z_looks"]["error"] == "ValueError: [True, 'vendored']"
    assert "hello" in done.stderr
    begins = {
        "prints": "It prints when it is imported",
        "first": "It puts folders before others in sys.path",
        "forgets": "It puts folders before others in sys.path",
        "moves": "It changes the current folder",
        "sets": "It changes the environment (SET_BY_ONE)",
        "heavy": "It imports torch, which every command waits for",
    }
    for name, text in begins.items():
        (remark,) = found[name]["remarks"]
        assert found[name]["status"] == "ok" and remark.startswith(text)


def test_a_slow_import_is_named_while_it_lasts(site: Path) -> None:
    """By an ordinary command, which waits for it all the same."""
    install(site, "quick", HOOK.format(name="quick"))
    install(site, "slow", "import time\ntime.sleep(1.5)\n" + HOOK.format(name="slow"))
    done = avsep(site, "list", **{SECONDS: "1.5"})
    assert done.returncode == 0
    assert "The plugin 'slow' (avsep-slow 1.0) takes long to be imported; AVSEP_ZOO_DISABLE=slow leaves" in done.stderr


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf", ""])
def test_a_wrong_time_limit(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECONDS, text)
    with pytest.raises(PluginError, match=f"{SECONDS} is '{text}'; give a number of seconds above 0"):
        plugin_seconds()


def test_failures_are_told_by_list_and_for_unknown_names(site: Path) -> None:
    install(site, "wreck", "raise ValueError('half way')")
    done = avsep(site, "list")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Warning: The plugin 'wreck' (avsep-wreck 1.0) failed to load: ValueError: half way (")
    assert done.returncode == 0
    done = avsep(site, "info", "mine")
    assert "There is no method 'mine'" in done.stderr
    assert "plugin 'wreck' failed to load (ValueError: half way)" in done.stderr


def test_doctor_tells_of_plugins(site: Path) -> None:
    install(site, "hangs", LOST["hangs"][0])
    install(site, "prints", HOOK.format(name="prints") + "print('hello')\n")
    install(site, "partial", RECIPE.format(name="partial", more="variants={'b': {'separator': {'name': 'nobody'}}}"))
    checks = {c["name"]: c for c in json.loads(avsep(site, "doctor", "--json", **{SECONDS: "2"}).stdout)}
    assert checks["plugin hangs"]["status"] == "fail"
    assert "does not come back within 2 s; AVSEP_ZOO_DISABLE=hangs leaves it out" in checks["plugin hangs"]["found"]
    assert (checks["plugin prints"]["status"], checks["plugin partial"]["status"]) == ("warn", "warn")
    assert "names the separator 'nobody', which no plugin here registers" in checks["plugin partial"]["found"]


def test_a_method_of_unknown_parts(site: Path) -> None:
    """Parts of a plugin that is loaded later are known; of others it is told, and the method stays listed."""
    install(site, "a_early", RECIPE.format(name="early", more="variants={'b': {'separator': {'name': 'z.unet'}}}"))
    part = "    register.separator('z.unet', 'avsep_zoo.blocks.unet:MaskUNet')"
    install(site, "z", HOOK.format(name="z") + part)
    install(site, "partial", RECIPE.format(name="partial", more="variants={'b': {'separator': {'name': 'w.unet'}}}"))
    install(site, "w", "raise ValueError('half way')")
    done = avsep(site, "plugins", "--json")
    found = reports(done)
    assert (found["a_early"]["status"], done.returncode) == ("ok", 1)
    assert (found["partial"]["status"], found["partial"]["registered"]) == ("incomplete", ["method partial"])
    sentence = "The method 'partial' names the separator 'w.unet', which no plugin here registers."
    assert found["partial"]["problems"] == [sentence]
    listed = avsep(site, "list")
    assert "partial.b" in listed.stdout
    assert f"Warning: The plugin 'partial' is incomplete: {sentence}" in listed.stderr
    code = "import avsep_zoo\navsep_zoo.load('partial.b', weights=None)"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment, cwd=site
    )
    error = loaded.stderr.splitlines()[-1]
    assert "There is no separator 'w.unet'" in error and "plugin 'w' failed to load (ValueError: half way)" in error


def test_check_resolves_every_target(site: Path) -> None:
    part = "    register.front_end('good.stft', 'avsep_zoo.front_end:StftFrontEnd')"
    install(site, "good", RECIPE.format(name="good", more="").replace('"stft"', '"good.stft"') + part)
    lines = (
        "register.encoder('bad.absent', 'demo_nowhere:Encoder')",
        "register.separator('bad.attribute', 'demo_bad:Missing')",
        "register.conditioner('bad.number', 'demo_bad:NUMBER')",
        "register.reader('bad.reader', 'json:JSONDecoder')",
        "register.front_end('bad.exit', 'demo_exit:FrontEnd')",
        "register.adapter('bad', 'official', 'demo_bad:adapt')",
        "register.cards('/nowhere/cards')",
    )
    more = "converter='demo_bad:Lost', variants={'b': {'separator': {'wings': 2}}}"
    recipe = RECIPE.format(name="bad", more=more)
    install(site, "bad", "NUMBER = 1\nprint('hello')\n" + recipe + "".join(f"    {line}\n" for line in lines))
    (site / "demo_exit.py").write_text("print('bye')\nimport sys\nsys.exit(0)\n")
    assert avsep(site, "plugins").returncode == 0
    done = avsep(site, "plugins", "--check", "--json")
    found = reports(done)
    assert found["core"]["problems"] == []
    assert (found["good"]["status"], found["bad"]["status"], done.returncode) == ("ok", "incomplete", 1)
    told = "\n".join(found["bad"]["problems"])
    for text in (
        "encoder 'bad.absent' of plugin 'bad' cannot be imported from 'demo_nowhere:Encoder' (ModuleNotFoundError",
        "separator 'bad.attribute' of plugin 'bad' cannot be imported from 'demo_bad:Missing' (AttributeError",
        "conditioner 'bad.number' of plugin 'bad', 'demo_bad:NUMBER', is a int, no class or function",
        "reader 'bad.reader' of plugin 'bad', 'json:JSONDecoder', is no class derived from",
        "front end 'bad.exit' of plugin 'bad' cannot be imported from 'demo_exit:FrontEnd' (SystemExit: 0)",
        "adapter 'bad/official' of plugin 'bad' cannot be imported from 'demo_bad:adapt'",
        "folder of cards '/nowhere/cards' of plugin 'bad' is not there",
        "method 'bad' of plugin 'bad' cannot be imported from 'demo_bad:Lost'",
        "The variant bad.b cannot be built: The separator 'mask_unet' has no setting 'wings'",
    ):
        assert text in told


def test_damaged_metadata(site: Path) -> None:
    """Distributions that cannot be read do not hide others."""
    install(site, "good", HOOK.format(name="good"))
    install(site, "line", HOOK.format(name="line"))
    (site / "avsep_line-1.0.dist-info" / "entry_points.txt").write_text("[avsep_zoo]\nline\n")
    install(site, "bare", HOOK.format(name="bare"))
    (site / "avsep_bare-1.0.dist-info" / "METADATA").unlink()
    install(site, "odd", HOOK.format(name="odd"))
    (site / "avsep_odd-1.0.dist-info" / "entry_points.txt").write_text("[avsep_zoo]\nodd = 1 2 3\n")
    found = reports(avsep(site, "plugins", "--json"))
    assert (found["good"]["status"], found["odd"]["status"]) == ("ok", "failed")
    assert [r["error"] for n, r in found.items() if "avsep_line-1.0.dist-info" in n] != []


def test_the_checkout_s_parts_are_not_taken_over(site: Path) -> None:
    """Whatever the names: a third party's plugin is loaded after those of the checkout."""
    folder = site / "plugins" / "avsep-own"
    (folder / "src").mkdir(parents=True)
    (site / "hubconf.py").touch()
    (folder / "src" / "demo_own.py").write_text(HOOK.format(name="own"))
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "avsep-own"\n[project.entry-points.avsep_zoo]\nown = "demo_own"\n'
    )
    install(site, "a_thief", HOOK.format(name="own"))
    found = reports(avsep(site, "plugins", "--json"))
    assert found["own"]["status"] == "ok"
    assert "registers front_end 'own.stft', which plugin 'own' has" in found["a_thief"]["error"]
