"""A packet with which the engine recognises a file is held with what waits of that file, and cut like any other."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
from drygate import ACCEPT, ACK, FIN, PSH, RST, DryGate, Talk, dry, kinds, parsed
from scapy.layers.inet import TCP

from sekisho.appliance.core import marks
from sekisho.appliance.known import KNOWN_FILE
from sekisho.inspect import pages
from sekisho.inspect.gate import TO_CLIENT, TO_SERVER, Kind, Note

GET = b"GET /x HTTP/1.1\r\nHost: bad.example\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n"
MARK = marks.REFUSE | KNOWN_FILE << marks.WHY_SHIFT


def the_note(gate: DryGate) -> Note:
    """The one that says the engine knows the file."""
    (note,) = [note for note in gate.take() if note.kind is Kind.KNOWN]
    return note


def unmarked(gate: DryGate, ident: int) -> TCP:
    verdict = gate.verdicts[ident]
    assert verdict.verdict == ACCEPT and verdict.mark and not verdict.mark & (marks.REFUSE | marks.WHY)
    return parsed(verdict.packet)[1]


def test_the_number_is_the_same_in_the_engines_rules_and_in_the_gate() -> None:
    header = Path(str(resources.files("sekisho.inspect") / "gate.h")).read_text()
    assert f"GATE_PAGE_KNOWN = {KNOWN_FILE}," in header and KNOWN_FILE in pages.WHY


def test_a_response_that_has_not_begun_becomes_the_page_of_known_files() -> None:
    with dry() as gate:
        for why, page in pages.pages().items():
            gate.gate.set_page(why, page)
        talk = Talk(gate)
        talk.to_server(0, GET)
        ident = talk.to_client(0, HEAD + bytes(500), mark=MARK, ack=len(GET))
        assert gate.held(ident)
        note = the_note(gate)
        assert gate.gate.cut(note.flow, note.dir) == len(HEAD) + 500
        gate.collect()
        page = bytes(unmarked(gate, ident).payload)
        assert re.sub(rb"\d{4}-\d{6}-\d{5}", pages.REFERENCE, page) == pages.page(KNOWN_FILE)


def test_one_that_has_begun_is_reset_and_its_end_never_goes_on() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_server(0, GET)
        head = talk.to_client(0, HEAD, ack=len(GET))
        assert gate.passed(head)
        first = talk.to_client(len(HEAD), bytes(1400), ack=len(GET))
        last = talk.to_client(len(HEAD) + 1400, bytes(1600), PSH | ACK, mark=MARK, ack=len(GET))
        assert gate.held(first) and gate.held(last)
        note = the_note(gate)
        assert gate.gate.cut(note.flow, note.dir) == 3000
        gate.collect()
        assert int(unmarked_flags(gate, first)) & RST
        assert gate.holding == 0


def unmarked_flags(gate: DryGate, ident: int) -> int:
    return int(parsed(gate.verdicts[ident].packet)[1].flags)


def test_an_acknowledgement_in_between_does_not_take_the_cut_from_the_daemon() -> None:
    """The kernel keeps the mark on the connection: every later packet bears it."""
    with dry() as gate:
        talk = Talk(gate)
        talk.to_server(0, GET)
        ident = talk.to_client(0, HEAD + bytes(500), mark=MARK, ack=len(GET))
        talk.kind |= MARK
        between = talk.to_server(len(GET), ack=len(HEAD))
        assert gate.passed(between) and gate.held(ident)
        assert not gate.verdicts[between].mark & marks.REFUSE, "the last line would answer it"
        end = talk.to_client(len(HEAD) + 500, flags=FIN | ACK, ack=len(GET))
        assert gate.held(end)
        assert set(kinds(gate.take())) == {Kind.KNOWN}
        flow, direction = talk.found()
        assert gate.gate.cut(flow, direction) > 0


def test_an_acknowledgement_with_which_the_engine_knows_it_is_about_what_waits_the_other_way() -> None:
    """After a change of protocol the engine reads the response with whatever comes next."""
    with dry() as gate:
        talk = Talk(gate)
        talk.to_server(0, GET)
        data = HEAD + bytes(500)
        waits = talk.to_client(0, data, ack=len(GET))
        talk.kind |= MARK
        next_one = talk.to_server(len(GET))
        assert gate.passed(next_one) and not gate.verdicts[next_one].mark & marks.REFUSE
        note = the_note(gate)
        assert gate.held(waits) and note.dir == TO_CLIENT
        assert gate.gate.cut(note.flow, note.dir) == len(data), "it is withheld, and can be told so"


def test_while_the_daemon_is_busy_nothing_of_it_goes_on() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_server(0, GET)
        held = [talk.to_client(0, HEAD + bytes(500), mark=MARK, ack=len(GET))]
        held += [talk.to_client(len(HEAD) + 500 + at, bytes(1400), ack=len(GET)) for at in range(0, 14_000, 1400)]
        assert all(map(gate.held, held))


def test_a_mail_is_answered_and_an_upload_swallowed_or_reset() -> None:
    with dry() as gate:
        mail = Talk(gate, kind=marks.MAIL, server_port=25)
        mail.to_server(0, b"DATA\r\n")
        mail.to_client(0, b"354 go\r\n", ack=6)
        gate.take()
        mail.kind |= MARK
        last = mail.to_server(6, b"Subject: a\r\n\r\nbad\r\n.\r\n", PSH | ACK, ack=8)
        assert gate.held(last)
        note = the_note(gate)
        assert (note.dir, gate.gate.cut(note.flow, note.dir, b"554 no\r\n") > 0) == (TO_SERVER, True)
        gate.collect()
        answer = mail.to_client(8, ack=6)
        assert bytes(unmarked(gate, answer).payload) == b"554 no\r\n"


def test_against_the_way_that_files_travel_nothing_is_held_for_the_daemon() -> None:
    with dry() as gate:
        mail = Talk(gate, kind=marks.MAIL, server_port=25)
        ident = mail.to_client(0, b"250 ok\r\n", mark=MARK)
        assert not gate.held(ident) and Kind.KNOWN not in kinds(gate.take())


@pytest.mark.parametrize("kind", [0, marks.BYPASS])
def test_what_is_no_file_at_the_gate_is_refused_like_anything_else(kind: int) -> None:
    with dry() as gate:
        talk = Talk(gate, kind=kind)
        ident = talk.to_client(0, b"x" * 100, mark=MARK)
        assert not gate.held(ident) and Kind.KNOWN not in kinds(gate.take())


def test_a_repetition_does_not_deliver_what_is_held() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_server(0, GET)
        data = HEAD + bytes(500)
        ident = talk.to_client(0, data, mark=MARK, ack=len(GET))
        again = talk.to_client(0, data, mark=MARK, ack=len(GET))
        assert gate.held(ident) and gate.dropped(again)
        assert talk.found()[1] == TO_CLIENT
