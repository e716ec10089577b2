"""What box and centre say to each other over HTTPS to give the box its certificate. JSON, version in the path."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

CA_PATH: Final = "/box/1/ca"
ENROL_PATH: Final = "/box/1/enrol"
RENEW_PATH: Final = "/box/1/renew"
ANSWER_CAP_BYTES: Final = 64 << 10
RENEWAL_CONTEXT: Final = b"sekisho renewal 1\0"
"""Goes before what the old key signs, so that the signature is good for nothing else."""

Pem = Annotated[str, msgspec.Meta(max_length=8192)]


class CaAnswer(msgspec.Struct, frozen=True):
    """The CA's certificate, for a box that can compare it with its code."""

    ca: Pem


class EnrolAsk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="enrol"):
    """A box with a code; `csr` is only read for its public key and its signature."""

    secret: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{20}$")]
    csr: Pem


class RenewAsk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="renew"):
    """A box whose certificate nears its end; `proof` is the old key's ECDSA signature (SHA-256, DER, hexadecimal)
    over `RENEWAL_CONTEXT` and the CSR's DER bytes.
    """

    serial: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{1,40}$")]
    csr: Pem
    proof: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{2}){1,160}$")]
    job: Annotated[str, msgspec.Meta(pattern=r"^([0-9A-HJKMNP-TV-Z]{26})?\Z")] = ""
    """Of operators who want the key replaced before its time; the centre knows whether there is one."""


class BrokerAddress(msgspec.Struct, frozen=True):
    """Where the box sends its events."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8883


class Grant(msgspec.Struct, frozen=True):
    """The certificate, and who the box is now. Who it is was decided when the code was made."""

    box: str
    tenant: str
    certificate: Pem
    brokers: Annotated[tuple[BrokerAddress, ...], msgspec.Meta(min_length=1, max_length=16)]


class Refusal(msgspec.Struct, frozen=True):
    """Why not; every answer that is not 200."""

    error: str = ""
