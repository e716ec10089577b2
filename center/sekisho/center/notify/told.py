"""What is told of one event: the few facts a mail may hold, whichever event it was. Pure; metadata only.

A `Told` is made from the typed event alone, so nothing can be in a mail that may not leave the box. Its strings are
still the attacker's: whoever writes them down makes them harmless first (`harmless`).
"""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Final, Literal

import msgspec

from sekisho.telemetry.events import Alert, Bypass, Event, FileVerdict, Firmware, Gap, Health, Job, Retro, Signatures

Done = Literal["blocked", "file_blocked", "neutralised", "passed", "released", "found_later", ""]
"""What the box did, in the words of `words`: "blocked" only where bytes were withheld."""

FACT_CAP: Final = 160
WORD_CAP: Final = 64
_LOCAL: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"),
        *("fc00::/7", "fe80::/10"),
    )
)
"""Addresses no peer on the internet has (RFC 1918, 6598, 3927, 4193, 4291)."""
COUNT_CAP: Final = 1_000_000_000
"""A box may say any number; sums of these stay numbers of the database."""
DELIVERIES_CAP: Final = 8


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happened at one box."""

    code: str
    """Its kind: alert, policy, file, retro, bypass, health, gap, signatures, firmware, job."""
    why: str
    """The rubric's code, which has the words for it (`telemetry.reasons`)."""
    stars: int
    box: str
    at: str
    until: str = ""
    count: int = 1
    device: str = ""
    """The LAN device: its address, or its MAC where it has none."""
    mac: str = ""
    done: Done = ""
    facts: list[tuple[str, str]] = []
    """(label, value); labels are ours, values are not."""
    about: str = ""
    """What distinguishes it from other things of this code on this device: a rule, a file."""

    @property
    def topic(self) -> str:
        """Equal for repeats of one thing: same box, device, code and rule or file."""
        parts = (self.box, self.mac or self.device, self.code, self.why, self.about, self.done)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def tell(box: str, event: Event) -> Told | None:
    """What is told of the event, or None when it is of a kind nobody is told of."""
    match event:
        case Alert():
            return _alert(box, event)
        case FileVerdict():
            return _file(box, event)
        case Retro():
            return _retro(box, event)
        case Bypass():
            facts = _facts(part=event.part, reason=event.reason)
            return _told(box, event, "bypass", about=f"{event.part}/{event.state}", facts=facts)
        case Health():
            facts = _facts(part=event.part, state=event.state, detail=event.detail)
            return _told(box, event, "health", about=f"{event.part}/{event.state}", facts=facts)
        case Gap():
            return _told(box, event, "gap", facts=_facts(number=str(event.count), reason=event.why))
        case Signatures():
            facts = _facts(state=event.state, number=str(event.refused or ""), detail=event.detail)
            return _told(box, event, "signatures", about=event.state, facts=facts)
        case Job():
            facts = _facts(part=event.kind, state=event.state, reason=event.why, detail=event.detail)
            return _told(box, event, "job", about=event.id, facts=facts)
        case Firmware():
            facts = _facts(state=event.state, version=event.version, reason=event.why, detail=event.detail)
            return _told(box, event, "firmware", about=f"{event.counter}/{event.state}", facts=facts)
        case _:
            return None


def _alert(box: str, event: Alert) -> Told:
    device, peer = sides(event)
    facts = _facts(
        signature=event.signature,
        rule=str(event.sid) if event.sid else "",
        peer=peer,
        site=event.host or event.sni or event.dns_name,
        url=event.url,
        file=event.file_name,
        mail_from=event.mail_from,
        mail_subject=event.mail_subject,
        policy=event.policy,
    )
    return _told(
        box,
        event,
        "policy" if event.function else "alert",
        device=device,
        mac=event.flow.mac,
        done="blocked" if event.action == "blocked" else "passed",
        about=f"{event.sid}/{event.function}/{event.policy}",
        facts=facts,
        count=event.count,
        until=event.until,
    )


def _file(box: str, event: FileVerdict) -> Told:
    src, dst = event.flow.src_ip, event.flow.dst_ip
    receiver_is_ours = _is_local(dst) or not _is_local(src)
    facts = _facts(
        file=event.file_name,
        inner=event.inner,
        signature=", ".join(event.rules),
        sha256=event.sha256,
        site=event.host,
        url=event.url,
        mail_from=event.mail_from,
        mail_subject=event.mail_subject,
        peer=src if receiver_is_ours else dst,
        quarantine=event.quarantine,
    )
    found = {"blocked": "file_blocked", "delivered_then_found": "found_later", "released_by_policy": "released"}
    done = "neutralised" if event.reason == "neutralised" else found.get(event.outcome, "")
    return _told(
        box,
        event,
        "file",
        device=dst if receiver_is_ours else src,
        mac=event.flow.mac,
        done=msgspec.convert(done, Done),
        about=event.sha256 if done == "found_later" else ",".join(event.rules) or event.sha256,
        facts=facts,
    )


def _retro(box: str, event: Retro) -> Told:
    number = len(event.deliveries) + event.more
    facts = _facts(signature=", ".join(event.rules), sha256=event.sha256, number=str(number) if number > 1 else "")
    for one in event.deliveries[:DELIVERIES_CAP]:
        facts += _facts(
            delivered=" ".join(filter(None, (one.ip, one.mac, f"{one.at[:19]}Z" if one.at else "", one.file_name)))
        )
    first = event.deliveries[0] if event.deliveries else None
    return _told(
        box,
        event,
        "retro",
        device=first.ip if first else "",
        mac=first.mac if first else "",
        done="found_later",
        about=event.sha256,
        facts=facts,
    )


def _told(
    box: str,
    event: Alert | FileVerdict | Bypass | Health | Retro | Gap | Signatures | Firmware | Job,
    code: str,
    *,
    device: str = "",
    mac: str = "",
    done: Done = "",
    about: str = "",
    facts: list[tuple[str, str]],
    count: int = 1,
    until: str = "",
) -> Told:
    return Told(
        code,
        _word(event.why_stars),
        event.stars,
        box,
        _word(event.at),
        _word(until),
        min(count, COUNT_CAP),
        _word(device or mac),
        _word(mac),
        done,
        facts,
        about[:200],
    )


def _word(value: str) -> str:
    """What should be an address, a time or a code; whatever else a box sent is cut short or left out."""
    return value[:WORD_CAP] if value.isprintable() else ""


def sides(event: Alert) -> tuple[str, str]:
    """(our device, its peer). Where both ends look alike, the one that was called from outside, else that spoke."""
    flow = event.flow
    local = (_is_local(flow.src_ip), _is_local(flow.dst_ip))
    called = event.direction == "in" if local[0] == local[1] else local[1]
    return (flow.dst_ip, flow.src_ip) if called else (flow.src_ip, flow.dst_ip)


def _is_local(address: str) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(ip in network for network in _LOCAL if network.version == ip.version)


def _facts(**values: str) -> list[tuple[str, str]]:
    return [(label, value[:FACT_CAP]) for label, value in values.items() if value]
