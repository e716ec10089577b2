"""What the reader of an infected mail gets: every length right, the rest of the mail, the notice, never the file."""

from __future__ import annotations

import email
import email.policy
import random
from dataclasses import replace
from email.message import EmailMessage

import pytest
from bent import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.inspect import neutralise
from sekisho.inspect.notice import Notice
from sekisho.inspect.streams import mime, pop3
from sekisho.inspect.streams.found import Found
from sekisho.inspect.streams.mime import Part

NOTICE = Notice("請求書.exe", ("Test_Rule",), "2026-11-21 19:00 JST")
CLEAN = random.Random(1).randbytes(3000)
LIMIT = 64 << 20


def virus(size: int) -> bytes:
    return b"MZ" + random.Random(size).randbytes(size) + b"VIRUS-TAIL"


def mail(*sizes: int, text: str = "hello\n.dotted line\n") -> bytes:
    """A mail with these attachments; a negative size is a virus."""
    made = EmailMessage(policy=email.policy.SMTP)
    made["From"], made["To"], made["Subject"] = "tanaka@office.test", "suzuki@partner.test", "請求書"
    made.set_content(text)
    for number, size in enumerate(sizes):
        body = virus(-size) if size < 0 else CLEAN[:size]
        made.add_attachment(body, maintype="application", subtype="zip", filename=f"{number}.zip")
    made.set_boundary("===============1234567890123456789==")
    return made.as_bytes()


def reply(content: bytes) -> bytes:
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    return b"+OK\r\n" + (b"." if stuffed.startswith(b".") else b"") + stuffed + b".\r\n"


def only(stream: bytes) -> Found:
    (found,) = [f for f in pop3.objects(memoryview(stream), memoryview(b""), limit=LIMIT) if f.letter]
    return found


def infected(found: Found) -> list[Part | None]:
    assert found.letter is not None
    hits: list[Part | None] = [
        p for p in found.letter.parts if b"VIRUS-TAIL" in bytes(p.body) or bytes(p.body[:2]) == b"MZ"
    ]
    return hits or [None]


def treat(stream: bytes, delivered: int) -> tuple[bytes, bool]:
    found = only(stream)
    assert found.letter is not None
    patches, more = neutralise.plan(found.letter, infected(found), delivered, NOTICE)
    for patch in patches:
        assert delivered <= patch.offset <= patch.until <= len(stream)
        assert len(patch.whole()) == patch.until - patch.offset
    return neutralise.patched(stream, patches), more


def read(stream: bytes) -> EmailMessage:
    """As a mailbox program does: unstuffed, then parsed by somebody else's library."""
    content = stream.removeprefix(b"+OK\r\n").split(b"\r\n.\r\n")[0] + b"\r\n"
    return email.message_from_bytes(content.replace(b"\r\n..", b"\r\n."), policy=email.policy.default)


def files(message: EmailMessage) -> dict[str, bytes]:
    return {str(p.get_filename()): p.get_payload(decode=True) or b"" for p in message.walk() if p.get_filename()}  # type: ignore[misc]


@pytest.mark.parametrize("size", [-300, -5000, -200_000])
def test_a_mail_that_was_held_whole_keeps_everything_but_the_infected_part(size: int) -> None:
    before = reply(mail(700, size, 900))
    after, more = treat(before, 0)
    message = read(after)
    assert len(after) == len(before) and not more
    assert (message["Subject"], message["From"]) == ("請求書", "tanaka@office.test")
    got = files(message)
    assert (got["0.zip"], got["2.zip"]) == (CLEAN[:700], CLEAN[:900])
    told = got["sekisho.txt"].decode()
    assert ("Test_Rule" in told and "取り除" in told) or "削除" in told
    body = message.get_body(("plain",))
    assert body is not None and ".dotted line" in body.get_content()
    assert "1.zip" not in got


def test_the_full_notice_says_what_when_who_and_what_to_do_in_both_languages() -> None:
    after, _ = treat(reply(mail(-9000)), 0)
    told = files(read(after))["sekisho.txt"].decode()
    for words in ("請求書.exe", "Test_Rule", NOTICE.at, "sekisho", "管理者", "administrator", "取り除", "removed"):
        assert words in told


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_an_attachment_that_has_begun_is_ended_and_the_rest_of_the_mail_arrives(share: float) -> None:
    before = reply(mail(700, -60_000, 900))
    part = next(p for p in infected(only(before)) if p is not None)
    at = 5 + part.start + int((part.end - part.start) * share)
    after, more = treat(before, at)
    got = files(read(after))
    assert len(after) == len(before) and after[:at] == before[:at] and not more
    assert (got["0.zip"], got["2.zip"]) == (CLEAN[:700], CLEAN[:900])
    assert virus(60_000)[: int(60_000 * share) - 200] in got["1.zip"] and b"VIRUS-TAIL" not in got["1.zip"]
    assert share == 0.99 or "Test_Rule" in got["sekisho.txt"].decode()


@pytest.mark.parametrize("delivered", [0, 5, 40, 90, 130, 200, 1000, 8000])
def test_a_mail_that_is_the_attachment_is_replaced_in_its_own_encoding(delivered: int) -> None:
    made = EmailMessage(policy=email.policy.SMTP)
    made["From"], made["Subject"] = "tanaka@office.test", "x"
    made.set_content(virus(9000), maintype="application", subtype="zip", filename="only.zip")
    before = reply(made.as_bytes())
    after, _ = treat(before, delivered)
    assert len(after) == len(before) and after[:delivered] == before[:delivered]
    message = read(after)
    assert message["From"] == "tanaka@office.test"
    whole = bytes(message.get_payload(decode=True) or b"")
    assert virus(9000) not in whole and ("取り除".encode() in whole or delivered == 8000)


def test_a_mail_whose_text_is_malicious_keeps_no_line_of_it() -> None:
    before = reply(b"From: a@b\r\nSubject: MZ VIRUS-TAIL\r\nTo: c@d\r\n\r\n" + b"MZ VIRUS-TAIL\r\n" * 200)
    found = only(before)
    assert found.letter is not None
    patches, _ = neutralise.plan(found.letter, [None], 0, NOTICE)
    after = neutralise.patched(before, patches)
    assert b"VIRUS" not in after and read(after)["From"] == "a@b" and len(after) == len(before)


def test_an_unfinished_mail_is_blanked_until_its_end_and_no_further() -> None:
    before = reply(mail(700, -60_000, 900)) + b"+OK\r\nnext"
    first, second = 30_000, 60_000
    _, more = treat(before[:first], 9_000)
    assert more
    found = only(before[:second])
    assert found.letter is not None
    patches = neutralise.blank(found.letter, first)
    assert patches[0].offset == first and patches[-1].until >= second - 4
    whole = next(iter(f for f in pop3.objects(memoryview(before), memoryview(b""), limit=LIMIT) if f.letter))
    assert whole.letter is not None
    last = neutralise.blank(whole.letter, second)
    after = neutralise.patched(before, last)
    assert after[whole.end - 5 :] == before[whole.end - 5 :] and after[second : whole.end - 5].strip() == b""


@pytest.mark.parametrize("name", cases(virus(1500)))
def test_a_bent_mail_ends_where_it_ended(name: str) -> None:
    before = reply(cases(virus(1500))[name].replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    before = before if before.endswith(b"\r\n.\r\n") else before[:-3] + b"\r\n.\r\n"
    after, more = treat(before, 0)
    assert not more and len(after) == len(before) and after.endswith(b"\r\n.\r\n")
    assert only(after).end == only(before).end
    assert not any(b"VIRUS-TAIL" in bytes(part.body) for part in mime.contents(after[5:], limit=LIMIT).parts)


shapes = st.lists(st.integers(10, 2500).map(lambda n: n if n % 3 else -n), min_size=1, max_size=4, unique=True)


@settings(max_examples=80, deadline=None)
@given(shapes, st.data())
def test_lengths_places_and_ends_hold_for_every_mail_and_every_moment(sizes: list[int], data: st.DataObject) -> None:
    sizes = [*sizes, -2600]
    before = (
        reply(mail(*sizes, text=data.draw(st.sampled_from(["a\n", ".\n.\n..\n", "x" * 900 + "\n"])))) + b"+OK bye\r\n"
    )
    found = only(before)
    there = data.draw(st.integers(6, len(before)) | st.just(len(before)))
    delivered = data.draw(st.integers(0, there))
    part = only(before[:there])
    letter = part.letter
    assert letter is not None
    patches, more = neutralise.plan(letter, infected(part), delivered, NOTICE)
    after = neutralise.patched(before[:there], patches)
    if more:
        rest = only(before)
        assert rest.letter is not None
        tail = neutralise.patched(before, neutralise.blank(rest.letter, len(after)))[len(after) :]
        after += tail
    else:
        after += before[there:]
    assert len(after) == len(before) and after[:delivered] == before[:delivered]
    again = list(pop3.objects(memoryview(after), memoryview(b""), limit=LIMIT))
    assert [f.end for f in again if f.letter] == [found.end]
    assert after[found.end :] == before[found.end :]
    assert max(map(len, after.split(b"\r\n"))) <= 998
    begun = [
        secret
        for secret in map(virus, (-n for n in sizes if n < 0))
        if any(secret[:60] in p.body for p in letter.parts)
    ]
    if delivered < before.find(b"boundary"):
        assert not any(secret in bytes(p.body) for secret in begun for p in mime.contents(after, limit=LIMIT).parts)


@given(st.integers(0, 500), st.integers(0, 400))
def test_filler_is_white_space_that_leaves_no_half_line_end(offset: int, length: int) -> None:
    made = neutralise.filler(offset, length)
    assert len(made) == length and made.strip() == b""
    assert made.count(b"\r") == made.count(b"\n") == made.count(b"\r\n")


def test_pieces_of_a_mail_are_patched_each_where_it_lies() -> None:
    found = only(reply(mail(-3000)))
    assert found.letter is not None
    carrier = found.letter.carrier
    letter = replace(found.letter, spans=((0, 100), (1000, 5000), (2000, 9000)), dotted=False, keep=0)
    patches, _ = neutralise.plan(letter, [p for p in infected(found)], 5100, NOTICE)
    assert all(5100 <= p.offset < 6000 or 9000 <= p.offset for p in patches)
    assert {p.until for p in patches} <= {6000, 9000 + len(carrier) - 2000, letter.stream_at(letter.parts[-1].end)}
