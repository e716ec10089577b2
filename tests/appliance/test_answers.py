"""What a refused sender is told: built from any frame, right to the last checksum, never from nonsense."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRROPT
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, UDPerror
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, IPerror6, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.packet import Raw

from sekisho.appliance import answers

CLIENT, SERVER = "02:00:00:00:00:0a", "02:00:00:00:00:01"
NOBODY = ".".join("0000")
ENDS: list[Any] = [IP(src="10.0.0.10", dst="203.0.113.9"), IPv6(src="fd77::10", dst="2001:db8::9")]


def framed(packet: Any, *between: Any) -> Any:
    frame = Ether(src=CLIENT, dst=SERVER)
    for layer in between:
        frame = frame / layer
    return Ether(bytes(frame / packet))


def answered(frame: Any) -> Any:
    """The answer, once its lengths and checksums were found right."""
    raw = answers.to_sender(bytes(frame))
    assert raw is not None
    return sound(raw)


def sound(raw: bytes) -> Any:
    frame, again = Ether(raw), Ether(raw)
    ip: Any = again.getlayer(IP) or again.getlayer(IPv6)
    for name in ("len", "chksum", "plen"):
        if name in ip.fields:
            delattr(ip, name)
    if ip.payload and "chksum" in ip.payload.fields:
        del ip.payload.chksum
    if UDP in again and UDPerror not in again:
        del again[UDP].len
    if "cksum" in ip.payload.fields:
        del ip.payload.cksum
    assert bytes(again) == raw, "a length or checksum is wrong"
    return frame


@pytest.mark.parametrize("ip", ENDS)
def test_a_refused_segment_is_reset_at_the_place_its_sender_waits_for(ip: Any) -> None:
    asked = framed(ip / TCP(sport=4000, dport=443, flags="PA", seq=1000, ack=5000) / Raw(b"hello"))
    told = answered(asked)
    assert (told.src, told.dst) == (SERVER, CLIENT)
    assert (told[TCP].sport, told[TCP].dport, told[TCP].seq, str(told[TCP].flags)) == (443, 4000, 5000, "R")


@pytest.mark.parametrize("ip", ENDS)
def test_a_refused_opening_is_reset_as_a_closed_port_would(ip: Any) -> None:
    told = answered(framed(ip / TCP(sport=4000, dport=22, flags="S", seq=2**32 - 1)))
    assert (told[TCP].seq, told[TCP].ack, str(told[TCP].flags)) == (0, 0, "RA")


def test_the_gates_own_reset_still_tells_where_the_client_waits() -> None:
    told = answered(framed(ENDS[0] / TCP(sport=4000, dport=443, flags="RA", seq=1000, ack=5000) / Raw(bytes(5))))
    assert (told[TCP].seq, str(told[TCP].flags)) == (5000, "R")


def test_a_refused_datagram_is_called_unreachable_with_its_own_header_quoted() -> None:
    told = answered(framed(ENDS[0] / UDP(sport=4000, dport=443) / Raw(b"q" * 1200)))
    assert (told[IP].src, told[ICMP].type, told[ICMP].code) == ("203.0.113.9", 3, 3)
    assert (told[IPerror].src, told[UDPerror].sport, told[UDPerror].dport) == ("10.0.0.10", 4000, 443)
    told = answered(framed(ENDS[1] / UDP(sport=4000, dport=443) / Raw(b"q" * 1200)))
    assert (told[IPv6].src, told[ICMPv6DestUnreach].code) == ("2001:db8::9", 4)
    assert (told[IPerror6].src, told[UDPerror].dport) == ("fd77::10", 443)


@pytest.mark.parametrize("ip", ENDS)
@pytest.mark.parametrize("extended", [False, True])
def test_a_refused_question_is_answered_with_no_such_name(ip: Any, extended: bool) -> None:
    more = [DNSRROPT()] if extended else []
    question = DNS(id=77, rd=1, qd=DNSQR(qname="bad.example", qtype="HTTPS"), ar=more)
    told = answered(framed(ip / UDP(sport=4000, dport=53) / question))
    said = told[DNS]
    assert (said.id, said.qr, said.rcode, said.rd, said.ra, said.ancount) == (77, 1, 3, 1, 1, 0)
    name = said.qd[0].qname if isinstance(said.qd, list) else said.qd.qname
    assert name == b"bad.example."
    assert bytes(said).endswith(bytes.fromhex("000f0002000f")) is extended, "extended error 15, Blocked"


@pytest.mark.parametrize(
    "between", [[Dot1Q(vlan=7)], [Dot1Q(vlan=7, prio=3), Dot1Q(vlan=9)], [PPPoE(sessionid=5), PPP()]]
)
def test_the_encapsulation_stays(between: list[Any]) -> None:
    told = answered(framed(ENDS[0] / UDP(sport=4000, dport=443) / Raw(b"q" * 99), *between))
    assert [tag.vlan for tag in told.iterpayloads() if isinstance(tag, Dot1Q)] == [
        tag.vlan for tag in between if isinstance(tag, Dot1Q)
    ]
    if PPPoE in told:
        assert (told[PPPoE].sessionid, told[PPPoE].len) == (5, len(told[PPP]))


def test_the_receiver_is_reset_in_the_senders_name() -> None:
    raw = answers.to_receiver(
        bytes(framed(ENDS[0] / TCP(sport=4000, dport=443, flags="PA", seq=1000, ack=5000) / b"hi"))
    )
    assert raw is not None
    told = sound(raw)
    assert (told.src, told[IP].src, told[TCP].sport, told[TCP].seq) == (CLIENT, "10.0.0.10", 4000, 1000)
    assert str(told[TCP].flags) == "R"
    assert answers.to_receiver(bytes(framed(ENDS[0] / TCP(flags="S")))) is None, "nothing has begun there"


@pytest.mark.parametrize(
    "frame",
    [
        framed(ENDS[0] / TCP(flags="R")),
        framed(IP(src="10.0.0.10", dst="224.0.0.251") / UDP(dport=5353)),
        framed(IP(src="10.0.0.10", dst="255.255.255.255") / UDP(dport=67)),
        framed(IP(src=NOBODY, dst="10.0.0.1") / UDP(dport=67)),
        framed(IPv6(src="::", dst="ff02::1") / UDP(dport=547)),
        framed(IP(src="10.0.0.10", dst="10.0.0.1", frag=10) / UDP(dport=443)),
        framed(ENDS[0] / ICMP(type=3, code=3)),
        framed(ENDS[1] / ICMPv6DestUnreach()),
        Ether(src=CLIENT, dst="ff:ff:ff:ff:ff:ff") / ENDS[0] / UDP(),
        framed(ARP()),
    ],
)
def test_what_must_not_be_answered_is_not(frame: Any) -> None:
    assert answers.to_sender(bytes(frame)) is None


def test_a_ping_hears_that_it_is_forbidden() -> None:
    assert answered(framed(ENDS[0] / ICMP(type=8)))[ICMP].code == 13
    assert answered(framed(ENDS[1] / ICMPv6EchoRequest()))[ICMPv6DestUnreach].code == 1


SEEDS = [
    bytes(framed(ip / layer, *between))
    for ip in ENDS
    for layer in (
        TCP(flags="S"),
        TCP(flags="PA") / b"x",
        UDP(dport=53) / DNS(qd=DNSQR(qname="a.example")),
        UDP(dport=443),
    )
    for between in ([], [Dot1Q(vlan=1)], [PPPoE(), PPP(proto=0x57 if isinstance(ip, IPv6) else 0x21)])
]


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 120), st.binary(max_size=4)), max_size=5),
    st.integers(0, 200),
)
def test_any_bytes_have_an_answer_of_bounded_size_or_none(
    seed: bytes, changes: list[tuple[int, bytes]], cut: int
) -> None:
    frame = bytearray(seed)
    for at, new in changes:
        frame[at : at + len(new)] = new
    for told in (answers.to_sender(bytes(frame[:cut])), answers.to_receiver(bytes(frame[:cut]))):
        assert told is None or 42 <= len(told) <= len(frame) + 128
    talk = answers.talk_of(bytes(frame[:cut]))
    assert talk is None or 0 <= talk.dst_port <= 65535
