"""What an operator asks of boxes: signed by people, named boxes only, closed kinds, a time to live. Both ends' format.

A job is a DSSE envelope (Dead Simple Signing Envelope 1.0.2) over ed25519. Who may sign what stands in `Operators`, a
target of the signed channel, so neither the centre nor the broker can make a job. There is no kind that runs a
command of the sender's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from sekisho.appliance.core.errors import RejectedInput

LEVEL: Final = "jobs"
"""Of the topic, below the box's own: sk/1/TENANT/BOX/jobs/ID."""
ENVELOPE_CAP: Final = 256 << 10
BOXES_CAP: Final = 2000
PAYLOAD_TYPE: Final[Literal["application/vnd.sekisho.job.v1+json"]] = "application/vnd.sekisho.job.v1+json"
TWO_PEOPLE: Final = frozenset({"quarantine.release", "fw.rollback", "key.rotate"})
MUTATING: Final = frozenset(
    {"fw.stage", "fw.activate", "fw.rollback", "sig.update", "sig.rollback", "engine.restart", "reboot", "key.rotate"}
)
"""Of these one at a time."""
LIFE_S: Final = 90 * 86_400
"""A job lives no longer, whatever it says."""

Kind = Literal[
    "fw.stage", "fw.activate", "fw.cancel", "fw.rollback", "sig.update", "sig.rollback", "engine.restart", "reboot",
    "diag.collect", "quarantine.release", "time.set", "key.rotate", "support.open", "support.close", "job.cancel",
]  # fmt: skip
State = Literal[
    "RECEIVED", "ACCEPTED", "RUNNING", "WAITING",
    "SUCCEEDED", "FAILED", "REVERTED", "REJECTED", "CANCELED", "TIMED_OUT", "EXPIRED", "SUPERSEDED",
]  # fmt: skip
TERMINAL: Final = frozenset(
    {"SUCCEEDED", "FAILED", "REVERTED", "REJECTED", "CANCELED", "TIMED_OUT", "EXPIRED", "SUPERSEDED"}
)

Id = Annotated[str, msgspec.Meta(pattern="^[0-9A-HJKMNP-TV-Z]{26}$")]
"""ULID."""
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]

_SPAN_S: Final[dict[str, float]] = {
    "fw.stage": 14 * 86_400.0,
    "fw.activate": float(LIFE_S),
    "fw.rollback": 2 * 86_400.0,
    "reboot": float(LIFE_S),
    "engine.restart": float(LIFE_S),
    "sig.update": 86_400.0,
    "sig.rollback": 3600.0,
    "key.rotate": 86_400.0,
    "support.open": 86_400.0,
}


_WORKING_S: Final[dict[str, float]] = {"reboot": 3600.0, "engine.restart": 900.0}


def working_s(kind: str) -> float:
    """Seconds it may be RUNNING at a stretch; what waits for a person in between counts by `span_s`."""
    return _WORKING_S.get(kind, span_s(kind))


def span_s(kind: str) -> float:
    """Seconds from a job's beginning to its deadline; both ends count by it."""
    return _SPAN_S.get(kind, 900.0)


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What it may cost the box."""

    max_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    """On the line; 0: 1.2 times what is fetched."""
    tries: Annotated[int, msgspec.Meta(ge=1, le=20)] = 5


class When(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the sender asks about an interruption; the customer's word goes before."""

    mode: Literal["ask", "window", "asap"] = "ask"
    """"asap" counts only where the contract's signed document allows it."""
    deadline: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Unix seconds: the customer is told by then, ever more plainly. It never restarts a box. 0: none."""


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One job. Read strictly: what a box does not know it does not do."""

    id: Id
    boxes: Annotated[list[_Name], msgspec.Meta(min_length=1, max_length=BOXES_CAP)]
    kind: Kind
    args: Annotated[dict[str, str], msgspec.Meta(max_length=16)] = {}
    """Read strictly by who carries the kind out."""
    nbf: Annotated[int, msgspec.Meta(ge=0)]
    """Unix seconds: not before; likewise `exp`: not begun after."""
    exp: Annotated[int, msgspec.Meta(ge=1)]
    from_counter: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Only for boxes whose release is at least this; likewise `sets_from` of the rule set."""
    sets_from: Annotated[int, msgspec.Meta(ge=0)] = 0
    when: When = When()
    limits: Limits = Limits()
    rollout: Annotated[str, msgspec.Meta(max_length=26)] = ""


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who may sign jobs."""

    name: _Name
    person: _Name
    """Two keys of one person count once."""
    key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    """ed25519, raw."""
    kinds: Annotated[list[Kind], msgspec.Meta(max_length=32)]
    until: Annotated[int, msgspec.Meta(ge=1)]
    """Unix seconds."""


class Operators(msgspec.Struct, frozen=True, kw_only=True):
    """`operators/operators.json` of the channel."""

    operators: Annotated[list[Operator], msgspec.Meta(max_length=200)]


class Believed(Operators, frozen=True, kw_only=True):
    """The same on the box, as verified there: with an end, and what the channel's signatures say of the time."""

    expires: float
    """Unix seconds: the list counts no longer; its keyholders sign it anew before."""
    at: float
    """Unix seconds: the newest time the channel was signed at; it is at least so late."""


class Signature(msgspec.Struct, frozen=True):
    keyid: _Name
    """The operator's name."""
    sig: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Envelope(msgspec.Struct, frozen=True):
    """DSSE's JSON form."""

    payload: Annotated[bytes, msgspec.Meta(max_length=ENVELOPE_CAP)]
    payloadType: Literal["application/vnd.sekisho.job.v1+json"]
    signatures: Annotated[list[Signature], msgspec.Meta(min_length=1, max_length=4)]


_envelope = msgspec.json.Decoder(Envelope).decode
_job = msgspec.json.Decoder(Job).decode


def preauth(payload: bytes) -> bytes:
    """What is signed (DSSE's PAE)."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sealed(job: Job, signers: Sequence[tuple[str, bytes]]) -> bytes:
    """The envelope. `signers`: operator's name and raw ed25519 private key (32 bytes)."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    payload = msgspec.json.encode(job)
    signed = preauth(payload)
    signatures = [Signature(name, Ed25519PrivateKey.from_private_bytes(key).sign(signed)) for name, key in signers]
    return msgspec.json.encode(Envelope(payload, PAYLOAD_TYPE, signatures))


def opened(data: bytes, operators: Operators, now: float) -> Job:
    """As `verified`: the job alone."""
    return verified(data, operators, now)[0]


def verified(data: bytes, operators: Operators, now: float) -> tuple[Job, list[Operator]]:
    """The job, where enough people who may have signed it, and those of its signers who may. `now`: unix seconds, as
    well as known.

    Whose box and when are the caller's to check: a job for another box is no forgery.

    Raises:
        RejectedInput: too large, malformed, or not signed by those who may; the message says which.

    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if len(data) > ENVELOPE_CAP:
        raise RejectedInput("The job is larger than its cap.")
    try:
        envelope = _envelope(data)
        signed = preauth(envelope.payload)
        good: list[Operator] = []
        for signature in envelope.signatures:
            known = next((one for one in operators.operators if one.name == signature.keyid), None)
            if known is None or now > known.until:
                continue
            try:
                Ed25519PublicKey.from_public_bytes(known.key).verify(signature.sig, signed)
            except InvalidSignature:
                continue
            good.append(known)
        if not good:
            raise RejectedInput("The job is not signed by anyone who may.")
        job = _job(envelope.payload)
    except (msgspec.MsgspecError, ValueError, RecursionError) as err:
        raise RejectedInput(f"The job cannot be read: {err}.") from err
    may = [one for one in good if job.kind in one.kinds]
    if len({one.person for one in may}) < (2 if job.kind in TWO_PEOPLE else 1):
        raise RejectedInput(f"The job {job.kind} is not signed by enough people who may.")
    return job, may
