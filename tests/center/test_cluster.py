"""Three NATS nodes, two ingest workers, one PostgreSQL: a node that dies under load loses and doubles nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest

from sekisho.bench.center_stand import Stand, standing
from sekisho.bench.fleet import Phase, Told
from sekisho.center.jetstream import STREAM
from sekisho.center.store import Store
from sekisho.lab.nats_cluster import NODES, NatsCluster, installed
from sekisho.lab.postgres import Postgres

BOXES = 45
pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(not installed(), reason="nats-server is not installed"),
]


@pytest.fixture
def stand(tmp_path: Path, postgres: Postgres) -> Iterator[Stand]:
    with standing(tmp_path) as made:
        made.store = postgres.database()
        yield made


def _stored(stand: Stand) -> int:
    with contextlib.closing(Store(stand.store)) as store:
        return sum(number for _box, _type, number in store.counts())


def _stores_more(stand: Stand) -> None:
    before = _stored(stand)
    stand.wait(lambda: _stored(stand) > before + 60, "nothing more is stored")


def _leader(stand: Stand, cluster: NatsCluster) -> int:
    """The node that leads the stream's copies now."""

    async def ask() -> str:
        mine = stand.credentials("center")
        context = ssl.create_default_context(cafile=str(mine.ca))
        context.load_cert_chain(mine.cert, mine.key)
        alive = [f"tls://{cluster.servers[number]}" for number in cluster.processes]
        client = await nats.connect(alive, tls=context)
        try:
            info = await client.jetstream().stream_info(STREAM)
            return str(info.cluster.leader) if info.cluster else ""
        finally:
            await client.close()

    return int(asyncio.run(ask()).removeprefix("node-"))


def _all_there(stand: Stand, rest: Told) -> None:
    """Everything that was made is stored, once, and nothing is missing."""
    assert rest.waiting == 0, f"{rest}\n{stand.log('center')[-3000:]}"
    assert rest.connected == BOXES
    with contextlib.closing(Store(stand.store)) as store:
        assert store.missing() == []
        assert sum(stream.upto for stream in store.streams()) == rest.made
    assert _stored(stand) == rest.made


def test_a_node_is_killed_under_load_then_the_streams_leader_and_each_comes_back(stand: Stand) -> None:
    cluster = stand.start_cluster(BOXES)
    stand.start_worker(1)
    stand.start_worker(2)
    assert stand.start_fleet(BOXES).connected == BOXES
    stand.begin(Phase(10.0, rate=60, rows=2))
    for step in (1, 0):  # a node that does not lead the stream, then the one that does
        _stores_more(stand)
        victim = (_leader(stand, cluster) + step) % NODES
        cluster.kill(victim)
        _stores_more(stand)
        cluster.start(victim)
    lost = stand.finish().lost
    rest = stand.phase(Phase(90.0, settle=True))
    assert lost >= 2, "no box was connected to the nodes that were killed"
    _all_there(stand, rest)
    assert rest.made >= 1000


def test_what_comes_while_no_worker_runs_waits_in_the_stream(stand: Stand) -> None:
    stand.start_cluster(BOXES)
    stand.start_worker(1)
    assert stand.start_fleet(BOXES).connected == BOXES
    stand.phase(Phase(1.0, rate=50))
    stand.processes["center"].kill()
    stand.processes["center"].wait()
    told = stand.phase(Phase(2.0, rate=50))
    assert told.waiting > 50
    stand.restart("center")
    rest = stand.phase(Phase(10.0, settle=True))  # sooner than any box would repeat
    assert rest.again == 0
    _all_there(stand, rest)
