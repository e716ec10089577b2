"""The portal's fixtures."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import argon2
import pytest

from sekisho.appliance.core import utc
from sekisho.center.portal.access import passwords

sys.path.insert(0, str(Path(__file__).parent / "drive"))

from office import Office  # the path above leads to it


@pytest.fixture(scope="session", autouse=True)
def quick_passwords() -> Iterator[None]:
    """The same hash with little work: most tests are not about how long a guess takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
        yield


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
def ago() -> Callable[..., str]:
    """A time in the past as events have it, from the parts of a timedelta: five minutes ago is `ago(minutes=5)`."""

    def of(**parts: float) -> str:
        return utc.text(dt.datetime.now(dt.UTC) - dt.timedelta(**parts))

    return of
