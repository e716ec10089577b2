"""TLS towards the centre, also from a box that does not know what time it is.

With a confirmed clock the library's checks apply as they are. While the wall clock is not known to be right, the
validity period cannot be checked against it: a box that boots in 1970 would never connect, and so never learn the
time. Chain, name and key are checked as ever; of the period only what is known for sure is held against the
server's certificate: the true time where the centre has told it, otherwise the newest time this box knows to have
passed (a certificate that ended before it is refused; one that "is not valid yet" cannot be told from a clock
that is behind).
"""

from __future__ import annotations

import ssl
import time
from typing import Any, Final, Protocol

from sekisho.appliance.core.errors import RejectedInput

NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME (openssl/x509_vfy.h), which the ssl module has no name for."""


class TimeSense(Protocol):
    """What a box knows of the time."""

    floor: float

    @property
    def right(self) -> bool: ...

    def true_time(self, mono: float) -> float | None: ...


class Context(ssl.SSLContext):
    """An SSL context that asks what is known of the time before each handshake."""

    sense: TimeSense
    _period = (0.0, 0.0)

    def checked(self, certificate: Any) -> None:
        """Hold a verified certificate's validity against what is known of the time.

        Raises:
            ssl.SSLCertVerificationError: it is over, or has not begun at a time that is confirmed.

        """
        begins, ends = (float(ssl.cert_time_to_seconds(certificate[key])) for key in ("notBefore", "notAfter"))
        self._period = begins, ends
        if self.sense.right:
            return
        now = self.sense.true_time(time.monotonic())
        if ends < (self.sense.floor if now is None else now):
            raise ssl.SSLCertVerificationError("certificate verify failed: certificate has expired")
        if now is not None and now < begins:
            raise ssl.SSLCertVerificationError("certificate verify failed: certificate is not yet valid")

    def valid_at(self, unix_s: float) -> bool:
        """Whether the last peer's certificate was, is or will be valid then."""
        return self._period[0] <= unix_s <= self._period[1]

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """As the base class; the connection then checks its peer's period itself where the clock is no measure."""
        flags = int(self.verify_flags) & ~NO_CHECK_TIME
        self.verify_flags = ssl.VerifyFlags(flags if self.sense.right else flags | NO_CHECK_TIME)
        return super().wrap_socket(*args, **kwargs)


class _Connection(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        if isinstance(self.context, Context):
            self.context.checked(self.getpeercert())


def context(ca: str, cert: str, key: str, sense: TimeSense) -> Context:
    """A context for a client with a certificate; `ca` empty = the system's authorities.

    Raises:
        RejectedInput: the certificate, key or CA cannot be used; the message says which.

    """
    at_fault = ca
    try:
        made = Context(ssl.PROTOCOL_TLS_CLIENT)
        made.sense = sense
        made.sslsocket_class = _Connection
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if ca:
            made.load_verify_locations(ca)
        else:
            made.load_default_certs()
        at_fault = cert if not _is_certificate(cert) else key
        made.load_cert_chain(cert, key)
    except (OSError, ValueError) as err:
        raise RejectedInput(
            f"The telemetry certificate cannot be used ({at_fault}): {err}.",
            "Events are kept on the box until it is replaced.",
        ) from err
    return made


def _is_certificate(path: str) -> bool:
    """Whether it is readable as one: the TLS library does not say which of certificate and key it rejects."""
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError):
        return False
    return True
