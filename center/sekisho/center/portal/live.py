"""Says to open pages that there are new alerts, within a second of their being stored (Server-Sent Events).

What is sent is an alert's id and nothing else: the page then fetches itself, with all that is asked of any request.
However many look, one thread asks the database, `EVERY_S` after its last answer, and only while somebody listens. A
stream ends after `LIVES_S`; the browser comes back and names the last id it heard, so that nothing is missed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import anyio.to_thread
import sqlalchemy as sa
from litestar import Request, Response, Router, get
from litestar.exceptions import NotFoundException, TooManyRequestsException
from litestar.params import QueryParameter
from litestar.response import Stream

from sekisho.appliance.core.errors import DeviceFault
from sekisho.center.database import Database
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.viewer import viewer
from sekisho.center.scope import Scope
from sekisho.center.views import alert_list
from sekisho.center.views.alerts import ALERT
from sekisho.center.web import guard

EVERY_S: Final = 0.25
LIVES_S: Final = 600.0
ASKS_S: Final = 60.0
"""How often it is asked whether the session is still there: nobody hears on who has signed out elsewhere."""
BEAT_S: Final = 15.0
"""A line nobody reads, so that a connection that is gone is noticed."""
RETRY_MS: Final = 1000
FULL_RETRY_MS: Final = 30_000
OF_SESSION: Final = 4
ALL: Final = 1000
"""Streams of everybody; fewer where the server has few connections: half of them stay for pages."""
LATE_S: Final = 10.0
"""So long after its successors an alert may still be committed (PostgreSQL hands out ids before commits)."""
READ_CAP: Final = 2000

log = logging.getLogger(__name__)


class Listener:
    """One open page; lives in the event loop."""

    def __init__(self, session: str, tenant: str) -> None:
        self.session, self.tenant = session, tenant
        self.newest = 0
        self.changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def tell(self, newest: int) -> None:
        """There is something new; safe from any thread."""
        self._loop.call_soon_threadsafe(self._set, newest)

    def _set(self, newest: int) -> None:
        self.newest = max(self.newest, newest)
        self.changed.set()


class Watch:
    """The one who looks for new alerts."""

    def __init__(self, database: Database, most: int = ALL) -> None:
        self._database, self._most = database, most
        self._lock = threading.Lock()
        self._listeners: set[Listener] = set()
        self._thread: threading.Thread | None = None
        self.polls = 0
        """How often the database was asked."""

    def full(self, session: str) -> bool:
        """Whether this session, or everybody together, has all the streams there may be."""
        with self._lock:
            of = Counter(one.session for one in self._listeners)
            return of[session] >= OF_SESSION or len(self._listeners) >= self._most

    def join(self, listener: Listener) -> None:
        with self._lock:
            self._listeners.add(listener)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="live", daemon=True)
                self._thread.start()

    def leave(self, listener: Listener) -> None:
        with self._lock:
            self._listeners.discard(listener)

    def _run(self) -> None:
        looking = _Looking(self._database)
        while self._somebody():
            try:
                news = looking.look()
            except DeviceFault as err:
                log.warning("%s Open pages are not told of new alerts.", err)
                time.sleep(1)
                continue
            self.polls += 1
            with self._lock:
                for listener in self._listeners:
                    if listener.tenant in news:
                        listener.tell(news[listener.tenant])
            time.sleep(EVERY_S)

    def _somebody(self) -> bool:
        """Whether anybody listens; with the last one the thread ends."""
        with self._lock:
            if not self._listeners:
                self._thread = None
            return self._thread is not None


class _Looking:
    """Where the reading of new alerts has got to."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._floor: int | None = None
        self._known: dict[int, float] = {}

    def look(self) -> dict[str, int]:
        """Tenant -> its newest alert, of those that were not there at the last look."""
        with self._database.reading() as db:
            if self._floor is None:
                self._floor = int(db.execute(sa.select(sa.func.max(ALERT.c.id))).scalar() or 0)
            rows = db.execute(new_since(self._floor)).all()
        now = time.monotonic()
        fresh = [row for row in rows if row.id not in self._known]
        self._known |= {row.id: now for row in fresh}
        settled = [id_ for id_, since in self._known.items() if now - since > LATE_S or len(rows) == READ_CAP]
        self._floor = max([self._floor, *settled])
        self._known = {id_: since for id_, since in self._known.items() if id_ > self._floor}
        news: dict[str, int] = {}
        for row in fresh:
            news[row.tenant] = max(row.id, news.get(row.tenant, 0))
        return news


def new_since(floor: int) -> sa.Select[tuple[int, str]]:
    """Of everybody: who is told is decided by the tenant of each."""
    return sa.select(ALERT.c.id, ALERT.c.tenant).where(ALERT.c.id > floor).order_by(ALERT.c.id.desc()).limit(READ_CAP)


def router(portal: Portal) -> Router:
    """The route."""
    watch = Watch(portal.reading, min(ALL, portal.connections // 2))

    @get("/live", right="alerts.see", endless=True, opt={"background": True})
    async def live(
        request: Request[Any, Any, Any], after: Annotated[str, QueryParameter(max_length=20)] = ""
    ) -> Response[Any]:
        """The stream of the customer whose pages are shown."""
        who = viewer(request)
        if not who.tenant:
            raise NotFoundException()
        if watch.full(who.session):
            raise TooManyRequestsException()
        heard = request.headers.get("last-event-id", after)
        known = int(heard) if heard.isascii() and heard.isdecimal() and len(heard) < 19 else None
        guard.prolong(request.scope, LIVES_S + BEAT_S)
        listener = Listener(who.session, who.tenant)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return Stream(_told(portal, request, watch, listener, known), media_type="text/event-stream", headers=headers)

    return Router("/", route_handlers=[live])


async def _told(
    portal: Portal, request: Request[Any, Any, Any], watch: Watch, listener: Listener, known: int | None
) -> AsyncIterator[str]:
    if watch.full(listener.session):
        yield f"retry: {FULL_RETRY_MS}\n\n"
        return
    until, asked = time.monotonic() + LIVES_S, time.monotonic()
    watch.join(listener)
    try:
        yield f"retry: {RETRY_MS}\n\n"
        newest = await anyio.to_thread.run_sync(_newest, portal, listener.tenant)
        if known is not None and newest > known:
            listener.tell(newest)
        while (left := until - time.monotonic()) > 0:
            if time.monotonic() - asked > ASKS_S:
                asked = time.monotonic()
                if await portal.identify(request, used=False) is None:
                    return
            try:
                await asyncio.wait_for(listener.changed.wait(), min(BEAT_S, left))
            except TimeoutError:
                yield ":\n\n"
                continue
            listener.changed.clear()
            yield f"id: {listener.newest}\nevent: alert\ndata: {listener.newest}\n\n"
    finally:
        watch.leave(listener)


def _newest(portal: Portal, tenant: str) -> int:
    with portal.reading.reading() as db:
        return alert_list.newest(db, Scope(frozenset({tenant})))
