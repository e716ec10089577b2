"""Every route of the API as every role: nobody gets what is not theirs. The routes are the application's own list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

import objects
import pytest
import sqlalchemy as sa
from house import House, Partner
from litestar.handlers import HTTPRouteHandler
from office import THEM, US

from sekisho.center.database import metadata
from sekisho.center.portal.rights import Role, may
from sekisho.lab.postgres import Postgres, programs

ROLES: tuple[Role, ...] = get_args(Role)
STRANGERS: tuple[Role, ...] = ("admin", "member", "reseller")
QUERIES = {"/v1/tenants/{tenant:str}/reports": "?month=2026-10"}
"""What a route must be asked with."""
BODY = {"state": "done", "reason": "調べました"}


class Route(NamedTuple):
    """One method of one path."""

    method: str
    path: str
    parameters: tuple[str, ...]
    right: Any

    def of(self, values: dict[str, str]) -> str:
        path = self.path
        for name in self.parameters:
            path = path.replace(path[path.index("{" + name) : path.index("}") + 1], values[name], 1)
        return path + QUERIES.get(self.path, "")


class Walk:
    """One connection that changes its hands, and what there is of US and of THEM."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.ours, self.theirs = objects.seed(house.office, US), objects.seed(house.office, THEM)
        self.client = house.client()
        self.routes = sorted(_routes(self.client.api))
        self.roles: dict[Role, Partner] = {role: house.partner(role) for role in ROLES}

    def ask(self, who: Partner | None, route: Route, values: dict[str, str]) -> Any:
        more = {"json": BODY} if route.method == "PUT" else {}
        return self.client.ask(who, route.method, route.of(values), **more)

    def mine(self, tenant: str) -> dict[str, list[tuple[Any, ...]]]:
        """Everything in the database that is this customer's."""
        with self.house.office.store.database.reading() as db:
            tables = [table for table in metadata.sorted_tables if "tenant" in table.c]
            return {
                table.name: [tuple(row) for row in db.execute(sa.select(table).where(table.c.tenant == tenant))]
                for table in tables
            }


def _routes(app: Any) -> Iterator[Route]:
    for route in app.routes:
        for handler in route.route_handlers:
            if isinstance(handler, HTTPRouteHandler):
                for method in handler.http_methods - {"OPTIONS", "HEAD"}:
                    yield Route(str(method), route.path, tuple(route.path_parameters), handler.opt["right"])


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def walk(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Walk]:
    server = None
    if request.param == "postgresql":
        if not programs():
            pytest.skip("postgresql is not installed")
        server = Postgres()
        server.start()
    house = House(tmp_path_factory.mktemp("walk"), store=server.database() if server else "")
    yield Walk(house)
    house.close()
    if server:
        server.stop()


def test_who_is_no_partner_gets_nothing_from_any_route(walk: Walk) -> None:
    stranger = walk.house.certificate("stranger")
    for route in walk.routes:
        for who in (None, stranger):
            answer = walk.ask(who, route, walk.ours)
            assert answer.status_code == 403, route
            assert "canary" not in answer.text, route


@pytest.mark.parametrize("role", ROLES)
def test_a_partner_finds_its_own_customers_objects_where_its_role_has_the_right(walk: Walk, role: Role) -> None:
    for route in walk.routes:
        answer = walk.ask(walk.roles[role], route, walk.ours)
        assert answer.status_code == (200 if may(role, route.right) else 403), (route, answer.text)
        if role in STRANGERS:
            assert objects.canary(THEM) not in answer.text, route


def test_what_the_routes_tell_holds_what_the_objects_say(walk: Walk) -> None:
    """Without this the search for another's canaries would prove nothing."""
    told = "".join(walk.ask(walk.roles["admin"], route, walk.ours).text for route in walk.routes)
    for text in ("name", "our-name", "host", "note", "site", "pdf"):
        assert objects.canary(US, text) in told, text


@pytest.mark.parametrize("role", STRANGERS)
def test_another_customer_is_as_if_it_were_not_there(walk: Walk, role: Role) -> None:
    before = walk.mine(THEM)
    for route in walk.routes:
        if not route.parameters or not may(role, route.right):
            continue
        nobody = walk.ask(walk.roles[role], route, {**walk.theirs, "tenant": "nobody"})
        for values in (walk.theirs, {**walk.theirs, "tenant": US}, {**walk.ours, "tenant": THEM}):
            answer = walk.ask(walk.roles[role], route, values)
            if values == walk.theirs or values["tenant"] == THEM or len(route.parameters) > 1:
                assert answer.status_code == 404, (route, values["tenant"])
                assert answer.json() == nobody.json(), route
            assert objects.canary(THEM) not in answer.text, route
    assert walk.mine(THEM) == before


def test_a_change_is_in_the_audit_log_with_the_partners_name(walk: Walk) -> None:
    who = walk.house.partner("admin")
    path = f"/v1/tenants/{US}/alerts/{walk.ours['alert']}/state"
    for state in ("open", "done"):
        answer = walk.client.ask(who, "PUT", path, json={"state": state, "reason": "再起動しました"})
        assert answer.json()["alert"]["state"] == state
    assert answer.json()["handled_by"] == who.name
    assert [note["text"] for note in answer.json()["notes"] if note["who"] == who.name and note["text"]] == [
        "再起動しました",
        "再起動しました",
    ]
    noted = [row for row in walk.mine(US)["audit"] if who.name in row]
    assert [row[5] for row in noted] == ["alert.open", "alert.done"]


def test_a_method_that_a_route_does_not_know_is_refused_with_those_it_knows(walk: Walk) -> None:
    for route in walk.routes:
        answer = walk.client.ask(walk.roles["operator"], "DELETE", route.of(walk.ours))
        assert answer.status_code == 405 and route.method in answer.headers["allow"], route
