"""Who is asking: the account behind a session, what it may see, and how it reads texts and times."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from litestar.connection import ASGIConnection

from sekisho.center.portal.rights import RIGHTS, Right, Role
from sekisho.center.scope import Scope
from sekisho.center.tenants import Locale

Stage = Literal["", "enrol"]
"""enrol: signed in by password where a second factor is required and none is there yet; it may add one, no more."""


class Viewer(msgspec.Struct, frozen=True):
    """One signed-in person, as far as a page needs to know."""

    account: str
    login: str
    name: str
    role: Role
    scope: Scope
    """Whose data may be seen at all."""
    tenant: str
    """Whose pages are shown now; empty: somebody who sees many has not chosen yet."""
    locale: Locale
    zone: str
    session: str
    """The session's digest, as it is stored."""
    csrf: str
    """What every form of this session carries."""
    stage: Stage = ""
    seen_at: str = ""
    """When the session was last known to be in use."""
    confirmed_at: str = ""
    """When this person last proved who they are (`sessions.fresh`)."""

    def may(self, right: Right) -> bool:
        return right in RIGHTS[self.role]

    @property
    def here(self) -> Scope:
        """The customer whose pages are shown; nobody where none is chosen."""
        return Scope(frozenset({self.tenant} if self.tenant else ()))


def of(connection: ASGIConnection[Any, Any, Any, Any]) -> Viewer | None:
    """Who is asking; None without a session."""
    found: Viewer | None = connection.scope["state"].get("viewer")
    return found


def viewer(connection: ASGIConnection[Any, Any, Any, Any]) -> Viewer:
    """The same where the right of the route says that there is one."""
    found = of(connection)
    if found is None:
        raise RuntimeError("the route's right lets in who has no session")
    return found
