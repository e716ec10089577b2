"""What the gate does with packets a policy refuses: a page for a web request, a reset for anything else."""

from __future__ import annotations

import re
from typing import Any

import pytest
from drygate import ACCEPT, ACK, CLIENT, CLIENT6, FIN, PSH, RST, SERVER, SERVER6, DryGate, Talk, dry
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from sekisho.appliance.core import marks
from sekisho.inspect import pages

GET = b"GET /x HTTP/1.1\r\nHost: bad.example\r\n\r\n"
BLOCK = marks.REFUSE | 2 << marks.WHY_SHIFT
TO_ENGINE_3 = 3 << 16 | 0x8000 | 3
"""NF_QUEUE to queue 3, on if nobody is there."""
LINGER_US = 2_100_000


class Web(Talk):
    """A connection every packet of which carries the mark that netfilter keeps for a refused one."""

    refused = True
    number = 3
    """The engine's queue of this flow."""

    def to_server(self, offset: int, data: bytes = b"", flags: int = ACK, *, ack: int = 0) -> int:
        kind = self.kind
        self.kind = kind | (BLOCK if self.refused else 0) | self.number << marks.ENGINE_SHIFT
        try:
            return super().to_server(offset, data, flags, ack=ack)
        finally:
            self.kind = kind

    def to_client(self, offset: int, data: bytes = b"", flags: int = ACK, *, mark: int = 0, ack: int = 0) -> int:
        mark |= (BLOCK if self.refused else 0) | self.number << marks.ENGINE_SHIFT
        return super().to_client(offset, data, flags, mark=mark, ack=ack)


def web(gate: DryGate, **ends: Any) -> Web:
    for why, page in pages.pages().items():
        gate.gate.set_page(why, page)
    return Web(gate, **ends)


def sent(gate: DryGate, ident: int) -> TCP:
    """The packet that went on instead; length and checksums right, the refusal's mark gone."""
    verdict = gate.verdicts[ident]
    assert verdict.verdict == ACCEPT
    assert not verdict.mark & (marks.REFUSE | marks.WHY), "the last line would withhold it"
    assert verdict.mark, "0 would keep the old mark"
    return tcp_of(verdict.packet)


def tcp_of(raw: bytes) -> TCP:
    family = IP if raw[0] >> 4 == 4 else IPv6
    again = family(raw)
    for name in ("len", "chksum") if family is IP else ("plen",):
        delattr(again, name)
    del again[TCP].chksum
    assert bytes(again) == raw, "length or checksum is wrong"
    told: TCP = family(raw)[TCP]
    return told


def page_of(tcp: TCP) -> bytes:
    return bytes(tcp.payload)


def is_page(data: bytes, why: int = 2) -> bool:
    """Whether this is the page of that function with a reference that a help desk can use."""
    plain = re.sub(rb"\d{4}-\d{6}-\d{5}", pages.REFERENCE, data)
    return plain == pages.page(why) and plain != data


@pytest.mark.parametrize(("client", "server"), [(CLIENT, SERVER), (CLIENT6, SERVER6)])
def test_a_refused_request_is_answered_with_the_page_of_its_function_in_the_servers_name(
    client: str, server: str
) -> None:
    with dry() as gate:
        talk = web(gate, client=client, server=server)
        request = sent(gate, talk.to_server(0, GET))
        assert bytes(request.payload) == bytes(len(GET)), "the server never gets a byte of it"
        assert request.seq + len(GET) == 1000, "it has them already"
        answer = sent(gate, talk.to_client(0))
        assert is_page(page_of(answer))
        assert b"-40000" in page_of(answer)
        assert (answer.seq, answer.ack, int(answer.flags)) == (5000, 1000 + len(GET), FIN | PSH | ACK)
        assert gate.holding == 0


def test_when_the_client_closes_the_server_is_reset_past_the_engine() -> None:
    with dry() as gate:
        talk = web(gate)
        talk.to_server(0, GET)
        whole = len(page_of(sent(gate, talk.to_client(0)))) + 1
        kept = talk.to_server(len(GET), ack=whole)
        assert gate.held(kept), "for the server's end, should the client never close"
        end = talk.to_server(len(GET), flags=FIN | ACK, ack=whole)
        assert gate.dropped(kept)
        verdict = gate.verdicts[end]
        assert verdict.verdict == TO_ENGINE_3
        told = tcp_of(verdict.packet)
        assert (int(told.flags), told.seq) == (RST, 1000)
        assert verdict.mark & marks.REFUSE and verdict.mark & marks.CUT, "the last line has the kernel forget it"
        assert gate.holding == 0


def test_a_client_that_never_closes_does_not_keep_the_server_waiting() -> None:
    with dry() as gate:
        talk = web(gate)
        talk.to_server(0, GET)
        whole = len(page_of(sent(gate, talk.to_client(0)))) + 1
        kept = talk.to_server(len(GET), ack=whole)
        gate.tick(LINGER_US)
        assert int(tcp_of(gate.verdicts[kept].packet).flags) == RST
        assert gate.holding == 0


def test_a_lost_page_is_sent_again_when_the_client_repeats_itself() -> None:
    with dry() as gate:
        talk = web(gate)
        talk.to_server(0, GET)
        for _ in range(3):
            assert is_page(page_of(sent(gate, talk.to_client(0))))
            again = sent(gate, talk.to_server(0, GET))
            assert (again.seq + len(GET), bytes(again.payload)) == (1000, bytes(len(GET)))


def test_a_later_request_is_refused_where_its_answer_would_begin() -> None:
    with dry() as gate:
        talk = web(gate)
        talk.refused = False
        talk.to_server(0, GET)
        talk.to_client(0, b"HTTP/1.1 204 No Content\r\n\r\n", ack=len(GET))
        for note in gate.tick(4000):
            gate.gate.release(note.flow, note.dir, note.length, note.length)
        talk.refused = True
        talk.to_server(len(GET), GET, ack=27)
        answer = sent(gate, talk.to_client(27, ack=len(GET)))
        assert (answer.seq, answer.ack) == (5027, 1000 + 2 * len(GET))
        assert is_page(page_of(answer))


def test_an_answer_still_in_flight_is_not_overwritten() -> None:
    """The client has not acknowledged what it was sent: the page begins behind it."""
    with dry() as gate:
        talk = web(gate)
        talk.refused = False
        talk.to_server(0, GET)
        talk.to_client(0, b"HTTP/1.1 204 No Content\r\n\r\n", ack=len(GET))
        for note in gate.tick(4000):
            gate.gate.release(note.flow, note.dir, note.length, note.length)
        talk.refused = True
        talk.to_server(len(GET), GET, ack=0)
        assert sent(gate, talk.to_client(27, ack=len(GET))).seq == 5027


def test_with_an_answer_being_judged_a_refused_request_ends_both() -> None:
    """Pipelining: what waits for its verdict must not slip out beside the page."""
    with dry() as gate:
        talk = web(gate)
        talk.refused = False
        talk.to_server(0, GET)
        body = talk.to_client(0, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nnot whole")
        talk.refused = True
        end = talk.to_server(len(GET), GET)
        assert gate.dropped(body)
        assert int(tcp_of(gate.verdicts[end].packet).flags) == RST | ACK
        assert gate.holding == 0


def test_nothing_the_server_says_reaches_a_refused_client() -> None:
    with dry() as gate:
        talk = web(gate)
        talk.to_server(0, GET)
        for _ in range(2):
            assert is_page(page_of(sent(gate, talk.to_client(0, b"HTTP/1.1 200 OK\r\n\r\nsecret"))))
        assert gate.dropped(talk.to_client(25, b"secret" * 200))
        assert gate.dropped(talk.to_client(1225, b"secret", FIN | ACK))
        assert is_page(page_of(sent(gate, talk.to_client(1231, b"", FIN | ACK))))


def test_a_request_in_pieces_is_refused_whole() -> None:
    with dry() as gate:
        talk = web(gate)
        talk.refused = False
        first = talk.to_server(0, GET[:10])
        talk.refused = True
        last = sent(gate, talk.to_server(10, GET[10:]))
        assert gate.dropped(first), "it waited for its end, and the server never gets it"
        assert last.seq + len(GET) - 10 == 1000
        assert sent(gate, talk.to_client(0)).ack == 1000 + len(GET)


def test_an_upload_is_swallowed_and_its_client_hears_the_page() -> None:
    with dry() as gate:
        talk = web(gate)
        talk.to_server(0, b"POST /x HTTP/1.1\r\ncontent-length: 3000\r\n\r\n")
        size = 42
        for _ in range(3):
            assert bytes(sent(gate, talk.to_server(size, b"b" * 1000)).payload) == bytes(1000)
            size += 1000
            assert sent(gate, talk.to_client(0)).ack == 1000 + size
        whole = len(page_of(sent(gate, talk.to_client(0)))) + 1
        sent(gate, talk.to_server(size, b"b" * 1000, ack=whole))
        told = sent(gate, talk.to_client(0))
        assert (told.seq, told.ack, page_of(told)) == (5000 + whole, 2000 + size, b""), "heard: not told again"


def test_head_is_answered_without_a_body() -> None:
    with dry() as gate:
        talk = web(gate)
        talk.to_server(0, GET.replace(b"GET", b"HEAD"))
        told = page_of(sent(gate, talk.to_client(0)))
        assert told.endswith(b"\r\n\r\n") and told.startswith(b"HTTP/1.1 403") and told.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize(("kind", "data"), [(0, b"\x16\x03\x01"), (marks.HTTP, b""), (marks.SMB, b"\0\0\0\x44\xfeSMB")])
def test_what_is_no_web_request_becomes_a_reset_that_the_engine_and_the_last_line_see(kind: int, data: bytes) -> None:
    with dry() as gate:
        talk = web(gate, kind=kind)
        ident = talk.to_server(0, data, ack=7)
        verdict = gate.verdicts[ident]
        assert verdict.verdict == TO_ENGINE_3
        assert verdict.mark & (marks.REFUSE | marks.CUT) == marks.REFUSE | marks.CUT
        told = tcp_of(verdict.packet)
        assert (told.seq, told.ack, int(told.flags)) == (1000, 5007, RST | ACK), "the sender waits there"
        assert bytes(told.payload) == bytes(len(data)), "no byte of it goes on"


def test_a_refused_server_packet_resets_the_client_without_its_bytes() -> None:
    with dry() as gate:
        talk = web(gate)
        told = tcp_of(gate.verdicts[talk.to_client(0, b"secret")].packet)
        assert (told.seq, int(told.flags), bytes(told.payload)) == (5000, RST | ACK, bytes(6))


def test_in_pppoe_no_packet_changes_its_length() -> None:
    with dry() as gate:
        talk = web(gate, kind=marks.HTTP | marks.PPPOE)
        told = tcp_of(gate.verdicts[talk.to_server(0, GET)].packet)
        assert (int(told.flags), len(told.payload)) == (RST | ACK, len(GET))


RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n" + b"m" * 900


def found_bad(gate: DryGate, talk: Web, *, before: bool = True) -> tuple[int, int]:
    """(the packet that begins the response, the next) after the file in it was refused."""
    talk.refused = False
    talk.to_server(0, GET)
    first = talk.to_client(0, RESPONSE[:600], ack=len(GET))
    if not before:
        for note in gate.tick(4000):
            gate.gate.release(note.flow, note.dir, note.length, 0)
    last = talk.to_client(600, RESPONSE[600:], ack=len(GET))
    flow, way = talk.found()
    assert gate.gate.cut(flow, way) > 0
    gate.collect()
    return first, last


def test_a_bad_file_of_which_nothing_was_delivered_is_replaced_by_the_page() -> None:
    with dry() as gate:
        talk = web(gate)
        first, last = found_bad(gate, talk)
        told = tcp_of(gate.verdicts[first].packet)
        assert is_page(page_of(told), pages.FILE)
        assert (told.seq, told.ack, int(told.flags)) == (5000, 1000 + len(GET), FIN | PSH | ACK)
        assert gate.dropped(last)
        assert gate.dropped(talk.to_client(600, RESPONSE[600:], ack=len(GET))), "and not by repeating it"
        again = tcp_of(gate.verdicts[talk.to_client(0, RESPONSE[:600], ack=len(GET))].packet)
        assert is_page(page_of(again), pages.FILE), "the server repeats what is lost, and so does the gate"
        end = talk.to_server(len(GET), flags=FIN | ACK, ack=len(page_of(told)) + 1)
        assert gate.verdicts[end].verdict == TO_ENGINE_3
        reset = tcp_of(gate.verdicts[end].packet)
        assert (int(reset.flags), reset.seq) == (RST, 1000 + len(GET))
        assert gate.holding == 0


def test_a_bad_file_that_has_begun_to_arrive_is_cut() -> None:
    with dry() as gate:
        talk = web(gate)
        _, last = found_bad(gate, talk, before=False)
        assert int(tcp_of(gate.verdicts[last].packet).flags) == RST


def test_a_bad_file_in_pppoe_is_cut() -> None:
    with dry() as gate:
        talk = web(gate, kind=marks.HTTP | marks.PPPOE)
        first, _ = found_bad(gate, talk)
        assert int(tcp_of(gate.verdicts[first].packet).flags) == RST


def test_without_pages_a_request_is_reset() -> None:
    with dry() as gate:
        talk = Web(gate)
        assert int(tcp_of(gate.verdicts[talk.to_server(0, GET)].packet).flags) == RST | ACK


def test_a_page_that_is_too_long_is_refused_and_one_can_be_taken_away() -> None:
    with dry() as gate:
        with pytest.raises(ValueError, match="page 2"):
            gate.gate.set_page(2, b"x" * 4000)
        with pytest.raises(ValueError, match="page 16"):
            gate.gate.set_page(16, b"x")
        talk = web(gate)
        gate.gate.set_page(2, b"")
        talk.to_server(0, GET)
        assert is_page(page_of(sent(gate, talk.to_client(0))), 0), "the general one stands in"


def test_with_no_room_to_answer_the_mark_stays_and_the_last_line_withholds() -> None:
    with dry(max_held=1) as gate:
        talk = web(gate)
        talk.refused = False
        talk.to_client(0, b"HTTP/1.1 200 OK\r\n\r\nbody")
        other = web(gate, client_port=41000)
        verdict = gate.verdicts[other.to_server(0, GET)]
        assert (verdict.verdict, verdict.mark, verdict.packet) == (ACCEPT, 0, b"")


STEPS = st.lists(
    st.tuples(
        st.booleans(),
        st.integers(-3000, 3000),
        st.sampled_from([b"", GET, b"HEAD / HTTP/1.1\r\n\r\n", b"secret" * 100]),
        st.sampled_from([ACK, ACK | PSH, ACK | FIN, RST, ACK | RST]),
        st.booleans(),
        st.integers(0, 3000),
    ),
    max_size=25,
)


@settings(max_examples=150)
@given(STEPS, st.sampled_from([0, marks.HTTP, marks.HTTP | marks.MAIL]))
def test_whatever_two_ends_send_no_byte_of_a_refused_flow_crosses(steps: list[Any], kind: int) -> None:
    with dry() as gate:
        talk = web(gate, kind=kind)
        talk.to_server(0, GET)
        refused = [
            (talk.to_server if up else talk.to_client)(offset % 2**32, data, flags, ack=ack)
            for up, offset, data, flags, _, ack in steps
        ]
        gate.tick(LINGER_US)
        gate.tick(LINGER_US)
        assert gate.holding == 0
        for ident in refused:
            verdict = gate.verdicts[ident]
            if verdict.packet and verdict.verdict:
                data = bytes(tcp_of(verdict.packet).payload)
                assert not data.strip(b"\0") or data.startswith(b"HTTP/1.1 403")
