"""One line from Suricata or from a room's journal becomes one typed event, or is refused.

Owns the mapping EVE -> events and the join with the LAN inventory; every event leaves here with its stars (`weigh`).
Reads no file, keeps nothing. Callers count `RejectedInput` and go on: a bad line never stops the flow.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from functools import lru_cache
from typing import Final, get_args

import msgspec

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.policy import applications
from sekisho.telemetry import events
from sekisho.telemetry.eve import EveLine, decode_line
from sekisho.telemetry.events import Alert, Dns, Event, Flow, Function, Mail, Tls, Web
from sekisho.telemetry.inventory import Inventory
from sekisho.telemetry.privacy import tidy
from sekisho.telemetry.stars import Signature
from sekisho.telemetry.weigh import weigh

LINE_CAP: Final = 256 << 10
STEERING: Final = range(9000000, 9000100)
"""Rule numbers that only steer packets (marks, bypass): their alerts are no findings."""

_FUNCTIONS: Final[dict[str, Function]] = {name: name for name in get_args(Function)}


def decode_eve(line: bytes, inventory: Inventory) -> Event | None:
    """The event in one EVE line; None for record types and steering rules that are not reported.

    Raises:
        RejectedInput: too long, not UTF-8, not JSON, or a field of the wrong type.

    """
    if len(line) > LINE_CAP:
        raise RejectedInput("An EVE line is longer than its cap.")
    try:
        eve = decode_line(line)
        event = _event(eve, inventory)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError) as err:
        raise RejectedInput(f"An EVE line was refused: {type(err).__name__}.") from err
    if event is None:
        return None
    return weigh(tidy(event), inventory, _signature(eve), eve.direction)


def decode_journal(line: bytes, inventory: Inventory) -> Event:
    """The event in one line of a room's journal, with the LAN device's MAC filled in where it is known.

    Raises:
        RejectedInput: too long, not UTF-8, or not one of the event types.

    """
    if len(line) > LINE_CAP:
        raise RejectedInput("A journal line is longer than its cap.")
    try:
        event = tidy(events.decode(line))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise RejectedInput(f"A journal line was refused: {type(err).__name__}.") from err
    return weigh(with_mac(event, inventory), inventory)


def with_mac(event: Event, inventory: Inventory) -> Event:
    """The event with its addresses in short form and its device's MAC, where the inventory knows it by now."""
    flow: Flow | None = getattr(event, "flow", None)
    if flow is None or flow.mac:
        return event
    src, dst = short_address(flow.src_ip), short_address(flow.dst_ip)
    found = msgspec.structs.replace(flow, src_ip=src, dst_ip=dst, mac=inventory.mac(src, dst))
    return msgspec.structs.replace(event, flow=found)


@lru_cache(maxsize=4096)
def short_address(text: str) -> str:
    """The one spelling of an address: Suricata writes IPv6 in full, the inventory and people do not."""
    try:
        return str(ipaddress.ip_address(text)) if ":" in text else text
    except ValueError:
        return text


def _event(eve: EveLine, inventory: Inventory) -> Event | None:
    make = _MAKERS.get(eve.event_type)
    if make is None:
        return None
    src, dst = short_address(eve.src_ip), short_address(eve.dest_ip)
    flow = Flow(src, eve.src_port, dst, eve.dest_port, eve.proto, inventory.mac(src, dst))
    return make(eve, _utc(eve.timestamp), flow)


def _utc(stamp: str) -> str:
    """Suricata's local time with offset as UTC, always with microseconds."""
    if stamp.endswith("+0000") and len(stamp) == 31:
        dt.datetime.fromisoformat(stamp)
        return stamp[:26] + "Z"
    parsed = dt.datetime.fromisoformat(stamp)
    if parsed.tzinfo is None:
        raise ValueError("time without offset")
    return utc.text(parsed)


def _alert(eve: EveLine, at: str, flow: Flow) -> Event | None:
    alert = eve.alert
    if alert is None or alert.signature_id in STEERING:
        return None
    rule = alert.metadata
    function = _first(rule.sekisho_function)
    name = _host(eve)
    return Alert(
        at=at,
        flow=flow,
        sid=alert.signature_id,
        rev=alert.rev,
        signature=alert.signature,
        category=alert.category,
        severity=alert.severity,
        action="blocked" if alert.action == "blocked" or _first(rule.sekisho_action) == "block" else "allowed",
        app=eve.app_proto,
        application=applications.find(name, eve.app_proto, _ja4(eve)),
        function=_FUNCTIONS.get(function, ""),
        policy=_first(rule.sekisho_entry),
        exception=_first(rule.sekisho_exception),
        url=eve.http.url if eve.http else "",
        host=eve.http.hostname if eve.http else "",
        sni=eve.tls.sni if eve.tls else eve.quic.sni if eve.quic else "",
        dns_name=_question(eve)[0],
        mail_from=_address(eve.smtp.mail_from) if eve.smtp else "",
        mail_to=[_address(to) for to in eve.smtp.rcpt_to] if eve.smtp else [],
        mail_subject=eve.email.subject if eve.email else "",
        file_name=eve.files[0].filename if eve.files else "",
    )


def _signature(eve: EveLine) -> Signature | None:
    """What the alert's rule says of itself."""
    alert = eve.alert
    if alert is None:
        return None
    rule = alert.metadata
    return Signature(
        text=alert.signature,
        category=alert.category,
        severities=rule.signature_severity,
        confidences=rule.confidence,
        former=rule.former_category,
        targets=rule.attack_target,
    )


def _web(eve: EveLine, at: str, flow: Flow) -> Event | None:
    http = eve.http
    if http is None:
        return None
    return Web(
        at=at,
        flow=flow,
        application=applications.find(http.hostname),
        method=http.http_method,
        host=http.hostname,
        url=http.url,
        status=http.status,
        length=http.length,
    )


def _tls(eve: EveLine, at: str, flow: Flow) -> Event | None:
    tls = eve.tls
    if tls is None:
        return None
    return Tls(at=at, flow=flow, application=applications.find(tls.sni, "", tls.ja4), sni=tls.sni, version=tls.version)


def _quic(eve: EveLine, at: str, flow: Flow) -> Event | None:
    quic = eve.quic
    if quic is None:
        return None
    application = applications.find(quic.sni, "", quic.ja4)
    return Tls(at=at, flow=flow, application=application, sni=quic.sni, version=f"QUIC {quic.version}")


def _dns(eve: EveLine, at: str, flow: Flow) -> Event | None:
    """Questions only: an answer repeats the name and adds what nobody asked for."""
    if eve.dns is None or eve.dns.type not in ("query", "request"):
        return None
    name, rrtype = _question(eve)
    return Dns(at=at, flow=flow, application=applications.find(name), name=name, rrtype=rrtype)


def _smtp(eve: EveLine, at: str, flow: Flow) -> Event | None:
    smtp = eve.smtp
    if smtp is None or not (smtp.mail_from or smtp.rcpt_to):
        return None
    return Mail(at=at, flow=flow, mail_from=_address(smtp.mail_from), mail_to=[_address(to) for to in smtp.rcpt_to])


def _question(eve: EveLine) -> tuple[str, str]:
    if eve.dns is None:
        return "", ""
    if eve.dns.rrname:
        return eve.dns.rrname, eve.dns.rrtype
    for question in (*eve.dns.query, *eve.dns.queries):
        if question.rrname:
            return question.rrname, question.rrtype
    return "", ""


def _host(eve: EveLine) -> str:
    """The name that was asked for, in whichever protocol."""
    if eve.http:
        return eve.http.hostname
    return (eve.tls and eve.tls.sni) or (eve.quic and eve.quic.sni) or _question(eve)[0]


def _ja4(eve: EveLine) -> str:
    return (eve.tls and eve.tls.ja4) or (eve.quic and eve.quic.ja4) or ""


def _first(words: tuple[str, ...]) -> str:
    return words[0] if words else ""


def _address(text: str) -> str:
    return text.strip().removeprefix("<").removesuffix(">")


_MAKERS = {"alert": _alert, "http": _web, "tls": _tls, "quic": _quic, "dns": _dns, "smtp": _smtp}
