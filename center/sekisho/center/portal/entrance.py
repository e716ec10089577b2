"""The ways in: password, second step, passkey, a link by mail; and proving once more who one is.

Whatever somebody types here, the answer does not say whether there is such an account.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from litestar import MediaType, Request, Response, Router, get, post
from litestar.params import Body, PathParameter, QueryParameter

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.portal import accounts, audit, rendering, sessions
from sekisho.center.portal.access import known, mails, onetime, passkeys, passwords, throttle
from sekisho.center.portal.access.signing_in import Browser, Opened, Second, SignIn, Wait, step
from sekisho.center.portal.forms import Fields
from sekisho.center.portal.rendering import COOKIE, Portal, cookie
from sekisho.center.portal.viewer import of as who_asks
from sekisho.center.portal.viewer import viewer
from sekisho.center.scope import EVERYONE
from sekisho.center.tenants import ADDRESS_CAP
from sekisho.center.web.sources import source_of

STEP: Final = "__Host-step"
"""The browser's cookie between the two steps."""
ASKED: Final = "__Host-asked"
"""The browser's cookie while it is asked for a passkey."""
BRIEFLY_S: Final = 600

Asked = Request[Any, Any, Any]
Target = Annotated[str, QueryParameter(name="next", max_length=2000)]
Answer = Annotated[dict[str, Any], Body()]
Token = Annotated[str, PathParameter(max_length=sessions.SECRET_CAP)]


def browser(request: Asked) -> Browser:
    """Who knocks."""
    source = source_of(request.client.host) if request.client else ""
    known_by, session = request.cookies.get(known.COOKIE, ""), request.cookies.get(COOKIE, "")
    return Browser(source, request.headers.get("user-agent", ""), session, known_by)


def enter(opened: Opened, response: Response[Any]) -> Response[Any]:
    """The answer with the new session's cookies."""
    response.set_cookie(cookie(COOKIE, opened.session))
    response.set_cookie(cookie(known.COOKIE, opened.known, int(known.LIVES.total_seconds())))
    for name in (STEP, ASKED):
        response.set_cookie(cookie(name, "", 0))
    return response


def wait(seconds: float) -> int:
    """Minutes to say: never less than what is waited."""
    return max(1, round(seconds / 60 + 0.5))


def router(portal: Portal) -> Router:
    """The pages of the entrance."""
    signing = SignIn(portal.database)
    site = passkeys.Site(portal.origin)

    def form(request: Asked, target: str, status: int = 200, **values: Any) -> Response[str]:
        shown = {
            "target": target,
            "said_wrong": "",
            "minutes": 0,
            "login": "",
            "able": site.able,
            "ended": "",
            **values,
        }
        return portal.page(request, "access/login.html", status=status, **shown)

    @get("/login", right="public", sync_to_thread=True)
    def login(request: Asked, target: Target = "/") -> Response[Any]:
        if who_asks(request) is not None:
            return portal.go(target)
        with portal.reading.reading() as db:
            ended = sessions.why_ended(db, request.cookies.get(COOKIE, ""))
        return form(request, target, ended=ended)

    @post("/login", right="public", sync_to_thread=True)
    def log_in(request: Asked, data: Fields) -> Response[Any]:
        target = rendering.local_path(data.get("next", "/"))
        name, password = data.get("login", ""), data.get("password", "")
        outcome = signing.password(name, password, browser(request), target, portal.now())
        match outcome:
            case Wait():
                return form(request, target, 429, said_wrong="wait", minutes=wait(outcome.seconds), login=name[:254])
            case Opened():
                return enter(outcome, portal.go(outcome.to(target)))
            case Second():
                response = portal.go("/login/second")
                response.set_cookie(cookie(STEP, outcome.secret, BRIEFLY_S))
                return response
            case None:
                return form(request, target, 401, said_wrong="wrong", login=name[:254])

    def second_page(request: Asked, status: int, wrong: str = "", minutes: int = 0) -> Response[Any]:
        with portal.reading.reading() as db:
            found = step(db, request.cookies.get(STEP, ""), portal.now())
        if found is None:
            return portal.go("/login", "access.too_slow")
        shown = {"said_wrong": wrong, "minutes": minutes, "able": site.able, "target": found.next}
        return portal.page(request, "access/second.html", status=status, **shown)

    @get("/login/second", right="public", sync_to_thread=True)
    def second(request: Asked) -> Response[Any]:
        return second_page(request, 200)

    @post("/login/second", right="public", sync_to_thread=True)
    def second_in(request: Asked, data: Fields) -> Response[Any]:
        secret, code, now = request.cookies.get(STEP, ""), data.get("code", ""), portal.now()
        outcome = signing.second(secret, code, browser(request), now)
        if isinstance(outcome, tuple):
            opened, target, how = outcome
            said = "access.recovery_used" if how == "recovery" else ""
            return enter(opened, portal.go(opened.to("/account" if said else target), said))
        if isinstance(outcome, Wait):
            return second_page(request, 429, "wait", wait(outcome.seconds))
        return second_page(request, 401, "code_wrong")

    @post("/login/passkey/options", right="public", sync_to_thread=True, status_code=200)
    def ask_passkey(request: Asked) -> Response[Any]:
        secret = request.cookies.get(ASKED, "") or sessions.new_secret()
        with portal.database.transaction() as db:
            options = passkeys.ask(db, site, "sign_in", secret[: sessions.SECRET_CAP], portal.now())
        response: Response[Any] = Response(options, media_type=MediaType.JSON)
        response.set_cookie(cookie(ASKED, secret, BRIEFLY_S))
        return response

    @post("/login/passkey", right="public", sync_to_thread=True, status_code=200)
    def by_passkey(request: Asked, data: Answer) -> Response[Any]:
        now, who = portal.now(), browser(request)
        limit = throttle.key("passkey", who.source, throttle.OF_SOURCE)
        with portal.database.transaction() as db:
            if throttle.take(db, now, limit):
                return Response({"said": "wait"}, status_code=429)
            try:
                secret = request.cookies.get(ASKED, "")
                account = passkeys.check(db, site, "sign_in", secret, data.get("credential"), now)
            except RejectedInput:
                return Response({"said": "passkey_wrong"}, status_code=401)
            row = accounts.by_id(db, account, EVERYONE)
            if row is None or row.state != "active":
                return Response({"said": "passkey_wrong"}, status_code=401)
            throttle.forgive(db, (), (limit,))
            opened = signing.open(db, row, who, "passkey", now)
        return enter(opened, Response({"to": rendering.local_path(str(data.get("next", "/")))}))

    @get("/forgot", right="public", sync_to_thread=True)
    def forgot(request: Asked) -> Response[str]:
        return portal.page(request, "access/forgot.html", state="ask" if portal.mails else "no_mail")

    @post("/forgot", right="public", sync_to_thread=True, status_code=200)
    def send_link(request: Asked, data: Fields) -> Response[str]:
        """The same answer for every address, known or not."""
        name, now = data.get("login", "").strip().lower()[:ADDRESS_CAP], portal.now()
        limits = (
            throttle.key("forgot", name, throttle.OF_MAIL),
            throttle.key("forgot from", browser(request).source, throttle.OF_SOURCE),
        )
        if not portal.mails:
            return portal.page(request, "access/forgot.html", state="no_mail")
        with portal.database.transaction() as db:
            if throttle.take(db, now, *limits):
                return portal.page(request, "access/forgot.html", status=429, state="wait")
            row = accounts.by_login(db, name)
            if row is not None and row.state == "active":
                link = portal.origin + onetime.make(db, row.id, "password", now)
                mails.post(db, "password", row, link, now)
                audit.write(db, row, "password.forgot")
        return portal.page(request, "access/forgot.html", state="sent")

    def welcome_page(request: Asked, token: str, status: int = 200, weak: str = "") -> Response[str]:
        with portal.reading.reading() as db:
            found = onetime.of(db, token, portal.now())
        if found is None:
            return portal.page(
                request, "access/welcome.html", status=410, kind="", login="", name="", token="", weak=""
            )
        kind, row = found
        shown = {"kind": kind, "login": row.login, "name": row.name, "token": token, "weak": weak}
        return portal.page(request, "access/welcome.html", status=status, **shown)

    @get("/welcome/{token:str}", right="public", sync_to_thread=True)
    def welcome(request: Asked, token: Token) -> Response[str]:
        return welcome_page(request, token)

    @post("/welcome/{token:str}", right="public", sync_to_thread=True)
    def set_password(request: Asked, token: Token, data: Fields) -> Response[Any]:
        now, password = portal.now(), data.get("password", "")
        with portal.reading.reading() as db:
            found = onetime.of(db, token, now)
        if found is None:
            return welcome_page(request, token)
        kind, row = found
        if password != data.get("again", ""):
            return welcome_page(request, token, 422, "differ")
        if weak := passwords.weakness(password, (row.login, row.name, row.tenant)):
            return welcome_page(request, token, 422, weak)
        kept = passwords.hashed(password)
        with portal.database.transaction() as db:
            if not onetime.use(db, token, now):
                return portal.go("/login")
            passwords.set_password(db, row.id, kept, now)
            sessions.end_all(db, row.id)
            throttle.forgive(db, (throttle.key("login", row.login, throttle.OF_ACCOUNT),))
            if kind == "password":
                audit.write(db, row, "password.set")
                if portal.mails:
                    mails.post(db, "account", row, "", now)
                return portal.go("/login", "access.password_set")
            accounts.change(db, row.id, state="active", name=accounts.clean(data.get("name", "")) or row.name)
            audit.write(db, row, "member.accept")
            opened = signing.open(db, row, browser(request), "invitation", now)
        return enter(opened, portal.go(opened.to("/")))

    def confirm_page(
        request: Asked, target: str, status: int = 200, wrong: str = "", minutes: int = 0
    ) -> Response[str]:
        shown = {"target": target, "said_wrong": wrong, "minutes": minutes, "able": site.able}
        return portal.page(request, "access/confirm.html", status=status, **shown)

    @get("/confirm", right="self", enrol=True, sync_to_thread=True)
    def confirm(request: Asked, target: Target = "/") -> Response[str]:
        return confirm_page(request, target)

    @post("/confirm", right="self", enrol=True, sync_to_thread=True)
    def confirm_in(request: Asked, data: Fields) -> Response[Any]:
        who, now, target = viewer(request), portal.now(), rendering.local_path(data.get("next", "/"))
        limit = throttle.key("confirm", who.account, throttle.OF_ACCOUNT)
        with portal.database.transaction() as db:
            if seconds := throttle.take(db, now, limit):
                return confirm_page(request, target, 429, "wait", wait(seconds))
            kept = passwords.of_account(db, who.account)
        if not passwords.matches(kept, data.get("password", "")):
            return confirm_page(request, target, 401, "password_wrong")
        with portal.database.transaction() as db:
            throttle.forgive(db, (limit,))
            secret = sessions.renew(db, who, now)
        response = portal.go(target)
        response.set_cookie(cookie(COOKIE, secret))
        return response

    @post("/confirm/passkey/options", right="self", enrol=True, sync_to_thread=True, status_code=200)
    def ask_confirm(request: Asked) -> Response[Any]:
        with portal.database.transaction() as db:
            options = passkeys.ask(db, site, "confirm", viewer(request).session, portal.now())
        return Response(options, media_type=MediaType.JSON)

    @post("/confirm/passkey", right="self", enrol=True, sync_to_thread=True, status_code=200)
    def confirm_passkey(request: Asked, data: Answer) -> Response[Any]:
        who, now = viewer(request), portal.now()
        with portal.database.transaction() as db:
            try:
                account = passkeys.check(db, site, "confirm", who.session, data.get("credential"), now)
            except RejectedInput:
                return Response({"said": "passkey_wrong"}, status_code=401)
            if account != who.account:
                return Response({"said": "passkey_wrong"}, status_code=401)
            secret = sessions.renew(db, who, now)
        response: Response[Any] = Response({"to": rendering.local_path(str(data.get("next", "/")))})
        response.set_cookie(cookie(COOKIE, secret))
        return response

    pages = [login, log_in, second, second_in, ask_passkey, by_passkey, forgot, send_link, welcome, set_password]
    return Router("/", route_handlers=[*pages, confirm, confirm_in, ask_confirm, confirm_passkey])
