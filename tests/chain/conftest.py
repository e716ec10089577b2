"""One lab for the tests of this folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "drive"))

from chainlab import Chain

from sekisho.lab import people
from sekisho.lab.lab import Lab
from sekisho.lab.sets import CANARY_RULE


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    rules: Path = tmp_path_factory.mktemp("rules")
    (rules / "canary.rules").write_text(CANARY_RULE)
    with Lab(f"ch{os.getpid()}") as lab:
        lab.up({"signatures": {"rules_dir": str(rules)}}, firmware=True)
        access = people.move_in(lab)
        people.enrol(lab)
        yield Chain(lab, access)
