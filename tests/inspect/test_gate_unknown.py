"""Before the engine knows what a connection is for, the gate lets its client's stream through in order only."""

from __future__ import annotations

import random

import pytest
from drygate import (
    ACCEPT,
    ACK,
    CLIENT,
    CLIENT6,
    FIN,
    PSH,
    RST,
    SERVER,
    SERVER6,
    SYN,
    DryGate,
    Talk,
    dry,
    parsed,
)

from sekisho.appliance.core import marks
from sekisho.inspect.gate import TO_SERVER

BODY = b"the file that must not leave" * 100
POST = b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
SEEN = marks.SEEN
AGAIN = 4
"""NF_REPEAT: the packet passes the kernel's rules once more."""
ENOUGH = 65536
"""What a client sends in order without being recognised, and is asked no more (gate.c, UNKNOWN_MAX)."""


def opened(gate: DryGate, *, v6: bool = False, isn: int = 1000, port: int = 40000, kind: int = SEEN) -> Talk:
    """A connection whose SYN has just been answered."""
    ends = (CLIENT6, SERVER6) if v6 else (CLIENT, SERVER)
    talk = Talk(gate, kind, *ends, client_port=port, client_isn=isn)
    answer = talk.to_client(-1, flags=SYN | ACK)
    assert gate.verdicts[answer].verdict == ACCEPT
    assert gate.verdicts[answer].mark & marks.WATCHED, "the kernel is told that it is watched"
    return talk


def ask(talk: Talk, offset: int, data: bytes, flags: int = ACK | PSH) -> int:
    """A packet to the server, as the kernel marks it while the connection is unknown."""
    talk.kind |= marks.WATCHED
    ident = talk.to_server(offset, data, flags)
    talk.kind &= ~marks.WATCHED
    return ident


def passed_on_watch(gate: DryGate, ident: int) -> bool:
    """It passed, and its mark says that it was seen: the next one is asked about as well."""
    return gate.passed(ident) and gate.verdicts[ident].mark == SEEN


def settled(gate: DryGate, ident: int) -> bool:
    """It passed with its mark: the kernel asks no more about this connection."""
    return gate.passed(ident) and gate.verdicts[ident].mark == 0


@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
@pytest.mark.parametrize("isn", [1000, 2**32 - 700], ids=["", "wraps"])
@pytest.mark.parametrize("order", ["reversed", "shuffled", "head last"])
def test_a_body_that_comes_before_its_head_does_not_pass_before_it_is_looked_at(order: str, isn: int, v6: bool) -> None:
    """The engine recognises the request with the packet that fills the gap, and not one byte of it has left by then."""
    size = 100
    parts = [(at, POST[at : at + size]) for at in range(0, len(POST), size)]
    early = parts[1:]
    if order == "reversed":
        early.reverse()
    elif order == "shuffled":
        random.Random(1).shuffle(early)
    with dry() as gate:
        talk = opened(gate, v6=v6, isn=isn)
        assert all(gate.dropped(ask(talk, *part)) for part in early)
        talk.kind = marks.HTTP | SEEN  # known from here on
        held = [talk.to_server(*part) for part in [parts[0], *parts[1:]]]
        assert all(map(gate.held, held))
        note = gate.pause()
        assert (note.dir, note.length, note.joined) == (TO_SERVER, len(POST), False), "whole, from its beginning"


@pytest.mark.parametrize("size", [1, 7, 20, 1000])
@pytest.mark.parametrize(
    "line",
    [
        b"POST /upload HTTP/1.1\r\n",
        b"get / http/1.0\n",
        b"\r\n\r\nM-SEARCH * HTTP/1.1 \r\n",
        b"PUT /" + b"long" * 300 + b" HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n",
    ],
)
def test_a_request_that_the_engine_does_not_recognise_is_known_by_its_first_line(line: bytes, size: int) -> None:
    """An engine that took a reset for real, as the server did not, says nothing any more."""
    pieces = [(at, line[at : at + size]) for at in range(0, len(line), size)]
    with dry() as gate:
        talk = opened(gate)
        *first, last = [ask(talk, *piece) for piece in pieces]
        assert all(passed_on_watch(gate, ident) for ident in first)
        verdict = gate.verdicts[last]
        assert (verdict.verdict, verdict.mark) == (AGAIN, SEEN | marks.HTTP), "the rules remember it and ask again"
        behind = ask(talk, len(line), b"Host: a\r\n")
        assert gate.verdicts[behind].verdict == AGAIN, "asked before the rules knew"
        talk.kind = marks.HTTP | SEEN
        assert gate.held(talk.to_server(*pieces[-1]))
        assert gate.held(talk.to_server(len(line), b"Host: a\r\n"))
        assert gate.gate.stats().cut == 0


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-client\r\nPOST / HTTP/1.1\r\n",
        b"\x16\x03\x01" * 50,
        b"EHLO a\r\nMAIL FROM:<a@b>\r\n",
        b"HTTP/1.1 " * 9,
    ],
)
def test_what_speaks_otherwise_is_not_taken_for_http(said: bytes) -> None:
    with dry() as gate:
        talk = opened(gate)
        for at in range(0, len(said), 5):
            assert passed_on_watch(gate, ask(talk, at, said[at : at + 5]))


def test_what_is_in_order_passes_at_once_and_again() -> None:
    with dry() as gate:
        talk = opened(gate)
        for offset, data in ((0, b"hello "), (6, b"server"), (0, b"hello "), (3, b"lo server, again")):
            assert passed_on_watch(gate, ask(talk, offset, data))
        assert passed_on_watch(gate, ask(talk, 19, b"", ACK | FIN))
        assert gate.gate.stats().flows == gate.gate.stats().spooled == gate.holding == 0


def test_a_gap_that_is_filled_lets_the_repetition_through() -> None:
    with dry() as gate:
        talk = opened(gate)
        assert gate.dropped(ask(talk, 5, b"second"))
        assert gate.dropped(ask(talk, 11, b"", ACK | FIN))
        assert passed_on_watch(gate, ask(talk, 0, b"first"))
        assert passed_on_watch(gate, ask(talk, 5, b"second"))


def test_a_second_answer_to_the_first_syn_changes_nothing() -> None:
    with dry() as gate:
        talk = opened(gate)
        ask(talk, 0, b"x" * 1000)
        talk.to_client(-1, flags=SYN | ACK)
        assert passed_on_watch(gate, ask(talk, 1000, b"x"))


def test_the_same_ports_again_begin_anew() -> None:
    with dry() as gate:
        ask(opened(gate), 0, b"x" * 1000)
        again = opened(gate, isn=900_000)
        assert gate.dropped(ask(again, 10, b"x"))
        assert passed_on_watch(gate, ask(again, 0, b"x" * 10))


def test_a_segment_without_acknowledgement_is_not_counted_as_in_order() -> None:
    """No receiver takes it, so what follows it would lie behind a gap (RFC 9293 3.10.7.4)."""
    with dry() as gate:
        talk = opened(gate)
        assert gate.dropped(ask(talk, 0, b"x" * 10, PSH))
        assert gate.dropped(ask(talk, 10, b"y"))


@pytest.mark.parametrize("flags", [SYN, RST, RST | ACK])
def test_what_opens_and_what_breaks_a_connection_passes(flags: int) -> None:
    with dry() as gate:
        talk = opened(gate)
        assert passed_on_watch(gate, ask(talk, 777, b"", flags))
        assert gate.dropped(ask(talk, 777, b"x")), "and moves nothing"


def test_a_stream_that_nobody_recognises_is_let_be_after_a_while() -> None:
    with dry() as gate:
        talk = opened(gate)
        for at in range(0, ENOUGH - 1024, 1024):
            assert passed_on_watch(gate, ask(talk, at, b"s" * 1024))
        assert settled(gate, ask(talk, ENOUGH - 1024, b"s" * 1024))
        assert settled(gate, ask(talk, ENOUGH + 5000, b"s")), "should it be asked all the same"


def test_repetitions_do_not_bring_that_nearer() -> None:
    with dry() as gate:
        talk = opened(gate)
        for _ in range(ENOUGH // 1000 + 1):
            assert passed_on_watch(gate, ask(talk, 0, b"s" * 1000))


def test_a_connection_that_opened_unseen_is_let_be() -> None:
    """The gate was away then, or is a new one: it fails open, as everywhere."""
    with dry() as gate:
        assert settled(gate, ask(Talk(gate, SEEN), 5000, b"x"))
        assert gate.gate.stats().shed == 0


def test_while_the_engine_is_away_nothing_can_become_known_and_nothing_is_withheld_for_it() -> None:
    with dry() as gate:
        talk = opened(gate, kind=0)
        first = ask(talk, 0, b"x")
        assert gate.passed(first)
        assert gate.verdicts[first].mark == 0
        assert gate.passed(ask(talk, 500, b"x"))


def test_the_oldest_of_too_many_is_let_be_and_counted() -> None:
    many = 16
    with dry(max_flows=many) as gate:
        talks = [opened(gate, port=40000 + number) for number in range(many * 2 + 1)]
        assert settled(gate, ask(talks[0], 50, b"x"))
        assert gate.gate.stats().shed == 1
        assert all(gate.dropped(ask(talk, 50, b"x")) for talk in talks[1:])


@pytest.mark.parametrize("flags", [ACK, ACK | PSH])
def test_a_head_that_comes_when_its_body_has_left_already_is_cut(flags: int) -> None:
    """Bytes that neither the engine nor the server took stood in the head's place, and seemed to be in order."""
    cut = POST.index(BODY)
    with dry() as gate:
        talk = opened(gate)
        assert passed_on_watch(gate, ask(talk, 0, b"?" * cut))
        assert passed_on_watch(gate, ask(talk, cut, BODY))
        talk.kind = marks.HTTP | SEEN
        head = talk.to_server(0, POST[:cut], flags)
        _, tcp = parsed(gate.verdicts[head].packet)
        assert tcp.flags & RST
        assert tcp.seq == talk.client_isn
        assert bytes(tcp.payload) == bytes(cut), "its words are gone"
        assert gate.gate.stats().cut == 1


def test_a_request_known_by_its_last_piece_is_not_cut() -> None:
    with dry() as gate:
        talk = opened(gate)
        assert passed_on_watch(gate, ask(talk, 0, POST[:10]))
        assert passed_on_watch(gate, ask(talk, 10, POST[10:15]))
        talk.kind = marks.HTTP | SEEN
        assert gate.held(talk.to_server(15, POST[15:]))
        assert gate.gate.stats().cut == 0


def test_what_the_server_said_before_such_a_head_is_not_left_waiting() -> None:
    """Its packet stands in the kernel's queue, and the flow in the gate's table, until somebody decides."""
    cut = POST.index(BODY)
    with dry() as gate:
        talk = opened(gate)
        assert passed_on_watch(gate, ask(talk, 0, b"?" * cut))
        assert passed_on_watch(gate, ask(talk, cut, BODY))
        talk.kind = marks.HTTP | SEEN
        early = talk.to_client(0, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        assert gate.held(early)
        talk.to_server(0, POST[:cut])
        assert gate.dropped(early)
        assert gate.gate.stats().spooled == gate.holding == 0
