"""What the SMTP splitter finds in one side of a connection, however it is told."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.inspect.streams import smtp
from sekisho.inspect.streams.found import Found
from sekisho.lab.client import message
from sekisho.lab.samples import EICAR

LIMIT = 64 << 20
HELLO = b"EHLO pc.office.test\r\n"
ENVELOPE = (
    b"MAIL FROM:<tanaka@office.test> SIZE=1000\r\nRCPT TO:<suzuki@partner.test>\r\nRCPT TO:<sato@partner.test>\r\n"
)
BAD = message([("clean", 500), ("bad", 900)], "m")
CLEAN = message([("clean", 500)], "m")


def split(stream: bytes, *, told: bool = False) -> list[Found]:
    peer = msgspec.msgpack.encode((b"told" if told else b"", b"", 0))
    return list(smtp.objects(memoryview(stream), memoryview(peer), limit=LIMIT))


def seen(found: list[Found]) -> bool:
    return any(EICAR in bytes(part) for one in found for part in one.parts)


def data(mail: bytes) -> bytes:
    stuffed = mail.replace(b"\r\n.", b"\r\n..")
    return b"DATA\r\n" + (b"." + stuffed if stuffed[:1] == b"." else stuffed) + b".\r\n"


def bdat(mail: bytes, size: int) -> bytes:
    pieces = [mail[at : at + size] for at in range(0, len(mail), size)]
    return b"".join(
        b"BDAT %d%s\r\n%s" % (len(piece), b" LAST" if number == len(pieces) else b"", piece)
        for number, piece in enumerate(pieces, 1)
    )


def test_a_mail_is_told_with_its_envelope_and_each_attachment_by_name() -> None:
    stream = HELLO + ENVELOPE + data(BAD)
    found = split(stream)
    named = {one.name: one for one in found if one.name}
    assert set(named) == {"clean-0.bin", "bad-1.bin"}
    assert bytes(named["bad-1.bin"].parts[0]).count(EICAR) == 1 and len(named["bad-1.bin"].parts[0]) == 900
    assert not any(EICAR in bytes(part) for part in named["clean-0.bin"].parts)
    for one in named.values():
        assert one.complete and one.mail_from == "tanaka@office.test" and one.mail_subject == "invoice"
        assert one.mail_to == ("suzuki@partner.test", "sato@partner.test")
    last = found[-1]
    assert (last.complete, last.end, last.trouble, last.opaque) == (True, len(stream), "", False)


def test_several_mails_on_one_connection_each_have_an_end() -> None:
    first = HELLO + ENVELOPE + data(CLEAN)
    second = first + b"RSET\r\n" + ENVELOPE + bdat(BAD, 700)
    ends = [one.end for one in split(second + b"QUIT\r\n") if one.complete and one.end]
    assert ends == [len(first), len(second), len(second) + 6]


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_chunks_are_joined_to_one_mail(size: int) -> None:
    stream = HELLO + ENVELOPE + bdat(BAD, size)
    found = split(stream)
    assert seen(found) and found[-1].complete and found[-1].end == len(stream)
    assert {one.name for one in found if one.name} == {"clean-0.bin", "bad-1.bin"}


def test_an_unfinished_chunk_says_where_it_ends() -> None:
    stream = HELLO + ENVELOPE + bdat(BAD, 1 << 20)
    found = split(stream[:-100])
    assert {one.expected for one in found} == {len(stream)}
    assert not any(one.end for one in found)


def test_dots_at_line_starts_are_taken_out() -> None:
    mail = b"Subject: dots\r\n\r\n.one\r\n..two\r\nthree\r\n"
    found = split(ENVELOPE + data(mail))
    assert bytes(found[0].parts[0]) == mail


@pytest.mark.parametrize("end", [b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n"])
def test_an_end_that_only_some_servers_see_is_trouble(end: bytes) -> None:
    inner = ENVELOPE + data(BAD)
    stream = HELLO + ENVELOPE + b"DATA\r\nSubject: a\r\n\r\ntext" + end + inner
    found = split(stream)
    assert any(one.trouble for one in found) and seen(found)
    assert not any(one.end for one in found)


LEAKY = (b"MAIL FROM:<a@b>\rDATA\r\n", b"NOOP\0\r\n")
ODD_CHUNKS = (b"BDAT +5 LAST\r\n", b"BDAT 0x10\r\n", b"BDAT 10 LAST LAST\r\n", b"BDAT\r\n")


@pytest.mark.parametrize("command", [*LEAKY, *ODD_CHUNKS])
def test_a_command_with_two_readings_is_trouble_and_what_follows_is_read(command: bytes) -> None:
    found = split(HELLO + ENVELOPE + command + BAD + b"\r\n.\r\n")
    assert any(one.trouble for one in found) and seen(found)


@pytest.mark.parametrize("told", [False, True])
def test_content_that_a_server_refused_to_begin_is_read_wherever_it_is(told: bool) -> None:
    """A server that refuses DATA or a chunk takes what follows for commands, another DATA among them."""
    for refused in (b"DATA\r\n", b"BDAT 30\r\n", b"BDAT 200 LAST\r\n"):
        found = split(HELLO + refused + ENVELOPE + data(BAD), told=told)
        assert seen(found), refused


def test_a_chunk_cannot_split_what_the_server_takes_as_one_mail() -> None:
    """To a server without CHUNKING the chunk's bytes are commands: a mail begins in it and goes on behind it."""
    inner = ENVELOPE + data(BAD)
    where = inner.index(b'filename="bad-1.bin"') + 200
    for cut in (where, where + 3, where + 60):
        stream = HELLO + b"BDAT %d LAST\r\n" % cut + inner
        found = split(stream)
        assert any(one.trouble for one in found)
        behind = split(stream[stream.index(inner) + cut :], told=True)  # the first part was trimmed before
        assert any(one.trouble for one in behind)


def test_a_stream_that_is_met_in_the_middle_of_a_mail_is_read_to_its_end() -> None:
    middle = data(BAD)[300:]
    found = split(middle + b"QUIT\r\n")
    assert seen(found) and not any(one.trouble for one in found)
    assert found[-1].end == len(middle) + 6


def test_login_lines_are_no_mail() -> None:
    login = b"AUTH LOGIN\r\ndXNlcg\r\nc2VjcmV0\r\n"
    for cut in range(len(HELLO), len(HELLO + login)):
        assert not any(one.parts or one.trouble for one in split((HELLO + login)[:cut]))
    found = split(HELLO + login + ENVELOPE + data(BAD))
    assert found[0].mail_from == "tanaka@office.test" and found[0].mail_to


def test_what_is_encrypted_is_opaque() -> None:
    for before in (b"", HELLO + b"STARTTLS\r\n"):
        (found,) = [one for one in split(before + b"\x16\x03\x01\x02\x00\x01\x00") if one.opaque]
        assert found.complete and not found.parts


def test_between_mails_nothing_is_kept() -> None:
    assert [(one.end, one.complete) for one in split(HELLO + b"NOOP\r\n")] == [(len(HELLO) + 6, True)]
    assert not any(one.end for one in split(HELLO + ENVELOPE))


def test_no_cut_of_the_stream_hides_the_mail_or_makes_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "LOOK_FROM", 0)
    stream = HELLO + ENVELOPE + data(CLEAN) + ENVELOPE + bdat(CLEAN, 300) + ENVELOPE + data(BAD)
    last = len(stream)
    stream += b"QUIT\r\n"
    for size in range(0, len(stream), 3):
        found = split(stream[:size])
        assert not any(one.trouble for one in found)
        # Looking, forgetting what is finished and looking again at more finds the same.
        done = max((one.end for one in found if one.complete), default=0)
        again = split(stream[done:], told=True)
        assert seen(again) == (done < last) and not any(one.trouble for one in again)


def test_a_short_mail_is_looked_at_when_it_is_whole_and_a_long_one_on_its_way() -> None:
    opened = HELLO + ENVELOPE + b"DATA\r\n"
    assert not any(one.parts for one in split(opened + BAD))
    assert seen(split(opened + BAD + b"x" * smtp.LOOK_FROM))
    assert seen(split(opened + BAD + b".\r\n"))


PIECES = [HELLO, ENVELOPE, CLEAN, BAD, b"DATA\r\n", b".\r\n", b"\r\n.\r\n", b"BDAT 7\r\n", b"BDAT 3 LAST\r\n"]
PIECES += [b"\n.\n", b"RSET\r\n", b"AUTH PLAIN\r\n", b"\0", b"text\r\n", b"\r", b"\x16\x03\x01"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=40), max_size=12))
def test_any_bytes_give_objects_in_order_within_the_stream(pieces: list[bytes]) -> None:
    stream = b"".join(pieces)
    found = split(stream)
    assert all(0 <= one.start <= len(stream) and one.end <= len(stream) for one in found)
    ends = [one.end for one in found if one.complete and one.end]
    assert ends == sorted(ends)
