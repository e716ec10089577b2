"""EVE as Suricata writes it for a small office: lines of an ordinary day, with every field the engine adds."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import Any, Final

_KINDS: Final = {"dns": 50, "tls": 31, "quic": 6, "http": 9, "alert": 3, "smtp": 1}
"""Of a hundred lines."""
_AGENT: Final = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0"


def make(count: int, seed: int = 1) -> list[bytes]:
    """`count` lines with their newlines, all of this minute."""
    dice = random.Random(seed)
    kinds = dice.choices(list(_KINDS), list(_KINDS.values()), k=count)
    return [json.dumps(_line(dice, kind), separators=(",", ":")).encode() + b"\n" for kind in kinds]


def _line(dice: random.Random, kind: str) -> dict[str, Any]:
    device = dice.randrange(10, 60)
    name = int(dice.paretovariate(0.6)) % 5000  # few names are asked for often, many once
    host = f"{dice.choice(('www', 'cdn', 'api', 'static', 'mail'))}.name-{name}.example.co.jp"
    port = {"dns": 53, "http": 80, "smtp": 587}.get(kind, 443)
    line: dict[str, Any] = {
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f+0000"),
        "flow_id": dice.getrandbits(51),
        "in_iface": "br0",
        "event_type": kind,
        "src_ip": f"192.168.1.{device}",
        "src_port": dice.randrange(1024, 65536),
        "dest_ip": f"203.0.{dice.randrange(113, 120)}.{dice.randrange(1, 255)}",
        "dest_port": port,
        "proto": "UDP" if kind in ("dns", "quic") else "TCP",
        "pkt_src": "wire/pcap",
    }
    return line | _BODIES[kind](dice, host)


def _dns(dice: random.Random, host: str) -> dict[str, Any]:
    query = {"type": "query", "id": dice.getrandbits(16), "rrname": host, "rrtype": dice.choice(("A", "AAAA", "HTTPS"))}
    return {"dns": {**query, "tx_id": 0, "opcode": 0}}


def _tls(dice: random.Random, host: str) -> dict[str, Any]:
    return {"tls": {"sni": host, "version": "TLS 1.3", "ja4": f"t13d1516h2_8daaf6152771_{dice.getrandbits(48):012x}"}}


def _quic(dice: random.Random, host: str) -> dict[str, Any]:
    return {"quic": {"version": "1", "sni": host, "ja4": f"q13d0312h3_55b375c5d22e_{dice.getrandbits(48):012x}"}}


def _http(dice: random.Random, host: str) -> dict[str, Any]:
    http = {
        "hostname": host,
        "url": f"/assets/{dice.getrandbits(64):016x}/page.html?session={dice.getrandbits(64):x}&lang=ja",
        "http_user_agent": _AGENT,
        "http_content_type": "text/html",
        "http_refer": f"http://{host}/index.html",
        "http_method": "GET",
        "protocol": "HTTP/1.1",
        "status": 200,
        "length": dice.randrange(100_000),
    }
    return {"tx_id": 0, "http": http}


def _alert(dice: random.Random, host: str) -> dict[str, Any]:
    alert = {
        "action": "allowed",
        "gid": 1,
        "signature_id": 2_000_000 + dice.randrange(300),
        "rev": 3,
        "signature": "ET POLICY Observed name that is worth a look",
        "category": "Potential Corporate Privacy Violation",
        "severity": 1,
        "metadata": {
            "created_at": ["2021_03_12"],
            "signature_severity": ["Informational"],
            "updated_at": ["2023_05_30"],
            "deployment": ["Perimeter"],
        },
    }
    return {"tx_id": 0, "alert": alert, "app_proto": "tls", "direction": "to_server", **_tls(dice, host)}


def _smtp(dice: random.Random, host: str) -> dict[str, Any]:
    smtp = {"helo": "pc-7.office.test", "mail_from": "<tanaka@office.test>", "rcpt_to": [f"<sales@{host}>"]}
    return {"tx_id": 0, "smtp": smtp, "email": {"status": "PARSE_DONE", "from": "x", "to": ["y"]}}


_BODIES: Final = {"dns": _dns, "tls": _tls, "quic": _quic, "http": _http, "alert": _alert, "smtp": _smtp}
