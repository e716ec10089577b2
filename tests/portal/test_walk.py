"""Every route of the portal as every role: nobody gets what is not theirs, whichever room the route is of.

The routes are the application's own list, so a new one is walked the moment it is there. What a route needs to be
walked is in drive/objects.py.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, get_args
from urllib.parse import quote, urlencode

import objects
import pytest
import sqlalchemy as sa
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from office import CHAMBERS, ORIGIN, THEM, US, Client, Office

from sekisho.center import portal
from sekisho.center.database import metadata
from sekisho.center.portal import sessions
from sekisho.center.portal.app import BODY_CAP_BYTES, create_app
from sekisho.center.portal.rendering import COOKIE
from sekisho.center.portal.rights import Role, may
from sekisho.center.web.guard import guarded

ROLES: tuple[Role, ...] = get_args(Role)
STRANGERS: tuple[Role, ...] = ("admin", "member", "reseller")
"""Roles that must not see THEM when they belong to US."""
PUBLIC_POSTS = {
    "/language",
    "/login",
    "/login/second",
    "/login/passkey",
    "/login/passkey/options",
    "/forgot",
    "/welcome/{token:str}",
    "/apply/{reseller:str}",
}
"""What changes something without an account; each is tested where it is made."""
BEARER = {"/static/{digest:str}/{name:str}", "/welcome/{token:str}", "/genuine/{token:str}", "/apply/{reseller:str}"}
"""Public routes with parameters: no customer's, or the parameter is the secret that opens them."""
UNFIT = {"/static/{digest:str}/{name:str}", "/health"}
"""Routes that are no pages: their headers are their own."""


class Route(NamedTuple):
    """One method of one path."""

    method: str
    path: str
    parameters: tuple[str, ...]
    right: Any
    endless: bool
    """It goes on sending (opt `endless=True`): it is asked for only where it must refuse."""


class Walk:
    """One browser that changes its hands, and what there is to see of US and of THEM."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.ours, self.theirs = objects.seed(office, US), objects.seed(office, THEM)
        app = create_app(office.settings)
        self.routes = sorted(_routes(app))
        self.client = Client(guarded(app), base_url=ORIGIN)  # type: ignore[arg-type]  # any ASGI application does

    def sign_in(self, role: Role | None, tenant: str = US) -> None:
        """The browser is somebody new of this role's; None: nobody's."""
        self.client.cookies.clear()
        self.client.csrf = ""
        if role is not None:
            secret, who = self.office.sign_in(role, tenant)
            self.client.cookies.set(COOKIE, secret)
            self.client.csrf = who.csrf

    def ask(self, route: Route, of: dict[str, str], **change: Any) -> Any:
        """Ask for the route with the objects `of` in its path; `fields` go to the query or the form."""
        path = route.path
        for name in route.parameters:
            path = path.replace(path[path.index("{" + name) : path.index("}") + 1], value(route, of, name), 1)
        fields, headers = change.get("fields", {}), {"origin": change.get("origin", ORIGIN)}
        if route.method == "GET":
            return self.client.get(path, params=fields, follow_redirects=False)
        body = {"csrf": change.get("csrf", self.client.csrf), **fields}
        return self.client.request(route.method, path, data=body, headers=headers, follow_redirects=False)

    def mine(self, tenant: str) -> dict[str, list[tuple[Any, ...]]]:
        """Everything in the database that is this customer's."""
        found = {}
        with self.office.store.database.reading() as db:
            for table in metadata.sorted_tables:
                column = table.c.get("tenant", table.c.id if table.name == "tenant" else None)
                if column is not None:
                    found[table.name] = [tuple(row) for row in db.execute(sa.select(table).where(column == tenant))]
        return found


def value(route: Route, of: dict[str, str], name: str) -> str:
    """What the parameter is in this path."""
    return of.get(f"{route.path} {name}") or of[name]


def _routes(app: Litestar) -> Iterator[Route]:
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            if not isinstance(handler, HTTPRouteHandler):
                continue
            for method in handler.http_methods - {"OPTIONS", "HEAD"}:
                endless = bool(handler.opt.get("endless"))
                yield Route(str(method), route.path, tuple(route.path_parameters), handler.opt["right"], endless)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    office = Office(tmp_path_factory.mktemp("walk"))
    made = Walk(office)
    with made.client:
        yield made
    office.close()


def test_every_parameter_of_every_path_is_known(walk: Walk) -> None:
    for route in walk.routes:
        for name in route.parameters:
            known = name in walk.ours or f"{route.path} {name}" in walk.ours
            assert known, (
                f"{route.path}: let a seeder in tests/portal/drive/objects.py return {name!r}, or add to PLAIN"
            )


def test_who_is_not_signed_in_gets_to_the_sign_in_page_and_nowhere_else(walk: Walk) -> None:
    walk.sign_in(None)
    for route in walk.routes:
        if route.right != "public":
            answer = walk.ask(route, walk.ours)
            assert answer.status_code in (302, 303), route
            assert answer.headers["location"].split("?")[0] == "/login", route
            assert not answer.content, route


def test_what_changes_something_needs_an_account_but_for_a_short_list(walk: Walk) -> None:
    found = {route.path for route in walk.routes if route.method != "GET" and route.right == "public"}
    assert found == PUBLIC_POSTS
    assert {route.path for route in walk.routes if route.parameters and route.right == "public"} == BEARER


@pytest.mark.parametrize("role", ROLES)
def test_without_the_right_every_route_refuses(walk: Walk, role: Role) -> None:
    walk.sign_in(role)
    for route in walk.routes:
        if not may(role, route.right):
            answer = walk.ask(route, walk.ours)
            assert answer.status_code == 403, route
            assert objects.canary(THEM) not in answer.text, route


def test_a_form_needs_the_token_of_its_session_and_our_own_origin(walk: Walk) -> None:
    walk.sign_in("operator")
    for route in walk.routes:
        if route.method == "GET" or route.right == "public":
            continue
        assert walk.ask(route, walk.ours, csrf="").status_code == 403, route
        assert walk.ask(route, walk.ours, csrf="x" * 43).status_code == 403, route
        assert walk.ask(route, walk.ours, origin="https://evil.example").status_code == 403, route
        assert walk.ask(route, walk.ours, origin="null").status_code == 403, route


def test_public_forms_need_our_own_origin(walk: Walk) -> None:
    walk.sign_in(None)
    for route in walk.routes:
        if route.method != "GET" and route.right == "public":
            assert walk.ask(route, walk.ours, origin="https://evil.example").status_code == 403, route


def test_a_customer_finds_its_own_objects_and_sees_what_they_say(walk: Walk) -> None:
    """Without this the walk over another's objects would prove nothing."""
    for role in ROLES:
        walk.sign_in(role)
        for route in walk.routes:
            if route.method == "GET" and may(role, route.right) and not route.endless:
                answer = walk.ask(route, walk.ours)
                assert answer.status_code in (200, 303), (role, route)
                lost = answer.headers.get("location", "").startswith("/login") and route.right != "public"
                assert not lost, (role, route)


@pytest.mark.parametrize("role", STRANGERS)
def test_another_customers_objects_are_not_there(walk: Walk, role: Role) -> None:
    before = walk.mine(THEM)
    for route in walk.routes:
        if route.path not in BEARER and any(
            value(route, walk.ours, name) != value(route, walk.theirs, name) for name in route.parameters
        ):
            walk.sign_in(role)
            answer = walk.ask(route, walk.theirs, fields=walk.theirs)
            assert answer.status_code in (403, 404), (role, route)
            assert objects.canary(THEM) not in answer.text, (role, route)
    assert walk.mine(THEM) == before


@pytest.mark.parametrize("role", STRANGERS)
def test_another_customers_objects_in_queries_and_forms_show_and_change_nothing(walk: Walk, role: Role) -> None:
    before = walk.mine(THEM)
    for route in walk.routes:
        if route.path == "/logout" or route.endless:
            continue
        walk.sign_in(role)
        for fields in (walk.theirs, {**walk.theirs, "back": "/", "next": "/"}):
            answer = walk.ask(route, walk.ours, fields=fields)
            assert answer.status_code < 500, (role, route, answer.text[:500])
            assert objects.canary(THEM) not in answer.text, (role, route)
        assert walk.mine(THEM) == before, (role, route)


@pytest.mark.parametrize("role", ROLES)
def test_every_answer_has_the_strict_headers_and_safe_cookies(walk: Walk, role: Role) -> None:
    walk.sign_in(role)
    for route in walk.routes:
        if route.method != "GET" or route.endless or route.path in UNFIT:
            continue
        answer = walk.ask(route, walk.ours)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "frame-ancestors 'none'" in policy, route
        assert "unsafe" not in policy and "*" not in policy, route
        assert answer.headers["x-content-type-options"] == "nosniff", route
        assert answer.headers["strict-transport-security"].startswith("max-age="), route
        assert "no-store" in answer.headers["cache-control"], route
        assert answer.headers["referrer-policy"] in ("no-referrer", "same-origin"), route
        for cookie in answer.headers.get_list("set-cookie"):
            flags = {part.strip().lower() for part in cookie.split(";")[1:]}
            assert cookie.startswith("__Host-") and {"secure", "httponly", "path=/"} <= flags, (route, cookie)
            assert flags & {"samesite=lax", "samesite=strict"} and not any("domain" in f for f in flags), (
                route,
                cookie,
            )


def test_what_is_asked_in_a_way_no_route_knows_is_refused_quietly(walk: Walk) -> None:
    walk.sign_in("admin")
    for route in walk.routes:
        path = route.path.split("{")[0]
        for method in ("OPTIONS", "DELETE", "PUT", "TRACE", "PROPFIND"):
            answer = walk.client.request(method, path, follow_redirects=False)
            assert answer.status_code in (204, 303, 403, 404, 405), (method, path)


def _fields() -> list[str]:
    """The name of every field of every form."""
    found = set()
    for template in Path(str(resources.files(portal))).rglob("templates/**/*.html"):
        found |= set(re.findall(r"""name="([\w.-]+)\"""", template.read_text()))
    return sorted(found - {"viewport", "csrf"})


HOSTILE = {
    "nul": "a\0b",
    "text": "' OR '1'='1' --\"><script>alert(1)</script>{{ 7*7 }}\r\nSet-Cookie: evil=1\r\n\r\n\u202egnp.exe\u2066",
    "number": "9" * 40,
    "negative": "-1",
    "long": "あ" + "x" * 1000,
}
"""In all fields together they are less than a form may be: they are to get beyond the door."""


@pytest.mark.timeout(180)  # every field of every route; longer on a busy machine
@pytest.mark.parametrize("kind", HOSTILE)
def test_no_route_fails_over_what_a_stranger_writes(walk: Walk, kind: str) -> None:
    """In every field of every form, in the query and in the path: refused or taken as text."""
    text, names = HOSTILE[kind], _fields()
    assert len(urlencode(dict.fromkeys(names, text))) < BODY_CAP_BYTES - 1024
    for route in walk.routes:
        if route.endless or route.path == "/logout":
            continue
        walk.sign_in("operator" if route.right in ("customers.manage", "fleet.act", "fleet.see") else "admin")
        fields = dict.fromkeys(names, text if route.method != "GET" else text[:30])
        chosen = {**walk.ours, **dict.fromkeys(route.parameters, quote(text[:300], safe=""))}
        for answer in (walk.ask(route, walk.ours, fields=fields), walk.ask(route, chosen)):
            assert answer.status_code < 500, (route, answer.text[-500:])
            assert "<script>alert" not in answer.text and "evil" not in answer.headers.get("set-cookie", ""), route
            assert answer.headers.get("location", "/").startswith("/"), route


@pytest.mark.parametrize("role", ("reseller",))
def test_a_chambers_customers_are_its_own(walk: Walk, role: Role) -> None:
    assert CHAMBERS[US] != CHAMBERS[THEM]
    walk.sign_in(role)
    before = walk.mine(THEM)
    assert walk.client.submit("/customers/open", tenant=THEM).status_code == 404
    assert walk.mine(THEM) == before


def test_a_session_that_is_over_opens_nothing(walk: Walk) -> None:
    walk.sign_in("operator")
    with walk.office.store.transaction() as db:
        past = (dt.datetime.now(dt.UTC) - dt.timedelta(days=1)).isoformat()
        db.execute(sessions.SESSION.update().values(until=past))
    for route in walk.routes:
        if route.right != "public":
            assert walk.ask(route, walk.ours).headers.get("location", "").split("?")[0] == "/login", route
