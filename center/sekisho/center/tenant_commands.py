"""`sekisho center tenant ...`: what a customer has decided about mails, quiet hours, fleet immunity."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import tenants
from sekisho.center.database import Database
from sekisho.center.settings import DEFAULT_STORE
from sekisho.center.tenants import Tenant

_LISTS = ("recipients",)


class Shown(msgspec.Struct, frozen=True):
    """A tenant as it is shown: settings, and what its boxes are called."""

    settings: Tenant
    sites: dict[str, str]


def register(group: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `tenant` to the `center` group."""
    sub = group.add_parser("tenant", help="a customer's settings").add_subparsers(required=True, metavar="COMMAND")
    change = sub.add_parser("set", help="change settings: recipients=a@b.example,c@d.example threshold=2 ...")
    change.add_argument("tenant")
    change.add_argument("change", nargs="+", metavar="KEY=VALUE")
    change.set_defaults(func=_set)
    site = sub.add_parser("site", help="what the place of a box is called; an empty name takes it away")
    site.add_argument("tenant")
    site.add_argument("box")
    site.add_argument("name")
    site.set_defaults(func=_site)
    show = sub.add_parser("show", help="settings of one tenant, or of all")
    show.add_argument("tenant", nargs="?", default="")
    show.set_defaults(func=_show)
    for parser in (change, site, show):
        parser.add_argument("--store", default=DEFAULT_STORE, help="the database: a file or postgresql://...")
        parser.add_argument("--json", action="store_true")


def _set(args: argparse.Namespace) -> int:
    values = dict(_pair(change) for change in args.change)
    database = Database(args.store)
    with database.transaction() as db:
        tenants.save(db, tenants.changed(tenants.load(db, args.tenant), values))
    return _show(args)


def _site(args: argparse.Namespace) -> int:
    database = Database(args.store)
    with database.transaction() as db:
        tenants.name_site(db, args.tenant, args.box, args.name)
    return _show(args)


def _show(args: argparse.Namespace) -> int:
    if not args.store.startswith("postgresql:") and not Path(args.store).exists():
        raise RejectedInput(f"There is no database {args.store}.")
    database = Database(args.store)
    with database.reading() as db:
        found = [tenants.load(db, args.tenant)] if args.tenant else tenants.every(db)
        shown = [Shown(tenant, tenants.sites(db, tenant.id)) for tenant in found]
    if args.json:
        sys.stdout.write(msgspec.json.encode([_whole(one) for one in shown]).decode() + "\n")
    else:
        for one in shown:
            _say(one)
    return 0


def _whole(shown: Shown) -> dict[str, Any]:
    """With the defaults spelt out: whoever reads it need not know them."""
    return {**_settings(shown), "sites": shown.sites}


def _say(shown: Shown) -> None:
    for key, value in _settings(shown).items():
        text = ",".join(value) if key in _LISTS else str(value)
        sys.stdout.write(f"{key:<22} {text}\n")
    for box, name in shown.sites.items():
        sys.stdout.write(f"site {box:<17} {name}\n")


def _settings(shown: Shown) -> dict[str, Any]:
    return {field: getattr(shown.settings, field) for field in shown.settings.__struct_fields__}


def _pair(change: str) -> tuple[str, Any]:
    key, equals, value = change.partition("=")
    if not equals:
        raise RejectedInput(f"{change!r} is not KEY=VALUE.")
    return key, [part for part in value.split(",") if part] if key in _LISTS else value
