"""What the repository is: read from its files and verified as a box would, and told so that people know what to do."""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec

from sekisho.appliance.core import utc
from sekisho.signatures.depot.keys import short
from sekisho.signatures.depot.publishing import sizes
from sekisho.signatures.depot.roles import PATHS, TERMS
from sekisho.signatures.depot.signing import issued
from sekisho.signatures.depot.tree import Chain, Tree

_TROUBLE: Final = ("urgent", "expired", "orphaned")


class RoleStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One role in force."""

    role: str
    version: int
    threshold: int
    keys: list[str]
    """Begins of the keys' ids, as in the names of their files."""
    offline: bool
    expires: str
    renew_from: str
    state: str
    """`good`, `due` (sign again), `urgent` (little is left), `expired` (boxes take nothing new)
    or `orphaned` (its keys were replaced, and it was not signed by the new ones: boxes take nothing new)."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The repository in force."""

    number: int
    """The newest set's; 0: none yet."""
    built: str
    signed: str
    """When the timestamp was signed: what boxes know for certain to be past."""
    roles: list[RoleStatus]
    sizes: dict[str, int]
    todo: list[str]
    """What people should do, in their words; empty: nothing."""

    @property
    def in_trouble(self) -> bool:
        """Whether something will soon hold boxes up, or does."""
        return any(role.state in _TROUBLE for role in self.roles)


def status(tree: Tree, now: dt.datetime) -> Status:
    """What is in force and what is due.

    Raises:
        DeviceFault: there is no repository, or a box would refuse it.

    """
    chain = tree.chain()
    manifest = tree.manifest(chain)
    roles = [_role(chain, role, now) for role in chain.roles]
    return Status(
        number=manifest.number if manifest else 0,
        built=manifest.built if manifest else "",
        signed=utc.text(issued(chain)),
        roles=roles,
        sizes=sizes(chain),
        todo=[_todo(found) for found in roles if found.state in _TROUBLE or (found.offline and found.state == "due")],
    )


def as_text(found: Status) -> str:
    """For people."""
    lines = [f"Newest set: {found.number}, built {found.built}" if found.number else "No set is published yet."]
    lines.append(f"Signed last: {found.signed}")
    for role in found.roles:
        lines.append(
            f"{role.role:<10} version {role.version:<6} {role.threshold} of {len(role.keys)} keys  {role.state:<8}"
            f" until {role.expires[:16]}Z  keys {' '.join(role.keys)}"
        )
    fetched = {name: size for name, size in found.sizes.items() if not name.endswith(".tar.zst")}
    lines.append("Bytes: " + ", ".join(f"{name} {size}" for name, size in fetched.items()))
    lines += ["To do: " + line for line in found.todo] or ["To do: nothing."]
    return "\n".join(lines) + "\n"


def _role(chain: Chain, role: str, now: dt.datetime) -> RoleStatus:
    judge = chain.targets if role in PATHS else chain.root
    terms = judge.signed.get_delegated_role(role)
    renewal, life = TERMS[role].renewed_after, TERMS[role].life
    expires = chain.signed(role).expires
    renew_from = expires - life + renewal
    state = "good"
    if role in chain.orphans:
        state = "orphaned"
    elif now >= expires:
        state = "expired"
    elif now >= expires - life / 6:
        state = "urgent"
    elif now >= renew_from:
        state = "due"
    return RoleStatus(
        role=role,
        version=chain.signed(role).version,
        threshold=terms.threshold,
        keys=[short(keyid) for keyid in terms.keyids],
        offline=TERMS[role].offline,
        expires=utc.text(expires),
        renew_from=utc.text(renew_from),
        state=state,
    )


def _todo(role: RoleStatus) -> str:
    day = role.expires[:10]
    word = {
        "orphaned": "is not signed by its new keys yet, and boxes take nothing new",
        "expired": "has expired, and boxes take nothing new",
        "urgent": f"expires on {day}",
        "due": f"should be signed again before {day}",
    }[role.state]
    if role.offline:
        return (
            f"{role.role} {word}: bring {role.threshold} of its keys ({', '.join(role.keys)}) together and run"
            " sekisho signatures repository renew, with --keys for each stick."
        )
    return f"{role.role} {word}: sekisho signatures repository renew (does its timer run?)."
