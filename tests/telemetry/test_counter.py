"""What telemetry shows of itself to the box's page: the link, and what was sent, newest first, exactly."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.settings import Settings, parse
from sekisho.telemetry import events
from sekisho.telemetry.counter import ROW_CAP_BYTES, ROWS_CAP, Counter, LinkAsk, LinkTold, SentAsk, SentTold
from sekisho.telemetry.spool import Spool

AT = "2026-11-21T10:00:00.000000Z"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return parse(f'box = "b"\n[paths]\nrun = "{tmp_path}/run"\nstate = "{tmp_path}/state"\n')


def spooled(settings: Settings) -> Spool:
    return Spool.open(settings.spool, 64 << 20, AT, "boot", 48)


def sent(settings: Settings, ask: SentAsk) -> SentTold:
    return msgspec.json.decode(next(Counter(settings).answer(msgspec.json.encode(ask))), type=SentTold)


def test_what_was_acknowledged_is_shown_newest_first_and_what_waits_is_not(settings: Settings) -> None:
    spool = spooled(settings)
    made = [events.Dns(at=AT, name=f"{number}.example") for number in range(5)]
    spool.add(made)
    spool.acknowledge(3, [])
    told = sent(settings, SentAsk("events", 2))
    assert [bytes(row.event) for row in told.rows] == [events.encode(made[2]), events.encode(made[1])]
    assert [row.seq for row in sent(settings, SentAsk()).rows] == [3, 2, 1] and told.keep_hours == 48
    spool.close()


def test_messages_of_the_connection_are_shown(settings: Settings) -> None:
    spool = spooled(settings)
    spool.note_said("up", b'{"box":"b"}')
    spool.close()
    said = sent(settings, SentAsk("messages")).said
    assert [(each.topic, bytes(each.message)) for each in said] == [("up", b'{"box":"b"}')]


def test_a_row_that_is_too_large_to_show_is_left_out(settings: Settings) -> None:
    spool = spooled(settings)
    spool.add([events.Dns(at=AT, name="x" * ROW_CAP_BYTES), events.Dns(at=AT, name="short")])
    spool.acknowledge(2, [])
    spool.close()
    assert [row.seq for row in sent(settings, SentAsk()).rows] == [2]


def test_the_link_is_told_with_what_waits(settings: Settings) -> None:
    spool = spooled(settings)
    spool.add([events.Health(at=AT, part="x")])
    spool.set_link(up=True)
    told = msgspec.json.decode(next(Counter(settings).answer(msgspec.json.encode(LinkAsk()))), type=LinkTold)
    assert told.connected and not told.configured and [lane.rows for lane in told.lanes] == [1, 0, 0]
    spool.close()


@pytest.mark.parametrize("question", [b"", b"{}", b'{"do":"sql"}', b'{"do":"sent","limit":0}', b'{"do":"sent","x":1}'])
def test_what_is_no_question_is_refused(settings: Settings, question: bytes) -> None:
    spooled(settings).close()
    with pytest.raises(RejectedInput):
        next(Counter(settings).answer(question))


def test_nobody_asks_for_everything_at_once(settings: Settings) -> None:
    spooled(settings).close()
    with pytest.raises(RejectedInput):
        next(Counter(settings).answer(b'{"do":"sent","limit":%d}' % (ROWS_CAP + 1)))


def test_without_a_spool_it_is_said(settings: Settings) -> None:
    with pytest.raises(DeviceFault):
        next(Counter(settings).answer(b'{"do":"link"}'))
