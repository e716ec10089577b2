"""Which notice is mailed now, which waits for a summary, which is only kept: pure decisions, no clock, no database.

Every notice takes exactly one way: a mail at once, a gathering that closes at a stated time and becomes one mail, or
none. Repeats gather per topic (device and rule), what is below the customer's threshold in the digest, what comes in
the quiet hours until their end, what exceeds the hourly number in storm summaries. Each round of a topic or of a storm
is twice as long as the one before: what goes on for days is told ever more rarely, with its number.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final, Literal

from sekisho.center.tenants import Tenant

Kind = Literal["again", "storm", "quiet", "digest"]

IMPORTANT: Final = 3
STORM_MINUTES: Final = 10
LONGEST: Final = dt.timedelta(hours=24)
"""No round of a topic or a storm is longer."""


@dataclass(frozen=True)
class Window:
    """The open round of a topic: what was mailed already, and until when repeats are gathered."""

    stars: int


@dataclass(frozen=True)
class MailNow:
    """One mail at once; repeats of its topic gather until `again_until`."""

    again_until: dt.datetime


@dataclass(frozen=True)
class Gather:
    """Wait in the gathering of this kind, which is opened until `until` when there is none."""

    kind: Kind
    until: dt.datetime


@dataclass(frozen=True)
class Keep:
    """Nobody is mailed; the portal has it."""


Place = MailNow | Gather | Keep


@dataclass(frozen=True)
class Closing:
    """What becomes of a gathering whose time has come."""

    mail: bool
    """Its content becomes a mail."""
    into_storm: bool = False
    """Its content goes into the storm's summary instead."""
    until: dt.datetime | None = None
    """It stays open (emptied, where it was told) until then; None = it is gone."""


def place(stars: int, tenant: Tenant, now: dt.datetime, window: Window | None, mailed: int) -> Place:
    """Where a notice goes. `window` is its topic's open round, `mailed` the mails of the last hour."""
    if stars < tenant.threshold:
        return Keep() if tenant.digest == "off" else Gather("digest", next_digest(tenant, now))
    if window is not None and stars <= window.stars:
        return Gather("again", now + fold(tenant, 0))
    quiet = quiet_end(tenant, now)
    if quiet is not None and not _pierces(stars, tenant):
        return Gather("quiet", quiet)
    if mailed >= tenant.mails_per_hour:
        return Gather("storm", now + storm(0))
    return MailNow(now + fold(tenant, 0))


def close(kind: Kind, gathered: int, rounds: int, tenant: Tenant, now: dt.datetime, mailed: int) -> Closing:
    """What becomes of a gathering with `gathered` entries after `rounds` rounds, at its time."""
    if not gathered:
        return Closing(mail=False)
    if kind in ("quiet", "digest"):
        return Closing(mail=True)
    quiet = quiet_end(tenant, now)
    if quiet is not None:
        # What was urgent was told when it began; its number can wait for the morning.
        return Closing(mail=False, until=quiet)
    length = fold(tenant, rounds + 1) if kind == "again" else storm(rounds + 1)
    if kind == "again" and mailed >= tenant.mails_per_hour:
        return Closing(mail=False, into_storm=True, until=now + length)
    return Closing(mail=True, until=now + length)


def fold(tenant: Tenant, rounds: int) -> dt.timedelta:
    """How long repeats of a topic are gathered in this round."""
    return min(dt.timedelta(minutes=tenant.fold_minutes << min(rounds, 12)), LONGEST)


def storm(rounds: int) -> dt.timedelta:
    """How long a storm's mails are gathered in this round."""
    return min(dt.timedelta(minutes=STORM_MINUTES << min(rounds, 12)), LONGEST)


def next_digest(tenant: Tenant, now: dt.datetime) -> dt.datetime:
    """The next time a digest is due: the tenant's hour, on Mondays when weekly."""
    local = now.astimezone(tenant.zone)
    due = local.replace(hour=tenant.digest_hour, minute=0, second=0, microsecond=0, fold=0)
    days = 0 if due.astimezone(dt.UTC) > now else 1
    if tenant.digest == "weekly":
        days += (7 - (due + dt.timedelta(days=days)).weekday()) % 7
    return (due + dt.timedelta(days=days)).astimezone(dt.UTC)


def quiet_end(tenant: Tenant, now: dt.datetime) -> dt.datetime | None:
    """When the quiet hours that hold now are over; None outside of them."""
    if not tenant.quiet_from or tenant.quiet_from == tenant.quiet_to:
        return None
    local = now.astimezone(tenant.zone)
    clock = f"{local:%H:%M}"
    begin, end = tenant.quiet_from, tenant.quiet_to
    quiet = begin <= clock < end if begin < end else clock >= begin or clock < end
    if not quiet:
        return None
    hour, minute = map(int, end.split(":"))
    until = local.replace(hour=hour, minute=minute, second=0, microsecond=0, fold=0)
    if clock >= end:
        until += dt.timedelta(days=1)
    return max(until.astimezone(dt.UTC), now + dt.timedelta(minutes=1))


def _pierces(stars: int, tenant: Tenant) -> bool:
    return stars >= IMPORTANT and not tenant.quiet_holds_important
