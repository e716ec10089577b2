"""An office computer's mailbox program: fetches mails over POP3 or IMAP and says exactly what it was left with.

Runs inside the client namespace: one task on stdin as JSON, one `Fetched` on stdout. It judges nothing and keeps
every byte of every mail. Started by `python -m sekisho.lab.client_mail`.
"""

from __future__ import annotations

import imaplib
import poplib
import socket
import ssl
import sys
import time
from typing import Literal

import msgspec

from sekisho.lab import layout
from sekisho.lab.mailboxes import PASSWORD

TIMEOUT_S = 60


class Pop(msgspec.Struct, tag="pop", frozen=True):
    """Every mail of a mailbox, one after the other or all asked for at once."""

    host: str
    user: str
    pipelined: bool = False
    receive_buffer: int = 0
    """Bytes of the socket's buffer, which bounds what the server may send unasked; 0 = the system's."""
    ca: str = ""
    """Ask for TLS (STLS) and trust this authority; empty = clear text."""


class Imap(msgspec.Struct, tag="imap", frozen=True):
    """One fetch of all mails for each item; or each mail in pieces of `piece` bytes."""

    host: str
    user: str
    items: list[str]
    piece: int = 0
    sized: bool = True
    """Ask for the mail's length with every piece, as Thunderbird does."""
    ca: str = ""
    """Ask for TLS (STARTTLS) and trust this authority; empty = clear text."""


class Fetched(msgspec.Struct, frozen=True):
    """What came."""

    end: Literal["whole", "broken"]
    contents: list[bytes]
    """Mails, or sections, in the order of their coming."""
    port: int
    seconds: float
    error: str = ""


def pop(task: Pop) -> Fetched:
    got: list[bytes] = []
    began = time.monotonic()
    port, error = 0, ""
    try:
        link = poplib.POP3(task.host, layout.POP3, TIMEOUT_S)
        port = link.sock.getsockname()[1]
        if task.receive_buffer:
            link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, task.receive_buffer)
        if task.ca:
            link.stls(ssl.create_default_context(cafile=task.ca))
        link.user(task.user)
        link.pass_(PASSWORD)
        count = link.stat()[0]
        if task.pipelined:
            link.sock.sendall(b"".join(b"RETR %d\r\n" % (n + 1) for n in range(count)))
        for number in range(count):
            if task.pipelined:
                _, lines, _ = link._getlongresp()  # type: ignore[attr-defined]  # what RETR would call
            else:
                _, lines, _ = link.retr(number + 1)
            got.append(b"\r\n".join(lines) + b"\r\n")
        link.quit()
    except (OSError, poplib.error_proto, EOFError) as err:
        error = f"{type(err).__name__}: {err}"
    return Fetched("broken" if error else "whole", got, port, time.monotonic() - began, error)


def imap(task: Imap) -> Fetched:
    got: list[bytes] = []
    began = time.monotonic()
    port, error = 0, ""
    try:
        link = imaplib.IMAP4(task.host, layout.IMAP, TIMEOUT_S)
        port = link.sock.getsockname()[1]
        if task.ca:
            link.starttls(ssl.create_default_context(cafile=task.ca))
        link.login(task.user, PASSWORD)
        count = int(link.select()[1][0] or b"0")
        if task.piece:
            for number in range(1, count + 1):
                got.append(_in_pieces(link, number, task))
        else:
            for item in task.items:
                _, answers = link.fetch(f"1:{count}", f"({item})")
                got += [answer[1] for answer in answers if isinstance(answer, tuple)]
        link.logout()
    except (OSError, imaplib.IMAP4.error, EOFError) as err:
        error = f"{type(err).__name__}: {err}"
    return Fetched("broken" if error else "whole", got, port, time.monotonic() - began, error)


def _in_pieces(link: imaplib.IMAP4, number: int, task: Imap) -> bytes:
    """As Thunderbird, Outlook and K-9 do with a long mail."""
    content = b""
    size = " RFC822.SIZE" if task.sized else ""
    while True:
        _, answers = link.fetch(str(number), f"(UID{size} BODY.PEEK[{task.items[0]}]<{len(content)}.{task.piece}>)")
        part = next((answer[1] for answer in answers if isinstance(answer, tuple)), b"")
        content += part
        if len(part) < task.piece:
            return content


def main() -> None:
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Pop | Imap)
    done = pop(task) if isinstance(task, Pop) else imap(task)
    sys.stdout.buffer.write(msgspec.json.encode(done))


if __name__ == "__main__":
    main()
