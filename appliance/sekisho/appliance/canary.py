"""A packet through each of the engine's queues that its rules must stop, and one beside it that must arrive.

Both go from the box to itself over the loopback device; their mark leads them (netfilter.py, SK_CANARY) into the same
chain, and so the same queue, as the customer's packets. What stops the first is a rule at the end of the rule file that
was loaded with the set (rendering.py); it names that file's content, so that no other file's rules pass for it, be they
as many. The rule reports nothing. Every trial is a connection of its own: nothing of an earlier one decides it.

The two follow each other through one queue: when the second has come, the first was stopped, or is here already. What
is not stopped arrives where the queue has no owner, too: a dead engine's trial says "missed", which is the truth.
"""

from __future__ import annotations

import os
import select
import socket
import time
from typing import Final, Literal

from sekisho.appliance.core import marks

SID: Final = 9000099
"""Among the box's own, which no set may take (signatures.sources.STEERING)."""
WAIT_S: Final = 1.0
"""For the packet that must arrive; the engine's answer takes 0.1 ms at rest."""
_PACKETS: Final = 256
"""Read at most, of whoever sends to the port."""
_STOP: Final = b"sekisho-canary-"
_GO: Final = b"sekisho-passes-"
_HOME: Final = "127.0.0.1"

Word = Literal["caught", "missed", "untried"]


def rule(word: str) -> bytes:
    """The rule that stops the packets of `word`, as a line."""
    return (
        f'drop udp {_HOME} any -> {_HOME} any (msg:"sekisho canary"; content:"{_STOP.decode()}{word}"; startswith; '
        f"noalert; sid:{SID}; rev:1;)\n"
    ).encode()


class Canaries:
    """Flies trials; one thread at a time."""

    def __init__(self, queues: int, first: int = 0) -> None:
        self._queues = range(first, first + queues)
        self.sent = 0
        """Pairs so far."""

    def fly(self, word: str) -> Word:
        """Whether every queue's engine stops what the rules of `word` must stop, and lets the other pass.

        Takes at most `WAIT_S`. "untried": the packets could not even be sent.
        """
        nonce = os.urandom(8).hex().encode()
        waiting = {b"%b%b-%d" % (_GO, nonce, number) for number in self._queues}
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as landing:
                landing.bind((_HOME, 0))
                for number in self._queues:
                    self._send(number, word, nonce, landing.getsockname())
                return self._watch(landing, waiting)
        except OSError:
            return "untried"

    def _send(self, number: int, word: str, nonce: bytes, to: tuple[str, int]) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, marks.CANARY | number)
            sock.connect(to)
            sock.send(b"%b%b-%b-%d" % (_STOP, word.encode(), nonce, number))
            sock.send(b"%b%b-%d" % (_GO, nonce, number))
        self.sent += 1

    @staticmethod
    def _watch(landing: socket.socket, waiting: set[bytes]) -> Word:
        deadline = time.monotonic() + WAIT_S
        for _ in range(_PACKETS):
            left = max(0.0, deadline - time.monotonic())  # what has come counts, however late we get to look
            if not select.select([landing], [], [], left)[0]:
                return "missed"
            data = landing.recv(128)
            if data.startswith(_STOP):
                return "missed"
            waiting.discard(data)
            if not waiting:
                return "caught"
        return "missed"
