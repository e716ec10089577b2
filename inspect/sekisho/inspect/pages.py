"""The page a person sees instead of what was refused: Japanese first, English whole; why, and how to ask for release.

Pure text, made once at start and handed to the gate, one page per number of the function that refuses (`marks.WHY`).
Nothing of the request is in it: the only part that differs is the reference, which the gate writes over
`REFERENCE`: month and day, UTC time, client port. With it the help desk finds the event. One packet carries it all.
"""

from __future__ import annotations

import html
from typing import Final

REFERENCE: Final = b"MMDD-HHMMSS-PPPPP"
"""GATE_REFERENCE in gate.h."""
MAX_PAGE_BYTES: Final = 1220
"""With the longest headers it still fits into the smallest packet of the office's lines (1280, RFC 8200 5)."""
MAX_CONTACT_CHARS: Final = 40
FILE: Final = 15
"""Not a policy function: a file was found malicious before its first byte was delivered."""
WHY: Final = {
    0: ("社内ルール", "the office's policy"),
    1: ("危険なサイト対策", "protection against dangerous sites"),
    2: ("サイトの分類", "site categories"),
    3: ("禁止キーワード", "forbidden words"),
    4: ("アプリの制限", "application limits"),
    5: ("通信ルール", "firewall rules"),
    6: ("端末の隔離", "isolation of this device"),
    7: ("既知の危険ファイル", "a file known to be dangerous"),
    FILE: ("ウイルス検査", "the virus scan"),
}
"""Number -> the function as its users call it; the numbers are policy.model.FUNCTIONS."""
_BODY: Final = (
    '<!doctype html><html lang="ja"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    "<title>遮断 / Blocked</title><style>body{{font:16px sans-serif;max-width:36em;margin:2em auto}}</style>"
    "<h1>表示できません</h1><p>「{ja}」により通信を遮断しました。必要な場合は番号を添えて{desk_ja}にご連絡ください。</p>"
    '<div lang="en"><h2>Blocked</h2><p>Stopped by {en}. If you need it, ask {desk_en} '
    "to release it and give this number.</p></div>"
    "<p>番号 / No. <b>{reference}</b></p></html>"
)


def page(why: int, contact: str = "") -> bytes:
    """The whole HTTP response for a function; one with an unknown number is the office's policy in general.

    `contact` names whom to ask, in any language; it is cut at `MAX_CONTACT_CHARS` and escaped.
    """
    ja, en = WHY.get(why, WHY[0])
    desk = html.escape("".join(c for c in contact if c.isprintable()).strip()[:MAX_CONTACT_CHARS])
    body = _BODY.format(
        ja=ja, en=en, desk_ja=desk or "管理者", desk_en=desk or "your administrator", reference=REFERENCE.decode()
    ).encode(errors="replace")
    head = (
        "HTTP/1.1 403 Forbidden\r\nContent-Type: text/html; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def pages(contact: str = "") -> dict[int, bytes]:
    """Every page by its number."""
    return {why: page(why, contact) for why in WHY}
