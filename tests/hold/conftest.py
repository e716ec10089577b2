"""One whole lab a module, and what the tests ask of the centre and the box in it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from sekisho.lab.lab import Lab


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Everything, with a name of its own."""
    short = request.module.__name__.rpartition("test_")[2].replace("_", "")[:8]
    with Lab(f"ht{os.getpid()}-{short}") as lab:
        lab.up({"quarantine": {"max_mb": 256}})  # it lies in memory here
        yield lab
