"""The bits of the netfilter mark, the one vocabulary shared by the rule generator, Suricata and the gate.

Packet marks live for one packet's way through the box; the bits in `SAVED` are copied into the
connection's mark so that later packets of the flow carry them too.
"""

from __future__ import annotations

from typing import Final

BYPASS: Final = 0x2
"""Suricata has nothing more to see here (TLS after its handshake): the kernel forwards alone."""
SEEN: Final = 0x1
"""Packet only: it was handed to the engine's queue; what leaves without it was not looked at (coverage)."""
LARGE: Final = 0x4
"""Packet only: the gate let it go unlooked at, for its file is larger than what is looked at (coverage)."""
REPLY: Final = 0x8
"""Packet only: conntrack says this packet travels from the server to the client."""
HTTP: Final = 0x10
"""The flow is HTTP/1: files travel to the client, uploads to the server."""
MAIL: Final = 0x20
"""The flow is SMTP: files travel to the server and are refused with a 5xx reply."""
FTPDATA: Final = 0x40
"""The flow is an FTP data connection: one file, in either direction, ended by FIN."""
CUT: Final = 0x80
"""The flow was cut for a malicious file: both ends are answered with RST."""
PPPOE: Final = 0x100
"""The flow is wrapped in PPPoE, which counts its bytes: no packet of it may change its length."""
DEEP: Final = 0x200
"""The response stream is past Suricata's depth: packets to the client go to the gate alone."""
REFUSE: Final = 0x400
"""A policy refuses this: TCP is reset, UDP refused, clear HTTP answered with a page. Kept on a TCP flow."""
EXPRESS: Final = 0x800
"""Packet only: the connection is bypassed; the express lane may carry the rest of it."""
ENGINE: Final = 0xF000
"""Packet only: the number of the engine's queue the packet came through, for a packet that must pass it again."""
ENGINE_SHIFT: Final = 12
ENGINE_HIGH: Final = 0x2000000
"""Packet only, with ENGINE: sixteen more."""
SPREAD: Final = 0x10000
"""HMARK's offset: 0x10000 + queue index, so that both directions of a flow meet the same worker."""
SCARCE: Final = 0x10000
"""Packet only, from the gate on (the spread has done its work): let go unlooked at for lack of memory (coverage)."""

POP3: Final = 0x20000
"""The flow is POP3: mails travel to the client and are neutralised in place."""
IMAP: Final = 0x40000
"""The flow is IMAP: mails travel to the client as literals and are neutralised in place."""
SMB: Final = 0x80000
"""The flow is SMB2/3: files travel both ways."""
WHY: Final = 0xF00000
"""With REFUSE: the number of the function that refuses (policy.FUNCTIONS), for the page."""
WHY_SHIFT: Final = 20

UNKNOWN: Final = 0x10000
"""Connection only: the gate saw it open, and nobody knows yet what it is for. (No connection has SPREAD or SCARCE.)"""
WATCHED: Final = 0x1000000
"""Packet only, of an unknown connection to the server: the gate is to see it, and takes this off when it has; what
leaves with it ends UNKNOWN. The answer to a first SYN leaves with it, and begins that. (On connections the bit is the
firewall's.)"""

CANARY: Final = 0x7CA00000
"""Packet only, on the loopback device: one of the engine's canaries, for the queue in the lowest five bits."""
CANARY_MASK: Final = 0xFFFFFFE0

FILES: Final = HTTP | MAIL | FTPDATA | POP3 | IMAP | SMB
SAVED: Final = BYPASS | UNKNOWN | FILES | CUT | PPPOE | DEEP | REFUSE | WHY
