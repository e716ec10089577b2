"""A case as a record to take away: what was seen, what was done, by whom and when, and how to check that it is whole.

Metadata only: what a mail may hold, never content.
"""

from __future__ import annotations

import base64
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.center.cases import desk, record
from sekisho.center.cases.desk import Case
from sekisho.center.report import proofs

FORMAT: Final = "sekisho case record 1"
CHECK: Final = (
    "Each digest is SHA-256 over: the digest of the entry before it (64 hex digits; 64 zeros before the first), "
    "a line feed, the entry as JSON (UTF-8, keys sorted, no spaces). The signature is Ed25519 over the words "
    "'sekisho case record 1', a zero byte, and the record as such JSON; the public key is at /genuine/key, "
    "and its SHA-256 is named here."
)


def sealed(made: dict[str, Any], key: proofs.Key) -> dict[str, Any]:
    """The record with the centre's signature over it."""
    body = record.canonical(made)
    return {"record": made, "signature": base64.b64encode(key.sign(body, proofs.CASE)).decode(), "key": key.fingerprint}


def made(db: sa.Connection, case: Case, at: str) -> dict[str, Any]:
    """The whole record; the caller has asked the scope."""
    kept = record.read(db, case.id, desk.LOG_CAP + 1)
    return {
        "format": FORMAT,
        "made_at": at,
        "case": {
            "id": case.id,
            "customer": case.tenant,
            "box": case.box,
            "detected_at": case.detected_at,
            "received_at": case.opened_at,
            "last_at": case.last_at,
            "last_received_at": case.last_received,
            "alerts": case.number,
            "reason": case.why,
            "first_alert": msgspec.to_builtins(case.told),
            "window": {
                "from": case.window.since.isoformat(),
                "until": case.window.until.isoformat(),
                "counted_from": case.window.counted_from,
            },
            "now": msgspec.to_builtins(case.work),
        },
        "alerts": [{"alert": str(key), "at": key.at} for key in desk.alerts(db, case)],
        "alerts_not_listed": max(0, case.number - desk.NAMED_CAP),
        "answers": [msgspec.to_builtins(answer) for answer in desk.answers(db, case)],
        "log": [{"entry": msgspec.to_builtins(one.entry), "digest": one.digest} for one in kept],
        "log_is_whole": record.whole(kept),
        "last_digest": kept[-1].digest if kept else record.BEGIN,
        "how_to_check": CHECK,
    }
