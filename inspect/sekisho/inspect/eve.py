"""Reads Suricata's `fileinfo` events, from the socket (before the packet leaves) or the log (after a restart).

Also the names of files in FTP's data connections, which stand in the alert of a steering rule. Any other alert that
comes along is ignored.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import msgspec

from sekisho.inspect.hold import Meta
from sekisho.telemetry.privacy import mask_url

MAX_LINE = 64 << 10
MAX_READ = 1 << 20
Key = tuple[str, str, int, str, int]
"""SHA-256, source and its port, destination and its port: of one delivery."""


class _Http(msgspec.Struct, frozen=True):
    hostname: str = ""
    url: str = ""


class _Smtp(msgspec.Struct, frozen=True):
    mail_from: str = ""
    rcpt_to: list[str] = []


class _Email(msgspec.Struct, frozen=True):
    subject: str = ""


class _Info(msgspec.Struct, frozen=True):
    filename: str = ""
    state: str = ""
    stored: bool = False
    sha256: str = ""
    size: int = 0


class _Line(msgspec.Struct):
    src_ip: str
    dest_ip: str
    fileinfo: _Info
    src_port: int = 0
    dest_port: int = 0
    app_proto: str = ""
    http: _Http = _Http()
    smtp: _Smtp = _Smtp()
    email: _Email = _Email()


class File(msgspec.Struct):
    """One completed file, as the engine tells it."""

    meta: Meta
    state: str
    stored: bool
    sha256: str
    size: int


class _FtpData(msgspec.Struct, frozen=True):
    filename: str


class _NameLine(msgspec.Struct):
    src_ip: str
    dest_ip: str
    ftp_data: _FtpData
    src_port: int = 0
    dest_port: int = 0


class Name(msgspec.Struct, frozen=True):
    """What the data connection between two ends carries, before the gate has seen any of it."""

    ends: frozenset[tuple[str, int]]
    name: str


_decoder = msgspec.json.Decoder(_Line)
_name_decoder = msgspec.json.Decoder(_NameLine)


def parse(line: bytes) -> File | None:
    """The file of one EVE line; None for anything that is not a sound fileinfo event."""
    if len(line) > MAX_LINE:
        return None
    try:
        event = _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    info = event.fileinfo
    if info.sha256 and (len(info.sha256) != 64 or not info.sha256.isalnum()):
        return None
    try:
        # The engine writes IPv6 addresses out in full, the gate does not: one spelling, or nothing finds its flow.
        src, dst = str(ipaddress.ip_address(event.src_ip)), str(ipaddress.ip_address(event.dest_ip))
    except ValueError:
        return None
    meta = Meta(
        src=src,
        src_port=event.src_port,
        dst=dst,
        dst_port=event.dest_port,
        app=event.app_proto[:32],
        file_name=base_name(info.filename),
        url=mask_url(event.http.url),
        host=event.http.hostname[:256],
        mail_from=event.smtp.mail_from[:256],
        mail_to=tuple(to[:256] for to in event.smtp.rcpt_to[:16]),
        mail_subject=event.email.subject[:256],
    )
    return File(meta, info.state, info.stored, info.sha256.lower(), info.size)


def parse_name(line: bytes) -> Name | None:
    """The name in one EVE line; None for anything else."""
    if len(line) > MAX_LINE or b'"ftp_data"' not in line:
        return None
    try:
        event = _name_decoder.decode(line)
        src, dst = (str(ipaddress.ip_address(one)) for one in (event.src_ip, event.dest_ip))
    except (ValueError, RecursionError):  # msgspec's errors and UnicodeDecodeError are ValueErrors
        return None
    name = base_name(event.ftp_data.filename)
    return Name(frozenset({(src, event.src_port), (dst, event.dest_port)}), name) if name else None


def base_name(path: str) -> str:
    """The last part of a path or URL, at most 256 characters."""
    return path.rpartition("/")[2].partition("?")[0][:256]


def missed(log: Path, told: set[Key], *, cap_bytes: int) -> list[File]:
    """Files in the last `cap_bytes` of the log whose (sha256, src, port, dst, port) is not in `told`.

    The log is rolled by renaming it to `NAME.1` at any time, so its last bytes may be there.
    """
    newest = _tail(log, cap_bytes)
    older = _tail(log.with_name(log.name + ".1"), cap_bytes - len(newest))
    files = [file for line in (older + newest).split(b"\n") if line and (file := parse(line)) is not None]
    return [file for file in files if key(file.sha256, file.meta) not in told]


class Follower:
    """The log's new files, each once, from the moment of construction on; survives its rolling by rename."""

    def __init__(self, log: Path, place: tuple[int, bytes] | None = None) -> None:
        """`place`: where another process stopped (`hand_over`), whose descriptor becomes ours."""
        self._log = log
        self._fd, self._rest = place or (-1, b"")
        if place is None:
            self._open(os.SEEK_END)

    def hand_over(self) -> tuple[int, bytes]:
        """(descriptor at the place reached, or -1; the beginning of a line before it)."""
        return self._fd, self._rest

    def _open(self, whence: int) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        try:
            self._fd = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
            os.lseek(self._fd, 0, whence)
        except OSError:
            return  # not there yet; looked for again at the next call

    def files(self) -> list[File]:
        """What at most `MAX_READ` new bytes tell."""
        data = os.read(self._fd, MAX_READ) if self._fd >= 0 else b""
        if not data and self._rolled():
            self._rest = b""
            self._open(os.SEEK_SET)
            data = os.read(self._fd, MAX_READ) if self._fd >= 0 else b""
        *lines, self._rest = (self._rest[-MAX_LINE:] + data).split(b"\n")
        return [file for line in lines if line and (file := parse(line)) is not None]

    def _rolled(self) -> bool:
        try:
            return self._fd < 0 or self._log.stat().st_ino != os.fstat(self._fd).st_ino
        except OSError:
            return False


def _tail(path: Path, cap_bytes: int) -> bytes:
    """At most the last `cap_bytes` of a file; nothing when it is not there."""
    try:
        with path.open("rb") as source:
            size = source.seek(0, os.SEEK_END)
            source.seek(max(0, size - cap_bytes))
            return source.read(max(0, cap_bytes))
    except OSError:
        return b""


def key(sha256: str, meta: Meta) -> Key:
    """What makes an outcome about the same delivery."""
    return sha256, meta.src, meta.src_port, meta.dst, meta.dst_port
