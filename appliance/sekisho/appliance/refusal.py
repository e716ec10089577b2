"""The last line of a refusal: what a policy refuses never leaves, and its sender hears so at once.

A refused packet carries REFUSE in its mark when it comes out of the packet rules (netfilter.py). Either the gate has
made a reset of it, for the other end and the engine (then CUT is in its mark as well), and it goes on; or nobody took
care of it (UDP, a first SYN, a gate that is dead or bypassed), and it ends here. A refused UDP flow (QUIC) is
remembered by its ports for a while, since conntrack forgets what never left.

Both kinds are logged to the `Responder`, which tells the sender in a frame of its own (answers.py): the box needs no
address or route for that, tags stay as they are, and the kernel's limit of ICMP errors (six, then one a second) does
not turn a burst of questions into a hang. The rest is in the kernel: with the responder away the refused packet is
still withheld, and a TCP client hears from the kernel when it repeats itself (CUT in netfilter.py).

The kernel's connection table saw neither end: the responder deletes the entry, or the next connection between the same
ports would be refused in its name for as long as the entry lives (five days).
"""

from __future__ import annotations

import logging
import socket
import threading
from typing import Final

from sekisho.appliance import answers, nft
from sekisho.appliance.core import marks
from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.nflog import Logged, LogSocket

TABLE: Final = "sekisho_refusal"
GROUP: Final = 65
SNAP_BYTES: Final = 640
"""Enough for headers and a whole DNS question."""
LISTEN_S: Final = 0.5
ANSWERS_PER_SECOND: Final = 2000
FAMILIES: Final = (("udp4", "ip", "ipv4_addr"), ("udp6", "ip6", "ipv6_addr"))
REMEMBERED_S: Final = 10
"""For a client that ignores the answer and repeats itself; longer would refuse an innocent user of the same ports."""
MAX_REMEMBERED: Final = 16384

log = logging.getLogger(__name__)


def plan() -> str:
    """The nft text of the last line; replaces an earlier one in one transaction."""
    lost = f"limit rate {ANSWERS_PER_SECOND}/second burst {ANSWERS_PER_SECOND} packets"
    told = f"log group {GROUP} snaplen {SNAP_BYTES} queue-threshold 1"
    sets = "\n".join(
        f"set {name} {{ type {kind} . inet_service . {kind} . inet_service; flags dynamic,timeout; "
        f"timeout {REMEMBERED_S}s; size {MAX_REMEMBERED}; }}"
        for name, _, kind in FAMILIES
    )
    again = "\n".join(f"{_talk(ip)} @{name} meta mark set meta mark or {marks.REFUSE:#x}" for name, ip, _ in FAMILIES)
    # A DNS client may ask many questions between the same ports: one refused name does not condemn the others.
    remember = "\n".join(f"udp dport != 53 update @{name} {{ {_talk(ip)} }}" for name, ip, _ in FAMILIES)
    return f"""table bridge {TABLE}
delete table bridge {TABLE}
table bridge {TABLE} {{
counter gate_resets {{ }}
counter withheld {{ }}
{sets}
chain again {{
type filter hook forward priority -300; policy accept;
ether type 0x8864 meta mark set meta mark or {marks.PPPOE:#x}
{again}
}}
chain refuse {{
type filter hook forward priority 300; policy accept;
meta mark & {marks.REFUSE:#x} == 0 accept
meta mark & {marks.CUT:#x} != 0 counter name gate_resets {lost} {told} accept
meta mark & {marks.CUT:#x} != 0 accept
{remember}
counter name withheld {lost} {told}
drop
}}
}}
"""


def _talk(ip: str) -> str:
    return f"{ip} saddr . udp sport . {ip} daddr . udp dport"


def install() -> None:
    """Load the last line.

    Raises:
        DeviceFault: nft or the kernel refused it; what policies refuse would pass.

    """
    nft.load(plan(), "The rules that withhold what policies refuse")


def present() -> bool:
    """Whether the last line is loaded."""
    return nft.present("bridge", TABLE)


def remove() -> None:
    """Take it out.

    Raises:
        DeviceFault: nft failed.

    """
    if present():
        nft.run(["delete", "table", "bridge", TABLE], "The rules that withhold what policies refuse")


def frames(packet: Logged) -> list[tuple[int, bytes]]:
    """The answers to one refused packet, each with the index of the port it leaves by."""
    found = []
    if (told := answers.to_sender(packet.frame)) is not None:
        found.append((packet.port, told))
    # The gate's reset is on its way to the receiver; without it this is the one the receiver gets.
    if not packet.mark & marks.CUT and (told := answers.to_receiver(packet.frame)) is not None:
        found.append((packet.out_port, told))
    return [(port, frame) for port, frame in found if port]


class Responder:
    """Answers what the last line logs; `run` is a thread of the daemon."""

    def run(self, stop: threading.Event) -> None:
        """Answer until `stop`; a kernel that refuses the log is asked again every second."""
        # Not at the top: whoever only reads what the daemon publishes would carry 14 MiB of netlink with it.
        from sekisho.appliance.conntrack import Table

        while not stop.is_set():
            try:
                heard = LogSocket(GROUP, SNAP_BYTES, LISTEN_S)
            except DeviceFault as err:
                log.warning("%s", err)
                stop.wait(1.0)
                continue
            try:
                raw = socket.SOCK_RAW | socket.SOCK_CLOEXEC
                with socket.socket(socket.AF_PACKET, raw, 0) as out, Table() as table:
                    while not stop.is_set():
                        for packet in heard.receive():
                            self._answer(out, packet)
                            if (talk := answers.talk_of(packet.frame)) is not None:
                                table.forget(talk)
            except OSError as err:
                log.warning("refusals are not answered: %s", err)
                stop.wait(1.0)
            finally:
                heard.close()

    @staticmethod
    def _answer(out: socket.socket, packet: Logged) -> None:
        for port, frame in frames(packet):
            try:
                out.sendto(frame, (socket.if_indextoname(port), 0))
            except OSError as err:
                log.debug("an answer could not be sent: %s", err)
