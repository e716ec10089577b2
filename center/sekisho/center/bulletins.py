"""What the centre tells its customers by hand: maintenance, holidays, new features. Plain text in both languages.

A bulletin is for everybody, for the customers of one chamber, or for one customer, and is shown from one day to
another; what somebody has read is kept per account.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, get_args

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.customers import CUSTOMER
from sekisho.center.database import insert_new, metadata

Audience = Literal["all", "reseller", "tenant"]
AUDIENCES: Final[tuple[Audience, ...]] = get_args(Audience)
TITLE_CAP: Final = 120
BODY_CAP: Final = 4000
SHOWN: Final = 50
"""So many of each audience are shown, the newest."""

BULLETIN: Final = sa.Table(
    "bulletin",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False, doc="the one customer it is for; empty: more than one"),
    sa.Column("reseller", sa.Text, nullable=False, doc="the chamber whose customers it is for; empty: not so"),
    sa.Column("since", sa.Text, nullable=False),
    sa.Column("until", sa.Text, nullable=False, doc="not shown from then on"),
    sa.Column("title_ja", sa.Text, nullable=False),
    sa.Column("title_en", sa.Text, nullable=False),
    sa.Column("body_ja", sa.Text, nullable=False),
    sa.Column("body_en", sa.Text, nullable=False),
    sa.Column("posted_at", sa.Text, nullable=False),
    sa.Column("posted_by", sa.Text, nullable=False),
    sa.Index("bulletin_by_audience", "tenant", "reseller", "since"),
    sqlite_autoincrement=True,
)
READ: Final = sa.Table(
    "bulletin_read",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("bulletin", sa.BigInteger, primary_key=True, autoincrement=False),
    info={"goes_with_account": True},
)


class Bulletin(msgspec.Struct, frozen=True):
    """One, as it is stored."""

    id: int
    tenant: str
    reseller: str
    since: str
    until: str
    title_ja: str
    title_en: str
    body_ja: str
    body_en: str
    posted_at: str
    posted_by: str

    @property
    def audience(self) -> Audience:
        return "tenant" if self.tenant else "reseller" if self.reseller else "all"

    def title(self, locale: str) -> str:
        return self.title_ja if locale == "ja" else self.title_en

    def body(self, locale: str) -> str:
        return self.body_ja if locale == "ja" else self.body_en


_COLUMNS: Final = tuple(BULLETIN.c[name] for name in Bulletin.__struct_fields__)


def post(db: sa.Connection, made: Bulletin) -> int:
    """Enter a bulletin (its id is given here); returns the id.

    Raises:
        RejectedInput: a text is missing or too long, the times are wrong, or whom it is for.

    """
    check(made)
    values = {name: getattr(made, name) for name in Bulletin.__struct_fields__ if name != "id"}
    return int(db.execute(BULLETIN.insert().values(**values).returning(BULLETIN.c.id)).scalar_one())


def check(made: Bulletin) -> None:
    """Refuse what could not be shown.

    Raises:
        RejectedInput: see `post`.

    """
    titles, bodies = (made.title_ja, made.title_en), (made.body_ja, made.body_en)
    if not all(title.strip() and len(title) <= TITLE_CAP and title.isprintable() for title in titles):
        raise RejectedInput(f"A title in both languages, one line of at most {TITLE_CAP} characters.")
    if not all(body.strip() and len(body) <= BODY_CAP and _is_text(body) for body in bodies):
        raise RejectedInput(f"A text in both languages, of at most {BODY_CAP} characters.")
    if not made.since < made.until:
        raise RejectedInput("It ends before it begins.")
    if made.tenant and made.reseller:
        raise RejectedInput("It is for one customer or for those of one chamber.")


def withdraw(db: sa.Connection, id_: int) -> bool:
    """Take a bulletin back; False where there is none."""
    db.execute(READ.delete().where(READ.c.bulletin == id_))
    return db.execute(BULLETIN.delete().where(BULLETIN.c.id == id_)).rowcount == 1


def every(db: sa.Connection, limit: int) -> list[Bulletin]:
    """All there are, newest first: for who posts them."""
    return [Bulletin(*row) for row in db.execute(sa.select(*_COLUMNS).order_by(BULLETIN.c.id.desc()).limit(limit))]


def of_tenant(db: sa.Connection, tenant: str, now: str) -> list[Bulletin]:
    """What this customer is told now, newest first."""
    chamber = db.execute(sa.select(CUSTOMER.c.reseller).where(CUSTOMER.c.tenant == tenant)).scalar() or ""
    found: list[Bulletin] = []
    for whose in {("", ""), ("", chamber), (tenant, "")}:
        mine = (BULLETIN.c.tenant == whose[0], BULLETIN.c.reseller == whose[1], BULLETIN.c.since <= now)
        query = sa.select(*_COLUMNS).where(*mine, BULLETIN.c.until > now).order_by(BULLETIN.c.since.desc())
        found += [Bulletin(*row) for row in db.execute(query.limit(SHOWN))]
    return sorted(found, key=lambda one: (one.since, one.id), reverse=True)


def unread(db: sa.Connection, account: str, some: Sequence[Bulletin]) -> set[int]:
    """Which of these the account has not read."""
    ids = {one.id for one in some}
    known = sa.select(READ.c.bulletin).where(READ.c.account == account, READ.c.bulletin.in_(sorted(ids)))
    return ids - set(db.scalars(known)) if ids else set()


def mark_read(db: sa.Connection, account: str, ids: Sequence[int]) -> None:
    if ids:
        db.execute(insert_new(db, READ), [{"account": account, "bulletin": id_} for id_ in ids])


def _is_text(body: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in body)
