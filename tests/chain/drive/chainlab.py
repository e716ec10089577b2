"""A lab with everything that brings a release to a box, and its portal as people see it."""

from __future__ import annotations

import datetime as dt
import re

import requests

from sekisho.center.database import Database
from sekisho.center.portal import accounts, sessions
from sekisho.center.portal.rights import Role
from sekisho.center.rollout import book
from sekisho.lab import layout
from sekisho.lab.lab import Lab
from sekisho.lab.people import Access
from sekisho.lab.rollouts import Operations
from sekisho.telemetry.events import Firmware

COOKIE = "__Host-sekisho"


class Chain:
    """The lab, its operator, and its portal."""

    def __init__(self, lab: Lab, access: Access) -> None:
        self.lab, self.access = lab, access
        self.operations = Operations(lab)
        self.operations.appoint()
        self.operations.on_the_box("refresh")  # who may sign; else within a minute and a half

    def page(self, role: Role, path: str, **form: str) -> str:
        """A page of the portal as somebody of this role sees it, or sees it after a form of it was sent."""
        verify = str(self.lab.lay.authority / "ca.crt")
        with requests.Session() as browser:
            browser.cookies.set(COOKIE, self._session(role))
            text = _text(browser.get(self.access.url + path, timeout=30, verify=verify))
            if not form:
                return text
            found = re.search(r'name="csrf" value="([^"]+)"', text)
            assert found
            sent, own = {"csrf": found[1], **form}, {"origin": self.access.url}
            return _text(browser.post(self.access.url + path, data=sent, headers=own, timeout=30, verify=verify))

    def _session(self, role: Role) -> str:
        database, now = Database(str(self.lab.lay.center_store)), dt.datetime.now(dt.UTC)
        try:
            with database.transaction() as db:
                tenant = layout.TENANT if role == "admin" else ""
                login = f"{role}-{now.timestamp():.6f}@example.com"
                return sessions.begin(db, accounts.make(db, login, role, tenant=tenant, now=now), now)
        finally:
            database.close()

    def wait(self, rollout: str, *states: str, timeout_s: float = 400) -> book.Shown:
        """How it is once it is in one of these states."""

        def there() -> bool:
            return self.operations.shown(rollout).listed.rollout.state in states

        self.lab.wait(there, f"the rollout is not {' or '.join(states)}", timeout_s)
        return self.operations.shown(rollout)

    def told(self, counter: int) -> list[str]:
        """What the box told the centre of a release, in order."""
        found = [row.event for row in self.lab.events()]
        return [one.state for one in found if isinstance(one, Firmware) and one.counter == counter]

    def released(self) -> dict[str, str]:
        """Which release each daemon of the box says it runs."""
        running = {one.name: one.said for one in self.lab.status() if one.place == "box"}
        return {name: said.removeprefix("release ") for name, said in running.items() if name != "firmware_errands"}

    def whole(self) -> bool:
        """Every number of every epoch is at the centre, from the first to the last."""
        numbers: dict[tuple[str, str], set[int]] = {}
        for row in self.lab.events():
            numbers.setdefault((row.box, row.epoch), set()).add(row.seq)
        return bool(numbers) and all(len(seen) == max(seen) - min(seen) + 1 for seen in numbers.values())


def _text(answer: requests.Response) -> str:
    assert answer.status_code == 200, answer.text[-2000:]
    return answer.text
