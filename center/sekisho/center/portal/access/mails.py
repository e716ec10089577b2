"""Mails about accounts, through the notifier's queue: written in the transaction that makes what they tell of."""

from __future__ import annotations

import datetime as dt
from typing import Literal

import sqlalchemy as sa

from sekisho.center import tenants
from sekisho.center.notify.desk import Desk
from sekisho.center.notify.letter import Letter
from sekisho.center.notify.tables import text
from sekisho.center.portal import accounts

Kind = Literal["invite", "password", "account"]
"""An invitation, a forgotten password's link, news that something about the account was changed."""


def post(db: sa.Connection, kind: Kind, account: accounts.Row, link: str, now: dt.datetime) -> None:
    """Tell the account's owner, at the address that is the login."""
    settings = tenants.load(db, account.tenant) if account.tenant else None
    letter = Letter(
        kind=kind,
        tenant=account.tenant,
        tenant_name=account.name if account.name != account.login else "",
        locale="en" if account.locale == "en" else "ja",
        time_zone=account.zone or (settings.time_zone if settings else "Asia/Tokyo"),
        at=text(now),
        link=link,
    )
    Desk(db, now).post(letter, f"{kind}/{account.id}/{text(now)}", (account.login,))
