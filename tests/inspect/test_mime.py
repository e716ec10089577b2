"""A mail gives up its attachment in the form some mail program would open, however its MIME is bent."""

from __future__ import annotations

import base64
import binascii
import quopri
import time
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.inspect.streams import mime

SECRET = b"MZ" + bytes(range(256)) * 3 + b"the end of the file"
B64 = base64.encodebytes(SECRET).replace(b"\n", b"\r\n")
LIMIT = 64 << 20


def multipart(part: bytes, boundary: bytes = b"b1", header: bytes = b"", end: bytes = b"\r\n--b1--\r\n") -> bytes:
    head = header or b'Content-Type: multipart/mixed; boundary="' + boundary + b'"\r\n'
    return (
        b"From: a@b\r\nSubject: x\r\nMIME-Version: 1.0\r\n" + head + b"\r\npreamble\r\n--b1\r\n"
        b"Content-Type: text/plain\r\n\r\nhello\r\n--b1\r\n" + part + end
    )


def attachment(encoding: bytes, body: bytes) -> bytes:
    return b"Content-Type: application/x; name=a.exe\r\n" + encoding + b"\r\n\r\n" + body


def yenc(data: bytes) -> bytes:
    out = b"".join(
        b"=" + bytes([(c + 106) & 255]) if (c + 42) & 255 in b"\0\r\n=" else bytes([(c + 42) & 255]) for c in data
    )
    return b"=ybegin line=128 size=%d name=a.exe\r\n" % len(data) + out + b"\r\n=yend size=1\r\n"


UU = b"begin 644 a.exe\r\n" + b"".join(
    binascii.b2a_uu(SECRET[i : i + 45]).replace(b"\n", b"\r\n") for i in range(0, len(SECRET), 45)
) + b"`\r\nend\r\n"  # fmt: skip
CTE = b"Content-Transfer-Encoding: base64"
QP = b"Content-Transfer-Encoding: quoted-printable"
JUNKED = b"!*".join(B64[i : i + 7] for i in range(0, len(B64), 7))
CHUNKED = b"".join(base64.b64encode(SECRET[i : i + 100]) + b"\r\n" for i in range(0, len(SECRET), 100))
INNER = multipart(attachment(CTE, B64))
CASES = {
    "plain": multipart(attachment(CTE, B64)),
    "no final boundary": multipart(attachment(CTE, B64), end=b""),
    "line feeds alone": multipart(attachment(CTE, B64)).replace(b"\r\n", b"\n"),
    "upper case and comments": multipart(attachment(b"CONTENT-TRANSFER-ENCODING : (x) BASE64 ;", B64)),
    "folded header": multipart(attachment(b"Content-Transfer-Encoding:\r\n\t base64", B64)),
    "encoding said twice": multipart(attachment(b"Content-Transfer-Encoding: 7bit\r\n" + CTE, B64)),
    "encoding lies": multipart(attachment(b"Content-Transfer-Encoding: 7bit", B64)),
    "encoding unknown": multipart(attachment(b"Content-Transfer-Encoding: x-y", B64)),
    "quoted-printable lies": multipart(attachment(QP, B64)),
    "no header": multipart(b"\r\n" + B64),
    "boundary not declared": multipart(attachment(CTE, B64), header=b"Content-Type: multipart/mixed\r\n"),
    "boundary declared wrongly": multipart(attachment(CTE, B64), b"other"),
    "boundary in pieces": multipart(
        attachment(CTE, B64), header=b'Content-Type: multipart/mixed; boundary*0="b"; boundary*1="1"\r\n'
    ),
    "junk in base64": multipart(attachment(CTE, JUNKED)),
    "padding in the middle": multipart(attachment(CTE, CHUNKED)),
    "short lines": multipart(attachment(b"", base64.b64encode(SECRET).replace(b"A", b"\r\nA"))),
    "one long line": multipart(attachment(CTE, base64.b64encode(SECRET))),
    "quoted-printable": multipart(attachment(QP, quopri.encodestring(SECRET))),
    "undeclared quoted-printable": multipart(attachment(b"", quopri.encodestring(SECRET))),
    "uuencode": multipart(attachment(b"Content-Transfer-Encoding: x-uuencode", UU)),
    "uuencode in text": multipart(b"Content-Type: text/plain\r\n\r\nsee below\r\n" + UU),
    "yenc": multipart(attachment(b"", yenc(SECRET))),
    "8bit": multipart(attachment(b"Content-Transfer-Encoding: binary", SECRET)),
    "single part": b"From: a@b\r\n" + attachment(CTE, B64),
    "mail in mail": multipart(b"Content-Type: message/rfc822\r\n\r\n" + INNER.replace(b"b1", b"b2")),
    "mail in base64": multipart(attachment(CTE, base64.encodebytes(INNER))),
    "same boundary twice": multipart(b"Content-Type: message/rfc822\r\n\r\n" + INNER),
    "data url": multipart(
        b"Content-Type: text/html\r\n\r\n<a href=data:x;base64," + base64.b64encode(SECRET) + b">x</a>"
    ),
    "in the preamble": b"Content-Type: multipart/mixed; boundary=b1\r\n\r\n" + B64 + b"\r\n--b1--\r\n",
    "in the epilogue": multipart(b"Content-Type: text/plain\r\n\r\nx", end=b"\r\n--b1--\r\n" + B64),
    "section alone": B64,
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_attachment_is_found_whole(name: str) -> None:
    found = mime.contents(CASES[name], limit=LIMIT)
    assert any(SECRET in bytes(part.body) for part in found.parts)
    assert found.trouble == ""


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("section alone", "in the preamble", "8bit")])
def test_the_range_covers_what_carries_the_attachment_and_spares_the_rest(name: str) -> None:
    mail = CASES[name]
    hits = [p for p in mime.contents(mail, limit=LIMIT).parts if SECRET in bytes(p.body)]
    part = min(hits, key=lambda p: p.end - p.head)
    blanked = mail[: part.start] + mail[part.end :]
    assert not any(SECRET in bytes(p.body) for p in mime.contents(blanked, limit=LIMIT).parts)
    assert (b"hello" in mail[: part.head]) == (b"hello" in mail) or "mail in" in name


def test_a_real_library_s_mail_is_read_as_the_library_means_it() -> None:
    mail = EmailMessage(policy=SMTP)
    mail["From"], mail["Subject"] = "tanaka@office.test", "請求書"
    mail.set_content("添付をご覧ください。\n")
    mail.add_attachment(SECRET, maintype="application", subtype="zip", filename="請求書.zip")
    found = mime.contents(mail.as_bytes(), limit=LIMIT)
    assert (found.subject, found.sender) == ("請求書", "tanaka@office.test")
    assert [(p.name, bytes(p.body)) for p in found.parts if p.name] == [("請求書.zip", SECRET)]
    assert any("添付をご覧ください。".encode() in bytes(p.body) for p in found.parts)
    for part in found.parts:
        assert part.head <= part.start <= part.end <= len(mail.as_bytes())


def test_a_fragment_of_a_mail_says_that_it_is_one() -> None:
    mail = b"From: a\r\nContent-Type: message/partial; id=1; number=1\r\n\r\n" + B64
    assert mime.contents(mail, limit=LIMIT).trouble == "fragment"


def test_more_parts_than_anybody_sends_are_said_aloud() -> None:
    mail = multipart(b"\r\n--b1\r\n".join([attachment(b"", b"x")] * 5000))
    found = mime.contents(mail, limit=LIMIT)
    assert found.trouble == "too_many_parts" and len(found.parts) <= mime.MAX_PARTS


def test_mails_nested_deeper_than_anybody_sends_are_said_aloud() -> None:
    mail = CASES["plain"]
    for _ in range(mime.MAX_DEPTH + 2):
        mail = b"From: a@b\r\nContent-Type: message/rfc822\r\n\r\n" + mail
    assert mime.contents(mail, limit=LIMIT).trouble == "too_deep"


SHARDS = [
    b"--b1", b"--b1--", b"\r\n", b"\n", b"\r", CTE, b"boundary=b1", b": ", B64[:90], b"Content-Type: multipart/mixed; ",
    b"begin 644 x\r\n", b"end\r\n", b"=ybegin name=x\r\n", b"=yend", b"=", b"=3D", b";base64,", b"\0", b"\xff", b"A",
]  # fmt: skip
mails = st.lists(st.sampled_from(SHARDS) | st.binary(max_size=8), max_size=40).map(b"".join)


@settings(max_examples=400)
@given(mails)
def test_any_bytes_are_read_without_an_error_and_within_their_bounds(mail: bytes) -> None:
    found = mime.contents(mail, limit=4096)
    assert all(0 <= p.head <= p.start <= p.end <= len(mail) for p in found.parts)
    assert sum(len(p.body) for p in found.parts[:-1]) <= 4096
    assert len(found.parts) <= mime.MAX_PARTS


HOSTILE = [
    b"a" * 3_000_000, b"--\n" * 1_000_000, b"begin 644 x\n" * 250_000, b"=ybegin x\n" * 300_000, b"a\n" * 1_500_000,
    b"A: b\n" * 600_000, b"boundary=" * 300_000, (b"a" * 30 + b"=\n") * 100_000, (b"a" * 23 + b"!") * 120_000,
    b"--a\r\nA:b\r\n\r\n" * 250_000, b"a:b\n " * 600_000, b"\r\n" * 1_500_000, CTE + b"\r\n\r\n" + b"A=" * 1_400_000,
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_mails_cost_time_in_proportion(number: int) -> None:
    began = time.process_time()
    mime.contents(HOSTILE[number], limit=LIMIT)
    assert time.process_time() - began < 3
