"""A gate goes on in another process with all it knew: what waits, what is to be changed, who was cut."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest
from drygate import FIN, PSH, SYN, Talk, config, dry, parsed, spooled

from sekisho.appliance.core import marks
from sekisho.appliance.core.errors import DeviceFault
from sekisho.inspect import gate as gate_module
from sekisho.inspect.gate import TO_CLIENT, TO_SERVER, Former, Gate

ASKED = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"
LAYOUTS = {1: "de88"}
"""The structs an image is made of, by `FORMAT`: the beginning of their text's hash."""


def test_a_look_under_way_is_asked_for_again_and_what_waits_is_still_withheld() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_server(0, ASKED)
        ident = talk.to_client(0, HEAD + b"x" * 60, PSH, ack=len(ASKED))
        (before,) = gate.take()
        gate.succeed()
        (again,) = gate.take()
        assert (again.flow, again.dir, again.length) == (before.flow, TO_CLIENT, before.length) and gate.held(ident)
        assert spooled(gate, again.flow) == HEAD + b"x" * 60 and gate.gate.asked(again.flow) == ASKED
        assert gate.gate.cut(again.flow, TO_CLIENT) > 0
        gate.collect()
        assert parsed(gate.verdicts[ident].packet)[1].flags & 4


def test_a_flow_that_was_cut_stays_cut() -> None:
    with dry() as gate:
        talk = Talk(gate)
        talk.to_client(0, HEAD + b"x" * 60, PSH)
        note = gate.take()[0]
        gate.gate.cut(note.flow, TO_CLIENT)
        gate.succeed()
        late = talk.to_client(len(HEAD) + 60, b"y" * 40, PSH | FIN)
        assert not gate.held(late) and (gate.dropped(late) or gate.verdicts[late].packet), "never as it came"


def test_a_mail_whose_rest_is_swallowed_is_answered_by_the_successor() -> None:
    with dry() as gate:
        talk = Talk(gate, kind=marks.MAIL, server_port=25)
        talk.to_server(0, b"DATA\r\nbad\r\n", PSH)
        note = gate.take()[0]
        gate.gate.cut(note.flow, TO_SERVER, b"554 no\r\n")
        gate.succeed()
        talk.to_server(11, b"more\r\n.\r\n", PSH)
        answer = talk.to_client(0, ack=0)
        assert b"554 no" in gate.verdicts[answer].packet


def test_what_was_to_be_changed_is_changed_by_the_successor() -> None:
    with dry() as gate:
        talk = Talk(gate, kind=marks.POP3, server_port=110)
        ident = talk.to_client(0, b"+OK " + b"malice" * 10, PSH)
        note = gate.take()[0]
        assert gate.gate.rewrite(note.flow, TO_CLIENT, 4, b"NOTICE")
        gate.succeed()
        gate.answer(gate.take()[0])
        assert parsed(gate.verdicts[ident].packet)[1].payload.load.startswith(b"+OK NOTICEmalice")


def test_what_a_client_may_send_of_a_connection_nobody_knows_yet_is_remembered() -> None:
    with dry() as gate:
        talk = Talk(gate, kind=marks.SEEN)
        talk.to_client(-1, flags=SYN | 16)
        gate.succeed()
        assert gate.dropped(talk.to_server(500, b"behind a gap")) and gate.passed(talk.to_server(0, b"in order"))


def test_a_gate_that_nobody_takes_goes_on() -> None:
    with dry() as gate:
        talk = Talk(gate)
        ident = talk.to_client(0, HEAD + b"x" * 60, PSH)
        former = gate.gate.freeze()
        for limits, spools in ((config(max_held=65), former.spools), (config(), ())):
            heir = Gate(limits, dry=True)
            with pytest.raises(DeviceFault):
                heir.adopt(Former(-1, former.image, spools))
            heir.leave()
        os.close(former.image)
        gate.answer(gate.take()[0])
        gate.tick(1_000_000)
        assert gate.passed(ident)


def test_a_layout_that_changes_gets_another_number() -> None:
    """A successor of another release reads this memory: what it may not understand it must not be given."""
    source = (Path(gate_module.__file__).with_name("gate.c")).read_text()
    structs = re.findall(
        r"^struct (?:held|span|patch|direction|flow|beginning|image|own) \{.*?^\};", source, re.M | re.S
    )
    assert len(structs) == 8
    told = hashlib.sha256("".join(re.sub(r"/\*.*?\*/|\s+", "", s, flags=re.S) for s in structs).encode()).hexdigest()
    assert told.startswith(LAYOUTS[gate_module.layout()]), f"FORMAT must be raised, and this noted for it: {told[:4]}"
