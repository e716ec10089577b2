"""A mail server that is real (STARTTLS, a login) and can misbehave, and the notifier's daemon before it."""

from __future__ import annotations

import asyncio
import datetime as dt
import email
import email.policy
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from sekisho.center import pki, tenants
from sekisho.center.database import Database
from sekisho.center.notify import queue
from sekisho.center.notify.queue import Shown
from sekisho.center.notify.tables import mail
from sekisho.center.settings import Notify
from sekisho.center.store import NewRow, Store
from sekisho.lab.ports import free_port
from sekisho.telemetry.events import Alert, Event, Flow, encode, lane_of

PASSWORD = "open sesame"


class MailServer:
    """Takes mails for anybody; `behave` says what the next transactions meet instead."""

    def __init__(self, authority: Path, name: str = "localhost") -> None:
        self.pki = authority
        self.files = pki.issue(self.pki, "mail", "server", (name,))
        self.behave: deque[str] = deque()
        """At RCPT: "451 ...", "550 ..."; at DATA: "data 554 ...", "die", "lose", "hang"; "take" is none of them."""
        self.cuts: set[str] = set()
        """Recipients at whom it breaks off."""
        self.tried = 0
        self.mails: list[tuple[str, bytes]] = []
        self.connections = 0
        self.arrived = threading.Condition()
        self.controller: Controller | None = None
        self.port = free_port()

    def start(self, *, auth: bool = True, starttls: bool = True) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.files.cert, self.files.key)
        self.controller = Controller(
            self,
            hostname="localhost",
            port=self.port,
            tls_context=context if starttls else None,
            require_starttls=starttls,
            auth_required=auth,
            authenticator=_login,
            timeout=30,
        )
        self.controller.start()

    def stop(self) -> None:
        if self.controller is not None:
            self.controller.stop()
            self.controller = None

    async def handle_EHLO(self, _server: Any, session: Any, _envelope: Any, hostname: str, answers: list[str]) -> Any:
        self.connections += 1
        session.host_name = hostname
        return answers

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:
        self.tried += 1
        if address in self.cuts:
            return "421 4.7.0 closing"
        if self.behave and self.behave[0][:1].isdigit():
            return self.behave.popleft()
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, _session: Any, envelope: Any) -> str:
        does = self.behave.popleft() if self.behave else "take"
        if does == "hang":
            await asyncio.sleep(3600)
        if does.startswith("data "):
            return does.removeprefix("data ")
        if does != "die":
            with self.arrived:
                self.mails += [(to, bytes(envelope.content)) for to in envelope.rcpt_tos]
                self.arrived.notify_all()
        if does in ("die", "lose"):
            server.transport.abort()
        return "250 taken"

    def wait(self, count: int, timeout_s: float = 20.0) -> list[EmailMessage]:
        """The mails once there are so many."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.mails) >= count, timeout_s), f"{len(self.mails)} of {count}"
            return [parse(raw) for _, raw in self.mails]


def _login(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=(data.login, data.password) == (b"sekisho", PASSWORD.encode()), handled=False)


def parse(raw: bytes) -> EmailMessage:
    """As a mail client reads it; a defect is an error."""
    strict = email.policy.SMTP.clone(raise_on_defect=True)
    message = email.message_from_bytes(raw, policy=strict)
    assert isinstance(message, EmailMessage)
    return message


def text_of(message: EmailMessage) -> str:
    body = message.get_body(("plain",))
    assert isinstance(body, EmailMessage)
    return str(body.get_content())


def alert(number: int = 1, stars: int = 3, **fields: Any) -> Alert:
    """An alert of the device 192.168.1.23, with a rule of this number."""
    made = {
        "at": "2026-01-02T03:04:05.000006Z",
        "flow": Flow("192.168.1.23", 50000, "203.0.113.9", 443, "TCP", "00:11:22:33:44:55"),
        "signature": f"test rule {number}",
        "action": "blocked",
        **fields,
    }
    return Alert(sid=number, stars=stars, **made)


class Office:
    """A centre's database with one tenant, and notifiers on it."""

    def __init__(self, root: Path, server: MailServer, store: Path | None = None) -> None:
        self.root, self.server = root, server
        self.url = str(store or root / "center.db")
        self.store = Store(self.url)
        self.database = Database(self.url)
        self.reading = Database(self.url, read_only=True)
        self.seq = 0
        self.processes: list[subprocess.Popen[bytes]] = []
        (root / "password").touch(0o600)
        (root / "password").write_text(PASSWORD + "\n")
        self.notify: dict[str, Any] = {
            "smtp_host": "localhost",
            "smtp_port": server.port,
            "ca": str(server.pki / "ca.crt"),
            "user": "sekisho",
            "password_file": str(root / "password"),
            "sender": "watch@centre.example",
            "sender_name": "見守りセンター",
            "help_desk": "相談窓口 03-0000-0000",
            "links": "https://centre.example",
            "operator": ["staff@centre.example"],
        }
        self.tenant(recipients=["owner@shop.example"], name="桜商店")

    def tenant(self, **values: Any) -> None:
        with self.database.transaction() as db:
            tenants.save(db, tenants.changed(tenants.load(db, "t1"), values))

    def config(self, **change: Any) -> Notify:
        values = {**self.notify, **change}
        return Notify(**{**values, "operator": tuple(values["operator"])})

    def add(self, *events: Event, tenant: str = "t1", box: str = "box-1") -> None:
        """Store events as the ingest does."""
        rows = []
        for event in events:
            self.seq += 1
            tag = str(event.__struct_config__.tag)
            stars = getattr(event, "stars", 0)
            rows.append(NewRow(self.seq, lane_of(event), tag, event.at, encode(event), stars=stars))
        with self.store.transaction():
            self.store.add(tenant, box, "e" * 16, rows, now_text())

    def start(self, **change: Any) -> subprocess.Popen[bytes]:
        settings = self.root / "notify.toml"
        lines = [f'store = "{self.url}"', "[broker]", 'host=""', 'ca=""', 'cert=""', 'key=""', "[notify]"]
        for key, value in {**self.notify, **change}.items():
            lines.append(f"{key} = {value!r}" if not isinstance(value, str) else f'{key} = "{value}"')
        settings.write_text("\n".join(lines))
        with (self.root / "notify.log").open("ab") as log:
            argv = [sys.executable, "-I", "-m", "sekisho.center.notify", "--settings", str(settings)]
            self.processes.append(subprocess.Popen(argv, stdout=log, stderr=log))
        return self.processes[-1]

    def kill(self, sig: int = signal.SIGKILL) -> None:
        for process in self.processes:
            process.send_signal(sig)
            process.wait(20)
        self.processes.clear()

    def mails(self, **which: Any) -> list[Shown]:
        return queue.shown(self.reading, **which)

    def make_due(self, id_: str = "") -> None:
        """As if the time had come: of one mail, or of every one that is not done."""
        which = mail.c.id == id_ if id_ else mail.c.done_at == ""
        with self.database.transaction() as db:
            db.execute(sa.update(mail).where(which).values(due_at=now_text()))

    def wait(self, fact: Callable[[], object], timeout_s: float = 20.0) -> None:
        until = time.monotonic() + timeout_s
        while not fact():
            assert time.monotonic() < until, f"waited in vain\n{self.mails()}\n{self.log()}"
            time.sleep(0.02)

    def log(self) -> str:
        path = self.root / "notify.log"
        return path.read_text()[-4000:] if path.exists() else ""


def now_text() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
