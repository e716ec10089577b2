"""SMTP as clients speak it beyond one DATA: chunks, everything pipelined, several mails on one connection, port 587."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sekisho.lab.client import message
from sekisho.lab.lab import Lab
from sekisho.lab.layout import SERVER4, SMTP, SUBMISSION
from sekisho.telemetry.events import FileVerdict

pytestmark = [pytest.mark.lab, pytest.mark.timeout(90)]

ENVELOPE = b"MAIL FROM:<tanaka@office.test>\r\nRCPT TO:<suzuki@partner.test>\r\n"
SENDER = """\
import socket, sys
link = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
link.settimeout(20)
try:
    link.recv(1000)
    link.sendall(sys.stdin.buffer.read())
    while data := link.recv(65536):
        sys.stdout.buffer.write(data)
except OSError:
    pass
"""


def in_chunks(mail: bytes, size: int) -> bytes:
    pieces = [mail[at : at + size] for at in range(0, len(mail), size)]
    last = len(pieces) - 1
    return b"".join(b"BDAT %d%s\r\n" % (len(p), b" LAST" if n == last else b"") + p for n, p in enumerate(pieces))


def in_lines(mail: bytes) -> bytes:
    return b"DATA\r\n" + mail.replace(b"\r\n.", b"\r\n..") + b".\r\n"


def send(lab: Lab, port: int, *mails: bytes) -> bytes:
    """All at once, as a client does that waits for nothing; what the server answered."""
    said = b"EHLO pc.office.test\r\n" + b"".join(ENVELOPE + mail for mail in mails) + b"QUIT\r\n"
    done: subprocess.CompletedProcess[bytes] = lab.run(
        "lan", [sys.executable, "-I", "-c", SENDER, SERVER4, str(port)], stdin=said, timeout_s=60
    )
    return done.stdout


def kept(lab: Lab) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in lab.lay.mail.iterdir() if not path.name.startswith(".")}


def blocked(lab: Lab) -> list[FileVerdict]:
    events = (row.event for row in lab.events())
    return [e for e in events if isinstance(e, FileVerdict) and e.app == "smtp" and e.outcome == "blocked"]


@pytest.mark.parametrize("port", [SMTP, SUBMISSION])
@pytest.mark.parametrize("size", [1_000, 300_000])
@pytest.mark.parametrize("chunk", [0, 1_000, 1 << 20])
def test_an_infected_mail_is_refused_however_it_is_told(lab: Lab, port: int, size: int, chunk: int) -> None:
    before, had = len(blocked(lab)), set(kept(lab))
    mark = f"{port}.{size}.{chunk}"
    clean = [message([("clean", size)], f"{mark}.{n}") for n in range(2)]
    bad = message([("clean", 500), ("bad", size)], f"{mark}.bad")
    tell = in_lines if not chunk else lambda mail: in_chunks(mail, chunk)
    answer = send(lab, port, *map(tell, clean))
    assert answer.count(b"250 OK kept") == 2, answer[-300:]
    got = kept(lab)
    assert sorted(got[name] for name in got if name not in had) == sorted(clean)
    send(lab, port, tell(bad))
    assert set(kept(lab)) == set(got)
    lab.wait(lambda: len(blocked(lab)) == before + 1, "the centre was not told", 20)
    event = blocked(lab)[-1]
    assert (event.file_name, event.mail_from, event.mail_to) == (
        "bad-1.bin",
        "tanaka@office.test",
        ["suzuki@partner.test"],
    )


def test_a_second_end_in_a_mail_smuggles_nothing(lab: Lab) -> None:
    """SMTP smuggling: a server that ends mails at other line ends would take the rest for a mail of its own."""
    had = set(kept(lab))
    hidden = message([("clean", 800)], "hidden")
    for end in (b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r"):
        send(lab, SMTP, b"DATA\r\nSubject: a\r\n\r\ntext" + end + ENVELOPE + in_lines(hidden))
    assert set(kept(lab)) == had
