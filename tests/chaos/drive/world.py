"""A box's telemetry, a broker and a centre in two network namespaces, and everything that can happen to them.

Real daemons, a real Mosquitto behind `meddler.py`, a real cable. The box's state and the centre's store lie on small
file systems of their own, the daemons see clocks that can be moved (wrong_clock).
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from wrong_clock import WrongClock

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.journal import JournalWriter
from sekisho.center import pki
from sekisho.center.brokers import mosquitto
from sekisho.center.brokers.model import Broker
from sekisho.center.store import Store
from sekisho.lab.net import command
from sekisho.telemetry.events import FileVerdict, Flow, encode
from sekisho.telemetry.spool_view import SpoolView

HERE = Path(__file__).parent
CENTER, BOX = "10.79.0.1", "10.79.0.2"
PORT, INNER = 8883, 18883
DAEMONS = ("box", "broker", "center")
DISK = "48m"


class World:
    """Start it, feed it, hurt it, heal it, and ask what arrived."""

    def __init__(self, root: Path, name: str, seed: int, spool_mb: int = 32) -> None:
        self.root = root
        self.random = random.Random(seed)
        self.kills = 0
        self._ns = {"box": f"{name}-box", "center": f"{name}-ctr"}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._mischief: dict[str, float] = {}
        self._cables()
        for place in ("box", "center"):
            (root / place).mkdir()
            command(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "sekisho-chaos", str(root / place)])
        self._clocks = {place: WrongClock(_made(root / f"clock-{place}")) for place in ("box", "center")}
        self.eve = root / "run" / "eve" / "eve.json"
        self.eve.parent.mkdir(parents=True)
        self.findings = root / "box" / "journal" / "inspect.jsonl"
        self._settings(seed, spool_mb)

    def _cables(self) -> None:
        box, center = self._ns["box"], self._ns["center"]
        for name in (box, center):
            command(["ip", "netns", "add", name])
            command(["ip", "-n", name, "link", "set", "lo", "up"])
        command(["ip", "link", "add", "eth0", "netns", box, "type", "veth", "peer", "name", "eth0", "netns", center])
        for name, address in ((box, BOX), (center, CENTER)):
            command(["ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0"])
            command(["ip", "-n", name, "link", "set", "eth0", "up"])

    def _settings(self, seed: int, spool_mb: int) -> None:
        root, keys = self.root, self.root / "pki"
        pki.create_ca(keys)
        server = pki.issue(keys, "broker", "server", (CENTER, "127.0.0.1", "localhost"))
        clients = {name: pki.issue(keys, name) for name in ("center", "box-1")}
        self._mosquitto = mosquitto.write_config(Broker(root / "broker", server, "127.0.0.1", INNER)).argv
        self._meddler: dict[str, Any] = {
            "port": PORT,
            "broker": INNER,
            "seed": seed,
            "ca": str(server.ca),
            "server": [str(server.cert), str(server.key)],
            "clients": {name: [str(made.cert), str(made.key)] for name, made in clients.items()},
            "counts": str(root / "counts.json"),
            "mischief": {},
        }
        self._meddle()

        def link(name: str) -> str:
            made = clients[name]
            return f'host = "{CENTER}"\nport = {PORT}\nca = "{made.ca}"\ncert = "{made.cert}"\nkey = "{made.key}"\n'

        self.store_path = root / "center" / "events.db"
        (root / "center.toml").write_text(f'store = "{self.store_path}"\n[broker]\n{link("center")}')
        (root / "box.toml").write_text(
            f'box = "box-1"\ntenant = "t1"\n[telemetry]\n{link("box-1")}spool_mb = {spool_mb}\n'
            f'[paths]\nrun = "{root}/run"\nstate = "{root}/box"\n'
        )
        self.spool_path = root / "box" / "telemetry" / "spool.db"

    def _meddle(self) -> None:
        path = self.root / "meddler.json"
        path.with_suffix(".new").write_text(json.dumps(self._meddler))
        path.with_suffix(".new").rename(path)

    def start(self, name: str) -> None:
        """Start one of the daemons or the meddler; the log is appended."""
        python = [sys.executable, "-I", "-m"]
        argv = {
            "broker": list(self._mosquitto),
            "meddler": [sys.executable, str(HERE / "meddler.py"), str(self.root / "meddler.json")],
            "center": [*python, "sekisho.center.daemon", "--settings", str(self.root / "center.toml")],
            "box": [*python, "sekisho.telemetry.daemon", "--settings", str(self.root / "box.toml")],
        }[name]
        place = "box" if name == "box" else "center"
        environment = dict(os.environ)
        if name in ("box", "center"):
            environment |= self._clocks[place].env
        with (self.root / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                ["ip", "netns", "exec", self._ns[place], *argv], stdout=log, stderr=log, env=environment
            )

    def kill(self, name: str) -> None:
        """Kill -9, and start it again as its supervisor would."""
        self.end(name)
        self.kills += 1
        self.start(name)

    def end(self, name: str) -> None:
        """Kill -9 for good."""
        process = self._running.pop(name)
        process.kill()
        process.wait(10)

    def _revive(self) -> None:
        """Start again what ended by itself, as `Restart=always` does: on a full disk a daemon ends as it begins."""
        for name in DAEMONS:
            if name in self._running and self._running[name].poll() is not None:
                self.start(name)

    def cable(self, *, up: bool) -> None:
        command(["ip", "-n", self._ns["box"], "link", "set", "eth0", "up" if up else "down"])

    @contextmanager
    def half_open(self, place: str) -> Iterator[None]:
        """Nothing that leaves `place` arrives; neither side is told."""
        rule = ["OUTPUT", "-o", "eth0", "-j", "DROP"]
        where = ["ip", "netns", "exec", self._ns[place], "iptables", "-w"]
        command([*where, "-A", *rule])
        try:
            yield
        finally:
            command([*where, "-D", *rule])

    @contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Every packet between clients and broker waits up to so long; their order stays."""
        self.mischief(delay=seconds)
        try:
            yield
        finally:
            self.mischief()

    @contextmanager
    def full_disk(self, place: str) -> Iterator[None]:
        """Not a byte free on the file system of `place`."""
        ballast = self.root / place / "ballast"
        with suppress(OSError), ballast.open("wb") as out:
            while True:
                out.write(bytes(1 << 16))
                out.flush()
        try:
            yield
        finally:
            ballast.unlink(missing_ok=True)

    def clock(self, place: str, seconds: int) -> None:
        """The daemons of `place` see a clock that is off by so much, from now on."""
        self._clocks[place].move(seconds)

    def mischief(self, **chances: float) -> None:
        """From now on the broker does this to messages; nothing = it is honest."""
        self._meddler["mischief"] = chances
        self._meddle()
        self._running["meddler"].send_signal(signal.SIGHUP)

    def reconnect(self) -> None:
        """Every connection ends and comes back: what any side waits for is due at once."""
        self._running["meddler"].send_signal(signal.SIGUSR1)

    def repeated(self, towards: str) -> float:
        """Rows that crossed more than once, as a share of all rows: `up` box to broker, `down` broker to centre."""
        rows, crossed = json.loads((self.root / "counts.json").read_text())[towards]
        return (int(crossed) - int(rows)) / max(int(rows), 1)

    def waiting(self) -> int:
        """Rows in the spool."""
        try:
            with closing(SpoolView(self.spool_path)) as view:
                return sum(lane.rows for lane in view.waiting())
        except DeviceFault:
            return -1

    def unread(self) -> int:
        """Bytes of the engine's file and of inspect's journal that are not in the spool: the box takes them up later.

        Only when there are none does an empty spool mean that everything arrived.
        """
        with closing(sqlite3.connect(f"file:{self.spool_path}?mode=ro", uri=True)) as db:
            taken = {
                name: (ino, offset) for name, ino, offset in db.execute("SELECT source, ino, offset FROM position")
            }
        left = 0
        for path in (self.eve, self.findings):
            # A rolled file goes away when it was read to its end, and only then does the next one begin.
            for part in (path, path.with_name(path.name + ".1")):
                with suppress(FileNotFoundError):
                    found = part.stat()
                    ino, offset = taken.get(path.name, (0, 0))
                    left += found.st_size - (offset if ino == found.st_ino else 0)
        return left

    def folded(self) -> int:
        """Alerts that wait on the box to be told as one."""
        with closing(sqlite3.connect(f"file:{self.spool_path}?mode=ro", uri=True)) as db:
            return int(db.execute("SELECT COALESCE(SUM(count), 0) FROM fold").fetchone()[0])

    def stored(self) -> list[dict[str, Any]]:
        """Every stored event, decoded, in the order of arrival."""
        store = Store(self.store_path, read_only=True)
        try:
            found: list[dict[str, Any]] = []
            since = 0
            while page := store.events(since_id=since, limit=10_000):
                since = page[-1].id
                found += [json.loads(bytes(row.event)) | {"_seq": (row.epoch, row.seq)} for row in page]
            return found
        finally:
            store.close()

    def again(self) -> int:
        """Rows the centre was sent though it had stored them."""
        store = Store(self.store_path, read_only=True)
        try:
            return sum(stream.repeated for stream in store.streams())
        finally:
            store.close()

    def wait(self, fact: Callable[[], object], what: str, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        while not fact():
            assert time.monotonic() < until, f"{what} within {timeout_s} s; logs:\n{self.logs()}"
            self._revive()
            time.sleep(0.1)

    def logs(self) -> str:
        return "\n".join(f"--- {p.name}\n{p.read_text()[-2500:]}" for p in sorted(self.root.glob("*.log")))

    def remove(self) -> None:
        for name in list(self._running):
            self.end(name)
        for place, ns in self._ns.items():
            subprocess.run(["umount", "-l", str(self.root / place)], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "del", ns], check=False, capture_output=True)


class Office(threading.Thread):
    """What happens in the office meanwhile: alerts and metadata from the engine, verdicts from inspect."""

    def __init__(self, world: World, per_second: int = 100) -> None:
        super().__init__(daemon=True)
        self._world = world
        self._pause = 10 / per_second
        self._over = threading.Event()
        self.alerts = 0
        self.verdicts = 0
        self.names = 0
        self.beacons = 0
        """Alerts of one rule from one device to one peer, which may arrive folded."""

    def run(self) -> None:
        journal = JournalWriter(self._world.findings, roll_bytes=64 << 10)
        with self._world.eve.open("ab", buffering=0) as eve:
            while not self._over.wait(self._pause):
                lines = []
                for _ in range(3):
                    self.alerts += 1
                    lines.append(_alert(1_000_000 + self.alerts))
                self.beacons += 1
                lines.append(_alert(7))
                for _ in range(5):
                    self.names += 1
                    lines.append(_line("dns", dns={"type": "query", "rrname": f"n{self.names}.test", "rrtype": "A"}))
                eve.write(b"".join(lines))
                verdict = FileVerdict(
                    at=_now("Z"),
                    flow=Flow("203.0.113.9", 80, "10.77.0.10", 40000, "TCP"),
                    outcome="blocked",
                    rules=["EICAR"],
                    file_name=f"v{self.verdicts + 1}.exe",
                    sha256=f"{self.verdicts + 1:064x}",
                    size=100,
                )
                with suppress(DeviceFault):  # a full disk: the finding is kept and written again
                    journal.append(encode(verdict), durable=False)
                    self.verdicts += 1

    def flood(self, names: int) -> None:
        """So many names are asked for at once."""
        first = 10_000_000
        lines = [
            _line("dns", dns={"type": "query", "rrname": f"{os.urandom(8).hex()}.n{first + n}.test", "rrtype": "A"})
            for n in range(names)
        ]
        fd = os.open(self._world.eve, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, b"".join(lines))
        finally:
            os.close(fd)
        self.names += names

    def stop(self) -> None:
        self._over.set()
        self.join(10)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _now(zone: str) -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}{zone}"


def _alert(sid: int) -> bytes:
    return _line("alert", alert={"signature_id": sid, "signature": f"rule {sid}", "severity": 1, "action": "blocked"})


def _line(kind: str, **fields: object) -> bytes:
    base = {"src_ip": "10.77.0.10", "src_port": 40000, "dest_ip": "203.0.113.9", "dest_port": 80, "proto": "TCP"}
    return json.dumps({"timestamp": _now("+0000"), "event_type": kind, **base, **fields}).encode() + b"\n"
