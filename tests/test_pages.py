"""The Python of the documentation pages, run as it stands, page by page."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from avsep_zoo.registry import registry
from avsep_zoo.weights.cards import card_folder

ROOT = Path(__file__).parents[1]


@pytest.fixture
def fresh_registry() -> Iterator[None]:
    """What a page registers is forgotten afterwards."""
    registry.cache_clear()
    yield
    registry.cache_clear()


@pytest.mark.usefixtures("fresh_registry")
@pytest.mark.parametrize("page", ["plugins/README.md", "avsep_zoo/README.md"])
def test_page_runs_as_it_stands(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page in one module, so that later ones use what earlier ones define."""
    if page.startswith("avsep_zoo") and card_folder("iquery.mini") is None:
        pytest.skip("the weights iquery.mini are not here")
    text = (ROOT / page).read_text(encoding="utf-8")
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    blocks = list(re.finditer(r"```python\n(.*?)```", text, re.DOTALL))
    assert len(blocks) >= 4
    for block in blocks:
        line = text[: block.start()].count("\n") + 1
        code = compile("\n" * line + block[1], page, "exec")
        exec(code, module.__dict__)
