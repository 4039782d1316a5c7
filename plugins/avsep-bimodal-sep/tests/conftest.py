"""What all tests of the plugin share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same random numbers in every test, and one thread, which is faster for small networks."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
