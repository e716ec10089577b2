"""What the SMB splitter finds in either direction, whatever the order in which a file's data travels."""

from __future__ import annotations

import random
import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.inspect.streams import smb2
from sekisho.inspect.streams.found import Found
from sekisho.lab.samples import EICAR, malicious

FILE = bytes(range(1, 17))
SAME = b"\xff" * 16
LIMIT = 64 << 20


def header(command: int, number: int, *, answer: bool, following: int = 0, status: int = 0) -> bytes:
    flags = 1 if answer else 0
    return b"\xfeSMB" + struct.pack(
        "<HHIHHIIQIIQ16s", 64, 1, status, command, 1, flags, following, number, 0, 1, 7, b""
    )


def frame(*messages: bytes) -> bytes:
    """One transport frame; several messages are a compound."""
    out = b""
    for at, message in enumerate(messages):
        padded = message + bytes(-len(message) % 8)
        last = at == len(messages) - 1
        out += message if last else padded[:20] + struct.pack("<I", len(padded)) + padded[24:]
    return struct.pack(">I", len(out)) + out


def opening(number: int, name: str) -> bytes:
    text = name.encode("utf-16-le")
    return header(5, number, answer=False) + bytes(44) + struct.pack("<HHII", 120, len(text), 0, 0) + text


def opened(number: int, size: int, identity: bytes = FILE) -> bytes:
    return header(5, number, answer=True) + bytes(48) + struct.pack("<QII16sII", size, 0, 0, identity, 0, 0)


def read(number: int, offset: int, length: int, identity: bytes = FILE) -> bytes:
    return header(8, number, answer=False) + struct.pack(
        "<HBBIQ16sIIIHH", 49, 0, 0, length, offset, identity, 0, 0, 0, 0, 0
    )


def data(number: int, content: bytes) -> bytes:
    return header(8, number, answer=True) + struct.pack("<HBBIII", 17, 80, 0, len(content), 0, 0) + content


def write(number: int, offset: int, content: bytes, identity: bytes = FILE) -> bytes:
    fixed = struct.pack("<HHIQ16sIIHHI", 49, 112, len(content), offset, identity, 0, 0, 0, 0, 0)
    return header(9, number, answer=False) + fixed + content


def close(number: int, *, answer: bool, identity: bytes = FILE) -> bytes:
    return header(6, number, answer=answer) + struct.pack("<HHI16s", 24, 0, 0, identity) + bytes(36)


class Talk:
    """Both directions' memos, as the box keeps them."""

    def __init__(self) -> None:
        self.memo = {"to": b"", "from": b""}

    def ask(self, stream: bytes) -> list[Found]:
        return self._look(smb2.requests, "to", "from", stream)

    def answer(self, stream: bytes) -> list[Found]:
        return self._look(smb2.responses, "from", "to", stream)

    def _look(self, splitter: object, own: str, other: str, stream: bytes) -> list[Found]:
        peer = memoryview(msgspec.msgpack.encode((self.memo[own], self.memo[other], 0)))
        found = list(splitter(memoryview(stream), peer, limit=LIMIT))  # type: ignore[operator]  # either of two
        self.memo[own] = next((one.memo for one in found if one.memo), self.memo[own])
        return found


def told(found: list[Found]) -> list[bytes]:
    return [bytes(one.parts[0]) for one in found if one.complete and one.parts and len(one.parts[0])]


def seen(found: list[Found]) -> bool:
    return any(EICAR in bytes(part) for one in found for part in one.parts)


def end_of(found: list[Found]) -> int:
    return max(one.end for one in found if one.complete)


def test_parallel_reads_are_put_together_in_any_order() -> None:
    content = malicious(9_000)
    places = list(range(0, 9_000, 1_000))
    talk = Talk()
    talk.ask(frame(opening(1, "docs\\invoice.exe")))
    talk.answer(frame(opened(1, len(content))))
    talk.ask(b"".join(frame(read(10 + n, at, 1_000)) for n, at in enumerate(places)))
    answers = [frame(data(10 + n, content[at : at + 1_000])) for n, at in enumerate(places)]
    random.Random(1).shuffle(answers)
    stream = b"".join(answers)
    found = talk.answer(stream)
    assert told(found) == [content] and end_of(found) == len(stream)
    assert next(one.name for one in found if one.parts) == "invoice.exe"


def test_a_file_is_looked_at_before_it_is_complete_and_kept_until_then() -> None:
    talk = Talk()
    talk.ask(frame(opening(1, "a")) + frame(read(2, 0, 500)) + frame(read(3, 500, 500)))
    stream = frame(opened(1, 1000)) + frame(data(2, malicious(500)))
    found = talk.answer(stream)
    assert seen(found) and not told(found) and end_of(found) == len(frame(opened(1, 1000)))
    assert told(talk.answer(frame(data(2, malicious(500))) + frame(data(3, bytes(500))))) == [
        malicious(500) + bytes(500)
    ]


def test_a_compound_opens_reads_and_closes() -> None:
    talk = Talk()
    talk.ask(frame(opening(1, "a.txt"), read(2, 0, 4096, SAME), close(3, answer=False, identity=SAME)))
    found = talk.answer(frame(opened(1, 700), data(2, malicious(700)), close(3, answer=True)))
    assert told(found) == [malicious(700)] and found[0].name == "a.txt"


def test_answers_whose_requests_nobody_saw_are_read_in_their_order() -> None:
    content = malicious(3_000)
    stream = b"".join(frame(data(9 - n, content[at : at + 1_000])) for n, at in enumerate((2_000, 1_000, 0)))
    assert any(bytes(part) == content for one in Talk().answer(stream) for part in one.parts)


@pytest.mark.parametrize("backwards", [False, True])
def test_what_is_written_is_a_file_when_it_is_closed_and_looked_at_before(backwards: bool) -> None:
    content = malicious(5_000)
    talk = Talk()
    talk.ask(frame(opening(1, "up.exe")))
    talk.answer(frame(opened(1, 0)))
    places = list(range(0, 5_000, 700))
    written = [frame(write(2 + n, at, content[at : at + 700])) for n, at in enumerate(places)]
    stream = b"".join(written[::-1] if backwards else written)
    before = talk.ask(stream)
    assert seen(before) and not told(before) and not end_of(before)
    after = talk.ask(stream + frame(close(99, answer=False)))
    assert told(after) == [content] and after[0].name == "up.exe"


def test_a_place_written_twice_is_looked_at_both_ways() -> None:
    talk = Talk()
    stream = frame(write(1, 0, malicious(600))) + frame(write(2, 532, bytes(68)))
    parts = [bytes(part) for one in talk.ask(stream) for part in one.parts]
    assert malicious(600) in parts and malicious(600)[:532] + bytes(68) in parts


def test_encrypted_messages_are_passed_over_and_compressed_ones_are_trouble() -> None:
    secret = b"\xfdSMB" + bytes(100)
    wrapped = struct.pack(">I", len(secret)) + secret
    talk = Talk()
    talk.ask(frame(read(1, 0, 500)))
    found = talk.answer(wrapped + frame(data(1, malicious(500))))
    assert seen(found) and not any(one.trouble or one.opaque for one in found)
    packed = b"\xfcSMB" + bytes(100)
    assert any(one.trouble for one in talk.answer(struct.pack(">I", len(packed)) + packed))


def test_of_a_long_file_all_but_the_held_end_goes_on_between_looks() -> None:
    """A writer may stop anywhere, and a reader where the server has no more, whatever it announced."""
    for look, stream in (
        (Talk().ask, frame(write(1, 0, bytes(8 << 20)))),
        (reader(8 << 20).answer, frame(opened(1, 8 << 20)) + frame(data(2, bytes(8 << 20)))),
    ):
        assert any(one.parts for one in look(stream[: 1 << 20]))
        (passing,) = [one.passes for one in look(stream[: 3 << 19]) if one.passes]
        assert passing == (3 << 19) - smb2.TAIL
        assert any(one.parts for one in look(stream[: 3 << 19])), "nothing more came"
        assert any(one.parts for one in look(stream[: 3 << 20])), "twice as long"


def reader(announced: int) -> Talk:
    talk = Talk()
    talk.ask(frame(opening(1, "a")) + frame(read(2, 0, announced)))
    return talk


def test_a_server_that_announces_more_than_it_has_gets_nothing_past_a_look_at_the_pause() -> None:
    content = malicious(1_900_000)
    talk = reader(64 << 20)
    stream = frame(opened(1, 64 << 20)) + frame(data(2, content))
    assert not seen(talk.answer(stream[: 1 << 20]))
    (passing,) = [one.passes for one in talk.answer(stream) if one.passes]
    assert EICAR not in stream[:passing]
    assert seen(talk.answer(stream)), "no more came"


def test_one_who_reads_piece_by_piece_costs_a_bounded_effort_and_is_never_stuck() -> None:
    size, piece = 32 << 20, 64 << 10
    talk = Talk()
    talk.ask(frame(opening(1, "a")))
    stream, looked_at = bytearray(frame(opened(1, size))), 0
    for number, at in enumerate(range(0, 8 << 20, piece), 2):
        talk.ask(frame(read(number, at, piece)))
        stream += frame(data(number, bytes(piece)))
        for _ in range(2):  # as it comes, and when it pauses
            found = talk.answer(bytes(stream))
            looked_at += sum(len(part) for one in found for part in one.parts)
            free = max(one.passes for one in found) or len(stream)
        assert free == len(stream), "the pause's look lets all of it go"
    assert looked_at < 3 * smb2.EFFORT * (8 << 20)


SAID = [frame(opening(1, "a")), frame(opened(1, 100)), frame(read(2, 0, 50)), frame(data(2, EICAR))]
ANY = st.builds(
    lambda command, number, answer, body: frame(header(command, number, answer=answer) + body),
    st.integers(0, 20), st.integers(0, 5), st.booleans(), st.binary(max_size=80),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(SAID) | ANY | st.binary(max_size=60), max_size=8), st.binary(max_size=40))
def test_any_bytes_give_objects_within_the_stream(pieces: list[bytes], memo: bytes) -> None:
    stream = b"".join(pieces)
    talk = Talk()
    talk.memo = {"to": memo, "from": memo}
    for found in (talk.ask(stream), talk.answer(stream)):
        assert all(
            0 <= one.start <= len(stream) and one.end <= len(stream) and one.passes <= len(stream) for one in found
        )
