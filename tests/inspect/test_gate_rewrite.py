"""What the gate changes on its way: same length, right check sums, in every copy, or not at all."""

from __future__ import annotations

import pytest
from drygate import ACK, CLIENT, CLIENT6, FIN, PSH, SERVER, SERVER6, DryGate, Talk, dry, kinds, parsed, spooled
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt

from sekisho.appliance.core import marks
from sekisho.inspect.gate import TO_CLIENT, Kind

MAIL = b"+OK\r\n" + b"Subject: x\r\n\r\n" + b"mail " * 100
CHANGED = MAIL[:250] + b"X" * 60 + MAIL[310:]


def box(gate: DryGate) -> Talk:
    return Talk(gate, kind=marks.POP3, server_port=110)


def content(gate: DryGate, ident: int, sent: bytes) -> bytes:
    """The payload that left for a packet that came in with `sent`."""
    assert gate.passed(ident)
    changed = gate.verdicts[ident].packet
    return bytes(parsed(changed)[1].payload) if changed else sent


@pytest.mark.parametrize(("kind", "port"), [(marks.POP3, 110), (marks.IMAP, 143)])
def test_a_mailbox_is_gathered_and_nothing_newer_pushes_it_out(kind: int, port: int) -> None:
    with dry() as gate:
        talk = Talk(gate, kind=kind, server_port=port)
        ids = talk.whole(b"m" * 42_000)
        assert all(map(gate.held, ids))
        assert not gate.take()
        gate.answer(gate.pause())
        assert all(map(gate.passed, ids))
        assert gate.passed(talk.to_server(0, b"RETR 1\r\n", ACK | PSH)), "what the client says is not looked at"


def test_a_gathered_stream_is_bounded() -> None:
    with dry(max_held=6000) as gate:
        talk = box(gate)
        first = talk.to_client(0, b"m")
        for at in range(1, 4100 + 4096):
            talk.to_client(at, b"m")
        assert gate.passed(first)
        assert 4096 <= gate.holding <= 4097


@pytest.mark.parametrize(("client", "server"), [(CLIENT, SERVER), (CLIENT6, SERVER6)])
def test_the_receiver_gets_what_was_laid_over_held_packets(client: str, server: str) -> None:
    with dry() as gate:
        talk = Talk(gate, kind=marks.POP3, server_port=110, client=client, server=server, server_isn=2**32 - 260)
        ids = talk.whole(MAIL, size=100)
        note = gate.pause()
        assert gate.gate.delivered(note.flow, note.dir) == 0
        assert gate.gate.rewrite(note.flow, note.dir, 250, CHANGED[250:310])
        assert spooled(gate, note.flow) == MAIL, "what was sent is still what is looked at"
        gate.answer(note)
        parts = [
            content(gate, ident, MAIL[at : at + 100]) for ident, at in zip(ids, range(0, len(MAIL), 100), strict=True)
        ]
        assert b"".join(parts) == CHANGED
        assert [bool(gate.verdicts[i].packet) for i in ids] == [n in (2, 3) for n in range(len(ids))], (
            "others as they are"
        )
        assert gate.gate.delivered(note.flow, note.dir) == len(MAIL)


def test_headers_of_changed_packets_stay_as_they_are() -> None:
    tcp = TCP(sport=110, dport=4, seq=9, ack=77, flags="PA", window=99, options=[("Timestamp", (1, 2)), ("NOP", None)])
    v4 = IP(src=SERVER, dst=CLIENT, tos=8, ttl=9, id=7, options=[b"\x94\x04\x00\x00"]) / tcp / b"secret data"
    v6 = IPv6(src=SERVER6, dst=CLIENT6, tc=4, hlim=9) / IPv6ExtHdrDestOpt() / tcp / b"secret data"
    for raw, family in ((bytes(v4), IP), (bytes(v6), IPv6)):
        with dry() as gate:
            held = gate.feed(raw + b"pad", marks.POP3 | marks.REPLY)
            (note,) = gate.take()
            assert gate.gate.rewrite(note.flow, note.dir, 0, b"SECRET")
            gate.answer(note)
            wanted = family(raw.replace(b"secret", b"SECRET"))
            del wanted[TCP].chksum
            if family is IP:
                del wanted.chksum
            assert gate.verdicts[held].packet == bytes(wanted)


def test_every_repetition_is_changed_too_however_it_is_cut() -> None:
    with dry() as gate:
        talk = box(gate)
        talk.whole(MAIL, size=100)
        note = gate.pause()
        assert gate.gate.rewrite(note.flow, note.dir, 250, CHANGED[250:310])
        gate.answer(note)
        for start, stop in ((0, len(MAIL)), (200, 300), (260, 261), (309, 400), (100, 251)):
            ident = talk.to_client(start, MAIL[start:stop], ACK | FIN if stop == len(MAIL) else ACK)
            if gate.held(ident):
                (fin,) = gate.take()
                gate.answer(fin)
            assert content(gate, ident, MAIL[start:stop]) == CHANGED[start:stop], (start, stop)
        for start, stop in ((0, 250), (310, 400)):
            assert gate.verdicts[talk.to_client(start, MAIL[start:stop])].packet == b""


def test_a_repetition_that_says_otherwise_is_measured_by_what_was_sent() -> None:
    with dry() as gate:
        talk = box(gate)
        talk.whole(MAIL, size=100)
        note = gate.pause()
        assert gate.gate.rewrite(note.flow, note.dir, 250, CHANGED[250:310])
        gate.answer(note)
        assert gate.dropped(talk.to_client(200, CHANGED[200:300]))
        assert gate.passed(talk.to_client(200, MAIL[200:300]))


def test_what_left_cannot_be_changed_any_more_nor_what_has_not_come() -> None:
    with dry() as gate:
        talk = box(gate)
        talk.to_client(0, b"a" * 100)
        gate.answer(gate.pause())
        talk.to_client(100, b"b" * 100)
        note = gate.pause()
        change = gate.gate.rewrite
        assert gate.gate.delivered(note.flow, note.dir) == 100
        assert not change(note.flow, note.dir, 99, b"XX")
        assert not change(note.flow, note.dir, 199, b"XX")
        assert not change(note.flow, note.dir, 150, b"")
        assert not change(note.flow + (1 << 32), note.dir, 150, b"X")
        assert not change(note.flow, 2, 150, b"X")
        assert change(note.flow, note.dir, 100, b"X")
        assert change(note.flow, note.dir, 199, b"X")


def test_there_are_so_many_changes_and_no_more_until_the_receiver_has_them() -> None:
    with dry() as gate:
        talk = box(gate)
        ident = talk.to_client(0, b"a" * 200)
        note = gate.pause()
        assert [gate.gate.rewrite(note.flow, note.dir, n, b"X") for n in range(65)] == [True] * 64 + [False]
        gate.answer(note, 200)
        assert content(gate, ident, b"") == b"X" * 64 + b"a" * 136
        talk.to_server(0, ack=10)
        again = talk.to_client(200, b"b" * 100)
        note = gate.pause()
        assert [gate.gate.rewrite(note.flow, note.dir, n, b"X") for n in range(11)] == [True] * 10 + [False]
        gate.answer(note)
        assert content(gate, again, b"") == b"X" * 10 + b"b" * 90
        repeated = talk.to_client(0, b"a" * 200)
        assert content(gate, repeated, b"")[10:] == b"X" * 54 + b"a" * 136


def test_an_acknowledgement_of_what_never_left_does_not_undo_a_change() -> None:
    with dry() as gate:
        talk = box(gate)
        held = talk.to_client(0, b"a" * 100)
        note = gate.pause()
        assert gate.gate.rewrite(note.flow, note.dir, 50, b"X")
        talk.to_server(0, ack=100)
        gate.answer(note)
        assert content(gate, held, b"") == b"a" * 50 + b"X" + b"a" * 49


def test_a_change_is_laid_when_the_rest_of_the_flow_is_let_pass() -> None:
    with dry() as gate:
        talk = box(gate)
        held = talk.to_client(0, b"a" * 100)
        note = gate.pause()
        assert gate.gate.rewrite(note.flow, note.dir, 50, b"X")
        gate.gate.pass_(note.flow, note.dir)
        gate.collect()
        assert content(gate, held, b"") == b"a" * 50 + b"X" + b"a" * 49
        assert content(gate, talk.to_client(0, b"a" * 100), b"")[50:51] == b"X"


def test_the_end_of_a_mail_is_looked_at_at_once_and_once() -> None:
    with dry() as gate:
        talk = box(gate)
        talk.to_client(0, b"+OK\r\nmail\r\n.\r\n", ACK | PSH)
        assert [(n.kind, n.dir) for n in gate.take()] == [(Kind.COMPLETE, TO_CLIENT)]
        assert kinds(gate.tick(50_000)) == []
