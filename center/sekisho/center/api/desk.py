"""What the API's routes share: the database, who is asking, and whose data the path is about."""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import anyio.to_thread
import sqlalchemy as sa
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException, NotFoundException, PermissionDeniedException
from litestar.handlers.base import BaseRouteHandler
from litestar.params import PathParameter

from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.names import NAME, is_name
from sekisho.center.api import partners, problems
from sekisho.center.api.versions import Version
from sekisho.center.customers import CUSTOMER
from sekisho.center.database import Database
from sekisho.center.portal.rights import Right
from sekisho.center.portal.viewer import Viewer
from sekisho.center.report.often import Often
from sekisho.center.scope import Scope, only
from sekisho.center.settings import CenterSettings

SPAN_S: Final = 60

Tenant = Annotated[str, PathParameter(pattern=f"^{NAME}$", description="The customer's identifier. お客様の識別子")]
Asked = ASGIConnection[Any, Any, Any, Any]

log = logging.getLogger(__name__)


class Desk:
    """One per process."""

    def __init__(
        self, settings: CenterSettings, versions: Sequence[Version], now: Callable[[], dt.datetime] | None = None
    ) -> None:
        """Open the database.

        Raises:
            DeviceFault: it cannot be used.
            RejectedInput: the section [api] is missing.

        """
        if settings.api is None:
            raise RejectedInput("The section [api] is missing.")
        self.settings = settings
        self.versions = {version.name: version for version in versions}
        self.database = Database(settings.store)
        self.reading = Database(settings.store, read_only=True)
        self.now = now or (lambda: dt.datetime.now(dt.UTC))
        self._often = Often(settings.api.requests_per_minute, SPAN_S)

    def close(self) -> None:
        self.reading.close()
        self.database.close()

    def version(self, path: str) -> Version | None:
        """Which version a path is of."""
        return self.versions.get(path.split("/", 2)[1]) if path.startswith("/") else None

    async def guard(self, connection: Asked, handler: BaseRouteHandler) -> None:
        """Who asks is a partner, not too often, with the right, about a customer of its own.

        In this order, so that who may not ask does not learn who the customers are.
        """
        state, now = connection.scope["state"], time.monotonic()
        tenant = connection.path_params.get("tenant")
        who, served = await anyio.to_thread.run_sync(self._look, certificate(connection), tenant)
        if who is None:
            raise PermissionDeniedException()
        state["viewer"] = who
        if not self._often.may(who.name, now):
            raise problems.too_many(int(SPAN_S - now % SPAN_S) + 1)
        version = self.version(connection.scope["path"])
        if version is not None and version.over(self.now()):
            raise HTTPException(status_code=410)
        right: Right | None = handler.opt.get("right")
        if right is None:
            raise HTTPException(status_code=405)
        if not who.may(right):
            raise PermissionDeniedException()
        if tenant is not None and not served:
            raise NotFoundException()
        _check_query(connection, handler)

    def _look(self, fingerprint: str, tenant: str | None) -> tuple[Viewer | None, bool]:
        with self.reading.reading() as db:
            who = partners.find(db, fingerprint, self.now())
            if who is None or tenant is None or not is_name(tenant):
                return who, False
            mine = (CUSTOMER.c.tenant == tenant, who.scope.of(CUSTOMER.c.tenant))
            return who, db.execute(sa.select(CUSTOMER.c.tenant).where(*mine)).first() is not None


def certificate(connection: Asked) -> str:
    """SHA-256 of the certificate the other side has shown; empty: none."""
    extensions: dict[str, Any] = connection.scope.get("extensions") or {}
    chain = extensions.get("tls", {}).get("client_cert_chain", ())
    return next((hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest() for pem in chain), "")


def about(tenant: str) -> Scope:
    """The data of the customer in the path; the guard has seen that it is the partner's."""
    return only(tenant)


def _check_query(connection: Asked, handler: BaseRouteHandler) -> None:
    """A filter that is not known must not be passed over: more would be answered than was asked for."""
    asked = [name for name, _ in connection.query_params.multi_items()]
    known = set(problems.names(handler).values())
    known -= {*connection.path_params, "request", "data"}
    if wrong := [name for name in sorted(set(asked)) if name not in known or asked.count(name) > 1]:
        raise problems.unknown(*wrong)
