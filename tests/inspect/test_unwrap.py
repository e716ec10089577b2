"""The file itself is taken out of a transfer, by its hash or not at all, in a confined child."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
from pathlib import Path

import pytest

from sekisho.appliance.core.errors import RejectedInput
from sekisho.inspect import unwrap

FILE = os.urandom(200_000)
LIMIT = 64 << 20


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def chunked(data: bytes) -> bytes:
    pieces = [data[at : at + 30_000] for at in range(0, len(data), 30_000)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def response(*fields: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def given(tmp_path: Path, transfer: bytes, app: str, wanted: str) -> bytes | None:
    path = tmp_path / "transfer"
    path.write_bytes(transfer)
    with path.open("rb") as source:
        file = unwrap.content(source.fileno(), app, wanted, LIMIT)
        return None if file is None else b"".join(file)


PACKED = gzip.compress(FILE)
PART = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"


@pytest.mark.parametrize(
    ("app", "transfer"),
    [
        ("http", response(b"Content-Length: %d" % len(FILE)) + FILE),
        ("http", response(b"Transfer-Encoding: chunked") + chunked(FILE)),
        ("http", response(b"Content-Encoding: gzip", b"Content-Length: %d" % len(PACKED)) + PACKED),
        ("http", response(b"Content-Encoding: gzip", b"Transfer-Encoding: chunked") + chunked(PACKED)),
        ("ftp-data", FILE),
        ("pop3", PART + base64.encodebytes(FILE).replace(b"\n", b"\r\n")),
        ("imap", PART + base64.encodebytes(FILE).replace(b"\n", b"\r\n")),
    ],
)
def test_the_file_comes_as_it_was(tmp_path: Path, app: str, transfer: bytes) -> None:
    assert given(tmp_path, transfer, app, sha256(FILE)) == FILE


@pytest.mark.parametrize("app", ["http", "http2", "smtp", "smb", "pop3", "ftp-data", "", "no such"])
@pytest.mark.parametrize("transfer", [b"", b"\xff" * 100_000, response(b"Content-Length: 9") + b"otherwise"])
def test_what_has_another_hash_is_not_given_out(tmp_path: Path, app: str, transfer: bytes) -> None:
    assert given(tmp_path, transfer, app, sha256(b"never")) is None


def test_a_child_that_ends_early_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "timeout").write_text("#!/bin/sh\nprintf '\\001half'\n")
    (folder / "timeout").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    with pytest.raises(RejectedInput):
        given(tmp_path, b"x", "http", sha256(b"half a file"))
