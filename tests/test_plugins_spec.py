"""The hook as it may change later: plugins of today beside a copy of the core whose specification has changed."""

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

ROOT = Path(avsep_zoo.__file__).parents[1]
HOOK = """
import avsep_zoo

@avsep_zoo.hookimpl
def avsep_register({arguments}):
    register.front_end("{name}.stft", "avsep_zoo.front_end:StftFrontEnd", {summary})
"""
SPEC = "def avsep_register(register: Register) -> None:"


def replace(file: Path, old: str, new: str) -> None:
    """Replace the one place where ``old`` is in a file."""
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a copy of the core and three plugins: for today's specification, for a later one, for none."""
    shutil.copytree(ROOT / "avsep_zoo", tmp_path / "avsep_zoo", ignore=shutil.ignore_patterns("__pycache__"))
    for name, arguments, summary in (
        ("today", "register", "'for today'"),
        ("later", "register, home", "home"),
        ("never", "register, home, moon", "moon"),
        ("either", "register, home=None", "str(home)"),
    ):
        (tmp_path / f"demo_{name}.py").write_text(HOOK.format(name=name, arguments=arguments, summary=summary))
        info = tmp_path / f"avsep_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: avsep-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[avsep_zoo]\n{name} = demo_{name}\n")
    return tmp_path


def load(site: Path) -> tuple[dict[str, Any], dict[str, str], str]:
    """Reports by name, summaries of parts by name, and stderr of a process that loads the plugins of ``site``."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AVSEP_", "PYTHON"))}
    code = (
        "import json\nfrom avsep_zoo.plugins import plugin_reports\nfrom avsep_zoo.registry import registry\n"
        "reports = {r.name: [r.status, r.error, r.remarks] for r in plugin_reports()}\n"
        "print(json.dumps([reports, {e.name: e.summary for e in registry().list('front_end')}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**clean, "PYTHONPATH": str(site)},
        cwd=site,
    )
    assert done.returncode == 0, done.stderr
    return *json.loads(done.stdout), done.stderr


def test_an_argument_that_does_not_exist(site: Path) -> None:
    """The message names the argument and what there is; one with a default is left to its default."""
    reports, parts, _ = load(site)
    assert reports["today"] == reports["either"] == ["ok", "", []]
    assert parts["either.stft"] == "None"
    for name, unknown in (("later", "home"), ("never", "home, moon")):
        assert reports[name][:2] == [
            "failed",
            f"Plugin {name!r} asks avsep_register for {unknown}, which API 1 of avsep-zoo does not give; "
            "it gives register, a newer avsep-zoo may give more",
        ]


def test_an_added_argument(site: Path) -> None:
    """Plugins that were written before keep working, those that ask for it get it, and others still a sentence."""
    replace(site / "avsep_zoo" / "hookspecs.py", SPEC, SPEC.replace(")", ", home: str)"))
    replace(site / "avsep_zoo" / "plugins.py", "(register=register)", "(register=register, home='here')")
    reports, parts, _ = load(site)
    assert reports["today"] == reports["later"] == reports["either"] == ["ok", "", []]
    assert (parts["today.stft"], parts["later.stft"]) == ("for today", "here")
    assert reports["never"][0] == "failed"
    assert "asks avsep_register for moon, which" in reports["never"][1]
    assert "it gives register, home, a newer" in reports["never"][1]


def test_an_argument_that_will_go(site: Path) -> None:
    """For its time of grace it works, and a warning and a remark name the plugin that asks for it."""
    hookspecs, marked = site / "avsep_zoo" / "hookspecs.py", "{'home': FutureWarning('home goes with API 2')}"
    replace(hookspecs, f"@hookspec\n{SPEC}", f"@hookspec(warn_on_impl_args={marked})\n{SPEC}")
    replace(hookspecs, SPEC, SPEC.replace(")", ", home: str)"))
    replace(site / "avsep_zoo" / "plugins.py", "(register=register)", "(register=register, home='here')")
    reports, _, told = load(site)
    assert reports["today"] == ["ok", "", []]
    assert reports["later"] == ["ok", "", ["It has to change: home goes with API 2"]]
    assert "FutureWarning: The plugin 'later' has to change: home goes with API 2" in told
    assert "'today'" not in told


def test_a_hook_that_will_go(site: Path) -> None:
    marked = "FutureWarning('avsep_register goes with API 2')"
    replace(site / "avsep_zoo" / "hookspecs.py", f"@hookspec\n{SPEC}", f"@hookspec(warn_on_impl={marked})\n{SPEC}")
    reports, _, told = load(site)
    assert reports["today"] == ["ok", "", ["It has to change: avsep_register goes with API 2"]]
    assert "FutureWarning: The plugin 'today' has to change: avsep_register goes with API 2" in told


def test_a_hook_that_older_versions_do_not_have(site: Path) -> None:
    """It may be implemented where it is marked as optional, and is a sentence otherwise."""
    extra = "\n@avsep_zoo.hookimpl{how}\ndef avsep_later(register):\n    pass\n"
    for name, how in (("today", "(optionalhook=True)"), ("either", "")):
        with (site / f"demo_{name}.py").open("a") as file:
            file.write(extra.format(how=how))
    reports, _, _ = load(site)
    assert reports["today"] == ["ok", "", []]
    assert reports["either"][1].startswith("Plugin 'either' implements the hook avsep_later, which API 1 of avsep-zoo")
