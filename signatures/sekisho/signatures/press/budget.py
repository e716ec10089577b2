"""What the engine takes with a set, measured on the engine itself, and what is left out so that it fits.

The engine reads its packets from a named pipe that brings one empty frame and then nothing: it loads everything as on
a box, and then rests.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.signatures.model import TESTER_BYTES, TESTER_SECONDS, Rule

_ONE_FRAME = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + struct.pack("<IIII", 1, 0, 60, 60) + bytes(60)
"""A capture's beginning: the engine looks at the first frame's time before it starts."""
_POLL_SECONDS = 0.05
_LOG = "weigh.log"
_LOADED = re.compile(r"(\d+) rules successfully loaded, 0 rules failed")


class Weight(msgspec.Struct, frozen=True, kw_only=True):
    """Megabytes of resident memory: at rest with the rules loaded, and the most while they were loaded."""

    rest_mb: int
    peak_mb: int


def weigh(rules: Sequence[Rule], config: str, work: Path) -> Weight:
    """Load the rules into the real engine, and say what it takes. Blocks for as long as an engine takes to start.

    `config` is the engine's configuration with its paths below `work` (`tester.engine_config`).

    Raises:
        RejectedInput: the engine ended while it loaded (out of time or memory, or it refuses the rules).
        DeviceFault: Suricata is not installed.

    """
    for folder in ("run/eve", "run/suricata", "run/inspect", "run/filestore"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    (work / "suricata.rules").write_text("".join(rule.text + "\n" for rule in rules))
    (work / "weigh.yaml").write_text(config)
    with _resting(work) as engine:
        status = Path(f"/proc/{engine.pid}/status").read_text()
    count = loaded((work / _LOG).read_text(errors="replace"))
    if count != len(rules):
        raise RejectedInput(f"The engine loaded {count} of the {len(rules)} rules.")
    found = {
        name: int(kilobytes) for name, kilobytes in re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.MULTILINE)
    }
    return Weight(rest_mb=-(-found["VmRSS"] // 1024), peak_mb=-(-found["VmHWM"] // 1024))


def loaded(said: str) -> int:
    """How many rules an engine says ("-v") it loaded; 0 where it refused any or says nothing."""
    found = _LOADED.search(said)
    return int(found[1]) if found else 0


@contextmanager
def _resting(work: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The engine, everything loaded and every thread waiting; ended afterwards."""
    pipe = work / "nothing.pcap"
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe, 0o600)
    limits = ["prlimit", f"--cpu={TESTER_SECONDS}", f"--as={TESTER_BYTES}", f"--fsize={1 << 30}", "--core=0", "--"]
    argv = [
        *limits,
        "suricata",
        "-v",
        "-c",
        str(work / "weigh.yaml"),
        "-r",
        str(pipe),
        "-l",
        str(work),
        "--runmode",
        "autofp",
    ]
    log = work / _LOG
    with log.open("wb") as out:
        try:
            engine = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        except OSError as err:
            raise DeviceFault("Suricata could not be started.", "Install Suricata 7.0.10 or later.") from err
    fd = -1
    try:
        until = time.monotonic() + TESTER_SECONDS
        while b"Engine started" not in log.read_bytes():
            if fd < 0:
                fd = _opened(pipe)
            if engine.poll() is not None or time.monotonic() > until:
                last = log.read_bytes()[-300:].decode(errors="replace")
                raise RejectedInput(f"The engine does not start with this set (out of time or memory?): {last}.")
            time.sleep(_POLL_SECONDS)
        yield engine
    finally:
        engine.kill()
        engine.wait()
        if fd >= 0:
            os.close(fd)


def _opened(pipe: Path) -> int:
    """The pipe's writing end once the engine reads it, with one empty frame in it; -1 until then."""
    try:
        fd = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1
    os.write(fd, _ONE_FRAME)
    return fd
