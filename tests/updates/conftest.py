"""A lab whose centre publishes signatures, and whose office works while they change."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from sekisho.lab import sets, updates
from sekisho.lab.lab import Lab


class Office:
    """The lab of this folder. Numbers of sets only grow, whichever test publishes next."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.number = 0

    def publish(self, files: sets.Files) -> int:
        """Publish, tell the box, and return the number."""
        self.number += 1
        self.lab.channel.publish(self.number, files)
        updates.ask(self.lab, "update")
        return self.number

    def bring(self, files: sets.Files) -> int:
        """`publish`, and wait until the box works with it."""
        number = self.publish(files)
        updates.wait_for(self.lab, number, 40)
        return number


@pytest.fixture(scope="session")
def office() -> Iterator[Office]:
    """The box took its first sets."""
    with Lab(f"ld{os.getpid()}") as lab:
        lab.up({"signatures": {"soak_minutes": 0.0}}, channel=True)
        made = Office(lab)
        for day in (1, 2):  # twice: a new dropping rule that is as loud as the canary would be held back
            made.bring(sets.of_day(sets.small(), day, added=1))
        yield made
