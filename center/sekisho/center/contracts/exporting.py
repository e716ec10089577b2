"""Everything the centre holds of a customer, as one ZIP file the customer may take away.

Made a page of rows at a time into a file beside its final name, so memory stays small and a half-made one is never
handed out; after a kill it is made anew. Which tables are in it follows from the plan of the deletion, so that what
would be deleted is also handed out. Secrets (passwords, keys, links) are not the customer's to take and stay out.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
import secrets
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import sync_directory
from sekisho.center.contracts import plan
from sekisho.center.contracts.tables import EXPORT
from sekisho.center.customers import CUSTOMER
from sekisho.center.database import Database
from sekisho.center.notify.tables import mail
from sekisho.center.scope import Scope
from sekisho.center.store import EVENT

PAGE_ROWS: Final = 1000
KEPT: Final = dt.timedelta(days=7)
PER_DAY: Final = 5
"""Exports a customer may ask for within a day."""
WITHHELD: Final = frozenset({"session", "export", "deletion", "record_key", "poison"})
WAYS_IN: Final = ("invite", "password")
"""Mails with a link that sets a password: good for whoever has it, and meant for one person alone."""
_SECRET: Final = re.compile(r"(^|_)(secret|token|csrf|password|credential|public_key|pem|used_key)($|_)")

README: Final = """\
お客様のデータ / Your data

events/       UTMから届いた記録。1行が1件のJSONです。 / What your UTM boxes reported: one JSON object in a line.
tables/       アラート、端末、駆け付け、設定、操作の記録など。 / Alerts, devices, cases, settings, audit log and more.
contents.json ファイルごとの件数。 / How many rows each file has.

時刻は協定世界時(UTC)です。日本時間は9時間進みます。 / Times are UTC.
"""


class Export(msgspec.Struct, frozen=True):
    """One export as people see it."""

    id: str
    tenant: str
    state: str
    asked_at: str
    asked_by: str
    rows: int
    total: int
    size: int
    sha256: str
    done_at: str
    until: str


def ask(db: sa.Connection, tenant: str, by: str, now: dt.datetime) -> str:
    """Put one in the queue; returns its id, or that of the one that waits already.

    Raises:
        RejectedInput: the data is being deleted, or there were too many today.

    """
    state = db.scalar(sa.select(CUSTOMER.c.state).where(CUSTOMER.c.tenant == tenant))
    if state not in ("active", "ending", "ended"):
        raise RejectedInput(f"The data of {tenant} is not there any more.")
    mine = sa.select(EXPORT).where(EXPORT.c.tenant == tenant)
    if waiting := db.execute(mine.where(EXPORT.c.state.in_(("waiting", "running")))).first():
        return str(waiting.id)
    since = utc.text(now - dt.timedelta(days=1))
    if len(db.execute(mine.where(EXPORT.c.asked_at > since)).all()) >= PER_DAY:
        raise RejectedInput(f"There were {PER_DAY} exports within a day.")
    made = secrets.token_hex(16)
    numbers, texts = dict.fromkeys(("rows", "total", "size"), 0), dict.fromkeys(("sha256", "done_at", "until"), "")
    values = {"id": made, "tenant": tenant, "state": "waiting", "asked_at": utc.text(now), "asked_by": by}
    db.execute(EXPORT.insert().values(**values, **numbers, **texts))
    return made


def listed(db: sa.Connection, scope: Scope, tenant: str) -> list[Export]:
    """The newest exports of a customer."""
    query = sa.select(EXPORT).where(EXPORT.c.tenant == tenant, scope.of(EXPORT.c.tenant))
    return [Export(*row) for row in db.execute(query.order_by(EXPORT.c.asked_at.desc()).limit(10))]


def ready(db: sa.Connection, scope: Scope, export: str) -> Export | None:
    """The one with this id, where it can be taken."""
    query = sa.select(EXPORT).where(EXPORT.c.id == export, EXPORT.c.state == "ready", scope.of(EXPORT.c.tenant))
    row = db.execute(query).first()
    return Export(*row) if row else None


def recover(database: Database, files: Path) -> None:
    """After a start: what was being made is made anew, and files that belong to nothing go."""
    with database.transaction() as db:
        db.execute(EXPORT.update().where(EXPORT.c.state == "running").values(state="waiting", rows=0))
        known = set(db.scalars(sa.select(EXPORT.c.id).where(EXPORT.c.state == "ready")))
    for path in files.glob("*"):
        if path.suffix == ".partial" or (path.suffix == ".zip" and path.stem not in known):
            path.unlink()


def expire(database: Database, files: Path, now: dt.datetime) -> None:
    """Let go of files whose time is over."""
    with database.transaction() as db:
        over = sa.select(EXPORT.c.id).where(EXPORT.c.state == "ready", EXPORT.c.until < utc.text(now))
        for export in db.scalars(over).all():
            (files / f"{export}.zip").unlink(missing_ok=True)
            db.execute(EXPORT.update().where(EXPORT.c.id == export).values(state="gone"))


def run_next(database: Database, reading: Database, files: Path, now: dt.datetime, beat: Callable[[], None]) -> bool:
    """Make the export that has waited longest; whether there was one."""
    with database.transaction() as db:
        query = sa.select(EXPORT).where(EXPORT.c.state == "waiting").order_by(EXPORT.c.asked_at).limit(1)
        row = db.execute(query.with_for_update()).first()
        if row is None:
            return False
        db.execute(EXPORT.update().where(EXPORT.c.id == row.id).values(state="running", rows=0))
    partial, final = files / f".{row.id}.partial", files / f"{row.id}.zip"
    try:
        files.mkdir(parents=True, exist_ok=True, mode=0o770)
        digest = _make(database, reading, row.id, row.tenant, partial, now, beat)
        partial.rename(final)
        sync_directory(files)
    except (OSError, DeviceFault):
        with suppress(OSError):
            partial.unlink()
        with database.transaction() as db:
            db.execute(EXPORT.update().where(EXPORT.c.id == row.id).values(state="failed", done_at=utc.text(now)))
        raise
    with database.transaction() as db:
        done = {"sha256": digest, "size": final.stat().st_size, "done_at": utc.text(now), "until": utc.text(now + KEPT)}
        db.execute(EXPORT.update().where(EXPORT.c.id == row.id).values(state="ready", **done))
    return True


def _make(
    database: Database, reading: Database, export: str, tenant: str, path: Path, now: dt.datetime,
    beat: Callable[[], None],
) -> str:  # fmt: skip
    parts = list(_parts(tenant, utc.text(now)))
    with reading.reading() as db:
        counts = [sa.select(sa.func.count()).select_from(part.table).where(part.mine) for part in parts]
        total = sum(db.scalar(count) or 0 for count in counts)
        boxes = list(db.scalars(plan.named(tenant)))
    contents: dict[str, int] = {}
    written = 0

    def progress(more: int) -> None:
        nonlocal written
        written += more
        beat()
        with database.transaction() as db:
            db.execute(EXPORT.update().where(EXPORT.c.id == export).values(rows=written, total=total))

    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    with os.fdopen(fd, "wb") as out:
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
            archive.writestr("README.txt", README)
            for part in parts:
                if part.table is EVENT:
                    for box in boxes:
                        mine = sa.and_(EVENT.c.box == box, EVENT.c.tenant == tenant)
                        events = part._replace(mine=mine, key=(EVENT.c.epoch, EVENT.c.seq))
                        _write(reading, archive, f"events/{box}.jsonl", events, contents, progress)
                else:
                    _write(reading, archive, f"tables/{part.table.name}.jsonl", part, contents, progress)
            archive.writestr("contents.json", msgspec.json.format(msgspec.json.encode(contents)))
        out.flush()
        os.fsync(out.fileno())
    with path.open("rb") as made:
        return hashlib.file_digest(made, "sha256").hexdigest()


def _parts(tenant: str, now: str) -> Iterator[plan.Part]:
    """One part for each table that is handed out; what names only an account is how people get in, and stays."""
    seen: dict[str, plan.Part] = {}
    for part in plan.parts(tenant, now):
        if part.table.name in WITHHELD or plan.whose(part.table) == "account":
            continue
        if part.table is mail:
            part = part._replace(mine=sa.and_(part.mine, mail.c.kind.not_in(WAYS_IN)))
        before = seen.get(part.table.name)
        seen[part.table.name] = part._replace(mine=sa.or_(before.mine, part.mine)) if before else part
    yield from (seen[name] for name in sorted(seen))


def _write(
    reading: Database, archive: zipfile.ZipFile, name: str, part: plan.Part, contents: dict[str, int],
    progress: Callable[[int], None],
) -> None:  # fmt: skip
    columns = [column for column in part.table.columns if not _SECRET.search(column.name)]
    key = sa.tuple_(*part.key) if len(part.key) > 1 else part.key[0]
    last: tuple[Any, ...] = ()
    with archive.open(name, "w", force_zip64=True) as out:
        while True:
            query = sa.select(*part.key, *columns).where(part.mine)
            if last:
                query = query.where(key > (sa.tuple_(*last) if len(last) > 1 else last[0]))
            with reading.reading() as db:
                rows = db.execute(query.order_by(*part.key).limit(PAGE_ROWS)).all()
            _lines(out, columns, [row[len(part.key) :] for row in rows])
            contents[name] = contents.get(name, 0) + len(rows)
            if rows:
                progress(len(rows))
            if len(rows) < PAGE_ROWS:
                return
            last = tuple(rows[-1][: len(part.key)])


def _lines(out: IO[bytes], columns: list[sa.Column[Any]], rows: list[Any]) -> None:
    names = [column.name for column in columns]
    for row in rows:
        out.write(msgspec.json.encode({name: _value(value) for name, value in zip(names, row, strict=True)}) + b"\n")


def _value(value: Any) -> Any:
    """A body that is JSON as JSON; other bytes as base64."""
    if isinstance(value, bytes):
        try:
            msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return value
        return msgspec.Raw(value)
    return value
