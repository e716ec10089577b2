"""A box of its own in a folder, as the page's tests see it, and a browser in its office."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from sekisho.appliance import status
from sekisho.appliance.core.settings import Settings, load
from sekisho.appliance.engine import EngineState
from sekisho.appliance.status import Status
from sekisho.appliance.watchdog import Part
from sekisho.inspect.kept import Entry
from sekisho.inspect.quarantine import Quarantine
from sekisho.lab.ports import free_port
from sekisho.portal_agent.certificate import note_file
from sekisho.portal_agent.daemon import Page
from sekisho.portal_agent.office import certificate_file
from sekisho.telemetry.events import Event, Health
from sekisho.telemetry.spool import Spool

PASSWORD = "correct horse battery"


class Box:
    """One box for a test."""

    def __init__(self, folder: Path, certificate: Path) -> None:
        """`certificate` was made before for 127.0.0.1: making one takes longer than most tests."""
        self.folder = folder
        port, door = free_port(), free_port()
        self.settings_file = folder / "box.toml"
        self.settings_file.write_text(
            f'box = "shop-1"\nhelp_desk = "内線 123"\n[bridge]\naddresses = ["127.0.0.1/8"]\n'
            f'[paths]\nrun = "{folder}/run"\nstate = "{folder}/state"\n[page]\nport = {port}\ndoor_port = {door}\n'
        )
        self.settings: Settings = load(self.settings_file)
        self.origin, self.door = f"https://127.0.0.1:{port}", f"http://127.0.0.1:{door}"
        for path in (self.settings.run, self.settings.state):
            path.mkdir()
        self.settings.doorway.parent.mkdir(parents=True)
        self.settings.doorway.touch()
        self.settings.page_state.mkdir()
        for path in (certificate, note_file(certificate)):
            shutil.copy(path, self.settings.page_state)
        self.page = Page(self.settings, self.settings_file)
        self.office = self.page.office
        self.ahead = 0.0
        """Seconds that the page's clock is ahead."""
        self.office.now = lambda: time.monotonic() + self.ahead
        self.reported: list[Health] = []
        kept = self.settings.quarantine
        self.quarantine = Quarantine(
            self.settings.quarantine_dir, max_bytes=kept.max_mb << 20, keep_days=kept.keep_days
        )

    def keep(self, content: bytes, **about: Any) -> Entry:
        """Put a file into the quarantine."""
        path = self.folder / "content"
        path.write_bytes(content)
        fields: dict[str, Any] = {
            "id": "", "at": "2026-11-21T10:00:00.000000Z", "sha256": "ab" * 32, "size": len(content),
            "file_name": "invoice.exe", "rules": ["bad_rule"], "app": "http", "url": "http://bad.example/invoice.exe",
            "src": "203.0.113.9", "dst": "192.0.2.10",
        }  # fmt: skip
        with path.open("rb") as source:
            return self.quarantine.put(source.fileno(), len(content), Entry(**(fields | about)))

    def inspecting(self, *, engine: str = "", gate: str = "", fail: str = "open", phase: Any = "running") -> None:
        """Publish a status as the appliance does, good for minutes; `engine` and `gate` say why each is bypassed."""
        state = EngineState(phase=phase, rules_expected=10, rules_loaded=10, starts=1)
        told = Status(
            1, time.monotonic() + 300, "normal", fail, state, Part("engine", engine), Part("gate", gate), devices=1
        )
        status.write(self.settings, told)

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.settings.page.port)) == 0

    @staticmethod
    def wait(fact: Callable[[], bool], timeout_s: float = 15) -> bool:
        """Whether it became true in time."""
        until = time.monotonic() + timeout_s
        while not fact():
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def sent(self, *events: Event) -> None:
        """Have the centre acknowledge these events."""
        spool = Spool.open(self.settings.spool, 64 << 20, "2026-11-21T10:00:00.000000Z", "boot", 48)
        try:
            spool.add(events)
            spool.acknowledge(spool.next_seq() - 1, [])
        finally:
            spool.close()


class Browser:
    """A client in the office, which sends what a browser sends, over HTTPS with the box's own certificate."""

    def __init__(self, box: Box, peer: str = "127.0.0.1") -> None:
        self.box, self.csrf = box, ""
        trust = ssl.create_default_context(cafile=certificate_file(box.settings))
        self.client = httpx.Client(
            base_url=box.origin, transport=httpx.HTTPTransport(verify=trust, local_address=peer, retries=3), timeout=20
        )

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.client.get(path, headers=headers)

    def post(self, path: str, form: dict[str, str] | None = None, **headers: str) -> httpx.Response:
        fields = ({"csrf": self.csrf} if self.csrf else {}) | (form or {})
        return self.client.post(path, data=fields, headers={"origin": self.box.origin} | headers)

    def sign_in(self, password: str = PASSWORD) -> httpx.Response:
        answer = self.post("/sign-in", {"password": password})
        if answer.status_code == 303:
            found = re.search(r'name="csrf" value="([^"]+)"', self.get("/").text)
            assert found is not None
            self.csrf = found[1]
        return answer
