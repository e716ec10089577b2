"""The Python face of the gate (gate.h): typed handles and notes over ctypes, nothing else.

Owns no decision. `Gate.run` moves packets in C with the interpreter lock released and returns when
something needs one. All calls come from one thread.
"""

from __future__ import annotations

import ctypes
import enum
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sekisho.appliance.core.errors import DeviceFault

TO_SERVER, TO_CLIENT = 0, 1
QUEUE = 64
"""The gate's NFQUEUE number; Suricata's are 0..n-1."""


class Kind(enum.IntEnum):
    """What a note asks for; see gate.h."""

    PAUSE = 1
    FRAME = 2
    COMPLETE = 3
    TOO_BIG = 4
    EXPIRED = 5
    SHED = 6
    GONE = 7
    WITHHELD = 8
    KNOWN = 9


class Config(ctypes.Structure):
    """`struct gate_config`."""

    _fields_ = (
        ("queue", ctypes.c_uint32),
        ("fail_open", ctypes.c_uint32),
        ("max_flows", ctypes.c_uint32),
        ("max_held", ctypes.c_uint32),
        ("spool_limit", ctypes.c_uint64),
        ("spool_total", ctypes.c_uint64),
        ("depth", ctypes.c_uint64),
        ("deadline_ms", ctypes.c_uint32),
        ("pause_us", ctypes.c_uint32),
    )


class _Key(ctypes.Structure):
    _fields_ = (
        ("client", ctypes.c_uint8 * 16),
        ("server", ctypes.c_uint8 * 16),
        ("client_port", ctypes.c_uint16),
        ("server_port", ctypes.c_uint16),
        ("family", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
    )


class _Note(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_uint32),
        ("dir", ctypes.c_uint32),
        ("flow", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("base", ctypes.c_uint64),
        ("ended", ctypes.c_uint32),
        ("joined", ctypes.c_uint32),
    )


class Stats(ctypes.Structure):
    """`struct gate_stats`: counters since start, and `flows`, `spooled`, `holding` as they are now."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "packets",
            "held",
            "released",
            "dropped",
            "cut",
            "shed",
            "flows",
            "spooled",
            "overruns",
            "holding",
        )
    )


@dataclass(frozen=True, slots=True)
class Note:
    """One thing the gate wants decided."""

    kind: Kind
    flow: int
    dir: int
    length: int
    """Contiguous bytes in the spool."""
    base: int = 0
    """Bytes of this direction before the spool."""
    ended: bool = False
    """The sender has said that nothing follows."""
    joined: bool = False
    """The spool may begin in the middle of something."""


@dataclass(frozen=True, slots=True)
class Ends:
    """The two ends of a flow as the gate knows them."""

    client: str
    client_port: int
    server: str
    server_port: int
    kind: int

    def sender(self, direction: int) -> tuple[str, int, str, int]:
        """(source, port, destination, port) of what travels in this direction."""
        if direction == TO_SERVER:
            return self.client, self.client_port, self.server, self.server_port
        return self.server, self.server_port, self.client, self.client_port


def _load() -> ctypes.CDLL:
    path = Path(__file__).with_name("_gate.so")
    try:
        lib = ctypes.CDLL(str(path), use_errno=True)
    except OSError as err:
        raise DeviceFault(f"The gate cannot be loaded: {err}.", "Reinstall sekisho (make setup).") from err
    u32, u64, i64, ptr = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64, ctypes.c_void_p
    signatures: dict[str, tuple[object, list[object]]] = {
        "gate_open": (ptr, [ctypes.POINTER(Config), ctypes.POINTER(ctypes.c_int)]),
        "gate_open_dry": (ptr, [ctypes.POINTER(Config)]),
        "gate_close": (None, [ptr]),
        "gate_run": (
            ctypes.c_int,
            [ptr, ctypes.POINTER(ctypes.c_int), ctypes.c_int, ctypes.POINTER(u32), ptr, ctypes.c_int, i64],
        ),
        "gate_find": (u64, [ptr, ctypes.POINTER(_Key), u32, ctypes.POINTER(u32)]),
        "gate_key_of": (ctypes.c_int, [ptr, u64, ctypes.POINTER(_Key), ctypes.POINTER(u32)]),
        "gate_release": (None, [ptr, u64, u32, u64, u64]),
        "gate_expect": (None, [ptr, u64, u32, u64]),
        "gate_pass": (None, [ptr, u64, u32, ctypes.c_int]),
        "gate_gather": (None, [ptr, u64]),
        "gate_cut": (i64, [ptr, u64, u32, ctypes.c_char_p, u32]),
        "gate_rewrite": (ctypes.c_int, [ptr, u64, u32, u64, ctypes.c_char_p, u32]),
        "gate_delivered": (u64, [ptr, u64, u32]),
        "gate_asked": (u32, [ptr, u64, ctypes.c_char_p, u32]),
        "gate_spool": (ctypes.c_int, [ptr, u64, u32, ctypes.POINTER(u64)]),
        "gate_set_page": (ctypes.c_int, [ptr, u32, ctypes.c_char_p, u32]),
        "gate_get_stats": (None, [ptr, ctypes.POINTER(Stats)]),
        "gate_format": (u32, []),
        "gate_freeze": (ctypes.c_int, [ptr, ctypes.c_int, ctypes.POINTER(ctypes.c_int), u32]),
        "gate_queue_fd": (ctypes.c_int, [ptr]),
        "gate_adopt": (ctypes.c_int, [ptr, ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.c_int), u32]),
        "gate_leave": (None, [ptr, ctypes.c_int]),
        "gate_again": (None, [ptr, u64, u32, u32]),
        "gate_feed": (None, [ptr, u32, u32, ctypes.c_char_p, u32, i64]),
        "gate_tick": (None, [ptr, i64]),
        "gate_take_notes": (ctypes.c_int, [ptr, ptr, ctypes.c_int]),
        "gate_take_verdicts": (ctypes.c_int, [ptr, ptr, ctypes.c_int]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = arguments
    return lib


_MAX_NOTES = 256
MAX_SPOOLS = 32768
ASKED_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Former:
    """What a gate leaves to its successor in another process: descriptors."""

    queue: int
    image: int = -1
    """-1: the queue alone; its connections are met in their middle."""
    spools: tuple[int, ...] = ()


def layout() -> int:
    """The number of the gate's memory layout: an image goes only to a gate with the same."""
    return int(_load().gate_format())


class Gate:
    """One netfilter queue's packets, held and released on request."""

    def __init__(self, config: Config, *, dry: bool = False) -> None:
        """Bind the queue; `dry`: none yet (`adopt`), or never.

        Raises:
            DeviceFault: no right to (CAP_NET_ADMIN), or another process has the queue.

        """
        self.lib = _load()
        self._notes = (_Note * _MAX_NOTES)()
        self._ready = ctypes.c_uint32()
        self._asked = ctypes.create_string_buffer(ASKED_BYTES)
        error = ctypes.c_int()
        if dry:
            self.handle = self.lib.gate_open_dry(ctypes.byref(config))
        else:
            self.handle = self.lib.gate_open(ctypes.byref(config), ctypes.byref(error))
        if not self.handle:
            raise DeviceFault(
                f"The hold queue {config.queue} cannot be opened: {os.strerror(error.value)}.",
                "Another inspect may be running, or the kernel lacks NFQUEUE.",
            )

    def run(self, fds: Sequence[int], timeout_s: float) -> tuple[list[int], list[Note]]:
        """Move packets for at most `timeout_s`; (readable fds, notes). Returns early when either is not empty."""
        array = (ctypes.c_int * len(fds))(*fds)
        count = self.lib.gate_run(
            self.handle,
            array,
            len(fds),
            ctypes.byref(self._ready),
            self._notes,
            _MAX_NOTES,
            int(timeout_s * 1e6),
        )
        ready = self._ready.value
        return [fd for i, fd in enumerate(fds) if ready >> i & 1], self._take(count)

    def _take(self, count: int) -> list[Note]:
        return [
            Note(Kind(n.kind), n.flow, n.dir, n.length, n.base, bool(n.ended), bool(n.joined))
            for n in self._notes[:count]
        ]

    def take_notes(self) -> list[Note]:
        """Notes made since the last call, without moving packets."""
        return self._take(self.lib.gate_take_notes(self.handle, self._notes, _MAX_NOTES))

    def find(self, src: str, src_port: int, dst: str, dst_port: int, kind: int) -> tuple[int, int]:
        """(flow, direction in which `src` sends), made when unknown and `kind` is not 0; flow 0 when it cannot be."""
        key = _Key(client_port=src_port, server_port=dst_port)
        source, target = ipaddress.ip_address(src).packed, ipaddress.ip_address(dst).packed
        key.client[: len(source)] = list(source)
        key.server[: len(target)] = list(target)
        key.family = 4 if len(source) == 4 else 6
        direction = ctypes.c_uint32()
        flow = self.lib.gate_find(self.handle, ctypes.byref(key), kind, ctypes.byref(direction))
        return int(flow), direction.value

    def ends(self, flow: int) -> Ends | None:
        """Who talks on this flow; None when it is gone."""
        key, kind = _Key(), ctypes.c_uint32()
        if self.lib.gate_key_of(self.handle, flow, ctypes.byref(key), ctypes.byref(kind)):
            return None
        size = 4 if key.family == 4 else 16
        client = str(ipaddress.ip_address(bytes(key.client[:size])))
        server = str(ipaddress.ip_address(bytes(key.server[:size])))
        return Ends(client, key.client_port, server, key.server_port, kind.value)

    def release(self, flow: int, direction: int, upto: int, finished: int) -> None:
        """Let packets within the first `upto` spooled bytes go; forget `finished` bytes of complete objects."""
        self.lib.gate_release(self.handle, flow, direction, upto, finished)

    def expect(self, flow: int, direction: int, end: int) -> None:
        """The current object ends so many bytes after the stream's beginning; 0 = not known."""
        self.lib.gate_expect(self.handle, flow, direction, end)

    def pass_(self, flow: int, direction: int, *, sealed: bool = False) -> None:
        """Look no further at the current object: it is too large, or (`sealed`) nothing in it can be read."""
        self.lib.gate_pass(self.handle, flow, direction, sealed)

    def gather(self, flow: int) -> None:
        """Let nothing through on this flow but what is released."""
        self.lib.gate_gather(self.handle, flow)

    def cut(self, flow: int, direction: int, reply: bytes = b"") -> int:
        """Withhold what is held and reset both ends; bytes the receiver never gets (0: see WITHHELD in gate.h)."""
        return int(self.lib.gate_cut(self.handle, flow, direction, reply or None, len(reply)))

    def rewrite(self, flow: int, direction: int, offset: int, data: bytes) -> bool:
        """Let the receiver have `data` instead of as many spooled bytes at `offset`; False: too late for that."""
        return bool(self.lib.gate_rewrite(self.handle, flow, direction, offset, data, len(data)) == 0)

    def delivered(self, flow: int, direction: int) -> int:
        """Spool offset behind the last byte that was let through."""
        return int(self.lib.gate_delivered(self.handle, flow, direction))

    def asked(self, flow: int) -> bytes:
        """The beginning of the client's newest HTTP request; empty when none was seen."""
        length = self.lib.gate_asked(self.handle, flow, self._asked, ASKED_BYTES)
        return self._asked.raw[:length]

    def spool(self, flow: int, direction: int) -> tuple[int, int]:
        """(file descriptor owned by the gate or -1, contiguous bytes in it)."""
        length = ctypes.c_uint64()
        fd = self.lib.gate_spool(self.handle, flow, direction, ctypes.byref(length))
        return int(fd), length.value

    def set_page(self, why: int, page: bytes) -> None:
        """Answer HTTP requests that the function of this number (marks.WHY) refuses with `page`; see gate.h.

        Raises:
            ValueError: it does not fit into one packet, or there is no such number.

        """
        if self.lib.gate_set_page(self.handle, why, page, len(page)):
            raise ValueError(f"page {why} has {len(page)} bytes")

    def stats(self) -> Stats:
        stats = Stats()
        self.lib.gate_get_stats(self.handle, ctypes.byref(stats))
        return stats

    def adopt(self, former: Former) -> None:
        """A dry gate goes on with what another process had; the queue and the spools become ours.

        Raises:
            DeviceFault: what was handed over is not for these limits; this gate can only be left.

        """
        spools = (ctypes.c_int * len(former.spools))(*former.spools)
        error = self.lib.gate_adopt(self.handle, former.queue, former.image, spools, len(spools))
        if error:
            raise DeviceFault(f"What another process knew at the gate cannot be taken over: {os.strerror(error)}.")

    def freeze(self) -> Former:
        """All that another process needs to go on; the image is the caller's to close, the rest stays this gate's.

        Nothing changes by this. No packet may be moved from here on, unless nobody took it.

        Raises:
            DeviceFault: no memory for it.

        """
        image = os.memfd_create("gate", os.MFD_CLOEXEC)
        room = (ctypes.c_int * MAX_SPOOLS)()
        count = self.lib.gate_freeze(self.handle, image, room, MAX_SPOOLS)
        if count < 0:
            os.close(image)
            raise DeviceFault("What the gate knows does not fit into memory a second time.")
        return Former(self.queue_fd, image, tuple(room[:count]))

    @property
    def queue_fd(self) -> int:
        """The queue's socket; -1 of a dry gate."""
        return int(self.lib.gate_queue_fd(self.handle))

    def again(self, flow: int, direction: int, kind: Kind) -> None:
        """Note this once more, if there is still something to look at."""
        self.lib.gate_again(self.handle, flow, direction, kind)

    def leave(self, *, drop: bool = False) -> None:
        """Another process has the queue: decide nothing, and forget. `drop`: what is held is not known there."""
        if self.handle:
            self.lib.gate_leave(self.handle, drop)
            self.handle = None

    def close(self) -> None:
        """Release everything held and unbind the queue."""
        if self.handle:
            self.lib.gate_close(self.handle)
            self.handle = None
