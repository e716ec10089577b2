"""The enrolment code: what the centre prints and a person types into the box, once.

Two halves of 80 bits in Crockford's base 32, and one check symbol over both (base32.html by D. Crockford):

- the *secret* proves that the box may have the identity the code was made for;
- the *pin* begins the SHA-256 of the CA's public key, so that the box knows the centre before it trusts anything.
  Someone in between would need another key with the same 80 bits (2^80 key pairs to try).

Read forgivingly: any case, spaces and hyphens anywhere, O for 0, I and L for 1.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sekisho.appliance.core.errors import RejectedInput

HALF_BYTES: Final = 10
MAX_TEXT: Final = 100
_SYMBOLS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CHECKS: Final = _SYMBOLS + "*~$=U"
_LENGTH: Final = 2 * HALF_BYTES * 8 // 5
_READ_AS: Final = str.maketrans({"O": "0", "I": "1", "L": "1"})


class EnrolCode(msgspec.Struct, frozen=True):
    """Both halves, each of `HALF_BYTES`."""

    secret: bytes
    pin: bytes

    def __repr__(self) -> str:
        """Without the secret, so that no log gets it."""
        return f"EnrolCode(pin={self.pin.hex()})"

    @property
    def text(self) -> str:
        """As it is printed: groups of four, the last one has five."""
        number = int.from_bytes(self.secret + self.pin, "big")
        symbols = "".join(_SYMBOLS[number >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5))
        symbols += _CHECKS[number % 37]
        return "-".join([*(symbols[at : at + 4] for at in range(0, _LENGTH - 4, 4)), symbols[_LENGTH - 4 :]])

    @property
    def digest(self) -> str:
        """What the centre keeps of the secret. 80 random bits need no slow hash."""
        return digest(self.secret)


def make(pin: bytes) -> EnrolCode:
    """A new code for the centre whose CA has `pin`; its check symbol is one that needs no quoting in a shell."""
    while (made := EnrolCode(secrets.token_bytes(HALF_BYTES), pin)).text[-1] not in _SYMBOLS:
        pass
    return made


def parse(text: str) -> EnrolCode:
    """The code that was typed.

    Raises:
        RejectedInput: not a code, or mistyped; the message says which. Nothing was sent anywhere.

    """
    if len(text) > MAX_TEXT:
        raise RejectedInput("This is too long for an enrolment code.")
    symbols = re.sub(r"[\s-]", "", text.upper()).translate(_READ_AS)
    if len(symbols) != _LENGTH + 1 or not all(s in _SYMBOLS for s in symbols[:-1]) or symbols[-1] not in _CHECKS:
        raise RejectedInput(f"An enrolment code has {_LENGTH + 1} letters and digits.", "Please type it again.")
    number = 0
    for symbol in symbols[:-1]:
        number = number << 5 | _SYMBOLS.index(symbol)
    if _CHECKS[number % 37] != symbols[-1]:
        raise RejectedInput("The enrolment code is mistyped.", "Please compare it letter by letter.")
    data = number.to_bytes(2 * HALF_BYTES, "big")
    return EnrolCode(data[:HALF_BYTES], data[HALF_BYTES:])


def digest(secret: bytes) -> str:
    return hashlib.sha256(b"sekisho enrolment\0" + secret).hexdigest()


def pin_of(key: CertificatePublicKeyTypes) -> bytes:
    """The pin of a CA with this public key: a CA that is certified anew with the same key keeps its codes."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).digest()[:HALF_BYTES]
