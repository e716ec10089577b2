"""Who else has an account: a customer's people for its administrator, staff and chambers for operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, cast

import sqlalchemy as sa
from litestar import Request, Response, Router, get, post
from litestar.exceptions import NotFoundException, TooManyRequestsException
from litestar.params import PathParameter

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import tenants
from sekisho.center.portal import accounts, audit, sessions
from sekisho.center.portal.access import factors, mails, onetime, throttle
from sekisho.center.portal.accounts import ACCOUNT
from sekisho.center.portal.forms import Fields
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.rights import Right, Role
from sekisho.center.portal.viewer import Viewer, viewer

SHOWN_CAP: Final = 500
OF_CUSTOMER: Final[tuple[Role, ...]] = ("admin", "member")
OF_CENTRE: Final[tuple[Role, ...]] = ("operator", "helpdesk", "reseller")

Asked = Request[Any, Any, Any]
Person = Annotated[str, PathParameter(max_length=64)]


def router(portal: Portal) -> Router:
    """/members and /staff."""
    return Router(
        "/",
        route_handlers=[
            *_pages(portal, "/members", "members.manage", OF_CUSTOMER),
            *_pages(portal, "/staff", "customers.manage", OF_CENTRE),
            _rules(portal),
        ],
    )


def _rules(portal: Portal) -> Any:
    @post("/members/rules", right="members.manage", fresh="/members", sync_to_thread=True)
    def rules(request: Asked, data: Fields) -> Response[Any]:
        """What holds for everyone of the customer."""
        who = viewer(request)
        if not who.tenant:
            raise NotFoundException()
        values = {name: data.get(name) == "yes" for name in ("second_factor", "one_session")}
        with portal.database.transaction() as db:
            tenants.save(db, tenants.changed(tenants.load(db, who.tenant), values))
            audit.note(db, who, "members.rules", " ".join(f"{name}={value}" for name, value in values.items()))
        return portal.go("/members", "access.saved")

    return rules


def _pages(portal: Portal, path: str, right: Right, roles: tuple[Role, ...]) -> list[Callable[..., Any]]:
    """List, invite, invite again, change the role, reset the second factor, close: for people of these roles."""
    of_customer = roles == OF_CUSTOMER

    def whose(who: Viewer) -> sa.ColumnElement[bool]:
        """The accounts this page is about, for this viewer."""
        if of_customer:
            return sa.and_(who.here.of(ACCOUNT.c.tenant), ACCOUNT.c.tenant != "")
        return ACCOUNT.c.role.in_(OF_CENTRE)

    def find(db: sa.Connection, who: Viewer, person: str) -> accounts.Row:
        row = db.execute(sa.select(ACCOUNT).where(ACCOUNT.c.id == person, whose(who))).one_or_none()
        if row is None:
            raise NotFoundException()
        return row

    def page(request: Asked, status: int = 200, **values: Any) -> Response[str]:
        who = viewer(request)
        with portal.reading.reading() as db:
            rows = db.execute(sa.select(ACCOUNT).where(whose(who)).order_by(ACCOUNT.c.login).limit(SHOWN_CAP)).all()
            people = [(row, factors.of_account(db, row.id)) for row in rows]
            rules = tenants.load(db, who.tenant) if of_customer and who.tenant else None
        shown = {"wrong": "", "link": "", "typed": {"login": "", "name": ""}, **values}
        return portal.page(
            request, "access/people.html", status=status, base=path, people=people, roles=roles, rules=rules, **shown
        )

    def invited(request: Asked, db: sa.Connection, row: accounts.Row, kind: onetime.Kind) -> str:
        """The link, posted where there are mails (and then not shown to whoever asked for it).

        Raises:
            TooManyRequestsException: the address got several a short while ago, or many did by this customer's word;
                nothing is kept.

        """
        link = portal.origin + onetime.make(db, row.id, kind, portal.now())
        if not portal.mails:
            return link
        limits = [throttle.key("forgot", row.login, throttle.OF_MAIL)]
        if of_customer:
            limits.append(throttle.key("links of", viewer(request).tenant, throttle.OF_INVITER))
        if throttle.take(db, portal.now(), *limits):
            raise TooManyRequestsException()
        mails.post(db, kind, row, link, portal.now())
        return ""

    @get(path, right=right, sync_to_thread=True, name=f"people {path}")
    def show(request: Asked) -> Response[str]:
        return page(request)

    @post(f"{path}/invite", right=right, fresh=path, sync_to_thread=True)
    def invite(request: Asked, data: Fields) -> Response[Any]:
        who, role = viewer(request), cast(Role, data.get("role", ""))
        if role not in roles or (of_customer and not who.tenant):
            raise NotFoundException()
        own = {
            "tenant": who.tenant if of_customer else "",
            "reseller": data.get("reseller", "").strip()[:64] if role == "reseller" else "",
        }
        login, name = data.get("login", ""), data.get("name", "")
        try:
            with portal.database.transaction() as db:
                account = accounts.make(
                    db,
                    login,
                    role,
                    name=name,
                    locale=who.locale,
                    state="invited",
                    now=portal.now(),
                    tenant=own["tenant"],
                    reseller=own["reseller"],
                )
                link = invited(request, db, find(db, who, account), "invite")
                audit.note(db, who, "member.invite", f"{login} {role}", tenant=who.tenant if of_customer else "")
        except RejectedInput:
            with portal.reading.reading() as db:
                taken = accounts.by_login(db, login) is not None
            return page(request, 422, wrong="taken" if taken else "no_address", typed={"login": login, "name": name})
        return page(request, link=link) if link else portal.go(path, "access.invited")

    @post(f"{path}/{{person:str}}/invite", right=right, fresh=path, sync_to_thread=True)
    def again(request: Asked, person: Person) -> Response[Any]:
        """The link anew: for who has not come yet, or has forgotten the password."""
        who = viewer(request)
        with portal.database.transaction() as db:
            row = find(db, who, person)
            link = invited(request, db, row, "invite" if row.state == "invited" else "password")
            audit.note(db, who, "member.link", row.login, tenant=row.tenant)
        return page(request, link=link) if link else portal.go(path, "access.invited")

    @post(f"{path}/{{person:str}}/role", right=right, fresh=path, sync_to_thread=True)
    def role(request: Asked, person: Person, data: Fields) -> Response[Any]:
        """Ends the sessions: what somebody may do is asked when they sign in."""
        who, wanted = viewer(request), data.get("role", "")
        with portal.database.transaction() as db:
            row = find(db, who, person)
            if wanted not in roles or "reseller" in (wanted, row.role):
                raise NotFoundException()
            if wanted != roles[0] and _last(db, row):
                return portal.go(path, "access.last_one")
            accounts.change(db, row.id, role=wanted)
            sessions.end_all(db, row.id)
            audit.note(db, who, "member.role", f"{row.login} {wanted}", tenant=row.tenant)
        return portal.go(path, "access.saved")

    @post(f"{path}/{{person:str}}/reset", right=right, fresh=path, sync_to_thread=True)
    def reset(request: Asked, person: Person) -> Response[Any]:
        """Take away a second factor that somebody has lost."""
        who = viewer(request)
        with portal.database.transaction() as db:
            row = find(db, who, person)
            factors.reset(db, row.id)
            sessions.end_all(db, row.id)
            audit.note(db, who, "second.reset", row.login, tenant=row.tenant)
            if portal.mails:
                mails.post(db, "account", row, "", portal.now())
        return portal.go(path, "access.saved")

    @post(f"{path}/{{person:str}}/close", right=right, fresh=path, sync_to_thread=True)
    def close(request: Asked, person: Person) -> Response[Any]:
        who = viewer(request)
        with portal.database.transaction() as db:
            row = find(db, who, person)
            if row.id == who.account or _last(db, row):
                return portal.go(path, "access.last_one")
            accounts.remove(db, row.id)
            audit.note(db, who, "member.close", row.login, tenant=row.tenant)
        return portal.go(path, "access.closed")

    return [show, invite, again, role, reset, close]


def _last(db: sa.Connection, row: accounts.Row) -> bool:
    """Whether nobody would be left who could let others in."""
    if row.role not in ("admin", "operator") or row.state != "active":
        return False
    same = (ACCOUNT.c.role == row.role, ACCOUNT.c.tenant == row.tenant, ACCOUNT.c.state == "active")
    return db.execute(sa.select(sa.func.count()).select_from(ACCOUNT).where(*same)).scalar_one() == 1
