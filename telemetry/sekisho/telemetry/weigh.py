"""Puts the rubric's stars on events: finds out direction, device and outcome, and asks `stars`.

Whatever an event said of its own importance before is overwritten. Called by `decode` for everything that comes from
other rooms, by `spool` for what telemetry itself has to say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, assert_never

import msgspec

from sekisho.telemetry import stars
from sekisho.telemetry.events import (
    Alert,
    Bypass,
    Event,
    FileVerdict,
    Firmware,
    Flow,
    Gap,
    Health,
    Job,
    Retro,
    Signatures,
)
from sekisho.telemetry.inventory import Inventory
from sekisho.telemetry.stars import Case, Direction, Signature, Verdict

_NOBODY: Final = Inventory(Path("/nonexistent"))
_Plain = FileVerdict | Retro | Bypass | Health | Gap | Signatures | Firmware | Job
_Told = Alert | _Plain


def weigh(event: Event, inventory: Inventory, signature: Signature | None = None, side: str = "") -> Event:
    """The event with its stars.

    `signature` and `side` (whose packet it was: to_server, to_client, "" = not known) are an engine alert's.
    """
    if not isinstance(event, _Told):
        return event
    if not isinstance(event, Alert):
        verdict = stars.judge(_case(event, inventory))
        return msgspec.structs.replace(event, stars=verdict.stars, why_stars=verdict.why)
    flow = event.flow
    client, server = (flow.dst_ip, flow.src_ip) if side == "to_client" else (flow.src_ip, flow.dst_ip)
    direction = inventory.direction(client, server)
    verdict = _alert(event, direction, side, inventory.kind(_ours(client, server, direction)), signature)
    return msgspec.structs.replace(event, stars=verdict.stars, why_stars=verdict.why, direction=direction)


def weigh_own(event: Event) -> Event:
    """Stars for what has no two ends: the box's health, and what it had to drop."""
    return weigh(event, _NOBODY) if isinstance(event, Health | Gap) else event


def _alert(event: Alert, direction: Direction, side: str, device: str, signature: Signature | None) -> Verdict:
    if event.function or event.exception or signature is None:
        case = Case("policy", direction, side, event.action, device, function=event.function)
        return stars.judge(msgspec.structs.replace(case, excepted="yes") if event.exception else case)
    return stars.judge(Case("alert", direction, side, event.action, device), signature)


def _ours(client: str, server: str, direction: Direction) -> str:
    """The office's end of a connection; of two the one that opened it."""
    return server if direction == "in" else client


def _case(
    event: FileVerdict | Retro | Bypass | Health | Gap | Signatures | Firmware | Job, inventory: Inventory
) -> Case:
    match event:
        case FileVerdict():
            return Case(
                "file",
                _from_to(event.flow, inventory),
                outcome=event.outcome,
                malicious="yes" if event.rules else "no",
                reason=event.reason,
            )
        case Retro():
            return Case("retro", reached="yes" if event.deliveries or event.more else "no")
        case Bypass():
            return Case("bypass", part=event.part, state=event.state, seconds=event.seconds)
        case Health():
            return Case("health", part=event.part, state=event.state, rules=event.rules)
        case Gap():
            return Case("gap", reason=event.why)
        case Signatures():
            return Case("signatures", state=event.state, seconds=event.seconds)
        case Firmware():
            return Case("firmware", state=event.state, reason=event.why, tier=str(event.tier))
        case Job():
            return Case("job", part=event.kind, state=event.state, reason=event.why)
        case _:
            assert_never(event)


def _from_to(flow: Flow, inventory: Inventory) -> Direction:
    """A file's way; its flow names the sender first."""
    return inventory.direction(flow.src_ip, flow.dst_ip)
