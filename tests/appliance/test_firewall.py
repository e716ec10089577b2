"""The packet rules as text, and the account of what is told; what the kernel makes of them is in test_lab_firewall."""

from __future__ import annotations

import ipaddress
import re
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from sekisho.appliance import firewall, isolation
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.nflog import Logged
from sekisho.appliance.packetnews import EVENTS_PER_MINUTE, QUIET_S, PacketNews, flow_of
from sekisho.policy.model import Devices, Netfilter, PacketRule, Service

MACS = st.lists(st.binary(min_size=6, max_size=6).map(lambda b: b.hex(":")), max_size=4).map(tuple)
ADDRESSES = st.ip_addresses().flatmap(
    lambda a: st.integers(1, a.max_prefixlen).map(lambda n: str(ipaddress.ip_network((a, n), strict=False)))
)
NETWORKS = st.lists(ADDRESSES, max_size=6).map(tuple)
PORTS = st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(sorted)
SERVICES = st.one_of(
    st.builds(Service, st.sampled_from(["tcp", "udp", "icmp"])),
    st.builds(lambda proto, ports: Service(proto, *ports), st.sampled_from(["tcp", "udp"]), PORTS),
)
RULES = st.lists(
    st.builds(
        PacketRule,
        id=st.from_regex(r"\A[a-z0-9][a-z0-9_-]{0,47}\Z"),
        function=st.sampled_from(["firewall", "isolation", "web_guard"]),
        entry=st.just("entry"),
        action=st.sampled_from(["allow", "block", "log"]),
        devices=st.builds(Devices, st.booleans(), MACS, NETWORKS),
        direction=st.sampled_from(["out", "in", "any"]),
        remote=NETWORKS,
        services=st.lists(SERVICES, max_size=5).map(tuple),
        exception=st.sampled_from(["", "x1"]),
    ),
    max_size=4,
).map(lambda rules: Netfilter(tuple(rules)))


@settings(max_examples=40, deadline=None)
@given(RULES, st.integers(1, 255))
def test_the_kernels_own_program_takes_every_plan(wanted: Netfilter, generation: int) -> None:
    text = firewall.plan(wanted, generation)
    argv = ["unshare", "-n", "nft", "-f", "-"]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{text}"


def test_no_rules_are_a_plan_too_and_judge_nothing_twice() -> None:
    text = firewall.plan(Netfilter(), 7)
    assert f"ct mark & {0xFF000000:#x} == {0x07000000:#x} accept" in text
    assert not re.search(r"goto r\d", text)


@pytest.mark.parametrize("generation", [0, 256])
def test_a_generation_that_does_not_fit_is_our_own_mistake(generation: int) -> None:
    with pytest.raises(ValueError, match="generation"):
        firewall.plan(Netfilter(), generation)


def test_a_name_that_could_say_more_than_a_name_is_refused() -> None:
    evil = PacketRule('x"; drop; #', "firewall", "e", "block", Devices(everyone=True))
    with pytest.raises(ValueError, match="rule id"):
        firewall.plan(Netfilter((evil,)), 1)
    with pytest.raises(RejectedInput, match="hardware address"):
        isolation.isolate("02:00:00:00:00:0a } ; flush ruleset", 1)


def logged(rule: str, port: int = 22, source: int = 10) -> Logged:
    frame = Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:01")
    frame = frame / IP(src=f"10.0.0.{source}", dst="203.0.113.9") / TCP(sport=4000 + port, dport=port)
    return Logged(bytes(frame), 0, f"sk {rule}", 2, 3)


PLAN = Netfilter((PacketRule("firewall-no", "firewall", "no", "block", Devices(everyone=True)),))


def test_an_attempt_is_told_once_in_a_while_with_its_device() -> None:
    news = PacketNews()
    news.rules(PLAN)
    event = news.handle(logged("firewall-no"), from_lan=True, now=100.0, at="t")
    assert event is not None
    assert (event.action, event.function, event.policy) == ("blocked", "firewall", "no")
    assert (event.flow.mac, event.flow.dst_port) == ("02:00:00:00:00:0a", 22)
    assert news.handle(logged("firewall-no"), from_lan=True, now=101.0, at="t") is None
    assert news.suppressed == 1
    assert news.handle(logged("firewall-no", 23), from_lan=True, now=101.0, at="t") is not None
    again = news.handle(logged("firewall-no"), from_lan=False, now=100.0 + QUIET_S, at="t")
    assert again is not None and again.flow.mac == "02:00:00:00:00:01", "the device is on the other side"
    assert news.handle(logged("another"), from_lan=True, now=200.0, at="t") is None


def test_a_flood_of_attempts_is_a_bounded_number_of_events() -> None:
    news = PacketNews()
    news.rules(PLAN)
    told = [news.handle(logged("firewall-no", port), from_lan=True, now=60.0, at="t") for port in range(1, 2000)]
    assert sum(event is not None for event in told) == EVENTS_PER_MINUTE
    assert news.suppressed == 1999 - EVENTS_PER_MINUTE


@given(st.binary(max_size=120), st.booleans())
def test_any_bytes_are_a_flow_or_none(frame: bytes, from_lan: bool) -> None:
    flow = flow_of(frame, from_lan=from_lan)
    assert flow is None or (0 <= flow.src_port <= 65535 and flow.src_ip)
