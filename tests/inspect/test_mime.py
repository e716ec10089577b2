"""A mail gives up its attachment in the form some mail program would open, however its MIME is bent."""

from __future__ import annotations

import base64
import time
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from bent import CTE, attachment, cases, multipart
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.inspect.streams import mime

SECRET = b"MZ" + bytes(range(256)) * 3 + b"the end of the file"
LIMIT = 64 << 20


CASES = cases(SECRET)
B64 = base64.encodebytes(SECRET).replace(b"\n", b"\r\n")


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
