"""One connection to the mail server that takes our mails (RFC 5321, submission RFC 6409): TLS, a login, time caps.

`send` says what became of a mail: taken, refused for good, later (this mail), or that the server is no use now. An
answer that cannot be had is "unreachable": the mail may have been taken, and is sent again under the same Message-ID.
"""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import PeerError, RejectedInput
from sekisho.center.settings import Notify

COMMAND_S: Final = 15.0
"""Longest wait for one answer, and for the connection."""
ATTEMPT_S: Final = 60.0
"""Longest time for one mail in all, however slowly the server drips; less than `queue.LEASE_S`."""
IDLE_S: Final = 30.0
"""A connection not used for so long is made anew; servers drop idle ones."""


class Refused(RejectedInput):
    """The server will never take this mail (5xx)."""


class Deferred(PeerError):
    """The server does not take this mail now (4xx)."""


class Unreachable(PeerError):
    """The server cannot be used now, for no mail: network, TLS, login, our own sender address."""


class Relay:
    """Sends one mail at a time over a connection that is kept; not for use from several threads."""

    def __init__(self, config: Notify) -> None:
        """Read the login and the certificates.

        Raises:
            RejectedInput: settings that cannot work: no sender, a login without TLS, an unreadable file.

        """
        self._config = config
        if "@" not in config.sender:
            raise RejectedInput("[notify] sender must be a mail address.")
        if config.user and config.security == "none":
            raise RejectedInput("[notify] a login needs TLS: set security to starttls or tls.")
        try:
            self._password = _secret(Path(config.password_file)) if config.user else ""
            self._tls = ssl.create_default_context(cafile=config.ca or None)
        except (OSError, UnicodeDecodeError) as err:
            raise RejectedInput(f"[notify] a file cannot be read: {err}.") from err
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._smtp: smtplib.SMTP | None = None
        self._used = 0.0

    def send(self, recipient: str, message: bytes) -> str:
        """The server's answer when it has taken the mail.

        Raises:
            Refused: never this mail.
            Deferred: not this mail now.
            Unreachable: no mail now; it is not known whether this one was taken.

        """
        with self._capped(), self._faults():
            smtp = self._connection()
            self._expect(smtp.mail(self._config.sender), server=True)
            self._expect(smtp.rcpt(recipient))
            reply = self._expect(smtp.data(message))
            self._used = time.monotonic()
            return reply

    def close(self) -> None:
        """Say goodbye when the server still listens."""
        if self._smtp is not None:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                self._smtp.sock.settimeout(1.0)  # type: ignore[union-attr]  # absent only after a disconnect
                self._smtp.quit()
        self._drop()

    def _connection(self) -> smtplib.SMTP:
        if self._smtp is not None and time.monotonic() - self._used < IDLE_S:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                if self._smtp.rset()[0] == 250:
                    return self._smtp
        self._drop()
        config = self._config
        name = config.sender.rpartition("@")[2]
        if config.security == "tls":
            self._smtp = smtplib.SMTP_SSL(local_hostname=name, timeout=COMMAND_S, context=self._tls)
        else:
            self._smtp = smtplib.SMTP(local_hostname=name, timeout=COMMAND_S)
        self._smtp._host = config.smtp_host  # type: ignore[attr-defined]  # what STARTTLS verifies the name against
        self._expect(self._smtp.connect(config.smtp_host, config.smtp_port), server=True)
        self._smtp.ehlo_or_helo_if_needed()
        if config.security == "starttls":
            self._expect(self._smtp.starttls(context=self._tls), server=True)
            self._smtp.ehlo()
        if config.user:
            self._smtp.login(config.user, self._password)
        return self._smtp

    def _expect(self, answer: tuple[int, bytes], *, server: bool = False) -> str:
        """The answer's text when it is a success; `server`: a refusal is about us, not about this mail."""
        code, text = answer
        said = _said(code, text)
        if 200 <= code < 400:
            return said
        if server or code == 421 or code < 400:
            self._drop()
            raise Unreachable(said)
        raise Refused(said) if code >= 500 else Deferred(said)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except smtplib.SMTPResponseException as err:
            # Login refused, STARTTLS refused, DATA refused before the content.
            self._drop()
            said = _said(err.smtp_code, err.smtp_error)
            if isinstance(err, smtplib.SMTPDataError):
                raise (Refused(said) if err.smtp_code >= 500 else Deferred(said)) from err
            raise Unreachable(said) from err
        except (OSError, smtplib.SMTPException, ValueError) as err:
            self._drop()
            raise Unreachable(f"{self._config.smtp_host}: {err or type(err).__name__}") from err

    @contextlib.contextmanager
    def _capped(self) -> Iterator[None]:
        """Cut the connection when an attempt takes too long: a socket's own timeout starts anew with every byte."""
        timer = threading.Timer(ATTEMPT_S, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _cut(self) -> None:
        smtp = self._smtp
        if smtp is not None and smtp.sock is not None:
            with contextlib.suppress(OSError):
                smtp.sock.shutdown(socket.SHUT_RDWR)

    def _drop(self) -> None:
        if self._smtp is not None:
            self._smtp.close()
            self._smtp = None


def _said(code: int, text: bytes | str) -> str:
    """A server's answer in one line that does nothing to a terminal."""
    shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return " ".join(f"{code} {''.join(c if c.isprintable() else ' ' for c in shown)}".split())


def _secret(path: Path) -> str:
    """A password that only its reader may read."""
    if path.stat().st_mode & 0o077:
        raise RejectedInput(f"[notify] {path} can be read by others: chmod 600 {path}.")
    return path.read_text().strip()
