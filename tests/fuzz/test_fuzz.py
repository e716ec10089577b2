"""Every target survives what was once found, and some seconds of fuzzing; `make fuzz` takes minutes for each."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import run  # noqa: E402
from targets import TARGETS  # noqa: E402

FOUND = sorted(path for path in (HERE / "corpus").glob("*/*") if path.is_file())
SECONDS = 2


def test_every_folder_of_findings_has_its_target() -> None:
    assert {path.parent.name for path in FOUND} <= set(TARGETS)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_seeds_and_their_pieces_are_survived(name: str) -> None:
    for seed in TARGETS[name].seeds:
        for cut in {0, 1, len(seed) // 3, len(seed) // 2, len(seed) - 1, len(seed)}:
            TARGETS[name].run(seed[:cut])
            TARGETS[name].run(seed[cut:])


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_once_stays_mended(path: Path) -> None:
    began = time.process_time()
    TARGETS[path.parent.name].run(path.read_bytes())
    assert time.process_time() - began < run.INPUT_SECONDS / 2


@pytest.mark.timeout(280)
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="no coverage-guided fuzzer on this machine")
def test_some_seconds_of_fuzzing_find_nothing() -> None:
    names, parts = sorted(TARGETS), os.cpu_count() or 1

    def fuzz(part: int) -> str:
        argv = [sys.executable, str(HERE / "run.py"), *names[part::parts], "--seconds", str(SECONDS)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr if done.returncode else ""

    with ThreadPoolExecutor(parts) as pool:
        assert [told for told in pool.map(fuzz, range(min(parts, len(names)))) if told] == []
