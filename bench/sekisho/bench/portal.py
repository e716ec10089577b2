"""`sekisho bench portal`: how long the portal's pages take over a million stored events, and ten times as many.

The store is filled through the centre's own ingest on SQLite: one customer whose office has a hundred devices has
most of it, many others the rest. Every page is asked for over the real application, by an operator and by the
customer's administrator, again and again; what is measured is from the request to the answer's last byte, on this
machine, without TLS.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
from litestar import Litestar
from litestar.testing import TestClient

from sekisho.appliance.core import utc
from sekisho.bench import mixed_events
from sekisho.bench.figures import Figure, Report, percentile
from sekisho.center import customers, settings
from sekisho.center.portal import accounts, sessions
from sekisho.center.portal.app import create_app
from sekisho.center.portal.rendering import COOKIE, MENU
from sekisho.center.portal.rights import Role, may
from sekisho.center.store import Arrival, NewRow, Store
from sekisho.telemetry import events as ev
from sekisho.telemetry.events import Event

MILLION: Final = 1_000_000
DAYS: Final = 60
DEVICES: Final = 100
CUSTOMERS: Final = 20
SHARE: Final = 0.6
"""Of all events, what is the first customer's: pages are asked for by who has the most."""
BOUND_MS: Final = 200.0
ASKS: Final = 30
ORIGIN: Final = "https://portal.example"
MAC: Final = "02:00:5e:10:00:0a"
PAGES: Final = (
    "/devices?show=partly",
    f"/devices/box-0/{MAC}",
    "/log?kind=dns",
    f"/log?mac={MAC}",
    "/log?site=name-77.example",
    f"/log?mac={MAC}&site=name-77.example&kind=tls",
    "/log?site=nowhere.example",
    "/statistics?by=week",
    "/statistics?by=month",
    "/health-of-boxes/box-0",
    "/alerts?stars=3",
)
"""Beside those of the menu."""

Say = Callable[[str], None]


def measure(say: Say, *, quick: bool, big: bool) -> Report:
    """A twentieth of a million with `quick`; a second time with ten million where `big`."""
    figures: list[Figure] = []
    load = os.getloadavg()[0]
    notes = [f"Load when the run began: {load:.1f} on {os.cpu_count()} cores."]
    for number in (MILLION // 20 if quick else MILLION, *((10 * MILLION,) if big else ())):
        with tempfile.TemporaryDirectory(prefix="sekisho-bench-", dir="/var/tmp") as folder:
            store = Path(folder) / "events.db"
            say(f"{number} events")
            figures.append(_fill(store, number))
            figures += _pages(store, number, say)
    return Report(dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), os.cpu_count() or 1, 0, figures, notes)


def _fill(path: Path, number: int) -> Figure:
    """Store so many events of the last `DAYS` days; the figure is what ingest's own part of it cost."""
    dice, store, now = random.Random(7), Store(path), dt.datetime.now(dt.UTC)
    begin = now - dt.timedelta(days=DAYS)
    with store.transaction() as db:
        for customer in range(CUSTOMERS):
            customers.add(db, f"tenant-{customer}", "chamber", at=utc.now())
    seqs = [0] * CUSTOMERS
    cpu, done, hour = 0.0, 0, begin
    while done < number:
        until = begin + (now - begin) * min(1.0, done / number)
        batches: dict[int, list[Event]] = {0: []}
        while hour < until:
            batches[0] += _hourly(dice, hour)
            hour += dt.timedelta(hours=1)
        for _ in range(2000):
            customer = 0 if dice.random() < SHARE else dice.randrange(1, CUSTOMERS)
            batches.setdefault(customer, []).append(_one(dice, utc.text(until)))
        arrivals = []
        for customer, events in batches.items():
            rows = [_row(seqs, customer, event) for event in events]
            arrivals.append(Arrival(f"tenant-{customer}", f"box-{customer}", "e", rows))
            done += len(rows)
        before = time.process_time()
        with store.transaction():
            store.add_all(arrivals, utc.text(until + dt.timedelta(seconds=1)))
        cpu += time.process_time() - before
    store.close()
    detail = {"bytes per event": path.stat().st_size / done, "events": done}
    return Figure("store", f"storing with all views, {number} events", done / cpu, "ev/s", 0, "report", detail)


def _row(seqs: list[int], customer: int, event: Event) -> NewRow:
    seqs[customer] += 1
    kind, stars = str(event.__struct_config__.tag), getattr(event, "stars", 0)
    return NewRow(seqs[customer], ev.lane_of(event), kind, event.at, ev.encode(event), stars=stars)


def _one(dice: random.Random, at: str) -> Event:
    kind = dice.random()
    if kind < 0.002:
        return mixed_events.blocked(dice, at)
    if kind < 0.02:
        return ev.Alert(at=at, flow=mixed_events.flow(dice, 443), function="url_category", action="blocked", stars=1,
                        why_stars="rule_broken", host=f"name-{dice.randrange(99)}.example")  # fmt: skip
    return mixed_events.alert(dice, at) if kind < 0.03 else mixed_events.metadata(dice, at)


def _hourly(dice: random.Random, hour: dt.datetime) -> list[Event]:
    """What the office's box says of an hour."""
    at, begin = utc.text(hour + dt.timedelta(hours=1)), hour.strftime("%Y-%m-%dT%H:00:00Z")
    made: list[Event] = [ev.Vitals(at=at, temperature=50 + dice.random() * 9, disk_free=5, disk_size=9, version="1")]
    for device in range(10, 10 + DEVICES):
        mac, name = f"02:00:5e:10:00:{device:02x}", f"PC-{device}"
        told = ev.Coverage(at=at, mac=mac, hour=begin, seconds=3600, unseen=dice.randrange(10**6))
        looked = {"inspected": dice.randrange(10**8), "opaque": dice.randrange(10**9)}
        made.append(msgspec.structs.replace(told, **looked))
        if hour.hour == 0:
            made.append(ev.Device(at=at, mac=mac, name=name, kind="computer", last_seen=at))
    return made


def _pages(store: Path, number: int, say: Say) -> Iterator[Figure]:
    for role in ("operator", "admin"):
        with _client(store, role) as client:
            paths = [path for _, path, right in MENU if may(role, right)]
            for path in [*paths, *PAGES]:
                if asked := _ask(client, path):
                    took, computed = asked
                    say(f"{path} p99 {percentile(took, 99):.0f} ms, computing {percentile(computed, 99):.0f} ms")
                    detail = {"p50": percentile(took, 50), "computing p50": percentile(computed, 50)}
                    detail["computing p99"] = percentile(computed, 99)
                    what = f"{path} as {role}, {number} events"
                    yield Figure("page", what, percentile(took, 99), "ms", BOUND_MS, "at most", detail)


def _client(store: Path, role: Role) -> TestClient[Litestar]:
    config = settings.CenterSettings(
        broker=settings.BrokerLink("localhost", "", "", ""),
        store=str(store),
        portal=settings.Portal(cert="", key="", origin=ORIGIN),
    )
    now, writer = dt.datetime.now(dt.UTC), Store(store)
    with writer.transaction() as db:
        own = "tenant-0" if role == "admin" else ""
        account = accounts.make(db, f"{role}@example.com", role, tenant=own, now=now)
        secret = sessions.begin(db, account, now)
        who = sessions.find(db, secret, now)
        if who is not None:
            sessions.open_customer(db, who, "tenant-0")
    writer.close()
    client = TestClient(create_app(config), base_url=ORIGIN)
    client.cookies.set(COOKIE, secret)
    return client


def _ask(client: TestClient[Litestar], path: str) -> tuple[list[float], list[float]] | None:
    """Milliseconds of every answer, by the clock and of computing; None for a page that this role is sent away from."""
    took, computed = [], []
    for _ in range(ASKS):
        before, cpu = time.perf_counter(), time.process_time()
        answer = client.get(path, follow_redirects=False)
        took.append((time.perf_counter() - before) * 1000)
        computed.append((time.process_time() - cpu) * 1000)
        if answer.status_code != 200:
            return None
    return took, computed
