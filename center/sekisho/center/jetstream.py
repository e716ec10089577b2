"""Ingest at scale: workers share one JetStream stream of a NATS cluster, and store into one PostgreSQL.

A stream captures what the boxes publish by MQTT; any number of workers pull from one durable consumer. A message
leaves the stream when the transaction that stores it is on disk, so a worker that dies costs a redelivery; what is
neither stored nor in the stream (a node can die between its PUBACK and the stream's copies) the box repeats. The
consumer's cap on unconfirmed messages is the back-pressure: while the database is slow the stream grows, not we.

A box's acknowledgement is a plain NATS message, not a retained one: MQTT's retained messages cost NATS a stored and
replicated message each, and a box that connects is answered when it announces itself.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from typing import TYPE_CHECKING, Final

import msgspec
import nats
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StreamConfig
from nats.js.errors import NotFoundError

from sekisho.appliance.core import sdnotify, utc
from sekisho.appliance.core.errors import DeviceFault
from sekisho.center import ingest, intake, mqtt
from sekisho.center.brokers.model import PACKET_CAP
from sekisho.center.intake import Message
from sekisho.center.pulse import Pulse
from sekisho.center.retention import Sweeper
from sekisho.center.settings import CenterSettings, JetStream
from sekisho.center.store import Store

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

STREAM: Final = "SEKISHO"
CONSUMER: Final = "ingest"
SUBJECTS: Final = ("sk.1.*.*.ev.*", "sk.1.*.*.state")
GROUP_MESSAGES: Final = 256
UNCONFIRMED: Final = 16 * GROUP_MESSAGES
"""Messages under way to all workers together."""
ACK_WAIT_S: Final = 60.0
"""A message no worker has confirmed by then goes to another one."""
ASKED: Final = 2 * GROUP_MESSAGES
"""Messages asked for in advance: one group is stored while the next one comes."""
ASK_S: Final = 10.0
"""How long a request stands."""
PACE_S: Final = 0.01
"""Between two commits while messages keep coming: what a commit costs is shared by all that came meanwhile."""
IDLE_S: Final = 0.5
RETRY_S: Final = 1.0
CONNECT_S: Final = 10.0

_NEXT: Final = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{CONSUMER}"

log = logging.getLogger(__name__)


class Worker:
    """One of the workers: asks the shared consumer for messages, stores what comes in groups."""

    def __init__(self, config: CenterSettings, stream: JetStream) -> None:
        """Open the database; the cluster is looked for in `run`.

        Raises:
            RejectedInput: the certificate cannot be used.
            DeviceFault: the database cannot be opened.

        """
        self._config, self._stream = config, stream
        self._tls = mqtt.tls(config.broker)
        self._store = Store(config.store)
        self._sweeper = Sweeper(self._store, config.retention)
        self._pulse = Pulse(self._store.database)
        self._stopped = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session = ""
        self._inbox: asyncio.Queue[Msg] = asyncio.Queue()
        """Bounded by what is asked for: `ASKED` and no more."""
        self._asked, self._ask_again_at, self._next_commit = 0, 0.0, 0.0

    def run(self) -> None:
        """Work until `stop`."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        sdnotify.notify("READY=1")
        try:
            if client := await self._connect():
                await self._work(client)
                await client.close()
        finally:
            self._store.close()

    def stop(self) -> None:
        """From a signal's handler too."""
        if self._loop:
            self._loop.call_soon_threadsafe(self._stopped.set)
        else:
            self._stopped.set()

    async def _connect(self) -> Client | None:
        """The cluster, whichever node answers; later the client library keeps it connected."""
        while not self._stopped.is_set():
            sdnotify.notify("WATCHDOG=1")
            connecting = nats.connect(
                servers=[f"tls://{server}" for server in self._stream.servers],
                tls=self._tls,
                name=self._config.broker.client,
                max_reconnect_attempts=-1,
                reconnect_time_wait=RETRY_S,
                error_cb=_say_error,
            )
            try:
                return await asyncio.wait_for(connecting, CONNECT_S)
            except (NatsError, OSError) as err:
                log.warning("no node of the cluster answers: %s", err)
                await self._pause()
        return None

    async def _work(self, client: Client) -> None:
        while not self._session and not self._stopped.is_set():
            sdnotify.notify("WATCHDOG=1")
            try:
                self._session = await _ensure(client.jetstream(), self._stream)
            except (NatsError, TimeoutError) as err:
                log.warning("the stream is not there yet: %s", err)
                await self._pause()
        replies = client.new_inbox()
        await client.subscribe(replies, cb=self._arrived, pending_msgs_limit=-1, pending_bytes_limit=-1)
        log.info("connected to the cluster's stream")
        while not self._stopped.is_set():
            sdnotify.notify("WATCHDOG=1")
            await self._ask(client, replies)
            if group := await self._group():
                await self._take(client, group)
            await asyncio.to_thread(self._sweeper.step, dt.datetime.now(dt.UTC))
            await asyncio.to_thread(self._pulse.step, connected=client.is_connected)

    async def _ask(self, client: Client, replies: str) -> None:
        """Keep half of `ASKED` asked for; after a node's death ask anew, for a request may have died with it."""
        now = time.monotonic()
        if now >= self._ask_again_at:
            self._asked = 0
        wanted = ASKED - self._asked - self._inbox.qsize()
        if wanted >= ASKED // 2:
            request = {"batch": wanted, "expires": int(ASK_S * 1e9)}
            await client.publish(_NEXT, msgspec.json.encode(request), reply=replies)
            self._asked += wanted
            self._ask_again_at = now + ASK_S

    async def _arrived(self, msg: Msg) -> None:
        if msg.headers and "Status" in msg.headers and not msg.data:
            self._asked = 0  # the request is over: expired, or its leader is gone
        else:
            self._asked -= 1
            self._inbox.put_nowait(msg)

    async def _group(self) -> list[Msg]:
        """The first message and all behind it; after a quiet time at once, else when `PACE_S` has passed."""
        try:
            group = [await asyncio.wait_for(self._inbox.get(), IDLE_S)]
        except TimeoutError:
            return []
        if (rest_s := self._next_commit - time.monotonic()) > 0 and self._inbox.qsize() < GROUP_MESSAGES:
            await asyncio.sleep(rest_s)
        while len(group) < GROUP_MESSAGES and not self._inbox.empty():
            group.append(self._inbox.get_nowait())
        return group

    async def _take(self, client: Client, group: list[Msg]) -> None:
        """Store a group, then acknowledge it to the boxes and confirm it to the stream."""
        self._next_commit = time.monotonic() + PACE_S
        messages = [Message(msg.subject.replace(".", "/"), msg.data) for msg in group]
        while not self._stopped.is_set():
            try:
                answers = await asyncio.to_thread(intake.take, self._store, messages, utc.now(), _alive)
            except DeviceFault as err:
                log.error("%s Nothing was acknowledged; trying again.", err)
                sdnotify.notify("WATCHDOG=1")
                await self._pause()
                continue
            now_ms = time.time_ns() // 1_000_000
            for answer in answers:
                tenant, box, epoch = answer.key
                ack = ingest.make_ack(
                    epoch, answer.upto, answer.runs, self._session, answer.nonce, now_ms, answer.generation
                )
                await client.publish(f"sk.1.{tenant}.{box}.ack", ack)
            for msg in group:
                await client.publish(msg.reply, b"+ACK")
            return

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self._stopped.wait(), RETRY_S)
        except TimeoutError:
            return


async def _ensure(jetstream: JetStreamContext, wanted: JetStream) -> str:
    """Make the stream and its consumer unless they are there; returns what tells this stream from one made anew."""
    try:
        info = await jetstream.stream_info(STREAM)
    except NotFoundError:
        info = await jetstream.add_stream(
            StreamConfig(
                name=STREAM,
                subjects=list(SUBJECTS),
                retention=RetentionPolicy.WORK_QUEUE,
                discard=DiscardPolicy.NEW,
                max_bytes=wanted.keep_mb << 20,
                max_msg_size=PACKET_CAP,
                num_replicas=wanted.replicas,
            )
        )
    if info.config.max_msg_size != PACKET_CAP:  # made by an earlier release; NATS itself caps no MQTT packet
        await jetstream.update_stream(info.config, max_msg_size=PACKET_CAP)
    consumer = ConsumerConfig(
        durable_name=CONSUMER,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_ack_pending=UNCONFIRMED,
    )
    await jetstream.add_consumer(STREAM, consumer)
    return str(int(info.created.timestamp())) if info.created else STREAM


def _alive() -> None:
    sdnotify.notify("WATCHDOG=1")


async def _say_error(err: Exception) -> None:
    log.warning("NATS: %s", err)
