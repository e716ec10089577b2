"""The objects of two customers, for the walk over every route (test_walk.py): add yours where you add a route.

A seeder stores the same things for whichever customer it is given and returns the values that name them in paths,
queries and forms: `{"alert": "17"}` for `/alerts/{alert:int}`. Whatever a person or a stranger could have written
(host names, URLs, notes, names) it makes with `canary(tenant, "...")`: the walk looks for it on the wrong pages.
A parameter that names no customer's object (a day, a kind, a page) goes to `PLAIN`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from office import BOXES, THEM, US, Office

from sekisho.appliance.core import utc
from sekisho.center import devices, tenants
from sekisho.center.ca import registry
from sekisho.center.portal.assets import files
from sekisho.telemetry import events as ev

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


SEEDERS: Final[list[Seeder]] = [_basics, _devices]
"""In the order they run."""

PLAIN: Final[dict[str, str]] = {"digest": files()["portal.js"][2], "name": "portal.js"}
"""Parameters that are the same for everyone; `"/path/{x:str} x"` where one name means different things."""


def seed(office: Office, tenant: str) -> dict[str, str]:
    """What names the customer's objects: parameter -> value."""
    found = dict(PLAIN)
    for seeder in SEEDERS:
        found |= seeder(office, tenant)
    return found
