"""A broker that cannot be trusted: a real one behind a relay that forgets, repeats, reorders and digs out the old.

Ends TLS on both sides (every client's own certificate goes upstream, so that the real broker's rights hold) and
passes packets on; PUBLISH packets of either direction may meet one of four mischiefs. It counts the rows that cross
it, so that what is repeated on the wire is a number. Run: python meddler.py CONFIG.json; it rereads CONFIG's
`mischief` at each SIGHUP, ends every connection at SIGUSR1, and writes its counts to `counts` twice a second.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import signal
import ssl
import sys
from collections import deque
from pathlib import Path

import mqttwire
from mqttwire import Packet, Publish

from sekisho.center.ingest import parse_batch, parse_topic

OLD = 200
"""Messages remembered per direction, to be dug out."""
HELD_S = 0.3
LINE = 1000
"""Packets on a slow line."""


class Relay:
    """One client's connection and the one to the broker made for it."""

    def __init__(self, site: Meddler, client: asyncio.StreamWriter, broker: asyncio.StreamWriter) -> None:
        self._site = site
        self._writers = {"up": broker, "down": client}
        self._mids = itertools.cycle(range(60_000, 65_000))
        self._ours: dict[str, set[int]] = {"up": set(), "down": set()}
        self._held: dict[str, list[Publish]] = {"up": [], "down": []}

    async def run(self, towards: str, source: asyncio.StreamReader) -> None:
        """Pass packets on in one direction until the connection ends; a slow line is late, not narrow."""
        line: asyncio.Queue[tuple[float, Packet]] = asyncio.Queue(LINE)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._deliver(towards, line))
            clock, due = asyncio.get_running_loop().time, 0.0
            while True:
                packet = await mqttwire.read(source)
                due = max(due, clock() + self._site.random.uniform(0, self._site.mischief.get("delay", 0.0)))
                await line.put((due, packet))

    async def _deliver(self, towards: str, line: asyncio.Queue[tuple[float, Packet]]) -> None:
        while True:
            due, packet = await line.get()
            if (left := due - asyncio.get_running_loop().time()) > 0:
                await asyncio.sleep(left)
            if packet.kind == mqttwire.PUBLISH:
                self._meet(towards, Publish.of(packet))
            elif packet.kind != mqttwire.PUBACK or not self._answers_ours(towards, packet):
                self._send(towards, packet)
            await self._writers[towards].drain()

    def _answers_ours(self, towards: str, packet: Packet) -> bool:
        """A PUBACK for what the relay itself put in goes no further."""
        other = "down" if towards == "up" else "up"
        mid = int.from_bytes(packet.body[:2])
        known = mid in self._ours[other]
        self._ours[other].discard(mid)
        return known

    def _meet(self, towards: str, message: Publish) -> None:
        site, chance = self._site, self._site.random.random()
        site.count(towards, message)
        old = site.old[towards]
        if chance < site.mischief.get("forget", 0.0):
            if message.qos:
                self._send("down" if towards == "up" else "up", mqttwire.puback(message.mid))
            return
        chance = site.random.random()
        if chance < site.mischief.get("reorder", 0.0):
            self._held[towards].append(message)
            asyncio.get_running_loop().call_later(HELD_S, self._release, towards)
            return
        self._send(towards, message.packet())
        if site.random.random() < site.mischief.get("duplicate", 0.0):
            self._put_in(towards, message)
        if old and site.random.random() < site.mischief.get("replay", 0.0):
            stale = site.random.choice(old)
            if stale.topic.split("/")[:4] == message.topic.split("/")[:4]:
                self._put_in(towards, stale)
        old.append(message)
        self._release(towards)

    def _release(self, towards: str) -> None:
        held, self._held[towards] = self._held[towards], []
        for message in held:
            self._send(towards, message.packet())

    def _put_in(self, towards: str, message: Publish) -> None:
        mid = next(self._mids)
        if message.qos:
            self._ours[towards].add(mid)
        self._site.count(towards, message)
        self._send(towards, message.numbered(mid).packet())

    def _send(self, towards: str, packet: Packet) -> None:
        writer = self._writers[towards]
        if not writer.is_closing():
            writer.write(packet.encode())


class Meddler:
    """Listens, and keeps the counts."""

    def __init__(self, config: Path) -> None:
        self._path = config
        self._config = json.loads(config.read_text())
        self.random = random.Random(self._config["seed"])
        self.mischief: dict[str, float] = {}
        self.old: dict[str, deque[Publish]] = {"up": deque(maxlen=OLD), "down": deque(maxlen=OLD)}
        self._rows: dict[str, dict[tuple[str, str, int], int]] = {"up": {}, "down": {}}
        self._clients: set[asyncio.StreamWriter] = set()
        self._counts = Path(self._config["counts"])
        self.reread()

    def reread(self) -> None:
        self.mischief = json.loads(self._path.read_text())["mischief"]

    def count(self, towards: str, message: Publish) -> None:
        """Count each row of a batch: `up` from a box to the broker, `down` from the broker to the centre."""
        if "/ev/" not in message.topic:
            return
        topic = parse_topic(message.topic)
        batch = parse_batch(topic.lane or 0, message.payload)
        rows = self._rows[towards]
        for row in batch.rows:
            key = (topic.box, batch.epoch, row.seq)
            rows[key] = rows.get(key, 0) + 1

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.reread)
        loop.add_signal_handler(signal.SIGUSR1, self._cut_all)
        server = await asyncio.start_server(self._client, "", self._config["port"], ssl=self._server_tls())
        async with server:
            while True:
                await asyncio.sleep(0.5)
                self._say()

    def _say(self) -> None:
        counts = {way: [len(rows), sum(rows.values())] for way, rows in self._rows.items()}
        new = self._counts.with_suffix(".new")
        new.write_text(json.dumps(counts))
        new.rename(self._counts)

    def _cut_all(self) -> None:
        for writer in self._clients:
            writer.transport.abort()

    async def _client(self, source: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            subject = client.get_extra_info("peercert")["subject"]
            name = next(value for ((key, value),) in subject if key == "commonName")
            answers, broker = await asyncio.open_connection(
                "127.0.0.1", self._config["broker"], ssl=self._client_tls(name), server_hostname="localhost"
            )
        except (OSError, KeyError):
            client.transport.abort()
            return
        self._clients.add(client)
        relay = Relay(self, client, broker)
        ways = [asyncio.ensure_future(relay.run("up", source)), asyncio.ensure_future(relay.run("down", answers))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
            await asyncio.wait([way])
            failed = None if way.cancelled() else way.exception()
            if isinstance(failed, BaseExceptionGroup):
                failed = failed.split((OSError, asyncio.IncompleteReadError))[1]
            if failed:
                print(repr(failed), file=sys.stderr, flush=True)
        self._clients.discard(client)
        for writer in (client, broker):
            writer.transport.abort()

    def _server_tls(self) -> ssl.SSLContext:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self._config["ca"])
        tls.verify_mode = ssl.CERT_REQUIRED
        tls.load_cert_chain(*self._config["server"])
        return tls

    def _client_tls(self, name: str) -> ssl.SSLContext:
        tls = ssl.create_default_context(cafile=self._config["ca"])
        tls.load_cert_chain(*self._config["clients"][name])
        return tls


if __name__ == "__main__":
    asyncio.run(Meddler(Path(sys.argv[1])).run())
