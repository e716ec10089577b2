"""Fixtures of the notifier's tests; what they are made of is in `drive/`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.center import pki

sys.path.insert(0, str(Path(__file__).parent / "drive"))

from post_office import MailServer, Office


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Who vouches for the mail servers."""
    made = tmp_path_factory.mktemp("mail") / "pki"
    pki.create_ca(made)
    return made


@pytest.fixture
def server(authority: Path) -> Iterator[MailServer]:
    made = MailServer(authority)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def office(tmp_path: Path, server: MailServer) -> Iterator[Office]:
    made = Office(tmp_path, server)
    yield made
    made.kill()
