"""Tells of packets that a firewall rule blocked or was to report: one event for an attempt, however often repeated.

`PacketNews` is the pure account: what was logged in, events out; the same rule and ends are told once in `QUIET_S`, and
no more than `EVENTS_PER_MINUTE` in all. The rules' own counters count everything (firewall.hits). `Reader` is the
thread that feeds it.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from sekisho.appliance import firewall
from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.isolation import NOW
from sekisho.appliance.nflog import Logged, LogSocket
from sekisho.policy.model import Netfilter
from sekisho.telemetry.events import Alert, Flow

QUIET_S: Final = 30.0
EVENTS_PER_MINUTE: Final = 600
MAX_TALKS: Final = 8192
LISTEN_S: Final = 0.5
PROTOCOLS: Final = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6"}

log = logging.getLogger(__name__)


def flow_of(frame: bytes, *, from_lan: bool) -> Flow | None:
    """Who talks to whom in a logged frame; None when it is too short to say. Ports where the protocol has some."""
    mac = (frame[6:12] if from_lan else frame[:6]).hex(":")
    ip = frame[14:]
    if len(ip) >= 20 and ip[0] >> 4 == 4:
        src, dst, proto, body = ip[12:16], ip[16:20], ip[9], ip[(ip[0] & 15) * 4 :]
    elif len(ip) >= 40 and ip[0] >> 4 == 6:
        src, dst, proto, body = ip[8:24], ip[24:40], ip[6], ip[40:]
    else:
        return None
    ports = (0, 0)
    if proto in (6, 17) and len(body) >= 4:
        ports = (int.from_bytes(body[:2], "big"), int.from_bytes(body[2:4], "big"))
    source, target = str(ipaddress.ip_address(src)), str(ipaddress.ip_address(dst))
    return Flow(source, ports[0], target, ports[1], PROTOCOLS.get(proto, str(proto)), mac)


class PacketNews:
    """What was told lately, so that a device that tries again and again is one event in half a minute."""

    def __init__(self) -> None:
        self._rules = {NOW.id: NOW}
        self._told: OrderedDict[tuple[str, str, str, int], float] = OrderedDict()
        self._minute = 0
        self._events = 0
        self.suppressed = 0
        """Attempts that were not told one by one."""

    def rules(self, wanted: Netfilter) -> None:
        """The plan in force: what the names in the log stand for."""
        self._rules = {NOW.id: NOW, **{rule.id: rule for rule in wanted.rules}}

    def handle(self, packet: Logged, *, from_lan: bool, now: float, at: str) -> Alert | None:
        """The event for one logged packet; None when it was told already, is nothing of ours, or there are too many."""
        rule = self._rules.get(packet.prefix.removeprefix("sk "))
        flow = flow_of(packet.frame, from_lan=from_lan)
        if rule is None or flow is None or not self._is_news((rule.id, flow.src_ip, flow.dst_ip, flow.dst_port), now):
            return None
        return Alert(
            at=at,
            flow=flow,
            signature=f"{rule.function} rule {rule.entry}",
            severity=2 if rule.action == "block" else 3,
            action="blocked" if rule.action == "block" else "allowed",
            function=rule.function,
            policy=rule.entry,
            exception=rule.exception,
        )

    def _is_news(self, talk: tuple[str, str, str, int], now: float) -> bool:
        if now - self._told.get(talk, -QUIET_S) < QUIET_S:
            self.suppressed += 1
            return False
        minute = int(now // 60)
        if minute != self._minute:
            self._minute, self._events = minute, 0
        self._events += 1
        if self._events > EVENTS_PER_MINUTE:
            self.suppressed += 1
            return False
        self._told[talk] = now
        self._told.move_to_end(talk)
        if len(self._told) > MAX_TALKS:
            self._told.popitem(last=False)
        return True


class Reader:
    """Reports what the rules log; `run` is a thread of the daemon."""

    def __init__(self, lan: str, report: Callable[[Alert], None]) -> None:
        self._lan = lan
        self._report = report
        self.news = PacketNews()

    def run(self, stop: threading.Event) -> None:
        """Report until `stop`; a kernel that refuses the log is asked again every second."""
        while not stop.is_set():
            try:
                heard = LogSocket(firewall.GROUP, firewall.SNAP_BYTES, LISTEN_S)
            except DeviceFault as err:
                log.warning("%s", err)
                stop.wait(1.0)
                continue
            try:
                while not stop.is_set():
                    for packet in heard.receive():
                        self._tell(packet)
            except OSError as err:
                log.warning("packet rules are not reported: %s", err)
                stop.wait(1.0)
            finally:
                heard.close()

    def _tell(self, packet: Logged) -> None:
        try:
            from_lan = bool(packet.port) and socket.if_indextoname(packet.port) == self._lan
        except OSError:
            from_lan = False
        event = self.news.handle(packet, from_lan=from_lan, now=time.monotonic(), at=utc.now())
        if event is not None:
            self._report(event)
