"""What is fuzzed: every parser of the product that sees bytes of the network or of a file from outside.

A target takes any bytes and returns; what it raises is a finding. It checks the promises its parser makes (order,
bounds), because a fuzzer only sees what fails. A new parser is one function and its seeds in `TARGETS`. C libraries
are not among them: they run behind the worker's door, where their death is an outcome of one file.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import os
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sekisho.appliance import answers, frames, nflog, packetnews, refusal
from sekisho.appliance.core import orders as signed
from sekisho.appliance.core import settings
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.devices import dhcp, dns, ssdp
from sekisho.center import ingest
from sekisho.inspect import decode, eve, mailbox, neutralise, pages
from sekisho.inspect.containers import ole, rar, texts, walk, zips
from sekisho.inspect.containers.budget import Budget, Spent
from sekisho.inspect.scanner import Finding
from sekisho.inspect.streams import mime, registry
from sekisho.policy import lists, overlay, source
from sekisho.signatures.model import Source
from sekisho.signatures.sources import parse_rules
from sekisho.telemetry import batches, delivery

LIMIT = 1 << 20


@dataclass(frozen=True)
class Target:
    """`run` returns for any bytes; `seeds` show the fuzzer what the format looks like."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def containers(data: bytes) -> None:
    """Every opener of ours, at every level, whatever the first bytes say."""
    budget = Budget(len(data), LIMIT, 500, 3, time.monotonic() + 60)
    try:
        for opener in (zips.zipped, ole.compound, texts.portable, texts.mailed, texts.rich, texts.encoded):
            for _, content in opener(data, budget):
                assert len(content) <= LIMIT + 1
                for inner in walk.own_openers(content):
                    for _, deeper in inner(content, budget):
                        assert len(deeper) <= LIMIT + 1
    except Spent:
        assert budget.reasons
    rar.encrypted(data)
    ole.decompressed(data)


def coding(data: bytes) -> None:
    """The first byte says how the rest is compressed."""
    kinds = sorted(decode._NEW)
    kind = kinds[data[0] % len(kinds)] if data else "raw"
    plain = decode.unpack(data[1:], kind, LIMIT, time.monotonic() + 60)
    assert len(plain.data) <= LIMIT
    assert 0 <= plain.used <= len(data)
    decode.sniffed(data, LIMIT)


def mail(data: bytes) -> None:
    contents = mime.contents(data, limit=LIMIT)
    for part in contents.parts:
        assert 0 <= part.head <= part.start <= part.end <= len(data)


def stream(data: bytes, *, app: str, to_server: bool) -> None:
    """Objects come in order (one after the other, if not side by side) and within the stream and its beginnings."""
    half = len(data) // 2
    for view, peer in ((memoryview(data), b""), (memoryview(data)[:half], data[half:])):
        split, name, at = registry.splitter(app, to_server=to_server), app, 0
        for found in split(view, memoryview(peer), limit=LIMIT):
            assert found.start >= at or app in _MULTIPLEXED, name
            assert found.end <= len(view), name
            at = max(at, found.start)
            assert sum(len(part) for part in found.parts) <= 64 * (LIMIT + len(view)), name


def mailbox_program(data: bytes, *, app: str) -> None:
    """Mails with whatever is malicious in them replaced: no length moves, and nothing that was delivered.

    The first byte says how much was, the second what matches.
    """
    stream = data[2:]
    delivered, evil = (len(stream) * data[0] // 255, data[1]) if len(data) > 1 else (0, 0)

    def look(content: bytes | memoryview, name: str) -> Finding:
        return Finding(["Evil"] if bytes([evil]) in bytes(content) else [])

    split, patches = registry.splitter(app, to_server=False), []
    before = list(split(memoryview(stream), memoryview(b""), limit=LIMIT))
    for found in before:
        if found.letter:
            told = mailbox.judge(found, look, delivered=delivered, refuse=(), mend=True, at="now")
            patches += told.patches + mailbox.rest(found.letter, delivered).patches * (evil == 0)
    after = neutralise.patched(stream, patches)
    assert len(after) == len(stream) and after[:delivered] == stream[:delivered]
    assert all(delivered <= patch.offset <= patch.until <= len(stream) for patch in patches)
    assert all(len(patch.whole()) == patch.until - patch.offset for patch in patches)
    if app == "pop3":
        for found in before:
            if found.letter and found.complete:
                assert after[found.end - 3 : found.end] == stream[found.end - 3 : found.end]
                inside = after[max(found.start, delivered) : found.end - 2].replace(b"\r\n.\r\n", b"", 1)
                assert b"\r\n.\r\n" not in inside or b"\r\n.\r\n" in stream[found.start : found.end - 5]


def frame(data: bytes) -> None:
    frames.parse_frame(data)


def devices(data: bytes) -> None:
    """What devices say about themselves, whoever is thought to have said it."""
    dhcp.told_v4(data)
    dhcp.told_v6(data)
    dns.told_mdns(data, "192.0.2.1")
    dns.told_llmnr(data)
    dns.told_netbios(data)
    ssdp.told_ssdp(data)


def refused(data: bytes) -> None:
    """What answers a refused packet, and how it comes from the kernel."""
    for logged in nflog.parse(data):
        refusal.frames(logged)
    answer = refusal.frames(nflog.Logged(data, 0, "", 1, 2))
    assert all(len(out) < 9000 for _, out in answer)
    answers.talk_of(data)
    packetnews.flow_of(data, from_lan=True)


def page(data: bytes) -> None:
    """Whatever an owner calls the help desk, the page is one packet and one response."""
    text = pages.page(data[0] % 16 if data else 0, data[1:].decode("utf-8", "replace"))
    assert len(text) <= pages.MAX_PAGE_BYTES
    assert text.count(b"<script") == 0
    head, body = text.split(b"\r\n\r\n", 1)
    assert f"Content-Length: {len(body)}\r\n".encode() in head


def refusing(parse: Callable[[str], object], data: bytes) -> None:
    """Loaders raise RejectedInput and nothing else."""
    with contextlib.suppress(RejectedInput):
        parse(data.decode("utf-8", "replace"))


def orders(data: bytes) -> None:
    """The centre's settings, as a file holds them and as the document itself."""
    with contextlib.suppress(RejectedInput):
        document = signed.unchecked(data)
        assert document.n >= 1
    with contextlib.suppress(RejectedInput):
        made = overlay.parse(data)
        assert overlay.parse(overlay.encode(made)) == made
        overlay.prove(made)


def rules(data: bytes) -> None:
    with contextlib.suppress(RejectedInput):
        parse_rules([Source("fuzz.rules", data)])


def fileinfo(data: bytes) -> None:
    eve.parse(data)


def listed(data: bytes) -> None:
    """As a file: packed, a tar, or lines."""
    with contextlib.suppress(RejectedInput):
        fd = os.memfd_create("list")
        try:
            os.write(fd, data)
            lists.read(f"fd/{fd}", Path("/proc/self"))
        finally:
            os.close(fd)


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", b"text " * 20)
    return out.getvalue()


_HTTP = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-4/10\r\nContent-Type: multipart/byteranges; boundary=x\r\n\r\n--x\r\n",
    b"POST /a HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 9\r\n\r\n--x\r\n\r\n",
)  # fmt: skip
_MAIL = (
    b"Subject: =?utf-8?B?QQ==?=\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\nQUJDREVG\r\n--x--\r\n",
    b"\r\nbegin 644 a.txt\r\n#0V%T\r\n`\r\nend\r\n",
)
_MULTIPLEXED = ("http2", "smb")
_HTTP2 = bytes.fromhex("00000004000000000000000101040000000188000005000100000001") + b"hello"


def _smb(command: int, answer: int, body: bytes) -> bytes:
    head = b"\xfeSMB" + struct.pack("<HHIHHIIQ32x", 64, 1, 0, command, 1, answer, 0, 1)
    return struct.pack(">I", len(head + body)) + head + body


_SESSIONS = {
    "smtp": (b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n" + _MAIL[0] + b".\r\nQUIT\r\n",
             b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 5\r\nhelloBDAT 0 LAST\r\n"),
    "pop3": (b"+OK\r\n+OK\r\n+OK 9 octets\r\n" + _MAIL[0] + b".\r\n+OK\r\n",),
    "imap": (b"* OK\r\na1 OK\r\n* 1 FETCH (BODY[] {5}\r\nhello)\r\na2 OK\r\n",),
    "http": _HTTP, "ftp-data": (b"file",),
    "smb": (
        _smb(5, 0, bytes(44) + struct.pack("<HHII", 120, 4, 0, 0) + b"a\0b\0"),
        _smb(5, 1, bytes(48) + b"\x09" + bytes(40)),
        _smb(8, 0, struct.pack("<HBBIQ16s16x", 49, 0, 0, 9, 0, b"f")),
        _smb(8, 1, struct.pack("<HBBIII", 17, 80, 0, 9, 0, 0) + b"x" * 9),
        _smb(9, 0, struct.pack("<HHIQ16s16x", 49, 112, 9, 0, b"f") + b"x" * 9),
        _smb(6, 0, struct.pack("<HHI16s", 24, 0, 0, b"f")),
    ),
    "http2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _HTTP2, _HTTP2),
}  # fmt: skip
_OTHER = (b"\x00\x00\x00\x40\xfeSMB@\x00" + bytes(56), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
_FRAME = bytes.fromhex("ffffffffffff0200000000010806000108000604000102000000000ac0a80002000000000000c0a80001")
_UDP = bytes.fromhex("02000000000202000000000108004500003900010000401100000a0000020a0000010400003500250000") + (
    b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01"
)


def ack(data: bytes) -> None:
    with contextlib.suppress(RejectedInput):
        assert 0 <= delivery.parse_ack(data).upto < 1 << 62


def batch(data: bytes) -> None:
    """A box's message, as it came and as what a compressed one holds."""
    head = b'{"v":1,"e":"00000000000000aa","n":%d,"z":"zstd"}\n' % max(1, data.count(b"\n"))
    for payload in (data, head + data, head + batches.compress(data)):
        with contextlib.suppress(RejectedInput):
            parsed = ingest.parse_batch(1, payload)
            _, first, last = parsed.run
            assert all(first <= row.seq <= last and row.lane == 1 for row in parsed.rows)


_ROW = b'[5,1,{"type":"alert","at":"2026-01-02T03:04:05Z","sid":1}]\n'
_DHCP = b"\x01\x01\x06\0" + bytes(232) + b"\x63\x82\x53\x63\x35\x01\x03\x0c\x04host\x3c\x04MSFT\xff"
_MDNS = bytes.fromhex("000084000000000100000000") + b"\x04host\x05local\0\0\x01\x80\x01\0\0\0\x78\0\x04\xc0\0\x02\x01"
_SSDP = b"NOTIFY * HTTP/1.1\r\nNT: upnp:rootdevice\r\nSERVER: Linux/4 UPnP/1.0 x/1\r\n\r\n"

TARGETS: dict[str, Target] = {
    "containers": Target(containers, (_zip(), gzip.compress(b"x" * 99), b"%PDF-1 /FlateDecode stream\n"
                                      + zlib.compress(b"x" * 99), *_MAIL, b"{\\rtf " + b"d0cf11e0" * 20)),
    "coding": Target(coding, tuple(bytes([n]) + gzip.compress(b"x" * 99) for n in range(8))),
    "mail": Target(mail, _MAIL),
    "frame": Target(frame, (_FRAME, _UDP)),
    "devices": Target(devices, (_DHCP, _MDNS, _SSDP)),
    "refused": Target(refused, (_FRAME, _UDP)),
    "page": Target(page, ("\x02情報課 <b>&".encode(),)),
    "settings": Target(functools.partial(refusing, settings.parse), (b'box = "a"\n[inspection]\nmode = "block"\n',)),
    "policy": Target(functools.partial(refusing, source.parse), (b'[web_guard]\nmode = "block"\n',)),
    "orders": Target(orders, (
        b'{"keyword":[{"name":"a","words":["word"]}],"exception":[{"id":"x","reason":"r","sids":[1]}]}',
        b'{"payload":"eyJuIjoxLCJ0ZW5hbnQiOiJ0IiwiYm94IjoiYiJ9","signature":"","certificate":""}',
    )),
    "lists": Target(listed, (b"0.0.0.0 a.example\n||b.example^\nhttp://c.example/d\n10.0.0.0/8\n",)),
    "batch": Target(batch, (_ROW, b'{"v":1,"e":"00000000000000aa","n":1,"off":5}\n' + _ROW, batches.compress(_ROW))),
    "ack": Target(ack, (b'{"e":"a","upto":1,"have":[[1,1,2]],"g":1}',)),
    "rules": Target(rules, (b'drop tcp any any -> any any (msg:"a"; sid:1;)\n',)),
    "fileinfo": Target(fileinfo, (b'{"event_type":"fileinfo","src_ip":"10.0.0.1","fileinfo":{"state":"CLOSED"}}',)),
} | {
    f"{app}-{'up' if to_server else 'down'}": Target(
        functools.partial(stream, app=app, to_server=to_server), _SESSIONS.get(app, _OTHER)
    )
    for app in registry.APPS for to_server in (False, True) if app != "ftp-data"
} | {
    f"mailbox-{app}": Target(
        functools.partial(mailbox_program, app=app), tuple(bytes([n, 65]) + s for s in _SESSIONS[app] for n in (0, 99))
    )
    for app in ("pop3", "imap")
}  # fmt: skip
