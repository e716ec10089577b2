"""The DNS messages devices announce themselves with: mDNS (RFC 6762), LLMNR (RFC 4795), NetBIOS names (RFC 1002).

Only what tells a device's own name and services is read, with one reader for all three. Its bounds: `MAX_RECORDS` of a
message, names of at most `MAX_LABELS` labels whose pointers only ever lead backwards (so that none can go in circles),
and `MAX_STEPS` labels in a whole message, however its names share their ends. Anything that does not fit ends the
reading; what was read before it counts.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final, NamedTuple

from sekisho.appliance.devices.told import MAX_CLUES, NOTHING, Told, clue, name_of

MAX_RECORDS: Final = 64
MAX_LABELS: Final = 32
MAX_STEPS: Final = 512
RESPONSE: Final = 0x8000
OPCODE: Final = 0x7800
REGISTRATION: Final = 5 << 11
REFRESH: Final = (8 << 11, 9 << 11)
A, PTR, TXT, AAAA, NB = 1, 12, 16, 28, 32
ENUMERATION: Final = [b"_services", b"_dns-sd"]
GROUP_NAME: Final = 0x80
HOST_SUFFIXES: Final = (0x00, 0x20)
"""NetBIOS: workstation and file server; the others name users, domains and services."""
MODEL_KEYS: Final = (b"model=", b"md=", b"ty=", b"am=", b"product=", b"usb_mdl=")


class Unfit(Exception):
    """The message does not hold together from here on."""


class Record(NamedTuple):
    """A resource record; names of other things than the three are left in `data`."""

    name: list[bytes]
    kind: int
    data: bytes


class Reader:
    """One message."""

    def __init__(self, message: bytes) -> None:
        if len(message) < 12:
            raise Unfit
        self._message = message
        self._steps = 0
        self.flags = int.from_bytes(message[2:4], "big")
        self.questions, *counts = (int.from_bytes(message[at : at + 2], "big") for at in (4, 6, 8, 10))
        self._records = min(sum(counts), MAX_RECORDS)

    def records(self) -> Iterator[Record]:
        """Answers, authorities and additions in their order.

        Raises:
            Unfit: at the first that overruns the message or its bounds.

        """
        if self.questions > MAX_RECORDS:
            raise Unfit
        at = 12
        for _ in range(self.questions):
            at = self._name(at)[1] + 4
        for _ in range(self._records):
            name, at = self._name(at)
            head = self._message[at : at + 10]
            length = int.from_bytes(head[8:10], "big")
            data = self._message[at + 10 : at + 10 + length]
            if len(head) < 10 or len(data) < length:
                raise Unfit
            kind = int.from_bytes(head[:2], "big")
            if kind == PTR:
                data = b".".join(self._name(at + 10)[0])
            yield Record(name, kind, data)
            at += 10 + length

    def _name(self, at: int) -> tuple[list[bytes], int]:
        """The labels that begin at `at`, and where the record goes on."""
        labels: list[bytes] = []
        end = 0
        bound = at
        while True:
            self._steps += 1
            if at >= len(self._message) or len(labels) > MAX_LABELS or self._steps > MAX_STEPS:
                raise Unfit
            length = self._message[at]
            if length == 0:
                return labels, end or at + 1
            if length >= 0xC0:
                end = end or at + 2
                at = int.from_bytes(self._message[at : at + 2], "big") & 0x3FFF
                if at >= bound:
                    raise Unfit
                bound = at
            elif length <= 63:
                labels.append(self._message[at + 1 : at + 1 + length])
                at += 1 + length
            else:
                raise Unfit


def told_mdns(message: bytes, sender: str) -> Told:
    """Name, services and model from a device's own answer. Questions tell what it looks for, not what it is."""
    own, others, clues = "", set[str](), list[str]()
    try:
        reader = Reader(message)
        if not reader.flags & RESPONSE:
            return NOTHING
        for record in reader.records():
            if record.kind in (A, AAAA) and len(record.data) == (4 if record.kind == A else 16) and record.name:
                name = name_of(record.name[0])
                others.add(name)
                if str(ipaddress.ip_address(record.data)) == sender:
                    own = name
            elif record.kind == PTR and len(record.name) >= 2 and record.name[0].startswith(b"_"):
                listed = record.name[:2] == ENUMERATION  # then the type stands on the other side (RFC 6763 9)
                service = record.data.split(b".")[:2] if listed else record.name[:2]
                clues.append(clue("mdns", b".".join(service)))
            elif record.kind == TXT:
                clues += _models(record.data)
    except Unfit:
        pass
    if own:
        return Told(own, 3, tuple(dict.fromkeys(clues))[:MAX_CLUES])
    # Several names in one answer: somebody repeats the words of others, so nothing of it is about the speaker.
    if len(others) > 1:
        return NOTHING
    name = next(iter(others), "")
    return Told(name, 1 if name else 0, tuple(dict.fromkeys(clues))[:MAX_CLUES])


def _models(data: bytes) -> list[str]:
    found: list[str] = []
    at = 0
    while at < len(data) and len(found) < MAX_CLUES:
        text = data[at + 1 : at + 1 + data[at]]
        found += [clue("model", text[len(key) :]) for key in MODEL_KEYS if text.lower().startswith(key)]
        at += 1 + data[at]
    return found


def told_llmnr(message: bytes) -> Told:
    """The name a device answers to."""
    try:
        reader = Reader(message)
        if reader.flags & RESPONSE:
            for record in reader.records():
                if record.kind in (A, AAAA) and record.name:
                    name = name_of(record.name[0])
                    return Told(name, 1 if name else 0)
    except Unfit:
        pass
    return NOTHING


def told_netbios(message: bytes) -> Told:
    """The machine name a device registers or answers to; group names (workgroups) are not its own."""
    try:
        reader = Reader(message)
        operation = reader.flags & OPCODE
        if not (reader.flags & RESPONSE or operation == REGISTRATION or operation in REFRESH):
            return NOTHING
        for record in reader.records():
            if record.kind == NB and len(record.data) >= 6 and not record.data[0] & GROUP_NAME:
                name = _unfold(record.name[0] if record.name else b"")
                if name:
                    return Told(name, 2, ("netbios:",))
    except Unfit:
        pass
    return NOTHING


def _unfold(label: bytes) -> str:
    """First-level encoding (RFC 1001 14.1): each half byte a letter from A."""
    if len(label) != 32 or not all(0x41 <= byte <= 0x50 for byte in label):
        return ""
    plain = bytes((high - 0x41) << 4 | (low - 0x41) for high, low in zip(label[::2], label[1::2], strict=True))
    return name_of(plain[:15]) if plain[15] in HOST_SUFFIXES else ""
