"""The people of the lab: a customer with a contract, its administrator's account at the portal, the box a member."""

from __future__ import annotations

import datetime as dt
import secrets
from dataclasses import dataclass

from sekisho.center import customers, settings, tenants
from sekisho.center.ca import coding
from sekisho.center.database import Database
from sekisho.center.portal import accounts
from sekisho.center.portal.access import passwords
from sekisho.center.tenants import Tenant
from sekisho.lab import layout
from sekisho.lab.lab import Lab

LOGIN = "owner@shop.example"
SHOP = "デモ商店"
CODE_LIVES = dt.timedelta(hours=1)


@dataclass(frozen=True)
class Access:
    """How somebody gets in."""

    url: str
    login: str
    password: str


def move_in(lab: Lab) -> Access:
    """The customer and its administrator, who may sign in; the password is this lab's alone."""
    now = dt.datetime.now(dt.UTC)
    password = secrets.token_urlsafe(12)
    database = Database(str(lab.lay.center_store))
    with database.transaction() as db:
        customers.add(db, layout.TENANT)
        tenants.save(db, Tenant(layout.TENANT, name=SHOP))
        tenants.name_site(db, layout.TENANT, layout.BOX_NAME, SHOP)
        account = accounts.make(db, LOGIN, "admin", tenant=layout.TENANT, name="デモ太郎", now=now)
        passwords.set_password(db, account, passwords.hashed(password), now)
    database.close()
    portal = settings.load(lab.lay.center_settings).portal
    if portal is None:
        raise ValueError("this lab has no portal")
    return Access(portal.origin, LOGIN, password)


def enrol(lab: Lab) -> None:
    """Make the box a member with a code of the centre's, as `sekisho center enrol-code` and `sekisho box enrol` do."""
    database = Database(str(lab.lay.center_store))
    with database.transaction() as db:
        now = dt.datetime.now(dt.UTC)
        ca = lab.lay.authority / "ca.crt"
        code = coding.make(db, ca, layout.BOX_NAME, layout.TENANT, "lab", now, CODE_LIVES)
    database.close()
    lab.enrol(code.text)
    lab.wait_ready()
