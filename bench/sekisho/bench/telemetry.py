"""What an event costs on its way from EVE to the broker, beside senders that neither filter nor keep anything.

The same lines go three ways in turn, over TLS, QoS 1, to the same Mosquitto: through the telemetry daemon (decode,
allow-list, stars, durable spool, batches, a centre that acknowledges), through `mosquitto_pub -l` (the floor: each
line as it is) and through a plain loop of the MQTT library. Processor time is the sending process's own.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault
from sekisho.bench import eve_lines
from sekisho.bench.center_stand import Stand, standing
from sekisho.bench.figures import Figure, median
from sekisho.center import pki
from sekisho.telemetry import batches, events
from sekisho.telemetry.batches import Row
from sekisho.telemetry.decode import decode_eve
from sekisho.telemetry.events import lane_of
from sekisho.telemetry.inventory import Inventory

LINES: Final = 20_000
ROUNDS: Final = 3
TOPIC: Final = "floor"
LOOP: Final = """
import ssl, sys
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
ca, cert, key, port, path, topic = sys.argv[1:]
client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="loop", protocol=mqtt.MQTTv311)
client.tls_set(ca, cert, key)
client.connect("127.0.0.1", int(port))
client.loop_start()
with open(path, "rb") as lines:
    last = [client.publish(topic, line.rstrip(), qos=1) for line in lines][-1]
last.wait_for_publish()
client.disconnect()
client.loop_stop()
"""


def telemetry(lines: int = LINES, rounds: int = ROUNDS) -> list[Figure]:
    """Lines a second of one core for each sender, memory, and bytes per event on the wire.

    Raises:
        DeviceFault: a part did not come up, or lines did not arrive.

    """
    with tempfile.TemporaryDirectory(prefix="sekisho-bench-telemetry-") as folder, standing(Path(folder)) as stand:
        stand.start_broker(boxes=4, workers=1)
        stand.start_worker(1)
        _admit(stand, "floor", "loop")  # the broker serves by now: a signal before that would end it
        stand.eve.parent.mkdir(parents=True)
        stand.eve.touch()
        stand.start_box()
        stand.wait(lambda: _waiting(stand) == 0, "the box has no spool")
        cost: dict[str, list[float]] = {"product": [], "mosquitto_pub": [], "paho": []}
        wall: list[float] = []
        for number in range(rounds):
            made = eve_lines.make(lines, seed=number)
            sample = stand.root / "lines"
            sample.write_bytes(b"".join(made))
            began = time.monotonic()
            cost["product"].append(_product(stand, sample))
            wall.append(lines / (time.monotonic() - began))
            cost["mosquitto_pub"].append(_floor(stand, sample))
            cost["paho"].append(_loop(stand, sample))
        rate = {name: lines / median(spent) for name, spent in cost.items()}
        detail = {f"{name}, lines/s per core": value for name, value in rate.items()}
        detail["product, lines/s as they arrive here"] = median(wall)
        return [
            Figure("eve_lines", "EVE lines/s per core, file to ack", rate["product"], "/s", 0, "report", detail),
            Figure("eve_of_paho", "of a plain loop's that neither filters nor keeps",
                   rate["product"] / rate["paho"], "x", 1.0, "at least"),
            Figure("telemetry_rss", "telemetry's memory at its peak", _peak_mb(stand), "MB", 64, "at most"),
            _wire(eve_lines.make(lines, seed=9)),
        ]  # fmt: skip


def _product(stand: Stand, sample: Path) -> float:
    """Processor seconds until the centre has acknowledged every line."""
    before = stand.cpu_s("box")
    with stand.eve.open("ab") as out, sample.open("rb") as source:
        shutil.copyfileobj(source, out)
    size = stand.eve.stat().st_size
    stand.wait(lambda: _offset(stand) == size and _waiting(stand) == 0, "lines still wait on the box", 120)
    return stand.cpu_s("box") - before


def _floor(stand: Stand, sample: Path) -> float:
    mine = pki.issue(stand.authority, "floor")
    tls = ["--cafile", str(mine.ca), "--cert", str(mine.cert), "--key", str(mine.key)]
    argv = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(stand.port), *tls, "-t", TOPIC, "-q", "1", "-l"]
    return _spent([*argv, "-i", "floor"], sample)


def _loop(stand: Stand, sample: Path) -> float:
    mine = pki.issue(stand.authority, "loop")
    files = [str(path) for path in (mine.ca, mine.cert, mine.key)]
    return _spent([sys.executable, "-I", "-c", LOOP, *files, str(stand.port), str(sample), TOPIC], sample)


def _spent(argv: list[str], stdin: Path) -> float:
    """Processor seconds of a program from its start to its end."""
    with stdin.open("rb") as lines:
        process = subprocess.Popen(argv, stdin=lines)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise DeviceFault(f"{argv[0]} ended with {process.returncode}.")
    return usage.ru_utime + usage.ru_stime


def _admit(stand: Stand, *names: str) -> None:
    """Let the two plain senders write a topic nobody reads."""
    with (stand.root / "broker" / "acl").open("a") as acl:
        acl.write("".join(f"\nuser {name}\ntopic write {TOPIC}\n" for name in names))
    stand.processes["broker"].send_signal(signal.SIGHUP)


def _waiting(stand: Stand) -> int:
    return _ask(stand, "SELECT (SELECT COUNT(*) FROM event) + (SELECT COUNT(*) FROM block WHERE had_at IS NULL)")


def _offset(stand: Stand) -> int:
    return _ask(stand, "SELECT offset FROM position WHERE source = 'eve.json'")


def _ask(stand: Stand, query: str) -> int:
    spool = stand.root / "state" / "telemetry" / "spool.db"
    try:
        with closing(sqlite3.connect(f"file:{spool}?mode=ro", uri=True)) as db:
            row = db.execute(query).fetchone()
    except sqlite3.OperationalError:
        return -1
    return int(row[0]) if row else -1


def _peak_mb(stand: Stand) -> float:
    status = Path(f"/proc/{stand.processes['box'].pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _wire(lines: list[bytes]) -> Figure:
    """Bytes an event has in a batch: as it is, and as it goes."""
    inventory = Inventory(Path("/nonexistent"), None, ("192.168.0.0/16",))
    made = [event for line in lines if (event := decode_eve(line, inventory))]
    rows = [Row(seq, lane_of(event), events.encode(event)) for seq, event in enumerate(made, 1)]
    detail = {"EVE itself": sum(map(len, lines)) / len(lines)}
    sizes = {}
    for name, size in (("alone", 1), ("in batches of 10", 10), ("in batches of 1,000", 1000)):
        packets = [batches.encode_lines(rows[at : at + size]) for at in range(0, len(rows), size)]
        detail[f"plain, {name}"] = sum(map(len, packets)) / len(rows)
        sent = [batches.payload("0" * 16, size, lines, packed=False) for lines in packets]
        sizes[name] = detail[f"as sent, {name}"] = sum(map(len, sent)) / len(rows)
    return Figure("wire_bytes", "bytes per event on the wire, 1,000 in a batch",
                  sizes["in batches of 1,000"], "B", 100, "at most", detail)  # fmt: skip
