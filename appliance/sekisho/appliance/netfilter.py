"""The one generator of packet rules, and their loading into the kernel.

Owns the chains named SK_* in `mangle` and `filter` (both families), the jumps into them, and the
sysctls that make the bridge ask netfilter. Never touches anybody else's rules: everything is loaded
with `--noflush` into chains of our own. `plan` is pure; `apply` loads a plan, one transaction per
table, so that a packet meets either the old rules or the new ones.

A packet's way through the box (docs/contract.md):
mangle FORWARD asks the engine; filter FORWARD, which runs after the engine's verdict, keeps its marks
on the connection, resets what was cut and asks the gate; mangle POSTROUTING keeps the gate's marks.

What a policy refuses (REFUSE in the mark, from the engine's rules or the firewall's) stays refused: TCP is led to the
gate, which answers HTTP with a page and turns anything else into a reset that the engine sees; without a gate, and for
everything that is not TCP, the last line in refusal.py withholds the packet and has its sender told.

While the engine does not know what a TCP connection is for, what its client sends passes the gate as well, which lets
nothing through that lies behind a gap (docs/decisions/0012-in-order-until-known.md). The answer to the first SYN begins
this; what the gate was asked about and did not see (dead, hung, overrun) ends it for its connection.
"""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sekisho.appliance import firewall, refusal
from sekisho.appliance.core import marks
from sekisho.appliance.core.errors import DeviceFault

GATE_QUEUE: Final = 64
TOOL_TIMEOUT_S: Final = 10
TOOLS: Final = ("iptables", "ip6tables")

SYSCTLS: Final[tuple[tuple[str, str], ...]] = (
    ("net/bridge/bridge-nf-call-iptables", "1"),
    ("net/bridge/bridge-nf-call-ip6tables", "1"),
    ("net/bridge/bridge-nf-call-arptables", "0"),
    ("net/bridge/bridge-nf-filter-vlan-tagged", "1"),
    ("net/bridge/bridge-nf-filter-pppoe-tagged", "1"),
    ("net/bridge/bridge-nf-pass-vlan-input-dev", "0"),
    # A box that starts between two talking machines must not judge sequence numbers it never saw.
    ("net/netfilter/nf_conntrack_tcp_be_liberal", "1"),
    # A segment with a wrong check sum must not lose its connection's mark: the engine mends such a repetition (it puts
    # in what came first, and a right sum), and without the mark it would pass the gate by.
    ("net/netfilter/nf_conntrack_checksum", "0"),
)

BARE_ACK: Final = "@BARE_ACK@"
"""Stands in a plan for the match of a TCP segment without payload, SYN, FIN or RST, which differs by family."""
_BARE_ACK: Final = {
    # tcpdump -ddd -y RAW: tcp[13] & 7 = 0 and ip[2:2] - ((ip[0] & 0xf) << 2) - ((tcp[12] & 0xf0) >> 2) = 0
    "iptables": "28,48 0 0 0,84 0 0 240,21 0 24 64,48 0 0 9,21 0 22 6,40 0 0 6,69 20 0 8191,177 0 0 0,80 0 0 13,"
    "69 17 0 7,40 0 0 2,2 0 0 4,48 0 0 0,84 0 0 15,100 0 0 2,7 0 0 8,96 0 0 4,28 0 0 0,2 0 0 8,177 0 0 0,80 0 0 12,"
    "84 0 0 240,116 0 0 2,7 0 0 12,96 0 0 8,29 0 1 0,6 0 0 262144,6 0 0 0",
    # ip6[6] = 6 and ip6[53] & 7 = 0 and ip6[4:2] - ((ip6[52] & 0xf0) >> 2) = 0
    "ip6tables": "17,48 0 0 0,84 0 0 240,21 0 13 96,48 0 0 6,21 0 11 6,48 0 0 53,69 9 0 7,40 0 0 4,2 0 0 6,48 0 0 52,"
    "84 0 0 240,116 0 0 2,7 0 0 10,96 0 0 6,29 0 1 0,6 0 0 262144,6 0 0 0",
}
_BYPASSED: Final = f"{marks.BYPASS:#x}/{marks.BYPASS:#x}"
_REFUSED: Final = f"{marks.REFUSE:#x}/{marks.REFUSE:#x}"
_CANARY: Final = f"{marks.CANARY:#x}/{marks.CANARY_MASK:#x}"
_KEPT: Final = marks.CUT | marks.DEEP | marks.WATCHED
HOOKS: Final = (
    ("mangle", "FORWARD", ("-m", "physdev", "--physdev-is-bridged", "-j", "SK_LOOK")),
    ("filter", "FORWARD", ("-m", "physdev", "--physdev-is-bridged", "-j", "SK_GATE")),
    ("mangle", "POSTROUTING", ("-m", "mark", "!", "--mark", f"0x0/{_KEPT:#x}", "-j", "SK_KEEP")),
    (
        "mangle",
        "POSTROUTING",
        ("-p", "tcp", "-m", "connmark", "--mark", _BYPASSED, "-j", "MARK", "--or-mark", f"{marks.EXPRESS:#x}"),
    ),
    ("mangle", "OUTPUT", ("-o", "lo", "-p", "udp", "-m", "mark", "--mark", _CANARY, "-j", "SK_CANARY")),
)
CHAINS: Final = {
    "mangle": ("SK_LOOK", "SK_KEEP", "SK_SEEN", "SK_CANARY", *(f"SK_Q{i}" for i in range(32))),
    "filter": ("SK_GATE", "SK_SAVE", "SK_REFUSE", "SK_FILES", "SK_UNKNOWN", "SK_HOLD"),
}


@dataclass(frozen=True)
class Mode:
    """Which of the two inspectors the packets are led around."""

    engine_bypass: bool = False
    gate_bypass: bool = False


NORMAL: Final = Mode()


def plan(queues: int, fail_closed: bool, mode: Mode = NORMAL, first: int = 0, berths: int = 1) -> str:
    """The rules of one family as `iptables-restore --noflush` text (both families read the same).

    `queues` is the number of an engine's queues, 1-16, `first` that of the first one the customer's packets are led to:
    0, or `queues` for the engine in the other place. With two `berths` there are rules for both, and canaries reach
    either engine.
    """
    if not 1 <= queues <= 16 or first not in (0, queues) or (first and berths != 2):
        raise ValueError(f"{queues} queues from {first}")
    numbers = range(queues * berths)
    lines = ["*mangle", *(f":{chain} - [0:0]" for chain in CHAINS["mangle"][: 4 + len(numbers)])]
    lines += _look(queues, first, mode)
    around = range(first, first + queues) if mode.engine_bypass else ()
    for i in numbers:
        if i in around:
            continue
        # The spread value's low bits would read as BYPASS or REPLY further on: replaced before the engine adds its own.
        number = i % 16 << marks.ENGINE_SHIFT | i // 16 * marks.ENGINE_HIGH | marks.SEEN
        lines += [f"-A SK_Q{i} -j MARK --set-mark {number:#x}", f"-A SK_Q{i} {_queue(i, fail_closed)}"]
    # By the very rule that leads the customer's packets there: around the engine with them, stopped with them.
    lines += [f"-A SK_CANARY -m mark --mark {marks.CANARY | i:#x} -j SK_Q{i}" for i in numbers]
    lines.append(f"-A SK_SEEN -j MARK --or-mark {marks.SEEN:#x}")
    lines += [_or_connmark("SK_KEEP", bit) for bit in (marks.CUT, marks.DEEP)]
    unknown = f"-A SK_KEEP -m mark --mark {marks.WATCHED:#x}/{marks.WATCHED:#x} -m conntrack --ctdir"
    # Not by an answer that a hung gate kept back: its repetition went by, and the client has been speaking since.
    lines.append(f"{unknown} REPLY ! --ctstatus ASSURED -j CONNMARK --or-mark {marks.UNKNOWN:#x}")
    lines.append(f"{unknown} ORIGINAL -j CONNMARK --and-mark {marks.UNKNOWN ^ 0xFFFFFFFF:#x}")
    lines += ["COMMIT", "*filter", *(f":{chain} - [0:0]" for chain in CHAINS["filter"])]
    lines += _gate(fail_closed, mode)
    lines += ["COMMIT", ""]
    return "\n".join(lines)


def _queue(number: int, fail_closed: bool) -> str:
    return f"-j NFQUEUE --queue-num {number}" + ("" if fail_closed else " --queue-bypass")


def _or_connmark(chain: str, bit: int) -> str:
    return f"-A {chain} -m mark --mark {bit:#x}/{bit:#x} -j CONNMARK --or-mark {bit:#x}"


def _look(queues: int, first: int, mode: Mode) -> list[str]:
    if mode.engine_bypass:
        return []
    lines = [
        f"-A SK_LOOK -m mark --mark {_REFUSED} -j RETURN",
        _or_connmark("SK_LOOK", marks.PPPOE),
        f"-A SK_LOOK -m connmark --mark {marks.BYPASS:#x}/{marks.BYPASS:#x} -j RETURN",
        f"-A SK_LOOK -m connmark --mark {marks.CUT:#x}/{marks.CUT:#x} -g SK_SEEN",
        f"-A SK_LOOK -m connmark --mark {marks.DEEP:#x}/{marks.DEEP:#x} -m conntrack --ctdir REPLY -g SK_SEEN",
        f"-A SK_LOOK -m connmark --mark {marks.DEEP:#x}/{marks.DEEP:#x} {BARE_ACK} -g SK_SEEN",
    ]
    if queues > 1:
        lines.append(
            "-A SK_LOOK -j HMARK --hmark-tuple src,dst,sport,dport "
            f"--hmark-mod {queues} --hmark-offset {marks.SPREAD:#x} --hmark-rnd 7"
        )
        lines += [f"-A SK_LOOK -m mark --mark {marks.SPREAD + i:#x} -j SK_Q{first + i}" for i in range(1, queues)]
    return [*lines, f"-A SK_LOOK -j SK_Q{first}"]


def _gate(fail_closed: bool, mode: Mode) -> list[str]:
    carriers = [1 << at for at in range(marks.FILES.bit_length()) if marks.FILES >> at & 1]
    lines = [
        f"-A SK_GATE -m mark --mark {_REFUSED} -j SK_REFUSE",
        f"-A SK_GATE -m connmark --mark {marks.BYPASS:#x}/{marks.BYPASS:#x} -j RETURN",
        f"-A SK_GATE -m mark ! --mark 0x0/{marks.BYPASS | marks.FILES:#x} -j SK_SAVE",
        f"-A SK_GATE -p tcp -m connmark --mark {_REFUSED} -j SK_REFUSE",
        f"-A SK_GATE -p tcp -m connmark --mark {marks.CUT:#x}/{marks.CUT:#x} -j REJECT --reject-with tcp-reset",
        f"-A SK_GATE -p tcp -m connmark ! --mark 0x0/{marks.FILES:#x} -j SK_FILES",
    ]
    lines += _unknown()
    lines += [_or_connmark("SK_SAVE", bit) for bit in (marks.BYPASS, *carriers)]
    lines += _refuse(mode)
    # Acknowledgements alone carry no file; only a refused mail is answered in one.
    lines += [f"-A SK_FILES -m connmark --mark 0x0/{marks.MAIL:#x} {BARE_ACK} -j RETURN", "-A SK_FILES -j SK_HOLD"]
    lines += [
        f"-A SK_HOLD -m connmark --mark {bit:#x}/{bit:#x} -j MARK --or-mark {bit:#x}"
        for bit in (*carriers, marks.PPPOE, marks.DEEP)
    ]
    if mode.gate_bypass:
        return lines  # the marks stay: they tell the coverage what the gate would have looked at
    lines += [
        f"-A SK_HOLD -m conntrack --ctdir REPLY -j MARK --or-mark {marks.REPLY:#x}",
        f"-A SK_HOLD {_queue(GATE_QUEUE, fail_closed)}",
    ]
    return lines


def _unknown() -> list[str]:
    """The gate sees the answer to a first SYN, and what the client sends from then on until that is known."""
    decided = marks.FILES | marks.BYPASS | marks.CUT | marks.REFUSE
    to_server = f"-m connmark --mark {marks.UNKNOWN:#x}/{marks.UNKNOWN | decided:#x} -m conntrack --ctdir ORIGINAL"
    return [
        "-A SK_GATE -p tcp --tcp-flags FIN,SYN,RST,ACK SYN,ACK "
        f"-m connmark --mark 0x0/{decided:#x} -m conntrack --ctdir REPLY -j SK_HOLD",
        f"-A SK_GATE -p tcp {to_server} -j SK_UNKNOWN",
        f"-A SK_UNKNOWN {BARE_ACK} -j RETURN",
        f"-A SK_UNKNOWN -j MARK --or-mark {marks.WATCHED:#x}",
        "-A SK_UNKNOWN -j SK_HOLD",
    ]


def _refuse(mode: Mode) -> list[str]:
    """A refused packet, or a later one of a refused TCP flow; refusal.py withholds what is not led to the gate."""
    why = marks.REFUSE | marks.WHY
    keep = f"-j CONNMARK --save-mark --nfmask {why:#x} --ctmask {why | marks.BYPASS:#x}"
    lines = [
        f"-A SK_REFUSE -m mark ! --mark 0x0/{marks.FILES:#x} -j SK_SAVE",
        f"-A SK_REFUSE -p tcp -m mark --mark {_REFUSED} {keep}",
        # Another connection on the same ports while the table still knows the refused one: it asks again in a second.
        f"-A SK_REFUSE -p tcp -m tcp --tcp-flags SYN,ACK SYN -m mark --mark 0x0/{marks.REFUSE:#x} -j DROP",
        f"-A SK_REFUSE -p tcp -m connmark --mark {_REFUSED} "
        f"-j CONNMARK --restore-mark --nfmask {why:#x} --ctmask {why:#x}",
        f"-A SK_REFUSE -p tcp -m connmark --mark {marks.CUT:#x}/{marks.CUT:#x} -j REJECT --reject-with tcp-reset",
    ]
    if not mode.gate_bypass:
        lines.append("-A SK_REFUSE -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j SK_HOLD")
    return [*lines, "-A SK_REFUSE -j ACCEPT"]


def apply(text: str) -> None:
    """Load a plan for both families; quick (about 20 ms), used for every flip.

    Raises:
        DeviceFault: the kernel or the tools refused it; the rules in force stay in force.

    """
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda tool: _load(tool, text), TOOLS))


def _load(tool: str, text: str) -> None:
    match = f'-m bpf --bytecode "{_BARE_ACK[tool]}"'
    _run([f"{tool}-restore", "--noflush", "-w", "2"], text.replace(BARE_ACK, match))


def install(text: str) -> None:
    """Load a plan and make sure the kernel's chains lead into it (once each, however often called).

    Raises:
        DeviceFault: as `apply`.

    """
    if not refusal.present():
        refusal.install()
    apply(text)
    for tool in TOOLS:
        for table, chain, rule in HOOKS:
            if not _present(tool, table, chain, rule):
                _run([tool, "-w", "2", "-t", table, "-I", chain, *rule])


def intact() -> bool:
    """The jumps and the sysctls are as we left them (a firewall program's reload may have swept them away).

    Raises:
        DeviceFault: the tools do not answer.

    """
    wanted = dict(SYSCTLS)
    if any(value != wanted[key] for key, value in read_sysctls().items()):
        return False
    try:
        return refusal.present() and all(_present(tool, *hook) for tool in TOOLS for hook in HOOKS)
    except (OSError, subprocess.TimeoutExpired) as err:
        raise DeviceFault(f"The packet rules could not be read: {err}.") from err


def leads_to() -> int | None:
    """The first of the queues that the rules in force lead the customer's packets to; None where they lead to none."""
    try:
        found = re.search(r"^-A SK_LOOK -j SK_Q(\d+)$", _run([f"{TOOLS[0]}-save", "-t", "mangle"]), re.M)
    except DeviceFault:
        return None
    return int(found[1]) if found else None


def canaries_led() -> bool:
    """Whether the rule that leads the engine's canaries into its queues is in force."""
    try:
        return _present(TOOLS[0], *HOOKS[-1])
    except (OSError, subprocess.TimeoutExpired):
        return False


def remove() -> None:
    """Take our rules out again; other rules are left as they are.

    Raises:
        DeviceFault: the tools failed.

    """
    for tool in TOOLS:
        for table, chain, rule in HOOKS:
            while _present(tool, table, chain, rule):
                _run([tool, "-w", "2", "-t", table, "-D", chain, *rule])
        listed = _run([f"{tool}-save"])
        for table, chains in CHAINS.items():
            ours = [chain for chain in chains if f":{chain} " in listed]
            if ours:
                text = [f"*{table}", *(f"-F {c}" for c in ours), *(f"-X {c}" for c in ours), "COMMIT", ""]
                _run([f"{tool}-restore", "--noflush", "-w", "2"], "\n".join(text))
    firewall.remove()
    refusal.remove()


def _present(tool: str, table: str, chain: str, rule: tuple[str, ...]) -> bool:
    argv = [tool, "-w", "2", "-t", table, "-C", chain, *rule]
    return subprocess.run(argv, capture_output=True, timeout=TOOL_TIMEOUT_S, check=False).returncode == 0


def _run(argv: list[str], text: str = "") -> str:
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as err:
        raise DeviceFault(f"The packet rules could not be loaded: {err}.") from err
    if done.returncode != 0:
        raise DeviceFault(f"The packet rules were refused: {argv[0]}: {done.stderr.strip()[-400:]}.")
    return done.stdout


def read_sysctls(root: Path = Path("/proc/sys")) -> dict[str, str]:
    """What the kernel has now, for those of `SYSCTLS` that exist."""
    return {key: (root / key).read_text().strip() for key, _ in SYSCTLS if (root / key).exists()}


def write_sysctls(values: dict[str, str], root: Path = Path("/proc/sys")) -> None:
    """Set `values`.

    Raises:
        DeviceFault: the kernel has no such switch (br_netfilter or conntrack missing).

    """
    for key, value in values.items():
        try:
            (root / key).write_text(value)
        except OSError as err:
            raise DeviceFault(f"The kernel does not offer {key}: {err.strerror}.", "Load br_netfilter.") from err
