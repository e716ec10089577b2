"""Operators with real keys, and what they sign."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.appliance.core import jobs
from sekisho.appliance.core.jobs import Job, Operator, Operators

NOW = 1_790_000_000
"""Unix seconds of the centre and of everybody who is well."""
KINDS = list(msgspec.inspect.type_info(jobs.Kind).values)  # type: ignore[attr-defined]
_NUMBERS = itertools.count(1)
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ident(number: int | None = None) -> str:
    """A ULID nobody has used."""
    left, text = next(_NUMBERS) if number is None else number, ""
    for _ in range(8):
        text, left = _LETTERS[left % 32] + text, left // 32
    return "01JD3Z9V7M2Q4W8X6Y"[: 26 - len(text)] + text


class Person:
    """An operator with a key."""

    def __init__(self, name: str, person: str = "", kinds: list[Any] | None = None, until: int = NOW + 10**8) -> None:
        self.name = name
        self.secret = Ed25519PrivateKey.generate().private_bytes_raw()
        key = Ed25519PrivateKey.from_private_bytes(self.secret).public_key().public_bytes_raw()
        self.operator = Operator(name=name, person=person or name, key=key, kinds=kinds or KINDS, until=until)

    @property
    def signer(self) -> tuple[str, bytes]:
        return self.name, self.secret


TANAKA = Person("tanaka")
SATO = Person("sato")
TANAKA_TOO = Person("tanaka-2", person="tanaka")
OVER = Person("suzuki", until=NOW - 1)
NARROW = Person("ito", kinds=["diag.collect"])
STRANGER = Person("stranger")
LISTED = Operators(operators=[one.operator for one in (TANAKA, SATO, TANAKA_TOO, OVER, NARROW)])


def job(kind: str = "sig.update", **changes: Any) -> Job:
    values: dict[str, Any] = {
        "id": ident(), "boxes": ["box-1"], "kind": kind, "nbf": NOW - 60, "exp": NOW + 86_400, **changes
    }  # fmt: skip
    return Job(**values)


def signed(made: Job, *people: Person) -> bytes:
    return jobs.sealed(made, [one.signer for one in people or (TANAKA,)])
