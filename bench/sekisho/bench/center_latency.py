"""How long an alert takes from the engine's line on a real box to the centre's disk, and to the mail server.

One box runs the real telemetry daemon beside the simulated ones. Alerts are written at random moments, so that they
meet the load where they meet it. The clock stops when a reader of the database sees the event: it is committed.
"""

from __future__ import annotations

import email
import email.policy
import json
import queue
import random
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from sekisho.appliance.core.errors import DeviceFault
from sekisho.bench.center_stand import REAL_BOX, Stand
from sekisho.bench.figures import Figure, percentile
from sekisho.bench.fleet import Phase
from sekisho.center.store import Store
from sekisho.lab.ports import free_port

STORED_MS: Final = 300
"""p99 that must hold."""
EVENTS_EACH_S: Final = 1.0
"""Of each simulated box: a busy small office."""
APART_S: Final = 0.1
POLL_S: Final = 0.002
LAST_S: Final = 15.0
MAILED_MS: Final = 5000
"""p99 that must hold."""
ORDINARY: Final = {
    "signature": "ET POLICY A name that is worth a look, number",
    "category": "Misc activity",
    "action": "allowed",
    "severity": 3,
}
CALLS_OUT: Final = {
    "signature": "ET MALWARE Command and control, number",
    "category": "Malware Command and Control Activity Detected",
    "action": "blocked",
    "severity": 1,
    "metadata": {"signature_severity": ["Major"], "confidence": ["High"]},
}
"""An infection that calls out: three stars."""
MAIL_S: Final = 20.0
"""How long a mail is waited for."""


def stored(stand: Stand, boxes: int, alerts: int) -> Figure:
    """Write `alerts` on the real box while the fleet reports; both must stand already.

    Raises:
        DeviceFault: no alert arrived, or one was stored twice.

    """
    seconds = alerts * APART_S + LAST_S
    stand.begin(Phase(seconds, rate=boxes * EVENTS_EACH_S))
    dice = random.Random(5)
    written: dict[int, float] = {}
    seen: dict[int, float] = {}
    next_at, until = time.monotonic() + 1.0, time.monotonic() + seconds
    with closing(Store(stand.store, read_only=True)) as store:
        last_id = store.last_id()
        while len(seen) < alerts and time.monotonic() < until:
            if len(written) < alerts and time.monotonic() >= next_at:
                next_at += APART_S * 2 * dice.random()
                number = 5_000_000 + len(written)
                written[number] = time.monotonic()
                write_alert(stand.eve, number)
            last_id = _look(store, last_id, seen)
            time.sleep(POLL_S)
    told = stand.finish()
    if not seen:
        raise DeviceFault("No alert arrived at the centre.")
    late = [(seen.get(number, until) - at) * 1000 for number, at in written.items()]
    detail = {
        "ms p50": percentile(late, 50),
        "ms p90": percentile(late, 90),
        "ms worst": max(late),
        "alerts": len(late),
        "alerts that did not come in time": len(written) - len(seen),
        "events/s of the simulated boxes": told.acked / told.seconds,
    }
    what = f"detection to stored, p99, {boxes} boxes beside it"
    return Figure("stored", what, percentile(late, 99), "ms", STORED_MS, "at most", detail)


def mailed(stand: Stand, boxes: int, mails: int) -> Figure:
    """Write `mails` alerts of three stars, one after the other, while the fleet reports; at most 60 an hour go.

    Raises:
        DeviceFault: not even the first mail came.

    """
    inbox = _Inbox()
    server = Controller(inbox, hostname="127.0.0.1", port=free_port())
    server.start()
    try:
        stand.start_notifier(server.port)
        if _mail(stand, inbox, 6_000_000, 3 * MAIL_S) is None:  # the first also waits for the daemon's start
            raise DeviceFault(f"Nothing is mailed: {stand.log('notify')[-1000:]}")
        stand.begin(Phase(mails * MAIL_S, rate=boxes * EVENTS_EACH_S))
        came = [_mail(stand, inbox, 6_000_001 + number, MAIL_S) for number in range(mails)]
        stand.begin(Phase(30.0, settle=True))
        told, _rest = stand.finish(), stand.finish()
    finally:
        server.stop()
    took = [MAIL_S * 1000 if each is None else each for each in came]
    detail = {
        "ms p50": percentile(took, 50),
        "mails": len(took),
        "mails that did not come in time": came.count(None),
        "events/s of the simulated boxes": told.acked / told.seconds,
    }
    what = f"detection to mail server, p99, {boxes} boxes beside it"
    return Figure("mailed", what, percentile(took, 99), "ms", MAILED_MS, "at most", detail)


class _Inbox:
    """A mail server's handler that notes when it accepted what."""

    def __init__(self) -> None:
        self.arrived: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        self.arrived.put((time.monotonic(), envelope.original_content or b""))
        return "250 taken"


def _mail(stand: Stand, inbox: _Inbox, sid: int, timeout_s: float) -> float | None:
    """Milliseconds from an alert's line to its own mail; None when it did not come in time."""
    began = time.monotonic()
    write_alert(stand.eve, sid, CALLS_OUT)
    try:
        while True:
            at, content = inbox.arrived.get(timeout=max(0.0, began + timeout_s - time.monotonic()))
            if str(sid) in _text(content):
                return (at - began) * 1000
    except queue.Empty:
        return None


def _text(content: bytes) -> str:
    body = email.message_from_bytes(content, policy=email.policy.SMTP).get_body(("plain",))
    return str(body.get_content()) if body else ""


def write_alert(eve: Path, sid: int, kind: Mapping[str, object] = ORDINARY) -> None:
    """One line as the engine writes it: a device inside to a peer outside."""
    ends = {"src_ip": "192.168.1.10", "dest_ip": "203.0.113.7"}
    line = {
        "timestamp": datetime.now(UTC).isoformat(timespec="microseconds"),
        "event_type": "alert",
        **ends,
        "src_port": 51515,
        "dest_port": 443,
        "proto": "TCP",
        "direction": "to_server",
        "flow": ends,
        "alert": {"signature_id": sid, "rev": 1, **kind, "signature": f"{kind['signature']} {sid}"},
    }
    with eve.open("ab", buffering=0) as out:
        out.write(json.dumps(line).encode() + b"\n")


def _look(store: Store, last_id: int, seen: dict[int, float]) -> int:
    newest = store.last_id()
    if newest == last_id:
        return last_id
    found = store.events(since_id=last_id, box=REAL_BOX)
    now = time.monotonic()
    for stored_event in found:
        event = json.loads(bytes(stored_event.event))
        if event["type"] == "alert":
            if event["sid"] in seen:
                raise DeviceFault(f"Alert {event['sid']} was stored twice.")
            seen[event["sid"]] = now
    return max(newest, found[-1].id) if found else newest
