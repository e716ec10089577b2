"""One's own account: name, language, clock, password, second factors, and where one is signed in."""

from __future__ import annotations

import zoneinfo
from typing import Annotated, Any, Final

from litestar import MediaType, Request, Response, Router, get, post
from litestar.exceptions import NotFoundException
from litestar.params import PathParameter

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.portal import accounts, audit, sessions
from sekisho.center.portal.access import factors, mails, passkeys, passwords, throttle
from sekisho.center.portal.access.agents import named
from sekisho.center.portal.access.signing_in import ENROL
from sekisho.center.portal.entrance import Answer, wait
from sekisho.center.portal.forms import Fields
from sekisho.center.portal.rendering import COOKIE, Portal, cookie
from sekisho.center.portal.viewer import viewer
from sekisho.center.scope import EVERYONE

ZONES: Final = (
    "Asia/Tokyo",
    "Asia/Seoul",
    "Asia/Shanghai",
    "Asia/Taipei",
    "Asia/Manila",
    "Asia/Ho_Chi_Minh",
    "Asia/Bangkok",
    "Asia/Singapore",
    "Asia/Kolkata",
    "Australia/Sydney",
    "Europe/London",
    "Europe/Berlin",
    "America/New_York",
    "America/Los_Angeles",
    "UTC",
)
"""What the page offers; any other that exists is taken too."""

Asked = Request[Any, Any, Any]
Name = Annotated[str, PathParameter(max_length=64)]


def router(portal: Portal) -> Router:
    """The pages under /account."""
    site = passkeys.Site(portal.origin)

    def page(request: Asked, status: int = 200, wrong: str = "", minutes: int = 0) -> Response[str]:
        who, now = viewer(request), portal.now()
        with portal.reading.reading() as db:
            row = accounts.by_id(db, who.account, EVERYONE)
            assert row is not None  # noqa: S101 - the session is this account's
            shown = {
                "account": row,
                "has": factors.of_account(db, who.account),
                "must": factors.required(db, row),
                "passkeys": passkeys.of_account(db, who.account),
                "sessions": [(one, named(one.agent)) for one in sessions.of_account(db, who.account, now)],
                "zones": ZONES if not row.zone or row.zone in ZONES else (row.zone, *ZONES),
            }
        return portal.page(request, "access/account.html", status=status, wrong=wrong, minutes=minutes, **shown)

    @get("/account", right="self", sync_to_thread=True)
    def account(request: Asked) -> Response[str]:
        return page(request)

    @post("/account", right="self", sync_to_thread=True)
    def change(request: Asked, data: Fields) -> Response[Any]:
        who, zone = viewer(request), data.get("zone", "")
        if zone and zone not in zoneinfo.available_timezones():
            return page(request, 422, "zone_wrong")
        values = {
            "name": accounts.clean(data.get("name", "")) or who.login,
            "locale": "en" if data.get("locale") == "en" else "ja",
            "zone": zone,
        }
        with portal.database.transaction() as db:
            accounts.change(db, who.account, **values)
        return portal.go("/account", "access.saved")

    @post("/account/password", right="self", sync_to_thread=True)
    def password(request: Asked, data: Fields) -> Response[Any]:
        """Ends every other session: who had the old password is out."""
        who, now, new = viewer(request), portal.now(), data.get("password", "")
        limit = throttle.key("confirm", who.account, throttle.OF_ACCOUNT)
        with portal.database.transaction() as db:
            if seconds := throttle.take(db, now, limit):
                return page(request, 429, "wait", wait(seconds))
            kept = passwords.of_account(db, who.account)
        if not passwords.matches(kept, data.get("old", "")):
            return page(request, 422, "password_wrong")
        if new != data.get("again", ""):
            return page(request, 422, "differ")
        if weak := passwords.weakness(new, (who.login, who.name, who.tenant)):
            return page(request, 422, weak)
        made = passwords.hashed(new)
        with portal.database.transaction() as db:
            throttle.forgive(db, (limit,))
            passwords.set_password(db, who.account, made, now)
            sessions.end_all(db, who.account, but=who.session)
            secret = sessions.renew(db, who, now)
            audit.note(db, who, "password.set", tenant=_own(db, who.account))
            _tell(db, who.account)
        response = portal.go("/account", "access.password_changed")
        response.set_cookie(cookie(COOKIE, secret))
        return response

    def second_page(request: Asked, status: int = 200, wrong: str = "", codes: tuple[str, ...] = ()) -> Response[str]:
        who = viewer(request)
        with portal.database.transaction() as db:
            has = factors.of_account(db, who.account)
            secret = "" if has.totp else factors.offer(db, who.account, portal.now())
        shown = {
            "has": has,
            "secret": secret,
            "picture": factors.picture(secret, who.login) if secret else "",
            "codes": codes,
            "wrong": wrong,
            "able": site.able,
        }
        return portal.page(request, "access/second_setup.html", status=status, **shown)

    @get(ENROL, right="self", fresh=ENROL, enrol=True, sync_to_thread=True)
    def second(request: Asked) -> Response[str]:
        return second_page(request)

    @post(ENROL, right="self", fresh=ENROL, enrol=True, sync_to_thread=True, status_code=200)
    def prove(request: Asked, data: Fields) -> Response[Any]:
        """The app has shown a code: it is asked for one from now on. Recovery codes are shown this once."""
        who, now = viewer(request), portal.now()
        limit = throttle.key("prove", who.account, throttle.OF_SECOND)
        with portal.database.transaction() as db:
            late = throttle.take(db, now, limit)
            proved = not late and factors.prove(db, who.account, data.get("code", ""), now)
            if proved:
                throttle.forgive(db, (limit,))
                codes = tuple(factors.new_recovery_codes(db, who.account))
                secret = added(db, request, "second.add")
        if not proved:
            return second_page(request, *((429, "wait_a_while") if late else (422, "code_wrong")))
        response = second_page(request, codes=codes)
        response.set_cookie(cookie(COOKIE, secret))
        return response

    def added(db: Any, request: Asked, action: str) -> str:
        """A second factor is there: the session may do everything from now on, under a new secret."""
        who = viewer(request)
        audit.note(db, who, action, tenant=_own(db, who.account))
        _tell(db, who.account)
        return sessions.renew(db, who, portal.now(), stage="")

    @post("/account/second/remove", right="self", fresh="/account", sync_to_thread=True)
    def remove(request: Asked) -> Response[Any]:
        who = viewer(request)
        with portal.database.transaction() as db:
            row = accounts.by_id(db, who.account, EVERYONE)
            if row is not None and factors.required(db, row) and not factors.of_account(db, who.account).passkeys:
                return portal.go("/account", "access.must_keep")
            factors.remove_totp(db, who.account)
            audit.note(db, who, "second.remove", tenant=_own(db, who.account))
            _tell(db, who.account)
        return portal.go("/account", "access.saved")

    @post("/account/recovery", right="self", fresh=ENROL, sync_to_thread=True, status_code=200)
    def recovery(request: Asked) -> Response[Any]:
        """New recovery codes, shown this once; those before open nothing any more."""
        who = viewer(request)
        with portal.database.transaction() as db:
            if not factors.of_account(db, who.account).any:
                return portal.go(ENROL)
            codes = tuple(factors.new_recovery_codes(db, who.account))
            audit.note(db, who, "recovery.new", tenant=_own(db, who.account))
        return second_page(request, codes=codes)

    @post("/account/passkeys/options", right="self", fresh=ENROL, enrol=True, sync_to_thread=True, status_code=200)
    def ask_passkey(request: Asked) -> Response[Any]:
        who = viewer(request)
        with portal.database.transaction() as db:
            options = passkeys.ask_new(db, site, who.account, who.login, who.name, who.session, portal.now())
        return Response(options, media_type=MediaType.JSON)

    @post("/account/passkeys", right="self", fresh=ENROL, enrol=True, sync_to_thread=True, status_code=200)
    def keep_passkey(request: Asked, data: Answer) -> Response[Any]:
        who, name = viewer(request), str(data.get("name", ""))
        with portal.database.transaction() as db:
            try:
                passkeys.keep(db, site, who.account, who.session, data.get("credential"), name, portal.now())
            except RejectedInput:
                return Response({"said": "passkey_refused"}, status_code=422)
            secret = added(db, request, "passkey.add")
        response: Response[Any] = Response({"to": ENROL})
        response.set_cookie(cookie(COOKIE, secret))
        return response

    @post("/account/passkeys/{passkey:str}/remove", right="self", fresh="/account", sync_to_thread=True)
    def remove_passkey(request: Asked, passkey: Name) -> Response[Any]:
        who = viewer(request)
        with portal.database.transaction() as db:
            row, has = accounts.by_id(db, who.account, EVERYONE), factors.of_account(db, who.account)
            if row is not None and factors.required(db, row) and not has.totp and has.passkeys == 1:
                return portal.go("/account", "access.must_keep")
            if not factors.remove_passkey(db, who.account, passkey):
                raise NotFoundException()
            audit.note(db, who, "passkey.remove", tenant=_own(db, who.account))
            _tell(db, who.account)
        return portal.go("/account", "access.saved")

    @post("/account/sessions/{session:str}/end", right="self", sync_to_thread=True)
    def end_session(request: Asked, session: Name) -> Response[Any]:
        with portal.database.transaction() as db:
            if not sessions.end_one(db, viewer(request), session):
                raise NotFoundException()
        return portal.go("/account", "access.session_ended")

    @post("/account/sessions/end", right="self", sync_to_thread=True)
    def end_others(request: Asked) -> Response[Any]:
        who = viewer(request)
        with portal.database.transaction() as db:
            sessions.end_all(db, who.account, but=who.session)
        return portal.go("/account", "access.session_ended")

    def _tell(db: Any, account: str) -> None:
        row = accounts.by_id(db, account, EVERYONE)
        if portal.mails and row is not None:
            mails.post(db, "account", row, "", portal.now())

    def _own(db: Any, account: str) -> str:
        """The customer somebody is of, whichever customer's pages are shown."""
        row = accounts.by_id(db, account, EVERYONE)
        return row.tenant if row is not None else ""

    plain = [account, change, password, end_session, end_others]
    return Router(
        "/", route_handlers=[*plain, second, prove, remove, recovery, ask_passkey, keep_passkey, remove_passkey]
    )
