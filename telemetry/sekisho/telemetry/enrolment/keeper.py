"""Sees to it that the certificate is renewed in time, in a process of its own.

Due is what `renewal.json` says, by the best time the box knows. A box whose clock is far behind would never be due:
one that has not reached its broker for `UNREACHED_S` tries as well, because an expired certificate looks just like
that from inside, and the centre still renews one (otherwise it says "too soon", which costs nothing). After a
failure the next try waits: a fiftieth of the certificate's life or a minute, doubling, an hour at most, jittered.
"""

from __future__ import annotations

import logging
import random
import subprocess
import sys
from pathlib import Path
from typing import Final, Literal

from sekisho.telemetry.enrolment import due

LOOK_S: Final = 1.0
UNREACHED_S: Final = 600.0
FIRST_CAP_S: Final = 60.0
WAIT_CAP_S: Final = 3600.0
RUN_CAP_S: Final = 120.0

Outcome = Literal["", "renewed", "refused", "rotated", "not_due", "denied", "fault"]
"""The last four of a try for a job: done; the certificate is new; a person must act; it is tried again."""
_OF_JOB: Final[dict[int, Outcome]] = {1: "not_due", 2: "denied"}

log = logging.getLogger(__name__)


class Keeper:
    """One box's renewal; `turn` never waits."""

    def __init__(self, settings: Path, identity: Path | None, now: float) -> None:
        """`identity` is None where nobody renews it: the box was not enrolled with a code."""
        self._argv = [sys.executable, "-I", "-m", "sekisho.telemetry.enrolment.box", "--settings", str(settings)]
        self._identity = identity
        self._look_at, self._reached_at = now, now
        self._process: subprocess.Popen[bytes] | None = None
        self._give_up_at = 0.0
        self._failures = 0
        self._told = False
        self._job = ""

    def free(self, now: float) -> bool:
        """Whether a try for a job may begin: none is under way, and the pause after the last is over."""
        return self._process is None and now >= self._look_at and self._due() is not None

    def ask(self, job: str, was: str, now: float) -> None:
        """Replace the certificate `was` now, for a job of operators."""
        self._job = job
        self._begin(now, "--job", job, "--was", was)

    def turn(self, now: float, utc: float, *, connected: bool) -> Outcome:
        """Do what is due and say what became of a try that ended; `utc` is the best unix time the box knows."""
        if connected:
            self._reached_at = now
        if self._process:
            return self._ended(now)
        if now < self._look_at:
            return ""
        self._look_at = now + LOOK_S
        known = self._due()
        if known and (utc >= known.renew_at or now - self._reached_at > UNREACHED_S):
            self._begin(now)
        return ""

    def _begin(self, now: float, *more: str) -> None:
        self._process = subprocess.Popen([*self._argv, *more], stdin=subprocess.DEVNULL)
        self._give_up_at = now + RUN_CAP_S

    def close(self) -> None:
        """End a try that is under way; it leaves the old identity or the new one."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def _ended(self, now: float) -> Outcome:
        process = self._process
        if process is None or process.poll() is None:
            if process and now > self._give_up_at:
                process.kill()
            return ""
        self._process = None
        job, self._job = self._job, ""
        self._look_at = now + self._pause_s()
        if process.returncode == 0:
            self._failures, self._told, self._reached_at = 0, False, now
            self._look_at = now + LOOK_S
            log.info("the certificate was renewed")
            return "rotated" if job else "renewed"
        self._failures += 1
        told, self._told = self._told, process.returncode == 2
        if job:
            return _OF_JOB.get(process.returncode, "fault")
        return "refused" if self._told and not told else ""

    def _due(self) -> due.Due | None:
        return due.try_read(self._identity) if self._identity else None

    def _pause_s(self) -> float:
        known = self._due()
        first = min(max(LOOK_S, known.life_s / 50), FIRST_CAP_S) if known else WAIT_CAP_S
        pause = min(first * 2.0 ** min(self._failures, 10), WAIT_CAP_S)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
