"""What all tests of the plugin share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from avsep_zoo.parity.case import Case, load_case

CASES = Path(__file__).parents[3] / "tests" / "parity" / "bimodal_sep"


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same random numbers in every test, and one thread, which is faster for small networks."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Case]:
    """Reads a golden case by its name, anew each time, so that it can be changed."""

    def read(name: str) -> Case:
        case = load_case(CASES / f"{name}.json")
        assert case is not None
        return case

    return read
