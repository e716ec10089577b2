"""Three NATS nodes, two ingest workers, one PostgreSQL: a node that dies under load loses and doubles nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import nats
import nats.errors
import pytest
from nats.js import JetStreamContext
from nats.js.api import StreamInfo

from sekisho.appliance.core import settings as core_settings
from sekisho.bench.center_latency import write_alert
from sekisho.bench.center_stand import REAL_BOX, Stand, standing
from sekisho.bench.fleet import Phase, Told
from sekisho.center import settings
from sekisho.center.jetstream import ACK_WAIT_S, CONSUMER, STREAM
from sekisho.center.store import Store
from sekisho.lab.nats_cluster import NatsCluster, installed
from sekisho.lab.postgres import Postgres

BOXES = 45
_T = TypeVar("_T")
pytestmark = [
    pytest.mark.timeout(420),
    pytest.mark.skipif(not installed(), reason="nats-server is not installed"),
]


@pytest.fixture
def stand(tmp_path: Path, postgres: Postgres) -> Iterator[Stand]:
    with standing(tmp_path) as made:
        made.store = postgres.database()
        yield made


def _stored(stand: Stand) -> int:
    """Events of the simulated boxes."""
    with contextlib.closing(Store(stand.store)) as store:
        return sum(number for box, _type, number in store.counts() if box != REAL_BOX)


def _alerts(stand: Stand) -> list[int]:
    """Rule numbers of the real box's stored alerts, in the order of their arrival."""
    with contextlib.closing(Store(stand.store)) as store:
        events = [json.loads(bytes(stored.event)) for stored in store.events(box=REAL_BOX)]
    return [event["sid"] for event in events if event["type"] == "alert"]


def _stores_more(stand: Stand) -> None:
    before = _stored(stand)
    stand.wait(lambda: _stored(stand) > before + 60, "nothing more is stored")


def _ask(stand: Stand, cluster: NatsCluster, what: Callable[[JetStreamContext], Awaitable[_T]]) -> _T:
    """What the nodes that live say."""

    async def ask() -> _T:
        mine = stand.credentials("center")
        context = ssl.create_default_context(cafile=str(mine.ca))
        context.load_cert_chain(mine.cert, mine.key)
        alive = [f"tls://{cluster.servers[number]}" for number in cluster.processes]
        client = await nats.connect(alive, tls=context)
        try:
            while True:
                with contextlib.suppress(nats.errors.Error, TimeoutError):  # between two leaders nobody answers
                    return await what(client.jetstream())
                await asyncio.sleep(0.2)
        finally:
            await client.close()

    return asyncio.run(asyncio.wait_for(ask(), 30.0))


def _stream(stand: Stand, cluster: NatsCluster) -> StreamInfo:
    return _ask(stand, cluster, lambda jetstream: jetstream.stream_info(STREAM))


def _under_way(stand: Stand, cluster: NatsCluster) -> int:
    """Messages that some worker has and did not confirm, and those that one still waits for."""
    told = _ask(stand, cluster, lambda jetstream: jetstream.consumer_info(STREAM, CONSUMER))
    return (told.num_ack_pending or 0) + (told.num_waiting or 0)


def _leader(stand: Stand, cluster: NatsCluster) -> int:
    """The node that leads the stream's copies now."""
    found = _stream(stand, cluster).cluster
    assert found and found.leader
    return int(found.leader.removeprefix("node-"))


def _all_there(stand: Stand, rest: Told) -> None:
    """Everything that was made is stored, once, and nothing is missing."""
    assert rest.waiting == 0, f"{rest}\n{stand.log('center')[-3000:]}"
    assert rest.connected == BOXES
    with contextlib.closing(Store(stand.store)) as store:
        assert store.missing() == []
        assert sum(stream.upto for stream in store.streams() if stream.box != REAL_BOX) == rest.made
    assert _stored(stand) == rest.made


def test_a_boxs_node_is_killed_under_load_then_the_streams_leader_and_each_comes_back(stand: Stand) -> None:
    cluster = stand.start_cluster(BOXES)
    stand.start_worker(1)
    stand.start_worker(2)
    assert stand.start_fleet(BOXES).connected == BOXES
    stand.start_box()
    write_alert(stand.eve, 1)
    stand.begin(Phase(180.0, rate=60, rows=2))
    stand.wait(lambda: _alerts(stand) == [1], "the real box's alert was not stored")
    home = next(number for number, host in enumerate(cluster.hosts) if f"broker: {host}:" in stand.log("box"))
    for kill_leader in (False, True):
        _stores_more(stand)
        victim = _leader(stand, cluster) if kill_leader else home
        cluster.kill(victim)
        _stores_more(stand)
        cluster.start(victim)
    write_alert(stand.eve, 2)
    stand.begin(Phase(240.0, settle=True))
    told, rest = stand.finish(), stand.finish()
    assert told.lost >= 2, "no box was connected to the nodes that were killed"
    assert rest.made >= 500
    _all_there(stand, rest)
    stand.wait(lambda: _alerts(stand) == [1, 2], "the real box found no other node", 60.0)


def test_a_box_that_may_not_hear_the_centre_says_so(stand: Stand) -> None:
    stand.start_cluster(0)
    stand.start_box(tenant="another")
    stand.wait(lambda: "refused the subscription" in stand.log("box"), "the box did not notice")


def test_what_comes_while_no_worker_runs_waits_in_the_stream(stand: Stand) -> None:
    cluster = stand.start_cluster(BOXES)
    stand.start_worker(1)
    assert stand.start_fleet(BOXES).connected == BOXES
    stand.phase(Phase(1.0, rate=50))
    stand.phase(Phase(60.0, settle=True))
    stand.processes["center"].kill()
    stand.processes["center"].wait()
    # What is handed to a worker that is dead already comes again when `ACK_WAIT_S` has passed.
    stand.wait(lambda: _under_way(stand, cluster) == 0, "the dead worker is still waited for", ACK_WAIT_S + 30)
    stand.begin(Phase(120.0, rate=50))
    stand.wait(lambda: _stream(stand, cluster).state.messages > 50, "the stream does not keep what comes", 60.0)
    stand.restart("center")
    stand.begin(Phase(120.0, settle=True))
    _told, rest = stand.finish(), stand.finish()
    _all_there(stand, rest)
    stand.wait(
        lambda: _stream(stand, cluster).state.messages == 0, "what is stored stays in the stream", ACK_WAIT_S + 30
    )


def test_the_settings_in_the_page_about_clusters_are_settings(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
    node, worker, box = re.findall(r"```toml\n(.*?)```", page, re.S)
    (tmp_path / "center.toml").write_text(node + worker)
    center = settings.load(tmp_path / "center.toml")
    assert center.jetstream and center.serve
    peers = {route.rpartition(":")[0] for route in center.serve.node.routes} | {center.broker.host}
    assert peers == {server.rpartition(":")[0] for server in center.jetstream.servers}
    assert (center.serve.kind, center.serve.node.replicas) == ("nats", center.jetstream.replicas)
    (tmp_path / "box.toml").write_text(f'box = "b"\ntenant = "t"\n{box}')
    link = core_settings.load(tmp_path / "box.toml").telemetry
    assert peers == {link.host, *link.hosts}
