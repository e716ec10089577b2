"""A small centre with its API: partners of every role, with certificates of the partners' own CA."""

from __future__ import annotations

import datetime as dt
import itertools
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from litestar import Litestar
from litestar.testing import TestClient
from office import CHAMBERS, US, Office

from sekisho.center import pki
from sekisho.center.api import partners
from sekisho.center.api.app import create_app
from sekisho.center.api.versions import VERSIONS, Version
from sekisho.center.portal.rights import Role
from sekisho.center.settings import Api
from sekisho.center.web.guard import guarded


class Partner(NamedTuple):
    """Somebody with a certificate."""

    name: str
    cert: Path
    key: Path

    @property
    def pem(self) -> str:
        return self.cert.read_text()

    @property
    def fingerprint(self) -> str:
        return x509.load_pem_x509_certificate(self.cert.read_bytes()).fingerprint(hashes.SHA256()).hex()


class House:
    """The centre's database with the API's application on it; no network."""

    def __init__(self, folder: Path, *, requests_per_minute: int = 100_000, store: str = "") -> None:
        self.folder = folder
        self.office = Office(folder, store)
        self.authority = folder / "partners"
        pki.create_ca(self.authority, "sekisho partners CA")
        api = Api(cert="", key="", client_ca=str(self.authority / "ca.crt"), requests_per_minute=requests_per_minute)
        self.settings = msgspec.structs.replace(self.office.settings, api=api)
        self._numbers = itertools.count(1)
        self._clients: list[Client] = []

    def partner(self, role: Role = "admin", tenant: str = US) -> Partner:
        """A new partner of this role with a certificate that is good."""
        name = f"{role}-{next(self._numbers)}"
        own: dict[str, Any] = {"tenants": [tenant]} if role in ("admin", "member") else {}
        own |= {"reseller": CHAMBERS[tenant]} if role == "reseller" else {}
        made = self.certificate(name)
        now = dt.datetime.now(dt.UTC)
        with self.office.store.transaction() as db:
            partners.add(db, name, role, now=now, **own)
            partners.admit(db, name, made.fingerprint, now + dt.timedelta(days=30), now)
        return made

    def certificate(self, name: str) -> Partner:
        """A certificate of the partners' CA that nobody has entered."""
        files = pki.issue(self.authority, name)
        return Partner(name, files.cert, files.key)

    def revoke(self, partner: Partner, fingerprint: str = "") -> None:
        with self.office.store.transaction() as db:
            partners.revoke(db, partner.name, dt.datetime.now(dt.UTC), fingerprint)

    def client(self, versions: Sequence[Version] = VERSIONS, now: Callable[[], dt.datetime] | None = None) -> Client:
        made = Client(create_app(self.settings, versions, now))
        made.__enter__()
        self._clients.append(made)
        return made

    def close(self) -> None:
        for client in reversed(self._clients):
            client.__exit__(None, None, None)
        self.office.close()


class Client(TestClient[Litestar]):
    """One connection on which `shown` is the certificate; it may change hands."""

    def __init__(self, app: Litestar) -> None:
        self.shown: Partner | None = None
        self.api = app
        super().__init__(self._introduced(guarded(app)), base_url="https://api.example")

    def _introduced(self, app: Any) -> Any:
        async def serve(scope: Any, receive: Any, send: Any) -> None:
            chain = (self.shown.pem,) if self.shown else ()
            await app({**scope, "extensions": {"tls": {"client_cert_chain": chain}}}, receive, send)

        return serve

    def ask(self, who: Partner | None, method: str, path: str, **more: Any) -> Any:
        self.shown = who
        return self.request(method, path, **more)


class Service(House):
    """The same as a real process behind TLS."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.boxes = folder / "boxes"
        pki.create_ca(self.boxes)
        server = pki.issue(self.boxes, "api", "server", ("127.0.0.1",))
        self.ca = server.ca
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.config = folder / "center.toml"
        self.config.write_text(
            f'store = "{self.office.path}"\n[broker]\nhost = "127.0.0.1"\nca = "a"\ncert = "b"\nkey = "c"\n'
            f'[api]\nport = {self.port}\naddress = "127.0.0.1"\ncert = "{server.cert}"\nkey = "{server.key}"\n'
            f'client_ca = "{self.authority / "ca.crt"}"\nrequests_per_minute = 100000\n'
        )
        self.log = folder / "api.log"
        argv = [sys.executable, "-I", "-m", "sekisho.center.api", "--settings", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stderr=log)
        until = time.monotonic() + 30
        while not self._listens():
            assert self.process.poll() is None and time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.port}{path}"

    def session(self, who: Partner | None) -> requests.Session:
        """A connection that stays open, with this certificate."""
        made = requests.Session()
        made.trust_env = False  # an environment's own list of CAs would go before ours
        made.verify = str(self.ca)
        made.cert = (str(who.cert), str(who.key)) if who else None
        return made

    def get(self, who: Partner | None, path: str) -> requests.Response:
        with self.session(who) as session:
            return session.get(self.url(path), timeout=20)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        super().close()
