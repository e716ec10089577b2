"""One whole lab a module, with the further servers that these protocols need."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from sekisho.lab.lab import Lab

Serve = Callable[[list[str], int], None]


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Everything, with a name of its own."""
    short = request.module.__name__.rpartition("test_")[2].replace("_", "")[:8]
    with Lab(f"xp{os.getpid()}-{short}") as lab:
        lab.up({"quarantine": {"max_mb": 256}})  # it lies in memory here
        yield lab


@pytest.fixture(scope="module")
def serve(lab: Lab) -> Iterator[Serve]:
    """Start a program on the internet side and return when its port answers; it ends with the module."""
    with ExitStack() as running:

        def start(argv: list[str], port: int) -> None:
            process = running.enter_context(lab.popen("wan", argv))
            running.callback(process.terminate)

            def listens() -> bool:
                assert process.poll() is None, process.stdout.read() if process.stdout else argv
                return bool(lab.run("wan", ["ss", "-Hltn", f"sport = :{port}"]).stdout)

            lab.wait(listens, f"nothing listens on port {port}")

        yield start
