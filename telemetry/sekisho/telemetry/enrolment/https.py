"""HTTPS to the centre for enrolment and renewal: small, capped, and trusting one CA only.

Not over a general HTTP library: those add the public authorities to whatever context they are given, and the whole
point here is that only the centre's own CA counts.
"""

from __future__ import annotations

import base64
import http.client
import ssl
import time
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from sekisho.appliance.core.errors import PeerError, RejectedInput
from sekisho.telemetry.enrolment.wire import ANSWER_CAP_BYTES, Refusal
from sekisho.telemetry.tls import NO_CHECK_TIME

STEP_S: Final = 10.0
WHOLE_S: Final = 30.0


class Refused(RejectedInput):
    """The centre says no; `status` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def trusting_nobody() -> ssl.SSLContext:
    """For fetching what is checked by other means; nothing secret may be sent over it."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def trusting(ca_pem: str) -> ssl.SSLContext:
    """Only servers certified by this CA, by their name.

    Their validity period is not checked: a box enrols before it knows what time it is, and a certificate that the
    CA gave to a server of the centre's is proof enough of whom we talk to.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_verify_locations(cadata=ca_pem)
    made.verify_flags = ssl.VerifyFlags(int(made.verify_flags) | NO_CHECK_TIME)
    return made


class Centre:
    """The centre's web service at `https://host[:port]`, directly or through an HTTP proxy."""

    def __init__(self, url: str, proxy: str = "") -> None:
        """Check the addresses.

        Raises:
            RejectedInput: not of this form.

        """
        self._host, self._port = _address(url, "https", 443)
        self._proxy = urlsplit(proxy) if proxy else None
        if proxy:
            _address(proxy, "http", 3128)

    def get(self, path: str, context: ssl.SSLContext) -> bytes:
        """The body of an answer 200.

        Raises:
            PeerError: unreachable, too slow, not the server the context trusts, or an answer that is none.
            Refused: the server answered otherwise.

        """
        return self._ask("GET", path, None, context)

    def post(self, path: str, body: msgspec.Struct, context: ssl.SSLContext) -> bytes:
        """As `get`, with a body."""
        return self._ask("POST", path, msgspec.json.encode(body), context)

    def _ask(self, method: str, path: str, body: bytes | None, context: ssl.SSLContext) -> bytes:
        connection = self._connection(context)
        try:
            headers = {"content-type": "application/json"} if body else {}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            data = _read(answer)
        except ssl.SSLCertVerificationError as err:
            raise PeerError(
                f"{self._host} is not the centre this box belongs to: {err.verify_message}.",
                "Nothing was sent to it. Check the address, and the network in between.",
            ) from err
        except (OSError, http.client.HTTPException) as err:
            raise PeerError(f"{self._host} port {self._port} does not answer as it should: {err}.") from err
        finally:
            connection.close()
        if answer.status != 200:
            raise _refusal(answer.status, data)
        return data

    def _connection(self, context: ssl.SSLContext) -> http.client.HTTPSConnection:
        if self._proxy is None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=STEP_S, context=context)
        made = http.client.HTTPSConnection(
            str(self._proxy.hostname), self._proxy.port or 3128, timeout=STEP_S, context=context
        )
        headers = {}
        if self._proxy.username:
            login = f"{unquote(self._proxy.username)}:{unquote(self._proxy.password or '')}"
            headers["proxy-authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        made.set_tunnel(self._host, self._port, headers)
        return made


def _read(answer: http.client.HTTPResponse) -> bytes:
    data, until = b"", time.monotonic() + WHOLE_S
    while more := answer.read1(ANSWER_CAP_BYTES):
        data += more
        if len(data) > ANSWER_CAP_BYTES:
            raise http.client.HTTPException(f"the answer is larger than {ANSWER_CAP_BYTES} bytes")
        if time.monotonic() > until:
            raise TimeoutError("the answer takes too long")
    return data


def _refusal(status: int, data: bytes) -> Refused | PeerError:
    try:
        why = msgspec.json.decode(data, type=Refusal).error[:300]
    except msgspec.DecodeError:
        why = ""
    if status == 429 or status >= 500:
        return PeerError(why or f"The centre cannot answer now (HTTP {status}).")
    return Refused(why or f"The centre refuses (HTTP {status}).", status)


def _address(url: str, scheme: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        found = parts.port or port
    except ValueError as err:
        raise RejectedInput(f"This is not an address: {err}.") from err
    if parts.scheme != scheme or not parts.hostname:
        raise RejectedInput(f"The address must be of the form {scheme}://name or {scheme}://name:port.")
    return parts.hostname, found
