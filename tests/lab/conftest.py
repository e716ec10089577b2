"""One lab without and one with the product, each brought up once for the tests of this folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from sekisho.lab import layout
from sekisho.lab.lab import Lab

KNOWN = {layout.CLIENT4, layout.CLIENT6}


@pytest.fixture(scope="session")
def bare() -> Iterator[Lab]:
    """The servers and a plain bridge."""
    with Lab(f"t{os.getpid()}-bare") as lab:
        lab.up(with_product=False)
        yield lab


@pytest.fixture(scope="session")
def whole() -> Iterator[Lab]:
    """Everything, the product included, and the office's device already known to it."""
    with Lab(f"t{os.getpid()}-whole") as lab:
        lab.up()
        for address in (layout.SERVER4, layout.SERVER6):
            lab.run("lan", ["ping", "-c", "1", "-W", "5", address], check=True)
        lab.wait(lambda: KNOWN <= set(json.loads((lab.lay.box_run / "inventory.json").read_text())), "no inventory", 10)
        yield lab
