"""What ``import avsep_zoo`` costs and offers."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import avsep_zoo

HEAVY = ("torch", "numpy", "scipy", "av", "PIL", "huggingface_hub", "accelerate", "rich", "typer")


def run(code: str) -> dict[str, list[str]]:
    """Run ``code`` in a new interpreter; it prints one JSON document."""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    document: dict[str, list[str]] = json.loads(found.stdout)
    return document


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    """Not by the import, and by the list of methods only what cards and cues need."""
    code = f"""
import json, sys
import avsep_zoo
first = [name for name in {HEAVY} if name in sys.modules]
methods = list(avsep_zoo.methods())
from avsep_zoo.plugins import plugin_reports
reports = [f"{{r.name}} {{r.status}}" for r in plugin_reports()]
avsep_zoo.Recipe, avsep_zoo.PartConfig, avsep_zoo.AvsepError, avsep_zoo.hookimpl, dir(avsep_zoo)
torch = [name for name in ("torch", "huggingface_hub", "accelerate") if name in sys.modules]
print(json.dumps({{"import": first, "methods": methods, "reports": reports, "listing": torch}}))
"""
    found = run(code)
    assert found["import"] == []
    assert found["listing"] == []
    assert "iquery" in found["methods"]
    assert {"core ok", "iquery ok"} <= set(found["reports"])


def test_public_names_are_sorted_complete_and_real() -> None:
    """``__all__`` holds what the package promises to type checkers, in order, and every name resolves."""
    assert avsep_zoo.__all__ == sorted(avsep_zoo.__all__)
    source = ast.parse(Path(str(avsep_zoo.__file__)).read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("avsep_zoo")
        for alias in node.names
    }
    assert set(avsep_zoo.__all__) == imported
    for name in avsep_zoo.__all__:
        assert getattr(avsep_zoo, name) is not None
        assert name in dir(avsep_zoo)


def test_functions_stay_functions_after_their_modules_are_imported() -> None:
    """``avsep_zoo.load`` lies in a module of the same name, which Python would put in its place."""
    code = """
import json
import avsep_zoo
from avsep_zoo.weights.cards import read_card
import avsep_zoo.compose, avsep_zoo.load
from avsep_zoo.compose import build_part
from avsep_zoo import compose, load
kinds = [type(f).__name__ for f in (compose, load, avsep_zoo.compose, avsep_zoo.load)]
print(json.dumps({"kinds": kinds, "modules": [compose.__module__, load.__module__]}))
"""
    found = run(code)
    assert found == {"kinds": ["function"] * 4, "modules": ["avsep_zoo.compose", "avsep_zoo.load"]}


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'avsep_zoo' has no attribute 'separate'"):
        _ = avsep_zoo.separate  # type: ignore[attr-defined]
