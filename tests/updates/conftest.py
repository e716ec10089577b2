"""A lab whose box changes its rules while its office works."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.lab.lab import Lab
from sekisho.lab.sets import CANARY_RULE
from sekisho.signatures.sources import SHIPPED


@pytest.fixture(scope="session")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The owner's rules of this box: those that ship, and the canary's."""
    folder = tmp_path_factory.mktemp("rules")
    shutil.copy(SHIPPED / "suricata" / "sekisho.rules", folder)
    (folder / "canary.rules").write_text(CANARY_RULE + "\n")
    return folder


@pytest.fixture(scope="session")
def office(rules: Path) -> Iterator[Lab]:
    """The product with its owner's rules, no channel."""
    with Lab(f"ld{os.getpid()}") as lab:
        lab.up({"signatures": {"rules_dir": str(rules)}})
        yield lab
