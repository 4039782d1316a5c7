"""Plugins as they come, in a checkout or installed: whole, and broken in every way, as real files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import avsep_zoo
from avsep_zoo.plugins import checkout_root, plugin_reports

ROOT = Path(avsep_zoo.__file__).parents[1]
HOOK = """
import avsep_zoo

@avsep_zoo.hookimpl
def avsep_register(register):
    register.front_end("{name}.stft", "avsep_zoo.front_end:StftFrontEnd", "as a test")
"""
REPORT = """
import json, sys, warnings
from dataclasses import asdict
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import avsep_zoo
    from avsep_zoo.plugins import plugin_reports
    from avsep_zoo.registry import registry
    reports = {r.name: asdict(r) for r in plugin_reports()}
try:
    registry().method("missing")
except avsep_zoo.AvsepError as error:
    unknown = str(error)
print(json.dumps({
    "reports": reports,
    "warnings": [str(w.message) for w in caught],
    "unknown": unknown,
    "parts": sorted(f"{k} {n}" for k, n in registry().entries),
    "modules": [m for m in sys.modules if m.startswith("demo_")],
    "hooks": sorted(name for name, _ in avsep_zoo.plugins._manager.list_name_plugin()),
    "path": [path for path in sys.path if path],
}))
"""

BROKEN = {
    "absent": ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'; avsep-absent does"),
    "asks": (
        "import avsep_zoo\navsep_zoo.methods()",
        "A plugin asks for the registry while plugins are loaded; do that inside a function",
    ),
    "attribute": ("value = 1", "AttributeError: module 'demo_attribute' has no attribute 'plugin'"),
    "class": (
        HOOK.format(name="class").replace("@avsep", "class plugin:\n  @avsep").replace("\ndef", "\n  def"),
        "Plugin 'class' is the class plugin; give an instance of it",
    ),
    "exits": ("import sys\nsys.exit(3)", "SystemExit: 3"),
    "foreign": (
        "import pluggy\n@pluggy.HookimplMarker('pytest')\ndef avsep_register(register):\n  pass",
        "Plugin 'foreign' implements no hook; mark a function avsep_register(register) with avsep_zoo.hookimpl",
    ),
    "label": (
        HOOK.format(name="Label"),
        "Plugin 'label' names a front_end 'Label.stft'; use lower-case letters, digits, _ and one dot",
    ),
    "newer": (
        HOOK.format(name="newer") + "avsep_zoo_api = 2",
        "Plugin 'newer' needs avsep-zoo API 2 and this is 1; upgrade avsep-zoo",
    ),
    "panics": ("class Panic(BaseException): pass\nraise Panic('native code')", "Panic: native code"),
    "raising": (HOOK.format(name="raising") + "    raise ValueError('half\\n way')", "ValueError: half way"),
    "signature": (
        HOOK.format(name="signature").replace("(register)", "(register, torch)"),
        "Plugin 'signature' asks avsep_register for torch, which API 1 of avsep-zoo does not give; it gives register, "
        "a newer avsep-zoo may give more",
    ),
    "syntax": ("def avsep_register(:\n  pass", "SyntaxError: invalid syntax (demo_syntax.py, line 1)"),
    "taken": (
        HOOK.format(name="taken") + "    register.separator('mask_unet', 'json:loads')",
        "Plugin 'taken' registers separator 'mask_unet', which plugin 'core' has; rename one of them",
    ),
    "typo": (
        HOOK.format(name="typo").replace("avsep_register", "avsep_registr"),
        "Plugin 'typo' implements the hook avsep_registr, which API 1 of avsep-zoo does not have; it has avsep_regist",
    ),
}


def copy_core(root: Path) -> None:
    """A checkout of the core alone, without plugins."""
    shutil.copytree(ROOT / "avsep_zoo", root / "avsep_zoo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "hubconf.py", root)
    (root / "plugins").mkdir()


def add_plugin(root: Path, name: str, code: str, *, entry: str = "", value: str = "") -> None:
    """Put the plugin ``avsep-<name>`` 1.0 into a checkout: one module and a pyproject.toml."""
    folder = root / "plugins" / f"avsep-{name}"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / f"demo_{name}.py").write_text(code + "\n")
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "avsep-{name}"\nversion = "1.0"\n'
        f'[project.entry-points.avsep_zoo]\n{entry or name} = "{value or f"demo_{name}"}"\n'
    )


def install(site: Path, name: str, code: str, *, module: str = "", version: str = "1.0") -> None:
    """Put the distribution ``avsep-<name>`` into a folder of ``sys.path``, the way pip leaves it there."""
    module = module or f"demo_{name}"
    info = site / f"avsep_{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (site / f"{module}.py").write_text(code + "\n")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: avsep-{name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[avsep_zoo]\n{name} = {module}\n")


def run(
    paths: list[Path], code: str = REPORT, **environment: str
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run ``code`` in a new interpreter with ``paths`` on its path; it prints one JSON document."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AVSEP_", "PYTHON"))}
    clean |= {"PYTHONPATH": os.pathsep.join(map(str, paths)), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=clean, cwd=paths[0]
    )
    return done, json.loads(done.stdout) if done.returncode == 0 else {}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process says of a checkout with every broken plugin and two whole ones."""
    root = tmp_path_factory.mktemp("broken")
    copy_core(root)
    for name, (code, _) in BROKEN.items():
        value = f"demo_{name}:plugin" if name in ("attribute", "class") else ""
        add_plugin(root, name, code, value=value)
    add_plugin(root, "good", HOOK.format(name="good"))
    add_plugin(root, "zulu", HOOK.format(name="zulu"))
    add_plugin(root, "goodcopy", HOOK.format(name="copy"), entry="good")
    add_plugin(root, "shadow", HOOK.format(name="shadow"), entry="core")
    add_plugin(root, "off", "raise RuntimeError('imported')")
    for name, text in (("toml", "[project"), ("shape", 'project = "avsep-shape"'), ("bare", "[project]")):
        (root / "plugins" / name).mkdir()
        (root / "plugins" / name / "pyproject.toml").write_text(text)
    done, found = run([root], AVSEP_ZOO_DISABLE="off, nothing")
    assert found, done.stderr
    return found


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_reported(name: str, broken: dict[str, Any]) -> None:
    """By name, in one line, with its traceback at hand, a warning, and nothing of it left registered."""
    report = broken["reports"][name]
    assert report["status"] == "failed"
    assert report["error"].startswith(BROKEN[name][1])
    assert "\n" not in report["error"]
    assert report["traceback"].startswith("Traceback")
    assert report["registered"] == []
    warned = [w for w in broken["warnings"] if w.startswith(f"The plugin '{name}' (avsep-{name} 1.0) failed")]
    assert len(warned) == 1
    assert warned[0].endswith(f"{report['error']} ('avsep plugins --verbose' shows the traceback).")
    assert not [part for part in broken["parts"] if f" {name}" in part]
    assert name not in broken["hooks"]
    assert f"plugin '{name}' failed to load ({report['error']})" in broken["unknown"]


def test_the_other_plugins_are_not_affected(broken: dict[str, Any]) -> None:
    for name in ("good", "zulu"):
        assert broken["reports"][name] == {
            "name": name,
            "origin": "checkout",
            "status": "ok",
            "value": f"demo_{name}",
            "distribution": f"avsep-{name} 1.0",
            "error": "",
            "traceback": "",
            "registered": [f"front_end {name}.stft"],
            "problems": [],
            "remarks": [],
        }
    assert broken["reports"]["core"]["status"] == "ok"
    assert {"front_end good.stft", "front_end stft", "front_end zulu.stft"} <= set(broken["parts"])
    assert {"core", "good", "zulu"} <= set(broken["hooks"])


def test_the_name_of_another_distribution_is_refused(broken: dict[str, Any]) -> None:
    """As when a plugin is copied and its entry point not renamed; the core's name is never given away."""
    for name, copy, owner in (
        ("good", "avsep-goodcopy", "avsep-good"),
        ("core", "avsep-shadow", "avsep-zoo"),
    ):
        report = broken["reports"][f"{name} ({copy})"]
        assert report["status"] == "failed"
        assert report["error"] == f"the name '{name}' is taken by {owner}; rename the entry point"
    assert not [part for part in broken["parts"] if "copy" in part or "shadow" in part]


def test_manifests_that_cannot_be_read(broken: dict[str, Any]) -> None:
    assert broken["reports"]["plugins/toml"]["error"].startswith("TOMLDecodeError: Expected ']'")
    assert broken["reports"]["plugins/shape"]["error"] == "AttributeError: 'str' object has no attribute 'get'"
    assert not [name for name in broken["reports"] if "bare" in name]


def test_a_disabled_plugin_is_not_even_imported(broken: dict[str, Any]) -> None:
    assert broken["reports"]["off"]["status"] == "disabled"
    assert "demo_off" not in broken["modules"]
    assert "'off'" not in broken["unknown"]


def test_strict_raises_what_the_plugin_raised(tmp_path: Path) -> None:
    copy_core(tmp_path)
    add_plugin(tmp_path, "raising", BROKEN["raising"][0])
    done, _ = run([tmp_path], "import avsep_zoo; avsep_zoo.methods()", AVSEP_ZOO_STRICT="1")
    assert done.returncode == 1
    assert "demo_raising.py" in done.stderr
    assert "ValueError: half" in done.stderr


def test_an_interrupt_is_not_swallowed(tmp_path: Path) -> None:
    copy_core(tmp_path)
    add_plugin(tmp_path, "slow", "raise KeyboardInterrupt")
    done, _ = run([tmp_path], "import avsep_zoo; avsep_zoo.methods(); print('went on')")
    assert done.returncode != 0
    assert done.stdout == ""


def test_installed_plugins(tmp_path: Path) -> None:
    """They are found like the checkout's; a second owner of a name is refused, and the checkout's own come first."""
    root, site, late = tmp_path / "checkout", tmp_path / "site", tmp_path / "late"
    root.mkdir()
    copy_core(root)
    add_plugin(root, "own", HOOK.format(name="own"))
    install(site, "third", HOOK.format(name="third"))
    install(site, "wreck", "import no_such_package")
    for name, taken in (("rival", "third"), ("thief", "own")):
        install(late, name, HOOK.format(name=name))
        (late / f"avsep_{name}-1.0.dist-info" / "entry_points.txt").write_text(f"[avsep_zoo]\n{taken} = demo_{name}\n")
    done, found = run([root, site, late])
    assert found, done.stderr
    reports = found["reports"]
    for name, origin in (("own", "checkout"), ("third", "installed")):
        report = reports[name]
        assert (report["status"], report["origin"], report["distribution"]) == ("ok", origin, f"avsep-{name} 1.0")
        assert f"front_end {name}.stft" in found["parts"]
    assert reports["wreck"]["error"].startswith("ModuleNotFoundError: No module named 'no_such_package'")
    assert reports["third (avsep-rival)"]["error"].startswith("the name 'third' is taken by avsep-third;")
    assert reports["own (avsep-thief)"]["error"].startswith("the name 'own' is taken by avsep-own;")


def test_the_checkout_s_copy_of_a_plugin_is_used(tmp_path: Path) -> None:
    """It was made together with this core: also its modules are found first, and one warning names other versions."""
    root, site = tmp_path / "checkout", tmp_path / "site"
    root.mkdir()
    copy_core(root)
    for name, version in (("Same", "1.0"), ("stale", "0.9"), ("newer", "2.0")):
        add_plugin(root, name, HOOK.format(name=name.lower()), entry=name.lower())
        install(site, name, "raise RuntimeError('the installed copy')", version=version)
    points = site / "avsep_stale-0.9.dist-info" / "entry_points.txt"
    points.write_text("[avsep_zoo]\nstale = demo_stale\nformer = demo_stale:former\n")
    done, found = run([root, tmp_path, site])
    assert found, done.stderr
    for name in ("same", "stale", "newer"):
        report = found["reports"][name]
        assert (report["status"], report["origin"]) == ("ok", "checkout"), report["error"]
    assert "former" not in found["reports"]
    assert found["warnings"] == [
        "This checkout of avsep-zoo uses its own avsep-newer 1.0, avsep-stale 1.0 and not the installed "
        "avsep-newer 2.0, avsep-stale 0.9; upgrade or uninstall what is installed."
    ]
    here = [str(root / "plugins" / f"avsep-{name}" / "src") for name in ("newer", "Same", "stale")]
    assert found["path"][: found["path"].index(str(site)) + 1] == [str(root), str(tmp_path), *here, str(site)]


def test_a_plugin_s_folder_hides_nothing(tmp_path: Path) -> None:
    """What else lies beside its package stays behind all that can be imported already."""
    copy_core(tmp_path)
    add_plugin(tmp_path, "good", HOOK.format(name="good"))
    (tmp_path / "plugins" / "avsep-good" / "src" / "einops.py").write_text("raise RuntimeError('hidden')")
    done, found = run([tmp_path])
    assert found, done.stderr
    assert found["reports"]["good"]["status"] == "ok"
    assert found["path"][-1] == str(tmp_path / "plugins" / "avsep-good" / "src")


def test_a_wheel_looks_for_no_checkout(tmp_path: Path) -> None:
    """Without hubconf.py beside the package, a folder called plugins is somebody else's."""
    copy_core(tmp_path)
    add_plugin(tmp_path, "good", HOOK.format(name="good"))
    (tmp_path / "hubconf.py").unlink()
    done, found = run([tmp_path])
    assert found, done.stderr
    assert "good" not in found["reports"]
    assert found["reports"]["core"]["status"] == "ok"


def test_this_checkout() -> None:
    assert checkout_root() == ROOT.resolve()
    reports = {r.name: r for r in plugin_reports()}
    assert list(reports) == sorted(reports)
    iquery = reports["iquery"]
    assert (iquery.status, iquery.value) == ("ok", "avsep_iquery.plugin")
    assert "method iquery" in iquery.registered
    assert not [part for part in iquery.registered if part.startswith("adapter")]
