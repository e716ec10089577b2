"""Who may do what: the closed list of rights, and what each role has of them."""

from __future__ import annotations

from typing import Final, Literal, get_args

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler

Role = Literal["operator", "helpdesk", "reseller", "admin", "member"]
"""The centre's staff, the help desk, a chamber, a customer's administrator, somebody of the customer's."""

Right = Literal[
    "public",
    "self",
    "home.see",
    "alerts.see",
    "alerts.act",
    "exceptions.make",
    "devices.see",
    "devices.name",
    "log.see",
    "health.see",
    "statistics.see",
    "notices.see",
    "notices.post",
    "settings.see",
    "settings.change",
    "report.see",
    "cases.see",
    "cases.ask",
    "cases.work",
    "contract.see",
    "contract.change",
    "export.make",
    "members.manage",
    "boxes.enrol",
    "audit.see",
    "customers.see",
    "customers.manage",
    "customers.approve",
    "fleet.see",
    "fleet.act",
]
"""public: also without an account. self: everyone about the own account."""

_SEES: Final[frozenset[Right]] = frozenset(
    right
    for right in get_args(Right)
    if right.endswith(".see") and right not in ("audit.see", "customers.see", "fleet.see")
)
_ALL: Final[frozenset[Right]] = frozenset(get_args(Right))

RIGHTS: Final[dict[Role, frozenset[Right]]] = {
    "operator": _ALL,
    "helpdesk": _SEES | {"public", "self", "alerts.act", "cases.ask", "cases.work", "customers.see"},
    "reseller": (_SEES - {"log.see", "settings.see"})
    | {"public", "self", "customers.see", "customers.approve", "cases.ask", "cases.work"},
    "admin": _SEES
    | {
        "public",
        "self",
        "alerts.act",
        "exceptions.make",
        "devices.name",
        "settings.change",
        "cases.ask",
        "contract.change",
        "export.make",
        "members.manage",
        "boxes.enrol",
        "audit.see",
    },
    "member": (_SEES - {"contract.see", "settings.see", "log.see"}) | {"public", "self", "cases.ask"},
}
OF_STAFF: Final[frozenset[Role]] = frozenset({"operator", "helpdesk"})
"""Roles that see every customer."""


def may(role: Role, right: Right) -> bool:
    return right in RIGHTS[role]


def check_routes(app: Litestar) -> None:
    """Let no application start of which a route has forgotten its right.

    Raises:
        ValueError: that route.

    """
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            asked = not isinstance(handler, HTTPRouteHandler) or handler.http_methods != {"OPTIONS"}
            if asked and handler.opt.get("right") not in get_args(Right):
                raise ValueError(f"{handler}: which right does it need?")
