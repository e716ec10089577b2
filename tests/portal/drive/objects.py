"""The objects of two customers, for the walk over every route (test_walk.py): add yours where you add a route.

A seeder stores the same things for whichever customer it is given and returns the values that name them in paths,
queries and forms: `{"alert": "17"}` for `/alerts/{alert:int}`. Whatever a person or a stranger could have written
(host names, URLs, notes, names) it makes with `canary(tenant, "...")`: the walk looks for it on the wrong pages.
What names an object holds no canary: a page may say again what it was asked for.
A parameter that names no customer's object (a day, a kind, a page) goes to `PLAIN`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from office import BOXES, CHAMBERS, THEM, US, Office

from sekisho.appliance.core import utc
from sekisho.center import bulletins, devices, tenants
from sekisho.center.bulletins import Bulletin
from sekisho.center.ca import registry
from sekisho.center.ca.tables import BOX_IDENTITY
from sekisho.center.cases import desk, vendors
from sekisho.center.cases.steps import Note
from sekisho.center.cases.vendors import Vendor
from sekisho.center.contracts import applying, exporting
from sekisho.center.orders import proposal, wishes
from sekisho.center.orders.proposal import Wanted
from sekisho.center.orders.wishes import Wish
from sekisho.center.portal import accounts, audit, sessions
from sekisho.center.portal.access import onetime, passkeys
from sekisho.center.portal.assets import files
from sekisho.center.report import month as months
from sekisho.center.report import proofs
from sekisho.center.report.figures import figures
from sekisho.center.report.proofs import Key
from sekisho.center.rollout import book, papers, plan
from sekisho.center.rollout.model import About, Rule
from sekisho.center.rollout.sending import JOBS
from sekisho.center.scope import only
from sekisho.center.store import BoxState
from sekisho.center.views.alerts import ALERT, ALERT_NOTE
from sekisho.telemetry import events as ev
from sekisho.telemetry.events import FileVerdict, Flow

JA, EN = "検査を速くしました。", "Inspection is faster."
Seeder = Callable[[Office, str], dict[str, str]]


def canary(tenant: str, text: str = "") -> str:
    """A text in which the walk recognises whose it is; good inside host names, URLs and file names."""
    return f"canary-{tenant}-{text}".rstrip("-")


def _basics(office: Office, tenant: str) -> dict[str, str]:
    with office.store.transaction() as db:
        settings = tenants.load(db, tenant)
        tenants.save(db, tenants.changed(settings, {"name": canary(tenant, "name")}))
        tenants.name_site(db, tenant, BOXES[tenant], canary(tenant, "site"))
        registry.expect(db, BOXES[tenant], tenant, "2026-01-02T03:04:05.000000Z")
    return {"tenant": tenant, "box": BOXES[tenant]}


def _devices(office: Office, tenant: str) -> dict[str, str]:
    mac = {US: "02:77:00:00:00:aa", THEM: "02:77:00:00:00:bb"}[tenant]
    at = utc.now()
    office.feed(ev.Device(at=at, mac=mac, name=canary(tenant, "device"), last_seen=at), tenant=tenant)
    with office.store.transaction() as db:
        names = {"name": canary(tenant, "our-name"), "whose": canary(tenant, "whose")}
        devices.enter(db, tenant, BOXES[tenant], mac, standing="", **names)
    return {"mac": mac}


def _cases(office: Office, tenant: str) -> dict[str, str]:
    flow = Flow("203.0.113.9", 443, "192.168.1.23", 50000, "TCP", "02:00:00:00:00:23")
    told: dict[str, Any] = {"stars": 3, "why_stars": "file_arrived", "file_name": canary(tenant, "case.exe")}
    office.feed(FileVerdict(utc.now(), flow=flow, outcome="delivered_then_found", **told), tenant=tenant)
    who = desk.Actor(f"{canary(tenant)}@example.com", "member")
    with office.store.transaction() as db:
        case = desk.listed(db, only(tenant), closed=False)[0].id
        desk.call(db, only(tenant), case, who, canary(tenant, "phone"), dt.datetime.now(dt.UTC))
        desk.move(db, only(tenant), case, who, Note(canary(tenant, "note")), dt.datetime.now(dt.UTC))
        vendor = vendors.save(db, Vendor("", CHAMBERS[tenant], "新潟市", canary(tenant, "vendor"), "025-000-0000", ""))
    return {"case": case, "vendor": vendor}


def _orders(office: Office, tenant: str) -> dict[str, str]:
    """A UTM with settings, and an exception on it."""
    wanted = Wanted("keyword", "", 0, "", f"{canary(tenant, 'host')}.example")
    until = dt.datetime(2099, 1, 1, tzinfo=dt.UTC)
    with office.store.transaction() as db:
        seen = wishes.of_box(db, only(tenant), BOXES[tenant]) or Wish(BOXES[tenant], tenant)
        change = wishes.prepare(seen, lambda now: proposal.add(now, wanted, canary(tenant, "reason"), until))
        assert change is not None
        wishes.commit(db, change, canary(tenant, "author"))
    return {"id": change.overlay.exception[0].id}


def _alerts(office: Office, tenant: str) -> dict[str, str]:
    flow = ev.Flow("192.168.1.10", 4000, "203.0.113.9", 443, "TCP", "02:77:00:00:00:cc")
    host = f"{canary(tenant, 'host')}.example"
    office.feed(ev.Alert(at=utc.now(), flow=flow, sid=7, host=host, stars=3, why_stars="calls_out"), tenant=tenant)
    with office.store.transaction() as db:
        newest = sa.select(sa.func.max(ALERT.c.id)).where(ALERT.c.tenant == tenant)
        number = db.execute(newest).scalar_one()
        note = {"at": utc.now(), "account": "a", "who": canary(tenant, "who"), "kind": "note"}
        text = canary(tenant, "note")
        db.execute(ALERT_NOTE.insert().values(tenant=tenant, alert=number, text=text, **note))
    return {"alert": str(number)}


def _people(office: Office, tenant: str) -> dict[str, str]:
    """A member with a passkey and a session, an invitation, a chamber's account: all that a page about people names."""
    now = dt.datetime.now(dt.UTC)
    with office.store.transaction() as db:
        login, name = f"person@{tenant}.example", canary(tenant, "person")
        person = accounts.make(db, login, "member", tenant=tenant, name=name, now=now)
        session = sessions.digest(sessions.begin(db, person, now, agent=canary(tenant, "agent")))[:16]
        values = {"credential": f"of-{tenant}", "id": f"key-{tenant}", "name": canary(tenant, "key")}
        key = passkeys.PASSKEY.insert().values(
            **values, account=person, public_key=b"", sign_count=0, made_at=utc.text(now), used_at=""
        )
        db.execute(key)
        guest = accounts.make(db, f"guest@{canary(tenant)}.example", "admin", tenant=tenant, state="invited", now=now)
        token = onetime.make(db, guest, "invite", now).rpartition("/")[2]
        row = accounts.by_login(db, login)
        assert row is not None
        audit.write(db, row, "member.invite", canary(tenant, "about"))
    return {"person": person, "passkey": values["id"], "session": session, "token": token, "login": login}


def _report(office: Office, tenant: str) -> dict[str, str]:
    assert office.settings.portal is not None
    now = dt.datetime.now(dt.UTC)
    key, month = Key(Path(office.settings.portal.proof_key)), months.read("", "Asia/Tokyo", now)
    with office.store.transaction() as db:
        made = figures(db, tenant, month, now)
        pdf = canary(tenant, "pdf").encode()
        issued = proofs.issue(db, key, tenant, made, "ja", proofs.new_names(), pdf, utc.now())
    return {"report": issued.id, "/genuine/{token:str} token": issued.token}


def _contract(office: Office, tenant: str) -> dict[str, str]:
    """A file that is ready to be taken away."""
    now, files = dt.datetime.now(dt.UTC), Path(office.settings.exports)
    with office.store.transaction() as db:
        made = exporting.ask(db, tenant, f"{canary(tenant)}@example.com", now)
        applying.name_reseller(db, CHAMBERS[tenant], CHAMBERS[tenant])
        form = applying.Form(canary(tenant, "company"), "x", f"{canary(tenant)}@example.com", "0", "")
        applying.apply(db, CHAMBERS[tenant], form, tenant, now)
        application = applying.waiting(db, CHAMBERS[tenant])[0].id
    exporting.run_next(office.store.database, office.store.database, files, now, lambda: None)
    return {"export": made, "application": application, "reseller": CHAMBERS[tenant]}


def _notices(office: Office, tenant: str) -> dict[str, str]:
    texts = {"title_ja": canary(tenant, "title"), "title_en": canary(tenant, "title")}
    texts |= {"body_ja": canary(tenant, "text"), "body_en": canary(tenant, "text")}
    times = {"since": "2026-01-01", "until": "2199-01-01", "posted_at": utc.now()}
    with office.store.transaction() as db:
        made = Bulletin(id=0, tenant=tenant, reseller="", posted_by="centre", **times, **texts)
        return {"bulletin": str(bulletins.post(db, made))}


def rollout(office: Office, tenant: str, *, urgent: bool = False) -> str:
    """A rollout that goes on, of one box; its name."""
    key, about = (
        b"k" * 32,
        About(counter=140, version="1.4.0", hardware="amd64", tier=1, urgent=urgent, notes_ja=JA, notes_en=EN),
    )
    now, box = dt.datetime.now(dt.UTC), BOXES[tenant]
    with office.store.transaction() as db:
        of = {"box": box, "tenant": tenant, "changed_at": utc.text(now)}
        db.execute(BOX_IDENTITY.delete().where(BOX_IDENTITY.c.box == box))
        db.execute(BOX_IDENTITY.insert().values(state="active", **of))
        office.store.set_state(BoxState(box, tenant, "on", 1, "e1", 1, utc.text(now)))
        ids = papers.ulids()
        args = {"counter": "140"}
        made = plan.plan(next(ids), "fw.activate", about, Rule(), [[box]], int(now.timestamp()), ids, args=args)
        book.start(db, papers.sign(made, "suzuki", key), JOBS, "suzuki", now.timestamp())
    return made.id


def _rollouts(office: Office, tenant: str) -> dict[str, str]:
    """One for both: only the staff sees it."""
    waits = ev.Firmware(utc.now(), state="staged", counter=140, version=canary(tenant, "v"), tier=3, running=139)
    office.feed(waits, tenant=tenant)
    if tenant == US:
        return {"rollout": rollout(office, tenant)}
    with office.store.database.reading() as db:
        return {"rollout": book.listed(db)[0].id}


SEEDERS: Final[list[Seeder]] = [
    _basics,
    _devices,
    _cases,
    _orders,
    _contract,
    _people,
    _alerts,
    _notices,
    _report,
    _rollouts,
]
"""In the order they run."""

PLAIN: Final[dict[str, str]] = {
    "digest": files()["portal.js"][2],
    "name": "portal.js",
}
"""Parameters that are the same for everyone; `"/path/{x:str} x"` where one name means different things."""


def seed(office: Office, tenant: str) -> dict[str, str]:
    """What names the customer's objects: parameter -> value."""
    found = dict(PLAIN)
    for seeder in SEEDERS:
        found |= seeder(office, tenant)
    return found
