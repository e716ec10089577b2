"""How a daemon ends says who must act: nobody, whoever gave it its settings, whoever owns the machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.appliance.core import program
from sekisho.appliance.core.errors import DeviceFault, RejectedInput


class _Works:
    def __init__(self, code: int | None) -> None:
        self._code = code
        self.stopped = False

    def run(self) -> int | None:
        os.kill(os.getpid(), signal.SIGTERM)
        return self._code if self.stopped else 99

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_it_is_stopped_by_sigterm_and_its_own_word_counts(returned: int | None, code: int) -> None:
    assert program.main("test", lambda _: _Works(returned), ["--settings", "x"]) == code


@pytest.mark.parametrize(("error", "code"), [(RejectedInput("no"), 2), (DeviceFault("no"), 3)])
def test_what_it_cannot_begin_with_is_told_apart(error: Exception, code: int) -> None:
    def make(_: Path) -> _Works:
        raise error

    assert program.main("test", make, ["--settings", "x"]) == code
