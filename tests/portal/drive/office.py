"""A small centre on SQLite with its portal: people of every role, events stored the way ingest stores them."""

from __future__ import annotations

import datetime as dt
import itertools
from pathlib import Path
from typing import Any

from litestar import Litestar
from litestar.testing import TestClient

from sekisho.appliance.core import utc
from sekisho.center import customers, settings, tenants
from sekisho.center.contracts import plan
from sekisho.center.portal import accounts, sessions
from sekisho.center.portal.app import create_app
from sekisho.center.portal.rendering import COOKIE
from sekisho.center.portal.rights import Role
from sekisho.center.portal.viewer import Viewer
from sekisho.center.store import NewRow, Store
from sekisho.center.tenants import Locale, Tenant
from sekisho.telemetry.events import Event, encode, lane_of

ORIGIN = "https://portal.example"
US, THEM = "aoki-store", "baba-clinic"
"""Two customers; the chamber `kita-cci` looks after the first, `minami-cci` after the second."""
CHAMBERS = {US: "kita-cci", THEM: "minami-cci"}
BOXES = {US: "box-aoki-1", THEM: "box-baba-1"}
EPOCH = "e1"


class Client(TestClient[Litestar]):
    """A browser that is signed in."""

    csrf = ""
    settings: settings.CenterSettings
    """Whose application it began; other clients of it share its loop."""

    def submit(self, path: str, **fields: str) -> Any:
        """Post a form of one of our pages; redirects are not followed."""
        return self.post(path, data={"csrf": self.csrf, **fields}, headers={"origin": ORIGIN}, follow_redirects=False)


class Office:
    """The centre's database with the portal's application on it."""

    def __init__(self, folder: Path, store: str = "") -> None:
        """`store`: an empty database elsewhere, postgresql://..."""
        self.path = folder / "events.db"
        self.settings = settings.CenterSettings(
            broker=settings.BrokerLink("localhost", "", "", ""),
            store=store or str(self.path),
            exports=str(folder / "exports"),
            portal=settings.Portal(cert="", key="", origin=ORIGIN, proof_key=str(folder / "reports.key")),
            notify=settings.Notify(help_desk="相談窓口 03-0000-0000"),
        )
        plan.know_every_room()
        self.store = Store(store or self.path)
        self._numbers = itertools.count(1)
        with self.store.transaction() as db:
            for tenant, chamber in CHAMBERS.items():
                customers.add(db, tenant, chamber, at=utc.now())
                tenants.save(db, Tenant(tenant, name={US: "青木商店", THEM: "馬場医院"}[tenant]))
        self._clients: list[Client] = []

    def client(self, role: Role = "admin", tenant: str = US, locale: Locale = "ja") -> Client:
        """Somebody of this role, signed in; who sees many customers looks at `tenant`."""
        made = self.anonymous()
        secret, who = self.sign_in(role, tenant, locale)
        made.cookies.set(COOKIE, secret)
        made.csrf = who.csrf
        return made

    def sign_in(self, role: Role, tenant: str = US, locale: Locale = "ja") -> tuple[str, Viewer]:
        """A new account of this role with a session: (the cookie's secret, who it is)."""
        now = dt.datetime.now(dt.UTC)
        own = {"tenant": tenant} if role in ("admin", "member") else {}
        own |= {"reseller": CHAMBERS[tenant]} if role == "reseller" else {}
        with self.store.transaction() as db:
            login = f"{role}-{next(self._numbers)}@example.com"
            account = accounts.make(db, login, role, locale=locale, now=now, **own)
            secret = sessions.begin(db, account, now)
            who = sessions.find(db, secret, now)
            assert who is not None
            sessions.open_customer(db, who, tenant)
        return secret, who

    def anonymous(self) -> Client:
        """A browser that nobody has signed in with."""
        for opened in self._clients:
            if opened.settings is self.settings:  # an application takes a while to make, and ends once
                made = Client(opened.app, base_url=ORIGIN)
                made.blocking_portal = opened.blocking_portal
                return made
        made = Client(create_app(self.settings), base_url=ORIGIN)
        made.settings = self.settings
        made.__enter__()
        self._clients.append(made)
        return made

    def feed(self, *events: Event, tenant: str = US, box: str = "") -> None:
        """Store events as ingest does."""
        rows = [
            NewRow(
                next(self._numbers),
                lane_of(event),
                str(event.__struct_config__.tag),
                event.at,
                encode(event),
                stars=stars,
            )
            for event in events
            for stars in [getattr(event, "stars", 0)]
        ]
        with self.store.transaction():
            self.store.add(tenant, box or BOXES[tenant], EPOCH, rows, utc.now())

    def close(self) -> None:
        for client in reversed(self._clients):
            client.__exit__(None, None, None)
        self.store.close()
