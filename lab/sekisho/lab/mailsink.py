"""The SMTP server on the internet side: accepts mail for anyone and keeps each in a file of its own.

A file appears only when the mail was received whole and answered with 250, so a test can trust its
absence. Started by the supervisor: `python -m sekisho.lab.mailsink --folder DIR`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

from sekisho.lab.layout import SMTP as SMTP_PORT
from sekisho.lab.layout import SUBMISSION

MAX_MAIL_BYTES = 64 << 20


class _Keep:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(len(list(folder.iterdir())) + 1)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        name = f"{next(self._numbers):05d}"
        aside = self._folder / f".{name}"
        content = envelope.original_content or b""
        aside.write_bytes(content)
        aside.rename(self._folder / name)
        return f"250 OK kept as {name}, {len(content)} bytes"


class _Chunking(SMTP):
    """Takes a mail in chunks as well (RFC 3030)."""

    _chunks = b""

    async def smtp_BDAT(self, arg: str | None) -> None:
        size, _, last = (arg or "0").partition(" ")
        self._chunks += await self._reader.readexactly(min(int(size), MAX_MAIL_BYTES))
        if not last:
            await self.push("250 OK")
            return
        envelope = Envelope()
        envelope.original_content, self._chunks = self._chunks, b""
        await self.push(await self.event_handler.handle_DATA(self, self.session, envelope))
        self.envelope = self._create_envelope()


async def _serve(folder: Path) -> None:
    loop = asyncio.get_running_loop()
    keep = _Keep(folder)

    def protocol() -> SMTP:
        return _Chunking(keep, data_size_limit=MAX_MAIL_BYTES, hostname="mail.sekisho.test", loop=loop)

    done = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, done.set)
    everywhere = ["0.0.0.0", "::"]  # noqa: S104 - in its own namespace
    servers = [await loop.create_server(protocol, everywhere, port) for port in (SMTP_PORT, SUBMISSION)]
    await done.wait()
    for server in servers:
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    asyncio.run(_serve(parser.parse_args().folder))


if __name__ == "__main__":
    main()
