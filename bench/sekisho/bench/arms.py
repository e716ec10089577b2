"""What is compared: the product, the bare bridge, and the packaged Suricata configuration in NFQUEUE mode.

All three stand side by side, each in a lab of its own, and only the one being measured has work to do.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.settings import load
from sekisho.appliance.status import try_read
from sekisho.lab import layout
from sekisho.lab.lab import Lab

SCANNED_MB = 60
"""Size of the clear-text file: below the box's scan limit, so every byte of it is scanned."""
STREAMS = 4
_PACKAGED = Path("/etc/suricata/suricata.yaml")
_RULES_READY_S = 180


class Arms(msgspec.Struct):
    """The labs of one run."""

    product: Lab
    bare: Lab
    packaged: Lab
    engine: int
    """Process id of the packaged Suricata."""
    rules: int
    """Rules that both engines run."""

    def lab(self, name: str) -> Lab:
        """The lab of an arm: product, packaged, bare (hooks as the kernel starts them) or hookless."""
        if name in ("bare", "hookless"):
            _bridge_calls(self.bare, "0" if name == "hookless" else "1")
            return self.bare
        return self.product if name == "product" else self.packaged


@contextmanager
def standing(name: str, rules_dir: str) -> Iterator[Arms]:
    """Bring the three labs up and take them down again, whatever happens.

    Raises:
        DeviceFault: a lab or an engine did not get ready.

    """
    with Lab(f"{name}-product") as product, Lab(f"{name}-bare") as bare, Lab(f"{name}-packaged") as packaged:
        product.up({"signatures": {"rules_dir": rules_dir}}, timeout_s=_RULES_READY_S)
        for lab in (bare, packaged):
            lab.up(with_product=False)
        product.wait(lambda: _inspecting(product), "the box does not inspect", _RULES_READY_S)
        for lab in (product, bare, packaged):
            offer(lab)
        rules = product.lay.box_state / "signatures" / "current" / "suricata.rules"
        with packaged_engine(packaged, rules) as engine:
            yield Arms(product, bare, packaged, engine.pid, rules.read_bytes().count(b"\n"))


def _inspecting(lab: Lab) -> bool:
    """The engine runs with all its rules and neither inspector is led around."""
    status = try_read(load(lab.lay.box_settings))
    return (
        status is not None
        and status.fresh
        and status.engine.phase == "running"
        and not status.engine_bypass.reason
        and not status.gate_bypass.reason
    )


def offer(lab: Lab) -> None:
    """Put the large files on the lab's web server."""
    body = programs(SCANNED_MB * 1_000_000)
    for number in range(STREAMS):
        (lab.lay.www / "clean" / f"{SCANNED_MB}m-{number}.bin").write_bytes(body)


def programs(size: int) -> bytes:
    """Real programs of this machine, one after the other: what a large download usually is."""
    found = bytearray()
    for path in sorted(Path("/usr/bin").iterdir()):
        if len(found) < size and path.is_file() and not path.is_symlink():
            found += path.read_bytes()
    return bytes(found * (size // len(found) + 1))[:size]


def renew(lab: Lab) -> None:
    """Make the large files new to the box: what it remembers of the last download must not help it."""
    for number in range(STREAMS):
        with (lab.lay.www / "clean" / f"{SCANNED_MB}m-{number}.bin").open("r+b") as file:
            file.write(secrets.token_bytes(32))


def _bridge_calls(lab: Lab, value: str) -> None:
    keys = [f"net.bridge.bridge-nf-call-{table}={value}" for table in ("iptables", "ip6tables")]
    lab.run("box", ["sysctl", "-q", "-w", *keys, "net.bridge.bridge-nf-call-arptables=0"], check=True)


class Packaged:
    """The distribution's configuration as it is, told only where its files are."""

    def __init__(self, lab: Lab, rules: Path) -> None:
        self._lab = lab
        self._work = lab.lay.root / "packaged"
        self._work.mkdir()
        settings = {
            "default-rule-path": str(rules.parent),
            "rule-files.0": rules.name,
            "unix-command.enabled": "no",
            "vars.address-groups.HOME_NET": f"[{','.join(layout.HOME_NETWORKS)}]",
        }
        self._argv = ["suricata", "-c", str(_PACKAGED), "-q", "0", "-l", str(self._work)]
        self._argv += ["--pidfile", str(self._work / "pid")]
        self._argv += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        self._engine: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._engine.pid if self._engine is not None else 0

    def start(self) -> None:
        """Return when it inspects.

        Raises:
            DeviceFault: it ended.

        """
        lab = self._lab
        with (self._work / "log").open("wb") as log:
            engine = self._engine = subprocess.Popen(
                lab.inside("box", self._argv),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=lab.env(), cwd=self._work,
            )  # fmt: skip
        lab.wait(lambda: engine.poll() is not None or _queue_bound(engine.pid), "Suricata is not ready", _RULES_READY_S)
        if engine.poll() is not None:
            raise DeviceFault(f"The packaged Suricata ended: {(self._work / 'log').read_text()[-500:]}")

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._engine is not None:
            self._engine.send_signal(number)
            self._engine.wait()
            (self._work / "pid").unlink(missing_ok=True)  # over a stale one it would not start
            self._engine = None


@contextmanager
def packaged_engine(lab: Lab, rules: Path, *, bypass: bool = True) -> Iterator[Packaged]:
    """It runs inside the block. Without `bypass` nothing passes while it does not, as its own manual has it."""
    _bridge_calls(lab, "1")
    engine = Packaged(lab, rules)
    try:
        engine.start()
        for tool in ("iptables", "ip6tables"):
            rule = ["-A", "FORWARD", "-j", "NFQUEUE", "--queue-num", "0", *(["--queue-bypass"] if bypass else [])]
            lab.run("box", [tool, *rule], check=True)
        yield engine
    finally:
        engine.end()


def _queue_bound(pid: int) -> bool:
    """The engine binds its queue only after its rules are loaded. `pid` became Suricata by exec, in its namespace."""
    try:
        return bool(Path(f"/proc/{pid}/net/netfilter/nfnetlink_queue").read_text().strip())
    except OSError:
        return False


@contextmanager
def gate_bypassed(lab: Lab) -> Iterator[None]:
    """While inside, files of this lab's box are looked at by Suricata but not held for YARA."""
    _gate(lab, bypass=True)
    try:
        yield
    finally:
        _gate(lab, bypass=False)


def _gate(lab: Lab, *, bypass: bool) -> None:
    queues = min(os.cpu_count() or 1, 16)
    code = (
        f"from sekisho.appliance import netfilter as n;n.apply(n.plan({queues}, False, n.Mode(gate_bypass={bypass})))"
    )
    lab.run("box", [sys.executable, "-I", "-c", code], check=True)
