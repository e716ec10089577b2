"""A box and, beside it, a bare bridge. What drives them is in drive/."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "drive"))


from sekisho.lab.lab import Lab


def _lab(request: pytest.FixtureRequest, kind: str) -> Iterator[Lab]:
    short = request.module.__name__.rpartition("test_")[2].replace("_", "")[:8]
    with Lab(f"x{os.getpid()}-{short}-{kind}") as lab:
        lab.up(with_product=kind == "box", stopped=("nginx",))
        yield lab


@pytest.fixture(scope="module")
def box(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A whole lab whose web server is left to the tests."""
    yield from _lab(request, "box")


@pytest.fixture(scope="module")
def bare(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The same without the product: a plain bridge, where a trick shows what it can do."""
    yield from _lab(request, "bare")
