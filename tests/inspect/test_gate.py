"""What the gate does with packets: passes, holds, releases, cuts. No kernel queue, real packets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from drygate import (
    ACCEPT,
    ACK,
    CLIENT,
    CLIENT6,
    EAGER,
    FIN,
    PSH,
    RST,
    SERVER,
    SERVER6,
    SYN,
    TAIL,
    DryGate,
    Talk,
    dry,
    kinds,
    packet,
    parsed,
    spooled,
)
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN

from sekisho.appliance.core import marks
from sekisho.inspect.gate import TO_CLIENT, TO_SERVER, Kind, Note

REPLY = b"554 5.7.1 Refused.\r\n"
TO_THE_CLIENT = marks.HTTP | marks.REPLY


def test_a_packet_without_data_passes_at_once() -> None:
    with dry() as gate:
        talk = Talk(gate)
        for ident in (talk.to_client(0), talk.to_server(0), talk.to_client(0, flags=RST)):
            assert gate.passed(ident)


def test_a_packet_that_is_not_marked_as_carrying_files_passes() -> None:
    with dry() as gate:
        assert gate.passed(Talk(gate, kind=0).to_client(0, b"x" * 100))


def test_the_newest_four_kibibytes_wait_until_more_arrives() -> None:
    """More than a check sum: from the end of a packed file that lacks only that, all of it can be had."""
    with dry() as gate:
        talk = Talk(gate)
        ids = talk.whole(b"a" * 5600)
        assert all(map(gate.held, ids)), "nothing leaves before a first look"
        gate.answer(gate.take()[0])
        ids += [talk.to_client(at, b"a" * 1400) for at in (5600, 7000, 8400, 9800)]
        for at in range(11_200, 30_000, 1400):
            ids.append(talk.to_client(at, b"a" * 1400))
            assert TAIL <= 1400 * gate.holding < TAIL + 1400
        assert gate.order == ids[:-3], "in their order"


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"HEAD /a HTTP/1.1", b"OPTIONS * HTTP/1.1"])
def test_a_request_without_a_body_is_not_held(line: bytes) -> None:
    with dry() as gate:
        talk = Talk(gate)
        request = line + b"\r\nHost: a\r\n\r\n"
        assert gate.passed(talk.to_server(0, request, ACK | PSH))
        assert gate.passed(talk.to_server(len(request), request, ACK | PSH)), "nor the next one"
        assert gate.take() == []
        assert gate.gate.stats().spooled == 0


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nfile",
        b"PUT /a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 4\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"CONNECT a:443 HTTP/1.1\r\n\r\n",
    ],
)
def test_a_request_that_may_carry_a_file_is_looked_at_at_once(request_: bytes) -> None:
    with dry() as gate:
        talk = Talk(gate)
        held = talk.to_server(0, request_, ACK | PSH)
        assert gate.held(held)
        (note,) = gate.take()
        assert (note.kind, note.dir, note.length) == (Kind.PAUSE, TO_SERVER, len(request_))
        gate.answer(note, note.length)
        assert gate.passed(held)


def test_a_look_holds_all_that_comes_and_its_verdict_releases_what_it_covered_in_order() -> None:
    with dry() as gate:
        talk = Talk(gate)
        first = [talk.to_client(0, b"a" * 100), talk.to_client(100, b"a" * 100)]
        note = gate.pause()
        more = talk.whole(b"b" * 14_000, offset=200)
        gate.order.clear()
        assert gate.holding == 12
        gate.answer(note)
        assert gate.order == first
        assert all(map(gate.held, more))
        assert talk.found() == (note.flow, note.dir)


def test_a_look_at_one_direction_does_not_hold_the_other() -> None:
    with dry() as gate:
        talk = Talk(gate, kind=marks.MAIL, server_port=25)
        talk.to_server(0, b"DATA\r\n")
        gate.pause()
        assert gate.passed(talk.to_client(0, b"354 go on\r\n", ACK | PSH))


def test_a_copy_of_a_held_packet_never_leaves() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(0, b"a" * 100)
        held = talk.to_client(100, b"b" * 100)
        for start, data in ((100, b"b" * 100), (150, b"b" * 50), (50, b"a" * 50 + b"b" * 50)):
            assert gate.dropped(talk.to_client(start, data))
        assert gate.held(held)


def test_a_copy_with_a_fin_does_not_push_the_held_packet_out() -> None:
    with dry() as gate:
        talk = Talk(gate)
        held = talk.to_client(0, b"a" * 100)
        copy = talk.to_client(0, b"a" * 100, ACK | FIN)
        assert gate.held(held)
        assert gate.held(copy)
        assert kinds(gate.take()) == [Kind.COMPLETE]


def test_a_copy_of_what_was_released_passes() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(0, b"a" * 100)
        gate.answer(gate.pause())
        talk.to_client(100, b"b" * 100)
        assert gate.passed(talk.to_client(0, b"a" * 100))


def test_data_out_of_order_is_put_together() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(0, b"a" * 100)
        flow, way = talk.found()
        talk.to_client(300, b"d" * 100)
        talk.to_client(200, b"c" * 100)
        assert gate.gate.spool(flow, way)[1] == 100
        talk.to_client(100, b"b" * 100)
        assert spooled(gate, flow) == b"a" * 100 + b"b" * 100 + b"c" * 100 + b"d" * 100


def test_what_lies_behind_a_gap_goes_on_after_a_clean_look_and_the_filler_is_held() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(0, b"a" * 100)
        beyond = talk.to_client(200, b"c" * 100)
        (note,) = gate.tick(4000)
        assert (note.kind, note.length) == (Kind.PAUSE, 100)
        gate.gate.release(note.flow, note.dir, note.length, 0)
        gate.collect()
        assert gate.passed(beyond)
        filler = talk.to_client(100, b"b" * 100)
        assert gate.held(filler)
        assert spooled(gate, note.flow) == b"a" * 100 + b"b" * 100 + b"c" * 100


def test_a_gap_in_the_next_object_survives_the_end_of_this_one() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(0, b"a" * 100)
        talk.to_client(200, b"c" * 100)
        (note,) = gate.tick(4000)
        gate.gate.release(note.flow, note.dir, 100, 100)
        talk.to_client(100, b"b" * 100)
        assert spooled(gate, note.flow) == b"b" * 100 + b"c" * 100


def test_a_first_packet_that_comes_last_is_held_and_looked_at() -> None:
    """An early second packet must not make the first one look like a copy of something delivered."""
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(100, b"b" * 100)
        (note,) = gate.tick(4000)
        gate.gate.release(note.flow, note.dir, note.length, 0)
        first = talk.to_client(0, b"a" * 100)
        assert gate.held(first)
        assert spooled(gate, note.flow) == b"a" * 100 + b"b" * 100


def test_the_request_tells_where_the_answer_begins() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_server(0, b"GET / HTTP/1.1\r\n\r\n", ack=0)
        talk.to_client(100, b"b" * 100)
        assert gate.held(talk.to_client(0, b"a" * 100))
        assert spooled(gate, talk.found()[0]) == b"a" * 100 + b"b" * 100


def test_a_stream_met_in_its_middle_says_so_until_the_client_asks_again() -> None:
    request = b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n"
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(0, b"the rest of something")
        note = gate.pause()
        assert note.joined
        gate.answer(note)
        talk.to_server(0, request, ack=21)
        talk.to_client(21, b"HTTP/1.1 200 OK\r\n\r\nall of it", ack=len(request))
        again = gate.pause()
        assert not again.joined
        assert spooled(gate, again.flow) == b"HTTP/1.1 200 OK\r\n\r\nall of it"
    with dry() as gate:
        talk = Talk(gate)
        talk.to_server(0, request)
        talk.to_client(0, b"HTTP/1.1 200 OK\r\n\r\nall of it", ack=len(request))
        assert not gate.pause().joined, "seen from its beginning"


def test_a_request_does_not_free_what_is_held_of_a_stream_met_in_its_middle() -> None:
    with dry() as gate:
        talk = Talk(gate)
        held = talk.to_client(0, b"the rest of something")
        talk.to_server(0, b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n")
        assert gate.held(held)
        note = gate.pause()
        assert (note.joined, note.length) == (True, 21)


def test_a_download_that_breaks_off_is_looked_at_and_kept() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_server(0, b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n")
        talk.to_client(0, b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\nhalf of it")
        talk.to_server(27, flags=RST)
        (note,) = gate.take()
        assert (note.kind, note.dir, note.ended) == (Kind.COMPLETE, TO_CLIENT, True)


def test_an_old_acknowledgement_does_not_put_a_gap_before_the_next_object() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(0, b"a" * 200)
        gate.answer(gate.pause(), 200)
        talk.to_server(0, ack=10)
        talk.to_client(200, b"b" * 100)
        assert spooled(gate, talk.found()[0]) == b"b" * 100


def test_a_verdict_about_a_spool_that_began_later_releases_nothing() -> None:
    with dry() as gate:
        talk = Talk(gate)
        second = talk.to_client(100, b"b" * 100)
        (note,) = gate.tick(4000)
        first = talk.to_client(0, b"a" * 100)
        gate.gate.release(note.flow, note.dir, note.length, 0)
        gate.collect()
        assert gate.held(second)
        assert gate.held(first)
        again = gate.tick(4000)
        assert kinds(again) == [Kind.PAUSE]


def test_what_passed_while_the_gate_was_bypassed_does_not_blind_it_for_the_rest() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(0, b"a" * 100)
        talk.to_server(0, ack=5000)
        held = talk.to_client(5000, b"c" * 10)
        assert gate.held(held)
        assert spooled(gate, talk.found()[0]) == b"c" * 10


def test_beyond_more_gaps_than_can_be_told_nothing_is_taken_until_it_is_sent_again() -> None:
    with dry() as gate:
        talk = Talk(gate)
        ids = [talk.to_client(200 * i, b"x" * 100) for i in range(40)]
        assert gate.gate.stats().shed == 0
        assert gate.held(ids[32])
        assert all(map(gate.dropped, ids[33:]))
        talk.to_client(100, b"x" * 100)
        assert gate.held(talk.to_client(200 * 33, b"x" * 100)), "one gap less: one more is taken"


def test_a_pause_is_noted_after_its_time_and_not_before() -> None:
    with dry(pause_us=3000) as gate:
        talk = Talk(gate)
        talk.to_client(0, b"a" * 100)
        assert gate.tick(2999) == []
        (note,) = gate.tick(1)
        assert (note.kind, note.dir, note.length) == (Kind.PAUSE, TO_CLIENT, 100)
        assert gate.tick(50_000) == []


def test_what_comes_while_the_stream_is_looked_at_is_held() -> None:
    with dry() as gate:
        talk = Talk(gate)
        first = talk.to_client(0, b"a" * 100)
        (note,) = gate.tick(4000)
        second = talk.to_client(100, b"b" * 100)
        assert gate.held(first)
        gate.gate.release(note.flow, note.dir, note.length, 0)
        gate.collect()
        assert gate.passed(first)
        assert gate.held(second)


def test_a_fin_ahead_of_what_it_ends_does_not_end_it() -> None:
    with dry() as gate:
        talk = Talk(gate, kind=marks.FTPDATA)
        talk.to_client(0, b"a" * 100)
        talk.to_client(200, b"c" * 100, ACK | FIN)
        assert gate.take() == []
        talk.to_client(100, b"b" * 100)
        assert [(n.kind, n.length, n.ended) for n in gate.take()] == [(Kind.COMPLETE, 300, True)]


def test_what_comes_behind_a_fin_is_not_the_end_again() -> None:
    with dry() as gate:
        talk = Talk(gate, kind=marks.FTPDATA)
        talk.to_client(0, b"a" * 100, ACK | FIN)
        (note,) = gate.take()
        assert note.ended
        gate.answer(note)
        assert gate.held(talk.to_client(100, b"b" * 100))
        assert not gate.pause().ended


def test_an_end_that_comes_on_its_own_during_a_look_is_said_after_it() -> None:
    with dry() as gate:
        talk = Talk(gate, kind=marks.FTPDATA)
        talk.to_client(0, b"a" * 100)
        note = gate.pause()
        talk.to_client(100, flags=ACK | FIN)
        gate.answer(note)
        (whole,) = gate.take()
        assert (whole.kind, whole.length, whole.ended) == (Kind.COMPLETE, 100, True)
        gate.answer(whole)
        assert gate.tick(10_000) == []


def test_complete_on_fin() -> None:
    with dry() as gate:
        talk = Talk(gate, kind=marks.FTPDATA)
        held = talk.to_client(0, b"a" * 100, ACK | FIN)
        (note,) = gate.take()
        assert (note.kind, note.length) == (Kind.COMPLETE, 100)
        gate.gate.release(note.flow, note.dir, note.length, note.length)
        gate.collect()
        assert gate.passed(held)


def test_complete_at_the_expected_end() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(0, b"a" * 100)
        flow, way = talk.found()
        gate.gate.expect(flow, way, 250)
        talk.to_client(100, b"b" * 100)
        assert gate.take() == []
        talk.to_client(200, b"c" * 50)
        assert kinds(gate.take()) == [Kind.COMPLETE]


@pytest.mark.parametrize(("end", "looks"), [(0, 2), (40_000, 1)])
def test_what_ends_where_it_says_is_not_looked_at_for_every_push(end: int, looks: int) -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(0, b"H" * 1400, ACK | PSH)
        (first,) = gate.take()
        if end:
            gate.gate.expect(first.flow, first.dir, end)
        gate.answer(first)
        for at in range(1400, 39_200, 1400):
            talk.to_client(at, b"x" * 1400, ACK | PSH)
        assert 1 + len(gate.take()) == looks


def test_a_long_object_is_looked_at_on_its_way_although_its_end_is_known() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(0, b"H" * 1400, ACK | PSH)
        (first,) = gate.take()
        gate.gate.expect(first.flow, first.dir, 1 << 20)
        gate.answer(first)
        for at in range(1400, 300_000, 1400):
            talk.to_client(at, b"x" * 1400)
        (note,) = gate.take()
        assert note.kind is Kind.FRAME
        assert 65_536 <= note.length < 65_536 + 1400, "and not again before two megabytes"


def test_past_the_depth_the_packets_say_that_the_engine_need_not_see_them() -> None:
    with dry(depth=6000) as gate:
        talk = Talk(gate)
        ids = talk.whole(b"a" * 5600)
        gate.answer(gate.take()[0])
        ids += [talk.to_client(at, b"a" * 1400) for at in range(5600, 16_800, 1400)]
        assert gate.verdicts[ids[0]].mark & marks.DEEP == 0
        assert gate.verdicts[ids[6]].mark & (marks.DEEP | marks.HTTP) == marks.DEEP | marks.HTTP
    with dry(depth=6000) as gate:
        talk = Talk(gate)
        ids = [talk.to_server(at, b"a" * 1400) for at in range(0, 5600, 1400)]
        gate.answer(gate.take()[0])
        ids += [talk.to_server(at, b"a" * 1400) for at in range(5600, 16_800, 1400)]
        assert gate.passed(ids[6])
        assert gate.verdicts[ids[6]].mark & marks.DEEP == 0, "an upload passes the engine whole"


def test_complete_on_a_final_chunk() -> None:
    for kind, wanted in ((marks.HTTP, [Kind.COMPLETE]), (marks.FTPDATA, [])):
        with dry() as gate:
            Talk(gate, kind=kind).to_client(0, b"5\r\nhello\r\n0\r\n\r\n")
            assert kinds(gate.take()) == wanted


@pytest.mark.parametrize("kind,way", [(marks.MAIL, TO_SERVER), (marks.POP3, TO_CLIENT)])
def test_complete_on_a_final_dot(kind: int, way: int) -> None:
    with dry() as gate:
        talk = Talk(gate, kind=kind)
        send: Callable[[int, bytes], int] = talk.to_server if way == TO_SERVER else talk.to_client
        send(0, b"a line\r\n.")
        assert gate.take() == []
        assert gate.held(send(9, b"\r\n"))
        assert [(n.kind, n.dir, n.length) for n in gate.take()] == [(Kind.COMPLETE, way, 11)]


def test_what_looks_like_an_end_in_every_packet_buys_a_look_at_a_long_object_only_now_and_then() -> None:
    with dry(spool_limit=8 << 20) as gate:
        talk, looks = Talk(gate), 0
        for at in range(0, 1 << 20, 1024):
            talk.to_client(at, b"x" * 1019 + b"0\r\n\r\n")
            for note in gate.take():
                if note.kind is Kind.COMPLETE:
                    looks += note.length > EAGER
                    gate.answer(note)
        assert 5 < looks < 40


def test_what_follows_a_final_chunk_does_not_push_it_out() -> None:
    for first in (b"5\r\nhello\r\n0\r\n\r\njunk", b"5\r\nhello\r"):
        with dry() as gate:
            talk = Talk(gate)
            talk.to_client(0, b"4\r\nmore\r\n" * 10)
            held = talk.to_client(90, first)
            if b"junk" not in first:
                held = talk.to_client(90 + len(first), b"\n0\r\n\r\njunk")
            assert kinds(gate.take()) == [Kind.COMPLETE]
            talk.whole(b"more junk" * 1000, offset=110)
            assert gate.held(held)


def test_a_cut_turns_the_held_packet_into_a_reset_and_the_next_into_a_question() -> None:
    for client, server in ((CLIENT, SERVER), (CLIENT6, SERVER6)):
        with dry() as gate:
            talk = Talk(gate, client=client, server=server)
            talk.to_client(0, b"a" * 100)
            gate.answer(gate.pause())
            held = talk.to_client(100, b"b" * 333)
            flow, way = talk.found()
            queued = talk.to_client(433, b"c" * 77)
            assert gate.gate.cut(flow, way) == 410
            gate.collect()
            ip, tcp = parsed(gate.verdicts[held].packet)
            assert (ip.src, ip.dst, tcp.sport, tcp.dport) == (server, client, 80, 40000)
            assert (int(tcp.flags), tcp.seq) == (RST, 5100)
            assert bytes(tcp.payload) == bytes(333)
            _, tcp = parsed(gate.verdicts[queued].packet)
            assert (int(tcp.flags), tcp.seq, bytes(tcp.payload)) == (ACK, 5433 - 77, bytes(77))
            later = talk.to_client(510, b"d" * 50)
            assert gate.verdicts[later].verdict == ACCEPT
            assert b"d" not in bytes(parsed(gate.verdicts[later].packet)[1].payload)
            assert gate.holding == 0
            assert gate.take() == []


def test_a_cut_leaves_nothing_of_the_other_direction_waiting() -> None:
    with dry() as gate:
        talk = Talk(gate)
        answer = talk.to_client(0, b"HTTP/1.1 200 OK\r\n")
        flow, way = talk.found(TO_SERVER)
        assert way == TO_SERVER
        talk.to_server(0, b"upload")
        assert gate.gate.cut(flow, way) == 6
        gate.collect()
        assert gate.dropped(answer)
        assert gate.holding == 0


def test_a_cut_with_nothing_held_says_when_it_withheld() -> None:
    with dry() as gate:
        talk = Talk(gate)
        flow, way = talk.found()
        assert gate.gate.cut(flow, way) == 0
        assert gate.take() == []
        last = talk.to_client(0, b"a" * 10)
        assert kinds(gate.take()) == [Kind.WITHHELD]
        assert int(parsed(gate.verdicts[last].packet)[1].flags) == RST
        talk.to_client(10, b"a" * 10)
        assert gate.take() == []


def test_a_copy_of_what_the_receiver_has_is_not_called_withheld() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(0, b"a" * 10)
        note = gate.pause()
        gate.answer(note)
        assert gate.gate.cut(note.flow, note.dir) == 0
        talk.to_client(0, b"a" * 10)
        assert gate.take() == []


def mail_at_its_end(gate: DryGate) -> tuple[Talk, int, int, int]:
    talk = Talk(gate, kind=marks.MAIL, server_port=25)
    talk.to_server(0, b"DATA\r\n")
    flow, way = talk.found(TO_SERVER)
    gate.answer(gate.pause(), 6)
    held = talk.to_server(6, b"body ", ack=40)
    return talk, flow, way, held


def test_a_refused_mail_is_swallowed_to_its_end_and_answered_in_the_servers_name() -> None:
    with dry() as gate:
        talk, flow, way, held = mail_at_its_end(gate)
        assert gate.gate.cut(flow, way, REPLY) == 5
        gate.collect()
        assert gate.held(held), "it is kept to ask the server with"
        rest = talk.to_server(11, b"more\r\n", ack=40)
        assert int(parsed(gate.verdicts[held].packet)[1].flags) == ACK
        assert bytes(parsed(gate.verdicts[held].packet)[1].payload) == bytes(5)
        asked = talk.to_client(40, ack=6)
        _, tcp = parsed(gate.verdicts[asked].packet)
        assert (tcp.ack, bytes(tcp.payload)) == (1000 + 17, b""), "the client's data is acknowledged for the server"
        end = talk.to_server(17, b".\r\n", ack=40)
        assert gate.passed(rest)
        assert gate.passed(end)
        answer = talk.to_client(40, ack=6)
        _, tcp = parsed(gate.verdicts[answer].packet)
        assert (tcp.seq, tcp.ack, bytes(tcp.payload)) == (5040, 1020, REPLY)
        assert int(tcp.flags) == FIN | PSH | ACK
        sent = b"".join(bytes(parsed(v.packet)[1].payload) for v in gate.verdicts.values() if v.packet)
        assert b"more" not in sent
        assert b"body" not in sent
        assert gate.holding == 0


def test_a_mail_whose_client_falls_silent_is_answered_after_a_second() -> None:
    with dry() as gate:
        talk, flow, way, held = mail_at_its_end(gate)
        gate.gate.cut(flow, way, REPLY)
        gate.tick(1_500_000)
        assert gate.passed(held)
        answer = talk.to_client(40, ack=6)
        assert bytes(parsed(gate.verdicts[answer].packet)[1].payload) == REPLY


def test_a_refused_mail_of_which_only_the_end_waited_is_forgotten_like_any_other() -> None:
    """Each one that stays takes a place in the table and memory from the flows that come."""
    with dry() as gate:
        talk, flow, way, _ = mail_at_its_end(gate)
        gate.answer(gate.pause())
        assert gate.held(talk.to_server(11, b"", ACK | FIN))
        assert gate.gate.cut(flow, way, REPLY) == 1
        gate.collect()
        assert gate.gate.stats().spooled == gate.holding == 0
        gate.tick(200_000_000)
        assert gate.gate.stats().flows == 0


def test_too_big_is_said_once_and_passed_after_that() -> None:
    with dry(spool_limit=10_000) as gate:
        talk = Talk(gate)
        for at in range(0, 6000, 1000):
            talk.to_client(at, b"x" * 1000)
        gate.answer(gate.take()[0])
        for at in range(6000, 12_000, 1000):
            talk.to_client(at, b"x" * 1000)
        (note,) = gate.take()
        assert note.kind is Kind.TOO_BIG
        gate.gate.pass_(note.flow, note.dir)
        gate.collect()
        assert gate.holding == 0
        assert gate.passed(talk.to_client(12_000, b"x" * 1000))
        assert gate.gate.stats().spooled == 0


@pytest.mark.parametrize(("sealed", "mark"), [(False, marks.LARGE), (True, marks.BYPASS)])
def test_what_goes_unlooked_at_is_marked_and_what_follows_it_is_not(*, sealed: bool, mark: int) -> None:
    def why(ident: int) -> int:
        return gate.verdicts[ident].mark & (marks.LARGE | marks.SCARCE | marks.BYPASS)

    with dry(spool_limit=10_000) as gate:
        talk = Talk(gate)
        looked = talk.to_client(0, b"x" * 5000)
        gate.answer(gate.pause())
        flow, way = talk.found()
        gate.gate.expect(flow, way, 13_000)
        held = [talk.to_client(at, b"x" * 1000) for at in range(5000, 12_000, 1000)]
        gate.take()
        gate.gate.pass_(flow, way, sealed=sealed)
        gate.collect()
        passed = talk.to_client(12_000, b"x" * 1000)
        assert [why(looked), why(held[-1]), why(passed)] == [0, mark, mark]
        assert gate.verdicts[passed].mark & (marks.HTTP | marks.REPLY) == marks.HTTP | marks.REPLY, (
            "as it came, and more"
        )
        following = talk.to_client(13_000, b"y" * 1000)
        gate.answer(gate.pause())
        assert why(following) == 0


def test_what_memory_does_not_suffice_for_is_marked() -> None:
    with dry(max_held=4, max_flows=1) as gate:
        ids = [Talk(gate).to_client(at, b"a") for at in range(10)]
        assert gate.verdicts[ids[4]].mark & marks.SCARCE
        other = Talk(gate, client_port=40001).to_client(0, b"a")
        assert gate.verdicts[other].mark & marks.SCARCE, "no room for another connection"
    with dry(spool_total=0) as gate:
        spoolless = Talk(gate).to_client(0, b"a")
        gate.tick(300_000)
        assert gate.verdicts[spoolless].mark & marks.SCARCE


def test_after_too_big_the_next_object_is_looked_at_again() -> None:
    with dry(spool_limit=10_000) as gate:
        talk = Talk(gate)
        talk.to_client(0, b"x" * 1000)
        flow, way = talk.found()
        gate.gate.expect(flow, way, 13_000)
        for at in range(1000, 12_000, 1000):
            talk.to_client(at, b"x" * 1000)
        gate.take()
        gate.gate.pass_(flow, way)
        assert gate.passed(talk.to_client(12_000, b"x" * 1000))
        assert gate.held(talk.to_client(13_000, b"y" * 1000))
        assert spooled(gate, flow) == b"y" * 1000


def test_gaps_of_a_passed_object_do_not_count_for_the_next() -> None:
    with dry(spool_limit=1000) as gate:
        talk = Talk(gate)
        talk.to_client(0, b"x" * 100)
        talk.to_client(300, b"x" * 100)
        flow, way = talk.found()
        gate.gate.expect(flow, way, 500)
        gate.gate.pass_(flow, way)
        talk.to_client(500, b"y" * 350)
        assert gate.gate.spool(flow, way)[1] == 350


def test_a_full_pool_sheds_and_nothing_is_stuck() -> None:
    with dry(max_held=4) as gate:
        talk = Talk(gate)
        talk.to_client(0, b"a")
        note = gate.pause()
        ids = [talk.to_client(1 + i, b"a") for i in range(10)]
        assert gate.gate.stats().shed >= 1
        gate.answer(note)
        assert all(gate.passed(i) for i in ids[:4])
        for _ in range(9):
            for note in gate.tick(20_000):
                gate.answer(note)
        assert all(gate.passed(i) for i in ids)
        assert gate.holding == 0


def test_no_memory_for_the_spool_sheds_and_says_so() -> None:
    with dry(spool_total=65536) as gate:
        one, two = Talk(gate), Talk(gate, client_port=40001)
        one.to_client(0, b"a" * 100)
        held = two.to_client(0, b"a" * 100)
        assert gate.gate.spool(*two.found()) == (-1, 0)
        notes = gate.tick(250_000)
        assert sorted(kinds(notes)) == [Kind.PAUSE, Kind.SHED]
        assert gate.passed(held)


def test_what_came_behind_a_gap_without_memory_is_asked_for_again_once_there_is_some() -> None:
    """No look covers bytes that are not spooled: they would wait for ever, or go with others told in their place."""
    with dry(spool_total=65536) as gate:
        one, two = Talk(gate), Talk(gate, client_port=40001)
        one.to_client(0, b"a" * 100)
        two.to_client(0, b"a" * 100)
        behind = two.to_client(200, b"b" * 100)
        assert gate.held(behind)
        two.to_server(0, ack=200)  # the gate was bypassed while the gap was filled
        assert gate.dropped(behind)
        gate.gate.pass_(*one.found())
        again = two.to_client(200, b"c" * 100)
        assert spooled(gate, two.found()[0]) == b"c" * 100
        gate.answer(gate.pause())
        assert gate.passed(again)
        assert gate.holding == 0


def test_what_lies_too_far_ahead_to_be_spooled_is_not_let_through_unseen() -> None:
    """It would wait at the receiver until the gap is filled, and a harmless copy of it would be what is looked at."""
    with dry(spool_limit=1000) as gate:
        talk = Talk(gate)
        talk.to_server(0, b"GET / HTTP/1.1\r\n\r\n")
        talk.to_client(0, b"a" * 100)
        for far in (5 << 20, 60 << 20):
            assert gate.dropped(talk.to_client(far, b"b" * 100))
        assert gate.held(talk.to_client(100, b"a" * 100))
        assert gate.held(talk.to_client(4 << 20, b"b" * 100)), "this far the spool reaches"


def test_a_packet_from_the_far_side_of_the_sequence_space_hides_no_end() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(0, b"5\r\nhello")
        note = gate.pause()
        talk.to_client(8, b"\r\n0\r\n\r\nmore")
        talk.to_client(-(1 << 31), b"x")
        gate.answer(note)
        assert kinds(gate.take()) == [Kind.COMPLETE]


def test_what_comes_from_further_than_any_window_is_not_refused_for_ever() -> None:
    """It is another connection between the same ports, of which nothing was seen: nobody would fill the gap."""
    with dry(spool_limit=1000) as gate:
        talk = Talk(gate)
        talk.to_server(0, b"GET / HTTP/1.1\r\n\r\n")
        talk.to_client(0, b"a" * 100)
        gate.answer(gate.pause())
        far = talk.to_client(1 << 30, b"b" * 100)
        gate.answer(gate.pause())
        assert gate.passed(far)


def test_a_full_flow_table_lets_new_flows_pass() -> None:
    with dry(max_flows=2) as gate:
        first = [Talk(gate, client_port=p).to_client(0, b"a") for p in (1, 2)]
        assert all(map(gate.held, first))
        assert gate.passed(Talk(gate, client_port=3).to_client(0, b"a"))
        assert Talk(gate, client_port=3).found()[0] == 0


def test_the_same_ports_again_are_a_new_connection() -> None:
    with dry() as gate:
        old = Talk(gate)
        old.to_client(0, b"a" * 10, ACK | FIN)
        (note,) = gate.take()
        gate.gate.release(note.flow, note.dir, note.length, note.length)
        new = Talk(gate, server_isn=5000 + (1 << 30), client_isn=77)
        held = new.to_client(0, b"b" * 10)
        assert kinds(gate.take()) == [Kind.GONE]
        assert gate.held(held)
        flow, _ = new.found()
        assert flow != note.flow
        assert spooled(gate, flow) == b"b" * 10
        assert gate.gate.ends(note.flow) is None


def ended(gate: DryGate) -> Note:
    """A connection that carried one file and was closed by both sides; the client has all of it."""
    old = Talk(gate, kind=marks.FTPDATA)
    old.to_client(0, b"a" * 100, ACK | FIN)
    (note,) = gate.take()
    gate.answer(note, finished=100)
    old.to_server(0, flags=ACK | FIN, ack=101)
    return note


def begin(talk: Talk) -> None:
    """Both ends agree on a connection."""
    talk.to_server(-1, flags=SYN)
    talk.to_client(-1, flags=SYN | ACK, ack=0)


ASKS = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
BEHIND = 5000 + 101 + 65_537
"""Where a Linux that takes ports again begins: 64 KiB behind the former connection's end."""


def test_the_same_ports_a_second_later_are_a_new_connection_though_its_numbers_are_near() -> None:
    with dry() as gate:
        note = ended(gate)
        new = Talk(gate, kind=marks.FTPDATA, server_isn=BEHIND, client_isn=15_000_000)
        begin(new)
        held = new.to_client(0, b"b" * 100)
        assert kinds(gate.take()) == [Kind.GONE]
        assert gate.held(held) and gate.gate.ends(note.flow) is None
        assert spooled(gate, new.found()[0]) == b"b" * 100


def test_the_same_ports_right_after_a_cut_are_a_new_connection() -> None:
    with dry() as gate:
        old = Talk(gate, kind=marks.FTPDATA)
        for at in range(0, 3000, 1000):
            old.to_client(at, b"a" * 1000)
        (note,) = gate.tick(4000)
        gate.gate.cut(note.flow, note.dir)
        old.to_server(0, flags=RST)
        old.to_client(3000, b"a" * 1000)
        assert gate.gate.ends(note.flow) is not None, "what was under way is of the old one"
        new = Talk(gate, kind=marks.FTPDATA, server_isn=2_000_000, client_isn=1_000_000)
        begin(new)
        held = new.to_client(0, b"b" * 100)
        assert gate.held(held) and gate.gate.ends(note.flow) is None


@pytest.mark.parametrize("fin", ["server", "client"])
def test_the_same_ports_are_a_new_connection_when_both_ends_agree_on_it(fin: str) -> None:
    """Also when the gate has seen nothing of how the former one ended but one FIN."""
    with dry() as gate:
        old = Talk(gate)
        old.to_client(0, b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 100)
        gate.answer(note := gate.pause())
        old.to_client(121, flags=ACK | FIN) if fin == "server" else old.to_server(0, flags=ACK | FIN)
        new = Talk(gate, server_isn=70_000, client_isn=80_000)
        assert gate.passed(new.to_server(-1, flags=SYN))
        assert gate.gate.ends(note.flow) is not None, "one end alone begins nothing"
        assert gate.passed(new.to_client(-1, flags=SYN | ACK, ack=0))
        assert gate.gate.ends(note.flow) is None
        assert gate.passed(new.to_server(0, ASKS))


@pytest.mark.parametrize("trick", ["a reset of the sender's own", "an end nobody took", "nothing"])
def test_a_sender_cannot_begin_anew_by_itself(trick: str) -> None:
    """What it sends behind an end that its receiver never confirmed is of the same file."""
    with dry() as gate:
        talk = Talk(gate, kind=marks.FTPDATA)
        talk.to_client(0, b"a" * 100)
        gate.answer(note := gate.pause())
        if trick != "nothing":
            talk.to_client(100, flags=(ACK | FIN) if "end" in trick else RST)
        gate.take()
        odd = Talk(gate, kind=marks.FTPDATA, client_isn=15_000_000)
        odd.to_client(100, b"b" * 100)
        assert spooled(gate, note.flow) == b"a" * 100 + b"b" * 100


@pytest.mark.parametrize("way", [TO_SERVER, TO_CLIENT])
@pytest.mark.parametrize("kind", [marks.HTTP, marks.MAIL, marks.FTPDATA])
def test_the_engines_word_comes_before_the_first_packet(kind: int, way: int) -> None:
    with dry() as gate:
        talk = Talk(gate, kind=kind, server_port=80)
        flow, direction = talk.found(way)
        assert flow
        send: Callable[[int, bytes], int] = talk.to_server if way == TO_SERVER else talk.to_client
        send(0, b"the whole file")
        assert talk.found(way) == (flow, direction)
        assert gate.gate.stats().flows == 1


def test_an_expired_wait_is_said_once() -> None:
    with dry(deadline_ms=100) as gate:
        talk = Talk(gate)
        talk.to_client(0, b"a")
        gate.pause()
        assert gate.tick(95_999) == []
        assert kinds(gate.tick(1)) == [Kind.EXPIRED]
        assert gate.tick(100_000) == []


def test_a_head_alone_and_a_trailer_alone_are_not_held() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"
    with dry() as gate:
        talk = Talk(gate)
        assert gate.passed(talk.to_client(0, head))
        assert gate.held(talk.to_client(len(head), b"x" * 10))
        assert spooled(gate, talk.found()[0]) == head + b"x" * 10, "it is known when the body is judged"
    with dry() as gate:
        assert gate.held(Talk(gate).to_client(0, head + b"x"))
    with dry() as gate:
        assert gate.passed(Talk(gate).to_client(0, b"0\r\n\r\n"))


def test_the_answer_to_head_is_looked_at_although_it_is_a_head_alone() -> None:
    """Without its request it would be the beginning of a body that never comes, and keep all that follows waiting."""
    request, head = b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n"
    with dry() as gate:
        talk = Talk(gate)
        talk.to_server(0, request, ACK | PSH)
        held = talk.to_client(0, head, ACK | PSH, ack=len(request))
        (note,) = gate.take()
        assert (note.kind, note.length) == (Kind.PAUSE, len(head))
        assert gate.gate.asked(note.flow) == request
        gate.answer(note, len(head))
        assert gate.passed(held)


def test_what_was_asked_is_the_newest_requests_beginning() -> None:
    with dry() as gate:
        talk = Talk(gate)
        flow, _ = talk.found()
        assert gate.gate.asked(flow) == b""
        first, long = b"GET /a HTTP/1.1\r\n\r\n", b"GET /b HTTP/1.1\r\nCookie: " + b"c" * 1300 + b"\r\n\r\n"
        talk.to_server(0, first)
        assert gate.gate.asked(flow) == first
        talk.to_server(len(first), long)
        assert gate.gate.asked(flow) == long[:1024]
        assert gate.gate.asked(0) == gate.gate.asked(flow + (1 << 32)) == b""


@pytest.mark.parametrize("at", [300, 1 << 20, -2000])
def test_what_looks_like_a_trailer_elsewhere_moves_nothing(at: int) -> None:
    """A trailer from the past or the future must not make the gate take the next object for something delivered."""
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(0, b"a" * 5000)
        gate.answer(gate.pause(), 5000)
        talk.to_client(5000 + at, b"0\r\n\r\n")
        held = talk.to_client(5000, b"evil" * 25)
        assert gate.held(held)
        assert spooled(gate, talk.found()[0])[:100] == b"evil" * 25


def test_a_reset_by_the_sender_does_not_free_what_it_sent() -> None:
    """A RST that the receiver ignores must neither free the held tail, nor its repetition, nor end the flow."""
    with dry() as gate:
        talk = Talk(gate)
        held = talk.to_client(0, b"a" * 100)
        (note,) = gate.tick(3000)
        assert gate.passed(talk.to_client(9000, flags=RST))
        again = talk.to_client(0, b"a" * 100)
        assert gate.held(held)
        assert gate.dropped(again)
        gate.gate.release(note.flow, note.dir, note.length, 0)
        gate.collect()
        assert gate.passed(held)
        assert Kind.GONE not in kinds(gate.tick(10_000_000))


def test_what_was_spooled_and_never_let_through_is_held_when_it_is_sent_again() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(0, b"a" * 100)
        note = gate.pause()
        part = talk.to_client(0, b"a" * 50)
        assert gate.dropped(part)
        gate.answer(note)
        assert gate.passed(talk.to_client(0, b"a" * 100))


def test_a_byte_told_twice_differently_does_not_pass() -> None:
    with dry() as gate:
        talk = Talk(gate)
        first = talk.to_client(0, b"good" * 25)
        gate.answer(gate.pause())
        last = talk.to_client(100, b"tail")
        assert gate.passed(first)
        assert gate.passed(talk.to_client(0, b"good" * 25))
        assert gate.dropped(talk.to_client(0, b"evil" * 25))
        assert gate.dropped(talk.to_client(96, b"evil" * 10))
        assert gate.held(last)
        assert gate.passed(talk.to_client(99, b"\0"))  # a keepalive


def test_a_byte_behind_a_gap_keeps_its_first_content() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(0, b"a" * 100)
        talk.to_client(200, b"evil" * 25)
        assert gate.dropped(talk.to_client(200, b"good" * 25))
        talk.to_client(100, b"b" * 100)
        flow, way = talk.found()
        assert spooled(gate, flow, way) == b"a" * 100 + b"b" * 100 + b"evil" * 25


def test_data_with_urgent_bytes_does_not_pass() -> None:
    with dry() as gate:
        assert gate.dropped(Talk(gate).to_client(0, b"data", ACK | 0x20))
        assert gate.passed(Talk(gate).to_client(0, b"", ACK | 0x20))


def test_tcp_behind_more_headers_than_are_read_does_not_pass() -> None:
    tcp = TCP(sport=80, dport=4, seq=9, flags="A") / b"data"
    long = IPv6(src=SERVER6, dst=CLIENT6) / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(196))]) / tcp
    many = IPv6(src=SERVER6, dst=CLIENT6)
    for _ in range(9):
        many = many / IPv6ExtHdrDestOpt()
    for raw in (bytes(long), bytes(many / tcp)):
        with dry() as gate:
            assert gate.dropped(gate.feed(raw, TO_THE_CLIENT))
            assert gate.passed(gate.feed(raw, 0))


def test_a_jump_in_a_deep_connection_is_not_a_new_one() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(0, b"a" * 100, ACK | FIN)
        gate.take()
        talk.to_client(1 << 30, b"b" * 10, mark=marks.DEEP)
        assert Kind.GONE not in kinds(gate.take())


def test_a_pause_does_not_make_the_gate_forget_half_a_file() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(0, b"a" * 100)
        (note,) = gate.tick(3000)
        gate.gate.release(note.flow, note.dir, note.length, 0)
        assert gate.tick(200_000_000) == []
        assert spooled(gate, note.flow) == b"a" * 100
        assert kinds(gate.tick(1_800_000_000)) == [Kind.GONE]


def test_a_quiet_connection_keeps_no_memory() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(0, b"a" * 100)
        (note,) = gate.tick(3000)
        gate.gate.release(note.flow, note.dir, note.length, note.length)
        assert gate.gate.stats().spooled > 0
        gate.tick(6_000_000)
        assert gate.gate.stats().spooled == 0
        assert gate.held(talk.to_client(100, b"b" * 100))
        assert spooled(gate, note.flow) == b"b" * 100


def test_closing_releases_what_waits() -> None:
    gate = DryGate()
    Talk(gate).to_client(0, b"a")
    assert gate.holding == 1
    gate.gate.close()


def feed_form(gate: DryGate, raw: bytes) -> int:
    return gate.feed(raw, TO_THE_CLIENT)


def test_tcp_is_found_behind_ip_options_and_extension_headers() -> None:
    tcp = TCP(sport=80, dport=4, seq=9, flags="A", options=[("Timestamp", (1, 2)), ("NOP", None)])
    v4 = IP(src=SERVER, dst=CLIENT, options=[b"\x94\x04\x00\x00"]) / tcp / b"data"
    hops = IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting(addresses=[])
    v6 = IPv6(src=SERVER6, dst=CLIENT6) / hops / tcp / b"data"
    for raw in (bytes(v4), bytes(v6), bytes(v4) + bytes(10)):
        with dry() as gate:
            ident = feed_form(gate, raw)
            assert gate.held(ident)
            src, dst = (SERVER, CLIENT) if raw[0] >> 4 == 4 else (SERVER6, CLIENT6)
            flow, way = gate.gate.find(src, 80, dst, 4, 0)
            assert (bool(flow), way) == (True, TO_CLIENT)
            assert spooled(gate, flow) == b"data"
            assert gate.gate.cut(flow, way) == 4
            gate.collect()
            assert parsed(gate.verdicts[ident].packet)[1].seq == 9


def test_every_truncation_is_let_through_or_held_whole() -> None:
    for src, dst in ((SERVER, CLIENT), (SERVER6, CLIENT6)):
        raw = packet(src, dst, 80, 4, 1, 1, b"data")
        with dry() as gate:
            for length in range(len(raw)):
                assert gate.passed(feed_form(gate, raw[:length]))
            assert gate.held(feed_form(gate, raw))


def test_a_syn_with_the_flows_marks_passes() -> None:
    with dry() as gate:
        assert gate.passed(Talk(gate).to_server(-1, flags=SYN))
