"""Deleting a customer's data: a few rows at a time, each step one transaction; a kill at any of them harms nothing.

Nothing goes before the days for the export are over, nor while an export is being made. The step that finds nothing
left in any part of the plan writes the signed record in that same transaction.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.fsio import sync_directory
from sekisho.center import backup
from sekisho.center.ca.tables import CERTIFICATE
from sekisho.center.contracts import book, plan, records, state
from sekisho.center.contracts.records import Record
from sekisho.center.contracts.tables import DELETION, EXPORT
from sekisho.center.customers import CUSTOMER
from sekisho.center.database import Database
from sekisho.center.portal.accounts import ACCOUNT
from sekisho.center.portal.sessions import SESSION
from sekisho.center.scope import EVERYONE

STEP_ROWS: Final = 2000
OPEN: Final = ("waiting", "running")
"""States of an export that is being made."""


def due(db: sa.Connection, now: dt.datetime) -> list[str]:
    """Customers whose data may go now."""
    found = []
    for tenant in db.scalars(sa.select(CUSTOMER.c.tenant).where(CUSTOMER.c.state == "ended").order_by("tenant")).all():
        contract, day = book.load(db, EVERYONE, tenant), book.sure_day(db, tenant, now)
        if contract and contract.kept_until and day and str(day) > contract.kept_until and not _exporting(db, tenant):
            found.append(tenant)
    return found


def begin(db: sa.Connection, tenant: str, by: str, now: dt.datetime) -> None:
    """Begin, inside the caller's transaction: from here there is no way back. Nobody of the customer gets in any more.

    Raises:
        RejectedInput: the days for the export are not over, an export is being made, or the contract has not ended.

    """
    contract, day = book.load(db, EVERYONE, tenant, hold=True), book.sure_day(db, tenant, now)
    if contract is None or day is None:
        raise RejectedInput(f"There is no contract of {tenant} that could be over.")
    contract = state.begin_deletion(contract, day)
    if _exporting(db, tenant):
        raise RejectedInput("An export is being made.", "It ends by itself; the deletion comes after it.")
    book.save(db, contract, now)
    book.revoke_boxes(db, tenant, now)
    sessions = db.execute(SESSION.delete().where(SESSION.c.account.in_(plan.accounts(tenant)))).rowcount
    db.execute(ACCOUNT.update().where(ACCOUNT.c.tenant == tenant).values(state="closed"))
    counts = _encoded({"removed": {"session": sessions} if sessions else {}, "cleared": {}})
    days = {"ended_on": contract.ended_on, "kept_until": contract.kept_until}
    values = {"began_at": utc.text(now), "ordered_by": by, "at": 0, "files": 0, **counts}
    db.execute(DELETION.insert().values(tenant=tenant, **days, **values))


def under_way(db: sa.Connection) -> list[str]:
    """Customers whose deletion has begun and is not done."""
    return list(db.scalars(sa.select(DELETION.c.tenant).order_by(DELETION.c.began_at)))


def step(database: Database, files: Path, tenant: str, now: dt.datetime) -> bool:
    """Do the next bit; returns whether there is more to do now.

    Raises:
        DeviceFault: the database refused; nothing of this step was done.

    """
    with database.transaction() as db:
        job = db.execute(sa.select(DELETION).where(DELETION.c.tenant == tenant).with_for_update()).first()
        if job is None:
            return False
        if export := db.scalar(sa.select(EXPORT.c.id).where(EXPORT.c.tenant == tenant).limit(1)):
            # The file first: a row without its file is found again, a file without its row would not be.
            gone = _remove(files, export)
            db.execute(EXPORT.delete().where(EXPORT.c.id == export))
            _note(db, tenant, files=job.files + gone)
            return True
        counts = {name: msgspec.json.decode(getattr(job, name), type=dict[str, int]) for name in ("removed", "cleared")}
        if _uncut(db, tenant, now):
            return False
        parts, budget = plan.parts(tenant, utc.text(now)), STEP_ROWS
        for number in range(job.at, len(parts)):
            while count := _take(db, parts[number], budget):
                _count(counts, parts[number], count)
                budget -= count
                if budget <= 0:
                    _note(db, tenant, at=number, **_encoded(counts))
                    return True
        if any(_left(db, part) for part in parts):
            _note(db, tenant, at=0, **_encoded(counts))
            return True
        _finish(db, job, counts, now)
    return False


def _take(db: sa.Connection, part: plan.Part, most: int) -> int:
    """Remove or clear so many rows at most."""
    some = sa.select(*part.key).where(part.mine).limit(most)
    key: sa.ColumnElement[Any] = sa.tuple_(*part.key) if len(part.key) > 1 else part.key[0]
    if part.cleared is not None:
        return db.execute(part.table.update().where(key.in_(some)).values(**part.cleared)).rowcount
    return db.execute(part.table.delete().where(key.in_(some))).rowcount


def _left(db: sa.Connection, part: plan.Part) -> bool:
    return db.execute(sa.select(sa.literal(1)).select_from(part.table).where(part.mine).limit(1)).first() is not None


def _uncut(db: sa.Connection, tenant: str, now: dt.datetime) -> bool:
    """Whether a certificate is not on the list of the revoked yet: the CA's daemon needs its row for that."""
    waiting = (CERTIFICATE.c.revoked_at != "", CERTIFICATE.c.cut_at == "", CERTIFICATE.c.not_after > utc.text(now))
    return (
        db.execute(sa.select(CERTIFICATE.c.serial).where(CERTIFICATE.c.tenant == tenant, *waiting).limit(1)).first()
        is not None
    )


def _count(counts: dict[str, dict[str, int]], part: plan.Part, count: int) -> None:
    which = counts["removed" if part.cleared is None else "cleared"]
    which[part.table.name] = which.get(part.table.name, 0) + count


def _encoded(counts: dict[str, dict[str, int]]) -> dict[str, bytes]:
    return {name: msgspec.json.encode(count, order="sorted") for name, count in counts.items()}


def _note(db: sa.Connection, tenant: str, **values: object) -> None:
    db.execute(DELETION.update().where(DELETION.c.tenant == tenant).values(**values))


def _finish(db: sa.Connection, job: sa.Row[Any], counts: dict[str, dict[str, int]], now: dt.datetime) -> None:
    contract = book.load(db, EVERYONE, job.tenant)
    assert contract is not None  # noqa: S101 - the customer's row outlives its data
    listed = db.scalar(sa.select(sa.func.max(CERTIFICATE.c.not_after)).where(CERTIFICATE.c.tenant == ""))
    record = Record(
        tenant=job.tenant,
        ended_on=job.ended_on,
        kept_until=job.kept_until,
        began_at=job.began_at,
        done_at=utc.text(now),
        ordered_by=job.ordered_by,
        removed=counts["removed"],
        cleared=counts["cleared"],
        files=job.files,
        backups_until=str((now + dt.timedelta(days=backup.KEEP)).date()),
        revocations_until=str(listed or "") if "certificate" in counts["cleared"] else "",
    )
    records.add(db, record, now)
    db.execute(DELETION.delete().where(DELETION.c.tenant == job.tenant))
    done = state.finish_deletion(contract)
    db.execute(
        CUSTOMER.update().where(CUSTOMER.c.tenant == job.tenant).values(state=done.state, changed_at=utc.text(now))
    )


def _exporting(db: sa.Connection, tenant: str) -> bool:
    query = sa.select(EXPORT.c.id).where(EXPORT.c.tenant == tenant, EXPORT.c.state.in_(OPEN)).limit(1)
    return db.execute(query).first() is not None


def _remove(files: Path, export: str) -> int:
    """Remove an export's file, durably; 1 where there was one."""
    there = [path for path in (files / f"{export}.zip", files / f".{export}.partial") if path.exists()]
    for path in there:
        path.unlink()
    if there:
        sync_directory(files)
    return int(any(path.suffix == ".zip" for path in there))
