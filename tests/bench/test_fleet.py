"""The simulated boxes are boxes: real Mosquitto and the real centre cannot tell them from one, and nothing is lost."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections import Counter
from pathlib import Path

import msgspec
import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from sekisho.appliance.core.errors import DeviceFault
from sekisho.bench import mqtt
from sekisho.bench.center_stand import Stand, standing
from sekisho.bench.fleet import Phase
from sekisho.bench.fleet_box import Box
from sekisho.bench.mixed_events import pools
from sekisho.center import ingest
from sekisho.center.store import Store
from sekisho.telemetry.delivery import ASK_S, Ack

POOLS = pools()


def _ack(box: Box, upto: int = 0, have: list[tuple[int, int, int]] | None = None, s: str = "s") -> bytes:
    return msgspec.json.encode(Ack(box.epoch, upto, have or [], s))


def _packets(data: bytes) -> list[tuple[int, bytes]]:
    return list(mqtt.Packets().feed(data))


def _rows(data: bytes) -> list[int]:
    """The numbers of the events in everything that is published in `data`, as the centre reads them."""
    found = []
    for first, body in _packets(data):
        topic, _mid, payload = mqtt.published(first, body)
        where = ingest.parse_topic(topic)
        if where.lane is not None:
            batch = ingest.parse_batch(where.lane, payload)
            assert batch.rejected == 0
            found += [row.seq for row in batch.rows]
    return found


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.data())
def test_packets_come_whole_however_the_stream_is_cut(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(mqtt.publish(n, "a/b", payload) for n, payload in enumerate(payloads, 1)) + mqtt.PINGREQ
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    packets, found = mqtt.Packets(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += list(packets.feed(stream[start:end]))
    assert [mqtt.published(first, body) for first, body in found[:-1]] == [
        ("a/b", n, payload) for n, payload in enumerate(payloads, 1)
    ]
    assert found[-1] == (0xC0, b"")


def test_a_length_no_packet_has_is_refused() -> None:
    with pytest.raises(ValueError, match="cap"):
        list(mqtt.Packets().feed(b"\x30\xff\xff\xff\xff\x01"))


def test_a_box_keeps_what_the_centre_does_not_have_and_numbers_without_holes() -> None:
    box = Box("t", "sim-00000", 1, POOLS)
    out = b"".join(box.batch(3, now=0.0) for _ in range(4))
    assert _rows(out) == list(range(1, 13))
    lanes = [sent.lane for sent in box.waiting.values()]
    assert [sent.first for sent in box.acknowledged(_ack(box, upto=3), 1.0)] == [1]
    assert [sent.first for sent in box.acknowledged(_ack(box, 3, [(lanes[2], 7, 9)]), 1.0)] == [7]
    assert box.acknowledged(_ack(box, 3, [((lanes[1] + 1) % 3, 4, 6)]), 1.0) == []
    other = msgspec.json.encode(Ack("0" * 16, 99))
    assert box.acknowledged(other, 1.0) == []
    assert [sent.first for sent in box.waiting.values()] == [4, 10]


def test_a_box_repeats_what_is_overdue_and_at_once_when_the_centre_is_new() -> None:
    box = Box("t", "sim-00000", 1, POOLS)
    box.batch(1, now=0.0)
    assert box.repeat(ASK_S - 0.1) == b""
    assert _rows(box.repeat(ASK_S)) == [1]
    assert box.repeat(3 * ASK_S - 0.1) == b""
    assert _rows(box.repeat(3 * ASK_S)) == [1]
    (mid,) = box.waiting
    box.pubacked(mid)
    box.acknowledged(_ack(box, s="one"), 50.0)
    assert box.repeat(50.0) == b""
    box.acknowledged(_ack(box, s="two"), 50.0)
    assert _rows(box.repeat(50.0)) == [1]
    assert _rows(box.up(51.0)) == [1]
    assert box.again == 4


@pytest.fixture
def stand(tmp_path: Path):  # type: ignore[no-untyped-def]  # a generator of Stand
    with standing(tmp_path) as made:
        yield made


def _stored(stand: Stand) -> Counter[str]:
    """Events by box; none while there is no database yet."""
    counts: Counter[str] = Counter()
    with contextlib.suppress(DeviceFault), contextlib.closing(Store(stand.store, read_only=True)) as store:
        for box, _type, number in store.counts():
            counts[box] += number
    return counts


def test_what_a_fleet_makes_is_stored_once_though_broker_and_centre_are_killed(stand: Stand) -> None:
    stand.start_broker(40, workers=1)
    stand.start_worker(1)
    assert stand.start_fleet(40).connected == 40
    stand.begin(Phase(6.0, rate=200, rows=2))
    for victim in ("center", "broker"):
        stand.wait(lambda: sum(_stored(stand).values()) > 50, "nothing was stored")
        stand.processes[victim].kill()
        stand.processes[victim].wait()
        stand.restart(victim)
    told = stand.finish()
    assert told.lost == 40 and told.connected == 40
    rest = stand.phase(Phase(40.0, settle=True))
    assert rest.waiting == 0
    stored = _stored(stand)
    assert len(stored) == 40 and sum(stored.values()) == rest.made >= 2000
    with contextlib.closing(Store(stand.store, read_only=True)) as store:
        assert store.missing() == []


def test_while_nothing_is_wrong_nothing_goes_twice(stand: Stand) -> None:
    stand.start_broker(40, workers=1)
    stand.start_worker(1)
    stand.start_fleet(40)
    stand.begin(Phase(3.0, rate=100))
    told, rest = stand.finish(), stand.phase(Phase(20.0, settle=True))
    assert (rest.waiting, told.again + rest.again) == (0, 0)


def test_a_real_client_hears_what_a_simulated_box_says(stand: Stand) -> None:
    stand.start_broker(3, workers=1)
    heard: dict[str, bytes] = {}
    births, lost = threading.Event(), threading.Event()

    def on_message(_c: paho.Client, _u: object, message: paho.MQTTMessage) -> None:
        heard[message.topic] = bytes(message.payload)
        states = [ingest.parse_state(payload).st for payload in heard.values()]
        births.set() if states.count("on") == 3 else None
        lost.set() if states.count("lost") == 3 else None

    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="center", protocol=paho.MQTTv311)
    mine = stand.credentials("center")
    context = ssl.create_default_context(cafile=str(mine.ca))
    context.load_cert_chain(mine.cert, mine.key)
    client.tls_set_context(context)
    client.on_message = on_message
    client.connect("127.0.0.1", stand.port)
    client.subscribe("sk/1/+/+/state", qos=1)
    client.loop_start()
    try:
        stand.start_fleet(3)
        assert births.wait(10)
        stand.processes["fleet"].kill()
        assert lost.wait(10)
        assert sorted(heard) == [f"sk/1/fleet/sim-{number:05d}/state" for number in range(3)]
    finally:
        client.disconnect()
        client.loop_stop()
