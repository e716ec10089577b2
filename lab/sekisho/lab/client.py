"""An office computer that does many things in a row and says exactly what it was left with.

Runs inside the client namespace: a list of tasks comes in on stdin as JSON, one result a line goes out.
One process for thousands of tries. It judges nothing; it keeps every byte the kernel gave it, and
unpacks as much of them as can be unpacked, because a careless real program would do so too.
Started by `perform`: `python -m sekisho.lab.client`.
"""

from __future__ import annotations

import ftplib
import hashlib
import io
import smtplib
import socket
import sys
import time
import zlib
from email.message import EmailMessage
from email.policy import SMTP
from typing import Literal

import msgspec

from sekisho.lab import layout
from sekisho.lab.samples import EICAR, clean, malicious

TIMEOUT_S = 30
CHUNK = 1 << 16
MAX_HEAD_BYTES = 1 << 16

End = Literal["whole", "short", "reset", "timeout"]
Part = tuple[Literal["clean", "bad"], int]


class Web(msgspec.Struct, tag="web", frozen=True):
    """Requests one after the other on one connection; ends at the first that is not whole."""

    host: str
    port: int
    paths: list[str]
    from_port: int = 0
    rate: int = 0
    """Bytes a second at which the body is read; 0 = as it comes."""


class Post(msgspec.Struct, tag="post", frozen=True):
    """One upload."""

    host: str
    port: int
    path: str
    size: int
    bad: bool
    mark: str


class Mail(msgspec.Struct, tag="mail", frozen=True):
    """Messages on one connection (a new one after each that was refused). A message is a list of attachments."""

    host: str
    messages: list[list[Part]]
    mark: str
    """Goes into every attachment and makes it a file the box has never seen."""
    piece_pause_s: float = 0.0
    """Send the message in 32 pieces with this pause between them; 0 = at once."""


class Ftp(msgspec.Struct, tag="ftp", frozen=True):
    """Downloads, each by a data connection of its own."""

    host: str
    paths: list[str]
    passive: bool


Task = Web | Post | Mail | Ftp


class Got(msgspec.Struct, frozen=True):
    """What one transfer left the client with."""

    end: End
    size: int = 0
    """Bytes of the unpacked body."""
    sha256: str = ""
    eicar: bool = False
    """The whole test string is among them."""
    port: int = 0
    """The client's own port."""
    answer: str = ""
    """Status line or reply of the server, as far as it came."""
    seconds: float = 0.0


class Done(msgspec.Struct, frozen=True):
    """One task's transfers, in order."""

    got: list[Got]


def marked(bad: bool, size: int, mark: str) -> bytes:
    """A sample whose first bytes are `mark`."""
    body = malicious(size) if bad else clean(size)
    return mark.encode() + body[len(mark) :]


def message(parts: list[Part], mark: str) -> bytes:
    """A mail with these attachments, as it travels (before dot-stuffing)."""
    mail = EmailMessage(policy=SMTP)
    mail["From"], mail["To"], mail["Subject"] = "tanaka@office.test", "suzuki@partner.test", "invoice"
    mail.set_content("Please find the files attached.\n")
    for number, (kind, size) in enumerate(parts):
        body = marked(kind == "bad", size, f"{mark}.{number}.")
        mail.add_attachment(body, maintype="application", subtype="octet-stream", filename=f"{kind}-{number}.bin")
    return mail.as_bytes()


class _Body:
    """Takes a response's bytes and knows when they are all there."""

    def __init__(self, fields: dict[str, str]) -> None:
        self.data = io.BytesIO()
        self._left = int(fields["content-length"]) if "content-length" in fields else None
        self._chunked = fields.get("transfer-encoding") == "chunked"
        self._gzip = zlib.decompressobj(31) if fields.get("content-encoding") == "gzip" else None
        self._raw = b""
        self._chunk_left = 0
        self.ended = self._left == 0
        self.by_close = self._left is None and not self._chunked

    def feed(self, data: bytes) -> None:
        if self._chunked:
            self._raw += data
            self._dechunk()
            return
        self._take(data)
        if self._left is not None:
            self._left -= len(data)
            self.ended = self._left <= 0

    def _take(self, data: bytes) -> None:
        self.data.write(self._gzip.decompress(data) if self._gzip else data)

    def _dechunk(self) -> None:
        while self._raw and not self.ended:
            if self._chunk_left > 2:
                part = self._raw[: self._chunk_left - 2]
                self._take(part)
                self._chunk_left -= len(part)
                self._raw = self._raw[len(part) :]
            elif self._chunk_left:
                skip = self._raw[: self._chunk_left]
                self._chunk_left -= len(skip)
                self._raw = self._raw[len(skip) :]
            else:
                line, found, rest = self._raw.partition(b"\r\n")
                if not found:
                    return
                size = int(line or b"0", 16)
                self._raw, self._chunk_left = rest, size + 2
                self.ended = size == 0

    def got(self, end: End, port: int, answer: str, began: float) -> Got:
        data = self.data.getvalue()
        seconds = time.monotonic() - began
        return Got(end, len(data), hashlib.sha256(data).hexdigest(), EICAR in data, port, answer, seconds)


def web(task: Web) -> Done:
    got: list[Got] = []
    source = ("::" if ":" in task.host else "0.0.0.0", task.from_port) if task.from_port else None  # noqa: S104 - a client
    try:
        link = socket.create_connection((task.host, task.port), TIMEOUT_S, source)
    except OSError as err:
        return Done([Got("timeout" if isinstance(err, TimeoutError) else "reset", answer=str(err))])
    with link:
        port = link.getsockname()[1]
        for path in task.paths:
            got.append(_one(link, task, path, port))
            if got[-1].end != "whole":
                break
    return Done(got)


def _one(link: socket.socket, task: Web, path: str, port: int) -> Got:
    began = time.monotonic()
    head, body, answer = b"", _Body({}), ""
    end: End = "short"
    try:
        link.sendall(f"GET {path} HTTP/1.1\r\nHost: {task.host}\r\nAccept-Encoding: gzip\r\n\r\n".encode())
        while b"\r\n\r\n" not in head and len(head) < MAX_HEAD_BYTES:
            data = link.recv(CHUNK)
            if not data:
                return Got("short", port=port)
            head += data
        text, _, rest = head.partition(b"\r\n\r\n")
        answer, *lines = text.decode("latin-1").split("\r\n")
        body = _Body({key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)})
        body.feed(rest)
        while not body.ended:
            if task.rate:
                time.sleep(max(0.0, body.data.tell() / task.rate - (time.monotonic() - began)))
            data = link.recv(CHUNK)
            if not data:
                end = "whole" if body.by_close else "short"
                return body.got(end, port, answer, began)
            body.feed(data)
        end = "whole"
    except TimeoutError:
        end = "timeout"
    except OSError:
        end = "reset"
    return body.got(end, port, answer, began)


def post(task: Post) -> Done:
    body = marked(task.bad, task.size, task.mark)
    head = f"POST {task.path} HTTP/1.1\r\nHost: {task.host}\r\nContent-Length: {len(body)}\r\n\r\n"
    began = time.monotonic()
    answer, end, port = "", "reset", 0
    with socket.create_connection((task.host, task.port), TIMEOUT_S) as link:
        port = link.getsockname()[1]
        try:
            link.sendall(head.encode() + body)
            answer = link.recv(CHUNK).split(b"\r\n")[0].decode("latin-1")
            end = "whole" if answer else "short"
        except TimeoutError:
            end = "timeout"
        except OSError:
            end = "reset"
    sha = hashlib.sha256(body).hexdigest()
    return Done([Got(end, len(body), sha, task.bad, port, answer, time.monotonic() - began)])  # type: ignore[arg-type]


class _Pieces(smtplib.SMTP):
    """Sends long data in 32 pieces with a pause between them."""

    pause_s = 0.0

    def send(self, s: bytes | str) -> None:  # type: ignore[override]  # ReadableBuffer is a stub's name
        if len(s) < CHUNK or not self.pause_s:
            super().send(s)
            return
        step = len(s) // 32 + 1
        for at in range(0, len(s), step):
            super().send(s[at : at + step])
            time.sleep(self.pause_s)


def mail(task: Mail) -> Done:
    got: list[Got] = []
    link: _Pieces | None = None
    for number, parts in enumerate(task.messages):
        data = message(parts, f"{task.mark}.{number}")
        began = time.monotonic()
        end: End = "whole"
        port = 0
        try:
            if link is None:
                link = _Pieces(task.host, layout.SMTP, "pc.office.test", TIMEOUT_S)
                link.pause_s = task.piece_pause_s
            port = link.sock.getsockname()[1] if link.sock else 0
            link.sendmail("tanaka@office.test", ["suzuki@partner.test"], data)
            answer = "250"
        except smtplib.SMTPResponseException as err:
            answer, end = str(err.smtp_code), "short"
        except (smtplib.SMTPException, OSError) as err:
            answer, end = f"{type(err).__name__}: {err}", "reset"
        if end != "whole" and link is not None:
            link.close()
            link = None
        bad = any(kind == "bad" for kind, _ in parts)
        sha = hashlib.sha256(data).hexdigest()
        got.append(Got(end, len(data), sha, bad, port, answer, time.monotonic() - began))
    if link is not None:
        link.close()
    return Done(got)


def ftp(task: Ftp) -> Done:
    got: list[Got] = []
    with ftplib.FTP(timeout=TIMEOUT_S) as link:  # noqa: S321 - what the office uses
        link.connect(task.host, layout.FTP)
        link.login()
        link.set_pasv(task.passive)
        link.voidcmd("TYPE I")
        for path in task.paths:
            began = time.monotonic()
            data = io.BytesIO()
            end: End = "whole"
            port = 0
            with link.transfercmd(f"RETR {path}") as flow:
                flow.settimeout(TIMEOUT_S)
                # The peer's view: in passive mode we connect from our port, in active mode it is ours that is called.
                port = flow.getsockname()[1]
                try:
                    while block := flow.recv(CHUNK):
                        data.write(block)
                except TimeoutError:
                    end = "timeout"
                except OSError:
                    end = "reset"
            answer = ""
            try:
                answer = link.voidresp()
            except ftplib.Error as err:
                answer = str(err)
                end = "short" if end == "whole" else end
            body = data.getvalue()
            sha = hashlib.sha256(body).hexdigest()
            got.append(Got(end, len(body), sha, EICAR in body, port, answer, time.monotonic() - began))
    return Done(got)


def perform(task: Task) -> Done:
    match task:
        case Web():
            return web(task)
        case Post():
            return post(task)
        case Mail():
            return mail(task)
        case Ftp():
            return ftp(task)


def main() -> None:
    for task in msgspec.json.decode(sys.stdin.buffer.read(), type=list[Task]):
        sys.stdout.buffer.write(msgspec.json.encode(perform(task)) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
