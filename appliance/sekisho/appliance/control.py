"""Suricata's command socket: one JSON request, one JSON answer, with a time limit and a size cap."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from sekisho.appliance.core.errors import PeerError

MAX_REPLY_BYTES: Final = 1 << 20
PROTOCOL: Final = "0.2"
LOOK_S: Final = 0.2


class Reply(msgspec.Struct):
    """Suricata's answer; `message` depends on the command."""

    result: str = msgspec.field(name="return")
    message: Any = None


class RuleStats(msgspec.Struct):
    """What the running engine has loaded, from `ruleset-stats`."""

    rules_loaded: int
    rules_failed: int


def _always() -> bool:
    return True


def ask(path: Path, command: str, timeout_s: float = 2.0, going: Callable[[], bool] = _always) -> Reply:
    """Send one command and return the answer; waits for it as long as `going` says so.

    Raises:
        PeerError: nobody answers in time, or what comes back is not an answer. The command may have been carried out.

    """
    return ask_all(path, [{"command": command}], timeout_s, going)[-1]


def ask_all(
    path: Path, requests: Iterable[dict[str, Any]], timeout_s: float, going: Callable[[], bool] = _always
) -> list[Reply]:
    """Send commands one after the other over one connection; the answers, of which a refused greeting is the only one.

    Raises:
        PeerError: as `ask`; how many were carried out is not known.

    """
    deadline = time.monotonic() + timeout_s
    replies = []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(timeout_s)
            sock.connect(str(path))
            for request in ({"version": PROTOCOL}, *requests):
                sock.sendall(msgspec.json.encode(request) + b"\n")
                replies.append(_receive(sock, deadline, going))
                if len(replies) == 1 and replies[0].result != "OK":
                    return replies
            return replies[1:]
    except OSError as err:
        raise PeerError(f"The inspection engine does not answer: {err}.") from err


def _receive(sock: socket.socket, deadline: float, going: Callable[[], bool]) -> Reply:
    data = b""
    while len(data) <= MAX_REPLY_BYTES:
        left = deadline - time.monotonic()
        if left <= 0 or not going():
            raise TimeoutError("timed out")
        sock.settimeout(min(left, LOOK_S))
        try:
            chunk = sock.recv(65536)
        except TimeoutError:
            continue
        if not chunk:
            raise ConnectionResetError("closed the connection")
        data += chunk
        if data.endswith(b"\n"):
            try:
                return msgspec.json.decode(data, type=Reply)
            except msgspec.ValidationError as err:
                raise PeerError(f"The inspection engine's answer is not understood: {err}.") from err
            except msgspec.DecodeError:
                continue  # a newline inside a longer answer
    raise PeerError("The inspection engine's answer is too long.")


def ruleset_stats(path: Path) -> RuleStats:
    """How many rules are loaded and how many failed, over all detection engines.

    Raises:
        PeerError: as `ask`.

    """
    reply = ask(path, "ruleset-stats")
    try:
        tenants = msgspec.convert(reply.message, list[RuleStats])
    except msgspec.ValidationError as err:
        raise PeerError(f"The inspection engine's answer is not understood: {reply.message!r:.200}.") from err
    return RuleStats(sum(t.rules_loaded for t in tenants), sum(t.rules_failed for t in tenants))
