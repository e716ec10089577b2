"""The few EVE fields telemetry may see, as types: Suricata's JSON is decoded straight into them.

A field that is not listed here (cookie, Authorization, referer, body, payload, packet) is skipped by
the decoder and never becomes a Python object. Names are EVE's own.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Word = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
Size = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class EveRule(msgspec.Struct, frozen=True):
    """What a rule's metadata says of the policy it comes from, or of its author's judgement; the rest is skipped."""

    sekisho_function: tuple[str, ...] = ()
    sekisho_entry: tuple[str, ...] = ()
    sekisho_action: tuple[str, ...] = ()
    sekisho_exception: tuple[str, ...] = ()
    signature_severity: tuple[str, ...] = ()
    confidence: tuple[str, ...] = ()
    former_category: tuple[str, ...] = ()
    attack_target: tuple[str, ...] = ()


class EveAlert(msgspec.Struct, frozen=True):
    signature_id: Word = 0
    rev: Word = 0
    signature: str = ""
    category: str = ""
    severity: Word = 3
    action: str = "allowed"
    metadata: EveRule = EveRule()


class EveHttp(msgspec.Struct, frozen=True):
    hostname: str = ""
    url: str = ""
    http_method: str = ""
    status: Word = 0
    length: Size = 0


class EveTls(msgspec.Struct, frozen=True):
    sni: str = ""
    version: str = ""
    ja4: str = ""


class EveQuic(msgspec.Struct, frozen=True):
    sni: str = ""
    version: str = ""
    ja4: str = ""


class EveDnsQuestion(msgspec.Struct, frozen=True):
    rrname: str = ""
    rrtype: str = ""


class EveDns(msgspec.Struct, frozen=True):
    """Version 2 has one question inline; alerts and version 3 have a list."""

    type: str = ""
    rrname: str = ""
    rrtype: str = ""
    query: list[EveDnsQuestion] = []
    queries: list[EveDnsQuestion] = []


class EveSmtp(msgspec.Struct, frozen=True):
    mail_from: str = ""
    rcpt_to: list[str] = []


class EveEmail(msgspec.Struct, frozen=True):
    subject: str = ""


class EveFile(msgspec.Struct, frozen=True):
    filename: str = ""


class EveLine(msgspec.Struct, frozen=True):
    """One EVE record of any type."""

    event_type: str
    timestamp: str
    src_ip: str = ""
    src_port: Port = 0
    dest_ip: str = ""
    dest_port: Port = 0
    proto: str = ""
    app_proto: str = ""
    direction: str = ""
    """Whose packet raised an alert: to_server, to_client; empty without a flow."""
    alert: EveAlert | None = None
    http: EveHttp | None = None
    tls: EveTls | None = None
    quic: EveQuic | None = None
    dns: EveDns | None = None
    smtp: EveSmtp | None = None
    email: EveEmail | None = None
    files: list[EveFile] = []


decode_line = msgspec.json.Decoder(EveLine).decode
