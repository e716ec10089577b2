"""The centre's people who make releases and bring them to boxes, at work in a lab: each step by its command.

One operator, with a key that the keyholders of `operators` let in; plans, signatures and starts as in docs/rollout.md.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.errors import PeerError
from sekisho.center.database import Database
from sekisho.center.rollout import book
from sekisho.center.rollout.sending import JOBS
from sekisho.firmware.build.bundle import Terms
from sekisho.firmware.keeper.desk import Shown
from sekisho.firmware.published import Release
from sekisho.lab import layout
from sekisho.lab.lab import Lab

OPERATOR: Final = "tanaka"
SEKISHO: Final = str(Path(sys.executable).with_name("sekisho"))
SOAK_S: Final = 6.0
BROKEN: Final = {"sekisho.telemetry.daemon": "raise SystemExit(4)\n"}
"""A release whose telemetry does not start."""


class Operations:
    """Of one lab that is up with `firmware`."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._desk = lab.lay.center / "operator"
        """The operator's own machine."""

    def appoint(self) -> None:
        """An operator makes a key, which is published in the list of who may sign jobs. Twice is once."""
        key, public, listed = (self._desk / name for name in ("operator.key", "operator.json", "operators.json"))
        if key.exists():
            return
        self._desk.mkdir(mode=0o700)
        public.write_text(_sekisho("center", "jobs", "key", "new", "--out", str(key), "--name", OPERATOR))
        where = ["--dir", str(self._lab.lay.updates)]
        add = ["firmware", "operators", "add", "--list", str(listed), "--key", str(public), "--kinds", "all"]
        _sekisho(*add, *where)
        _sekisho("firmware", "operators", "publish", str(listed), *where, "--keys", str(self._lab.channel.keys))

    def release(self, counter: int, version: str, changed: Mapping[str, str] | None = None, notes: str = "") -> Release:
        """Make and publish one of this tree."""
        return self._lab.channel.release(counter, version, changed, Terms(notes_ja=notes, notes_en=notes))

    def roll_out(self, counter: int, *more: str, soak_s: float = SOAK_S) -> str:
        """Plan, sign and start it for the lab's box; its name. `more`: further words for the plan."""
        plan, store = self._desk / f"{counter}.json", ["--store", str(self._lab.lay.center_store)]
        where = ["--release", str(self._lab.channel.built(counter) / "release.json"), "--out", str(plan)]
        whom = ["--ring", layout.BOX_NAME, "--only", "--soak-hours", f"{soak_s / 3600:.6f}"]
        told = _sekisho("center", "rollout", "plan", *where, *whom, "--json", *more, *store)
        _sekisho("center", "rollout", "sign", "--key", str(self._desk / "operator.key"), str(plan))
        _sekisho("center", "rollout", "start", str(plan), *store)
        return str(msgspec.json.decode(told)["id"])

    def shown(self, rollout: str) -> book.Shown:
        """As the staff's page has it."""
        database = Database(str(self._lab.lay.center_store), read_only=True)
        try:
            with database.reading() as db:
                return book.show(db, rollout, JOBS)
        finally:
            database.close()

    def on_the_box(self, *words: str) -> Shown:
        """What `sekisho firmware WORDS` says there."""
        argv = [SEKISHO, "firmware", *(words or ("status",)), "--json", "--settings", str(self._lab.lay.box_settings)]
        done = self._lab.run("box", argv)
        if done.returncode:
            raise PeerError(f"sekisho firmware {' '.join(words)}: {done.stderr.decode()[-400:].strip()}")
        return msgspec.json.decode(done.stdout, type=Shown)


def _sekisho(*words: str) -> str:
    done = subprocess.run([SEKISHO, *words], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise PeerError(f"sekisho {' '.join(words[:3])}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout
