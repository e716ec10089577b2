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


async def _serve(folder: Path) -> None:
    loop = asyncio.get_running_loop()
    keep = _Keep(folder)

    def protocol() -> SMTP:
        return SMTP(keep, data_size_limit=MAX_MAIL_BYTES, hostname="mail.sekisho.test", loop=loop)

    done = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, done.set)
    server = await loop.create_server(protocol, ["0.0.0.0", "::"], SMTP_PORT)  # noqa: S104 - in its own namespace
    await done.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    asyncio.run(_serve(parser.parse_args().folder))


if __name__ == "__main__":
    main()
