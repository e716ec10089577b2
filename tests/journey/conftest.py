"""One lab whose box nobody has enrolled yet, with a customer who may sign in at the portal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.lab import people
from sekisho.lab.lab import Lab
from sekisho.lab.people import Access

sys.path.insert(0, str(Path(__file__).parents[1] / "portal" / "drive"))


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with Lab(f"j{os.getpid()}") as made:
        made.up(portal=True)
        yield made


@pytest.fixture(scope="session")
def access(lab: Lab) -> Access:
    return people.move_in(lab)
