"""Two customers with something in every table there is, whichever room made it; what a new room adds is filled too."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import sqlalchemy as sa

from sekisho.center import partitions
from sekisho.center.contracts import plan
from sekisho.center.contracts.tables import CONTRACT, EXPORT
from sekisho.center.customers import CUSTOMER
from sekisho.center.database import Database, metadata
from sekisho.center.store import STORE

US, THEM = "aoki-canary", "baba-canary"
NOW = dt.datetime(2026, 11, 1, 9, 0, tzinfo=dt.UTC)
"""Both contracts ended on 2026-07-01: the data was kept until 2026-10-01."""
SKIPPED = {"customer", "contract", "store", "export"} | set(plan.NOT_PERSONAL)
_numbers = itertools.count(1)


def fill(database: Database, rows: int = 3) -> None:
    """Something of both customers in every table; event days, certificates and boxes included."""
    plan.know_every_room()
    with database.transaction() as db:
        if not database.embedded:
            partitions.make(db, [dt.date(2026, 6, 1)])
        db.execute(STORE.insert().values(id=1, generation=0, swept=str(NOW.date()), swept_at=NOW.isoformat()))
        for tenant in (US, THEM):
            db.execute(CUSTOMER.insert().values(tenant=tenant, reseller="kita", state="ended", changed_at=""))
            days = {"ends_on": "2026-06-30", "ended_on": "2026-07-01", "kept_until": "2026-10-01", "asked_on": ""}
            db.execute(
                CONTRACT.insert().values(tenant=tenant, asked_by=f"{tenant}@x", reason=f"{tenant} moves", **days)
            )
            for number in range(rows):
                for table in metadata.sorted_tables:
                    if table.name not in SKIPPED:
                        db.execute(table.insert().values(**_row(table, tenant, number)))
            export = {"id": f"{tenant}-file", "state": "ready", "rows": 1, "total": 1, "size": 1}
            texts = {name: "" for name in ("asked_at", "asked_by", "sha256", "done_at", "until")}
            db.execute(EXPORT.insert().values(tenant=tenant, **export, **texts))


def everything(database: Database, names: set[str] | None = None) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table (or of those named)."""
    with database.reading() as db:
        return {
            table.name: sorted((tuple(row) for row in db.execute(sa.select(table))), key=repr)
            for table in metadata.sorted_tables
            if names is None or table.name in names
        }


def _row(table: sa.Table, tenant: str, number: int) -> dict[str, Any]:
    made = {column.name: _value(column, f"{tenant}-{table.name}-{number}") for column in table.columns}
    same = {"tenant": tenant, "box": f"{tenant}-box-{number}", "account": f"{tenant}-account-{number}"}
    made |= {name: value for name, value in same.items() if name in table.c}
    special: dict[str, dict[str, Any]] = {
        "account": {"id": f"{tenant}-account-{number}", "state": "active"},
        "tenant": {"id": tenant if not number else f"{tenant}-more-{number}"},
        "gathering": {"id": f"{tenant}-g-{number}"},
        "heap": {"gathering": f"{tenant}-g-{number}"},
        "poison": {"topic": f"sk/1/{tenant}/box/ev/0"},
        "certificate": {
            **dict.fromkeys(("how", "not_before", "issued_at", "renewed_by"), "x"),
            "serial": f"{next(_numbers):x}",
            "not_after": "2027-01-01" if number else "2026-09-01",
            "revoked_at": "2026-07-01",
            "cut_at": "2026-07-01",
        },
        "fleet_file": {"sha256": f"{next(_numbers):064x}", "state": "listed", "rules": "[]", "at": "x", "why": ""},
        "box_identity": {"state": "revoked"},
        "event": {"received_at": "2026-06-01T00:00:00.000000Z", "lane": 1},
    }
    made |= special.get(table.name, {})
    if table.name == "tenant" and number:
        made["id"] = f"other-{next(_numbers)}"
        made["settings"] = b"{}"
    return {name: value for name, value in made.items() if value is not None}


def _value(column: sa.Column[Any], text: str) -> Any:
    if isinstance(column.type, sa.LargeBinary):
        return text.encode()
    if isinstance(column.type, sa.Boolean):
        return False
    if isinstance(column.type, (sa.Integer, sa.Float, sa.Numeric)):
        return next(_numbers) % 30_000
    length = getattr(column.type, "length", None)
    return f"{next(_numbers)}-{text}"[:length] if length else f"{text}-{column.name}"
