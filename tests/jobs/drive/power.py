"""Power that fails at one step of all a box does that lasts."""

from __future__ import annotations

from pathlib import Path

import pytest
from jobsbox import Box, Died

from sekisho.appliance.core import fsio
from sekisho.appliance.core.journal import JournalWriter
from sekisho.portal_agent.jobs import book, inbox, runner


class Power:
    """Counts steps, and fails at one of them."""

    def __init__(self, fails_at: int) -> None:
        self.step, self.fails_at, self.off = 0, fails_at, False

    def __call__(self, _: str = "") -> None:
        self.step += 1
        if self.step == self.fails_at:
            self.off = True
            raise Died


def powered(power: Power, monkeypatch: pytest.MonkeyPatch, box: Box) -> None:
    """Let the power fail around everything that lasts."""
    append, done = JournalWriter.append, inbox.done

    def saving(path: Path, data: bytes, mode: int = 0o600) -> None:
        power()
        # Half of it is on the disk, under the name it has before the rename.
        path.with_name(f".{path.name}.torn").write_bytes(data[: len(data) // 2])
        power()
        fsio.write_atomic(path, data, mode)
        power()

    def appending(self: JournalWriter, line: bytes, *, durable: bool = True) -> None:
        power()
        append(self, line, durable=durable)
        power()

    def taken(folder: Path, name: str) -> None:
        power()
        done(folder, name)
        power()

    monkeypatch.setattr(book, "write_atomic", saving)
    monkeypatch.setattr(runner, "write_atomic", saving)
    monkeypatch.setattr(JournalWriter, "append", appending)
    monkeypatch.setattr(inbox, "done", taken)
    box.hands.step = power
