"""The cluster's stream caps what MQTT does not: a message larger than any box sends does not come to a worker."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nats
import nats.js.errors
import pytest
from nats.aio.client import Client
from nats.js.api import RetentionPolicy, StreamConfig

from sekisho.center.brokers.model import PACKET_CAP
from sekisho.center.ingest import MESSAGE_CAP
from sekisho.center.jetstream import STREAM, SUBJECTS, _ensure
from sekisho.center.settings import JetStream
from sekisho.lab.nats_cluster import installed
from sekisho.lab.ports import free_port

pytestmark = pytest.mark.skipif(not installed(), reason="nats-server is not installed")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """One node, alone, whose own cap on a message is above ours, as MQTT's is."""
    port = free_port()
    config = tmp_path / "nats.conf"
    config.write_text(f'listen: "127.0.0.1:{port}"\nmax_payload: 4MB\njetstream: {{store_dir: "{tmp_path}/js"}}\n')
    path = {"PATH": "/usr/sbin:/usr/bin:/usr/local/bin"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(["nats-server", "-c", str(config)], env=path, stdout=log, stderr=log)
    try:
        yield f"nats://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


async def _connect(server: str) -> Client:
    for _ in range(100):
        with contextlib.suppress(OSError, nats.errors.Error):
            return await nats.connect(server, allow_reconnect=False)
        await asyncio.sleep(0.05)
    raise AssertionError("the node does not answer")


@pytest.mark.parametrize("made_before", [False, True])
def test_the_stream_takes_what_a_box_may_send_and_nothing_larger(server: str, made_before: bool) -> None:
    async def work() -> None:
        client = await _connect(server)
        jetstream = client.jetstream()
        if made_before:
            old = StreamConfig(name=STREAM, subjects=list(SUBJECTS), retention=RetentionPolicy.WORK_QUEUE)
            await jetstream.add_stream(old)
        wanted = JetStream(servers=(server.removeprefix("nats://"),), replicas=1)
        first = await _ensure(jetstream, wanted)
        assert await _ensure(jetstream, wanted) == first
        await jetstream.publish("sk.1.t.b.ev.1", b"x" * MESSAGE_CAP)
        with pytest.raises(nats.js.errors.APIError):
            await jetstream.publish("sk.1.t.b.ev.1", b"x" * (PACKET_CAP + 1))
        info = await jetstream.stream_info(STREAM)
        assert info.state.messages == 1 and info.config.retention == RetentionPolicy.WORK_QUEUE
        await client.close()

    asyncio.run(asyncio.wait_for(work(), 30.0))
