"""Ways to tell a TCP stream that a receiver and an inspector may put together differently.

Each trick gets the connection, the true bytes, and `other`: as many bytes with the bad part replaced. What a
Linux receiver makes of it is found out on a bare bridge, not assumed. References: Ptacek and Newsham 1998,
RFC 5961, RFC 7323, RFC 8200.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable

from rawtcp import ACK, FIN, MSS, PSH, RST, SYN, URG, Conn

from sekisho.lab.samples import EICAR

Trick = Callable[[Conn, bytes, bytes], None]
PAUSE_S = 0.03
OLD_STAMP = 1
MD5 = b"\x13\x12" + b"\0" * 16 + b"\1\1"


def around(data: bytes, other: bytes) -> tuple[int, int]:
    """The part that matters, with ten bytes on either side."""
    spot = next((at for at, (one, two) in enumerate(zip(data, other, strict=True)) if one != two), len(data) // 2)
    spot = data.find(EICAR) if EICAR in data else spot
    return spot - 10, spot + len(EICAR) + 10


def pieces(data: bytes, size: int) -> list[tuple[int, bytes]]:
    return [(at, data[at : at + size]) for at in range(0, len(data), size)]


def in_order(size: int, pause_s: float = 0) -> Trick:
    def play(conn: Conn, data: bytes, other: bytes) -> None:
        for at, piece in pieces(data, size):
            conn.send(at, piece, ACK | PSH)
            conn.until(lambda at=at, piece=piece: conn.acked >= at + len(piece), pause_s)  # type: ignore[misc]

    return play


def disorder(how: str, size: int = 50) -> Trick:
    def play(conn: Conn, data: bytes, other: bytes) -> None:
        parts = pieces(data, size)
        match how:
            case "reversed":
                parts.reverse()
            case "shuffled":
                random.Random(size).shuffle(parts)
            case "odd-first":
                parts = parts[1::2] + parts[::2]
            case "first-last":
                parts = parts[1:] + parts[:1]
            case "twice":
                parts = [part for part in parts for _ in range(2)]
        for at, piece in parts:
            conn.send(at, piece, ACK | PSH)

    return play


def beside(
    first: dict[str, object] | None,
    second: dict[str, object] | None,
    *,
    hole: bool = False,
    wait: bool = False,
    pause_s: float = 0,
) -> Trick:
    """The part that matters is sent as `other` and as it is; `first`/`second` say how the `other` one is sent.

    With `hole` both wait behind a gap that is filled last; with `wait` the second is sent when the first arrived.
    """

    def play(conn: Conn, data: bytes, other: bytes) -> None:
        a, b = around(data, other)
        before = [(at, data[at : min(at + MSS, a)]) for at in range(0, a, MSS)]
        if not hole:
            for at, piece in before:
                conn.send(at, piece, ACK)
            conn.until(lambda: conn.acked >= a, 0.5)
        for kind in ("first", "good", "second"):
            how = {"first": first, "good": {}, "second": second}[kind]
            if how is None:
                continue
            if kind == "good":
                conn.send(a, data[a:b], ACK | PSH)
                if wait:
                    conn.until(lambda: conn.acked >= b, 0.5)
            else:
                conn.send(a, other[a:b], **({"flags": ACK | PSH} | how))  # type: ignore[arg-type]
            time.sleep(pause_s)
        if hole:
            for at, piece in before:
                conn.send(at, piece, ACK)

    return play


def control(
    flags: int, *, at: str = "next", wrong: int = 0, bad_sum: bool = False, ack: int | None = None, body: bytes = b""
) -> Trick:
    """A control segment in the middle that the receiver must not believe, then the rest as usual."""

    def play(conn: Conn, data: bytes, other: bytes) -> None:
        a, _ = around(data, other)
        conn.send(0, data[:a] if a <= MSS else data[: a // 2], ACK | PSH)
        conn.until(lambda: conn.acked > 0, 0.5)
        place = conn.acked if at == "next" else len(data)
        conn.send(place + wrong, body, flags, bad_sum=bad_sum, ack=ack)
        conn.sent_to = conn.acked
        time.sleep(PAUSE_S)

    return play


def urgent(conn: Conn, data: bytes, other: bytes) -> None:
    """A byte more in the middle of the part that matters, told to be out of band: the reader never sees it."""
    a, b = around(data, other)
    middle = (a + b) // 2
    longer = data[:middle] + b"!" + data[middle:]
    conn.repair = False
    conn.send(0, longer[:a], ACK)
    conn.until(lambda: conn.acked >= a, 0.5)
    for start, piece in pieces(longer[a:], 60):
        at = a + start
        inside = at <= middle < at + len(piece)
        conn.send(at, piece, ACK | PSH | (URG if inside else 0), urgent=middle - at + 1 if inside else 0)
    conn.until(lambda: conn.acked >= len(longer))
    conn.send(len(longer), b"", FIN | ACK)
    conn.fin_sent = True


def reset_first(wrong: int, *, bad_sum: bool = False) -> Trick:
    """Before a single byte; an inspector that believes it does not look at the rest."""

    def play(conn: Conn, data: bytes, other: bytes) -> None:
        conn.send(wrong, b"", RST, bad_sum=bad_sum)
        conn.sent_to = 0
        time.sleep(PAUSE_S)

    return play


def fin_first(conn: Conn, data: bytes, other: bytes) -> None:
    conn.send(len(data), b"", FIN | ACK)
    conn.sent_to = 0
    time.sleep(PAUSE_S)


def fin_early_then_more(conn: Conn, data: bytes, other: bytes) -> None:
    a, b = around(data, other)
    conn.repair = False
    conn.send(0, data[:a], ACK | FIN)
    conn.send(a, data[a:b], ACK | PSH)
    conn.send(a + 1, data[a:b], ACK | PSH)


def keepalives(conn: Conn, data: bytes, other: bytes) -> None:
    """RFC 1122 4.2.3.6: probes carry one byte the receiver has had; here it is another one."""
    for at, piece in pieces(data, 40):
        conn.send(at, piece, ACK | PSH)
        conn.until(lambda at=at, piece=piece: conn.acked >= at + len(piece), 0.3)  # type: ignore[misc]
        conn.send(max(0, conn.acked - 1), b"?", ACK)


def moving_overlap(back: int) -> Trick:
    """Every segment starts before the last one's end, with other bytes there."""

    def play(conn: Conn, data: bytes, other: bytes) -> None:
        for at, piece in pieces(data, 40):
            start = max(0, at - back)
            conn.send(start, b"#" * (at - start) + piece, ACK | PSH)
            conn.until(lambda at=at, piece=piece: conn.acked >= at + len(piece), 0.3)  # type: ignore[misc]

    return play


def fragments(order: str, size: int = 64, also: str = "") -> Trick:
    """RFC 791 / RFC 8200 4.5: segments in pieces of `size` bytes of IP payload."""

    def play(conn: Conn, data: bytes, other: bytes) -> None:
        for at, piece in pieces(data, 800):
            total = len(piece) + 32
            cuts = [(start, min(start + size, total)) for start in range(0, total, size)]
            match order:
                case "reversed":
                    cuts.reverse()
                case "shuffled":
                    random.Random(size).shuffle(cuts)
                case "twice":
                    cuts = [cut for cut in cuts for _ in range(2)]
                case "overlap":
                    cuts = [(max(0, start - 8), end) for start, end in cuts]
                case "last-missing-first":
                    cuts = cuts[1:] + cuts[:1]
            if also and at:
                conn.send(
                    at,
                    other[at : at + 800],
                    ACK | PSH,
                    cuts=cuts[:-1] if also == "unfinished" else cuts,
                    bad_sum=also == "bad-sum",
                )
            conn.send(at, piece, ACK | PSH, cuts=cuts, number=conn.number if also == "same-number" else None)
            conn.until(lambda at=at, piece=piece: conn.acked >= at + len(piece), 0.5)  # type: ignore[misc]

    return play


def other_before(conn: Conn, data: bytes, other: bytes) -> None:
    """A whole other answer first, all of it in segments that the receiver throws away."""
    for at, piece in pieces(other, MSS):
        conn.send(at, piece, ACK | PSH, bad_sum=True)
    time.sleep(PAUSE_S)


def beyond_window(conn: Conn, data: bytes, other: bytes) -> None:
    for shift in (1 << 20, 1 << 24, -(1 << 20)):
        conn.send(shift, other[:MSS], ACK | PSH)
    conn.sent_to = 0


def padded(conn: Conn, data: bytes, other: bytes) -> None:
    """Bytes behind the IP packet in the same frame belong to nobody."""
    for at, piece in pieces(data, 30):
        conn.send(at, piece, ACK | PSH, pad=b"padding!" * 3)
        conn.until(lambda at=at, piece=piece: conn.acked >= at + len(piece), 0.2)  # type: ignore[misc]


def ip_options(conn: Conn, data: bytes, other: bytes) -> None:
    for at, piece in pieces(data, 500):
        conn.send(at, piece, ACK | PSH, ip_options=b"" if conn.ends.v6 else b"\1" * 8)


def second_syn_ack(conn: Conn, data: bytes, other: bytes) -> None:
    conn.send(-1, b"", SYN | ACK)
    conn.sent_to = 0
    conn.send(0, data[: len(data) // 2], ACK | PSH)
    conn.send(-1, b"", SYN | ACK)
    time.sleep(PAUSE_S)


def no_push(conn: Conn, data: bytes, other: bytes) -> None:
    for at, piece in pieces(data, 300):
        conn.send(at, piece, ACK)


REFUSED: dict[str, dict[str, object]] = {
    "bad-sum": {"bad_sum": True}, "no-ack": {"flags": PSH}, "no-flags": {"flags": 0}, "old-stamp": {"stamp": OLD_STAMP}, "bad-ack": {"ack": 0x7000_0000}, "md5": {"options": MD5},
    "short-offset": {"offset_words": 4}, "long-offset": {"offset_words": 15}, "bad-ip-sum": {"bad_ip_sum": True}, "with-syn": {"flags": ACK | SYN}, "with-rst-bad-sum": {"flags": ACK | RST, "bad_sum": True}, "low-ttl-bad-sum": {"ttl": 1, "bad_sum": True},
    "unfinished-fragment": {"cuts": [(0, 64)]}, "fin-bad-sum": {"flags": ACK | FIN, "bad_sum": True}, "urgent-bad-sum": {"flags": ACK | URG, "urgent": 3, "bad_sum": True}, "all-flags": {"flags": 0x3F},
}  # fmt: skip
TRICKS: dict[str, Trick] = {
    "bytewise": in_order(1, 0.002), "by-8": in_order(8), "by-67": in_order(67), "slow-pieces": in_order(150, 0.02), "reversed": disorder("reversed"), "reversed-1": disorder("reversed", 7), "shuffled": disorder("shuffled"), "shuffled-tiny": disorder("shuffled", 5), "odd-first": disorder("odd-first"),
    "first-last": disorder("first-last"), "twice": disorder("twice"), "no-push": no_push,
    "other-then-good": beside({}, None), "good-then-other": beside(None, {}), "good-then-other-acked": beside(None, {}, wait=True), "hole-other-then-good": beside({}, None, hole=True), "hole-good-then-other": beside(None, {}, hole=True),
    "hole-other-good-other": beside({}, {}, hole=True), "other-good-slow": beside({}, None, hole=True, pause_s=0.1), "good-other-slow": beside(None, {}, hole=True, pause_s=0.1),
    **{f"refused-{name}": beside(how, None) for name, how in REFUSED.items()}, **{f"refused-{name}-behind": beside(None, how) for name, how in REFUSED.items()}, **{f"refused-{name}-hole": beside(how, None, hole=True) for name, how in REFUSED.items()},
    "rst-far": control(RST, wrong=1 << 24), "rst-before": control(RST, wrong=-100_000), "rst-bad-sum": control(RST, bad_sum=True), "rst-in-window": control(RST, wrong=500), "rst-ack-far": control(RST | ACK, wrong=1 << 24), "rst-with-data": control(RST, wrong=700, body=b"x" * 40),
    "rst-first-in-window": reset_first(500), "rst-first-bad-sum": reset_first(0, bad_sum=True),
    "syn-inside": control(SYN), "syn-far": control(SYN, wrong=1 << 22), "fin-bad-sum": control(FIN | ACK, bad_sum=True), "fin-far": control(FIN | ACK, wrong=1 << 24), "fin-old": control(FIN | ACK, wrong=-50), "fin-no-ack": control(FIN), "fin-bad-ack": control(FIN | ACK, ack=0x7000_0000), "fin-rst-far": control(FIN | RST, wrong=1 << 24),
    "fin-first": fin_first, "fin-early-then-more": fin_early_then_more, "urgent": urgent, "keepalives": keepalives, "moving-overlap-1": moving_overlap(1), "moving-overlap-30": moving_overlap(30), "other-before-bad-sum": other_before, "beyond-window": beyond_window, "padded": padded,
    "ip-options": ip_options, "second-syn-ack": second_syn_ack,
    **{f"fragments-{order}-{size}": fragments(order, size) for order in ("ordered", "reversed", "shuffled", "twice", "last-missing-first") for size in (8, 64, 400)}, "fragments-overlap": fragments("overlap"),
    "fragments-other-bad-sum": fragments("ordered", 64, "bad-sum"), "fragments-other-unfinished": fragments("ordered", 64, "unfinished"), "fragments-other-same-number": fragments("ordered", 64, "same-number"), "fragments-other-reversed": fragments("reversed", 64, "bad-sum"),
}  # fmt: skip
# ruff: noqa: E501 - tables

OPENINGS = (
    "plain", "data-in-syn", "answer-first", "simultaneous", "wrap", "late-ack", "bad-syn-ack-first", "reset-first",
)  # fmt: skip


def opening(name: str, conn: Conn, data: bytes, options: Callable[[int, int], bytes]) -> None:
    """The server's part of the handshake. RFC 9293 3.5."""
    stamp = int(time.monotonic() * 1000) & 0xFFFFFFFF
    said = options(stamp, conn.their_stamp)
    match name:
        case "simultaneous":
            conn.send(-1, b"", SYN, options=said)
        case "data-in-syn":
            conn.send(-1, data[:700], SYN | ACK, options=said)
            conn.sent_to = 0
        case "bad-syn-ack-first":
            conn.send(-1, b"", SYN | ACK, options=said, bad_sum=True)
            conn.isn += 77
            conn.send(-1, b"", SYN | ACK, options=said)
        case "reset-first":
            conn.send(-1, b"", SYN | ACK, options=said)
            conn.send(0, b"", RST, bad_sum=True)
            conn.send(500, b"", RST)
            conn.sent_to = 0
        case "late-ack":
            conn.send(-1, b"", ACK, ack=struct.unpack("!I", struct.pack("!I", conn.their_next))[0])
            conn.send(-1, b"", SYN | ACK, options=said)
        case _:
            conn.send(-1, b"", SYN | ACK, options=said)
