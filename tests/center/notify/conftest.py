"""Fixtures of the notifier's tests; what they are made of is in `drive/`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "drive"))

from post_office import MailServer, Office


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MailServer]:
    made = MailServer(tmp_path)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def office(tmp_path: Path, server: MailServer) -> Iterator[Office]:
    made = Office(tmp_path, server)
    yield made
    made.kill()
