"""One lab without and one with the product, each brought up once for the tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from sekisho.lab.lab import Lab


@pytest.fixture(scope="session")
def bare() -> Iterator[Lab]:
    """The servers and a plain bridge."""
    with Lab(f"t{os.getpid()}-bare") as lab:
        lab.up(with_product=False)
        yield lab


@pytest.fixture(scope="session")
def whole() -> Iterator[Lab]:
    """Everything, the product included."""
    with Lab(f"t{os.getpid()}-whole") as lab:
        lab.up()
        yield lab
