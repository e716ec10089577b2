"""How a page is made: the viewer's language and clock, the frame around every page, refusals that people can read."""

from __future__ import annotations

import datetime as dt
import unicodedata
import zoneinfo
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, Final
from urllib.parse import quote, urlsplit

import anyio.to_thread
import jinja2
import markupsafe
from litestar import MediaType, Request, Response
from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie
from litestar.exceptions import HTTPException
from litestar.response import Redirect

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.center import tenants
from sekisho.center.database import Database
from sekisho.center.portal import amounts, assets, forms, sessions, viewer
from sekisho.center.portal.rights import Right
from sekisho.center.portal.viewer import Viewer
from sekisho.center.portal.words import catalogue
from sekisho.center.report import proofs
from sekisho.center.settings import CenterSettings
from sekisho.center.tenants import Locale

COOKIE: Final = "__Host-sekisho"
FLASH: Final = "__Host-said"
LANGUAGE: Final = "__Host-language"
HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "same-origin",
}
"""With no-referrer a browser says "Origin: null" of our own forms (Fetch 3.1), and they would be refused."""
SHOWN_CAP: Final = 200
TARGET_CAP: Final = 2000
"""Characters of an address a form leads on to."""
_REFUSALS: Final = (400, 403, 404, 429, 500)

Asked = ASGIConnection[Any, Any, Any, Any]


class Portal:
    """What the rooms of the portal share: the database, the settings, and how a page is made."""

    def __init__(self, settings: CenterSettings, now: Callable[[], dt.datetime] | None = None) -> None:
        """Open the database.

        Raises:
            DeviceFault: it cannot be used.
            RejectedInput: the section [portal] is missing.

        """
        if settings.portal is None:
            raise RejectedInput("The section [portal] is missing.")
        self.settings = settings
        self.origin = settings.portal.origin
        self.connections = settings.portal.connections
        self._proof_key = settings.portal.proof_key
        self.mails = bool(settings.notify.smtp_host)
        """Whether mails go out."""
        self.database = Database(settings.store)
        self.reading = Database(settings.store, read_only=True)
        self.now = now or (lambda: dt.datetime.now(dt.UTC))

    @property
    def proof_key(self) -> proofs.Key:
        """Signs what is handed out; read, or made, at its first use.

        Raises:
            DeviceFault: it cannot be.

        """
        return proofs.key_at(self._proof_key)

    def close(self) -> None:
        self.reading.close()
        self.database.close()

    async def identify(self, connection: Asked, *, used: bool = True) -> Viewer | None:
        """Who is asking, by the session's cookie; `used`: somebody did something, so the session goes on."""
        secret = connection.cookies.get(COOKIE, "")
        return await anyio.to_thread.run_sync(self._identify, secret, used) if secret else None

    def _identify(self, secret: str, used: bool) -> Viewer | None:
        now = self.now()
        with self.reading.reading() as db:
            who = sessions.find(db, secret, now)
        if who is not None and used and sessions.stale(who, now):
            with self.database.transaction() as db:
                sessions.touch(db, who, now)
        return who

    def page(
        self, request: Request[Any, Any, Any], template: str, *, status: int = 200, **values: Any
    ) -> Response[str]:
        """A whole page: `template` extends base.html."""
        who = viewer.of(request)
        locale = language(request)
        said = request.cookies.get(FLASH, "")
        body = (
            _environment()
            .get_template(template)
            .render(
                **values,
                viewer=who,
                locale=locale,
                path=request.url.path,
                said=_said(locale, said),
                t=_translate(locale),
                csrf=lambda: _token(who),
                may=lambda right: who is not None and who.may(right),
                local=_Local(locale, who.zone if who else "Asia/Tokyo"),
                help_desk=self.settings.notify.help_desk,
                looking_at=self._customer(who),
            )
        )
        response = Response(body, media_type=MediaType.HTML, status_code=status, headers=HEADERS)
        if said:
            response.set_cookie(cookie(FLASH, "", 0))
        return response

    def _customer(self, who: Viewer | None) -> str:
        """What the customer is called whose pages are shown; its identifier where that cannot be read."""
        if who is None or not who.tenant:
            return ""
        with suppress(DeviceFault), self.reading.reading() as db:
            return tenants.load(db, who.tenant).name or who.tenant
        return who.tenant

    def go(self, path: str, said: str = "") -> Redirect:
        """On to another page after a form; `said` is the key of a sentence ("section.key") shown there once."""
        response = Redirect(local_path(path), status_code=303)
        if said:
            response.set_cookie(cookie(FLASH, said, 60))
        return response

    def refuse(self, request: Request[Any, Any, Any], status: int) -> Response[Any]:
        """A refusal as a page, without inner detail."""
        shown = status if status in _REFUSALS else 400 if status < 500 else 500
        return self.page(request, "refusal.html", status=status, code=shown)

    def refusal(self, request: Request[Any, Any, Any], err: HTTPException) -> Response[Any]:
        """The same of a refusal that was raised; who is not signed in is sent to do so."""
        if err.status_code == 401:
            if request.method not in ("GET", "HEAD"):
                return self.go("/login")
            target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return self.go("/login" if target == "/" else f"/login?next={quote(target, safe='')}")
        return self.refuse(request, err.status_code)


def cookie(name: str, content: str, lives_s: int | None = None) -> Cookie:
    """A cookie of ours: a browser keeps (and drops) one named __Host- only with all of this (RFC 6265bis 4.1.3.2)."""
    return Cookie(name, value=content, max_age=lives_s, path="/", secure=True, httponly=True, samesite="lax")


def sheet(template: str, locale: Locale, zone: str, **values: Any) -> str:
    """A page that is not shown in a browser but printed: no frame, no viewer."""
    made = _environment().get_template(template)
    return made.render(**values, locale=locale, t=_translate(locale), local=_Local(locale, zone))


def language(request: Asked) -> Locale:
    """The viewer's language; before anybody signs in the browser's choice, Japanese where it has none."""
    if (who := viewer.of(request)) is not None:
        return who.locale
    chosen = request.cookies.get(LANGUAGE, "")
    if chosen in ("ja", "en"):
        return "en" if chosen == "en" else "ja"
    first = request.headers.get("accept-language", "")[:35].lower().split(",")[0]
    return "ja" if first.startswith("ja") or not first or first.startswith("*") else "en"


def local_path(target: str) -> str:
    """`target` when it is a path on this site, else the home page: no redirect leads elsewhere."""
    clean = "\\" not in target and all(" " < char < "\x7f" for char in target)
    if len(target) > TARGET_CAP or not clean or not target.startswith("/") or target.startswith("//"):
        return "/"
    try:
        parts = urlsplit(target)
    except ValueError:
        return "/"
    return target if not parts.netloc and not parts.scheme else "/"


def shown(text: str, cap: int = SHOWN_CAP) -> str:
    """What a stranger chose, on one line: cut, and without what would steer the reading (controls, bidi marks)."""
    cut = text[: cap + 1]
    clean = "".join(char if unicodedata.category(char)[0] != "C" else "\N{REPLACEMENT CHARACTER}" for char in cut)
    return clean if len(cut) <= cap else clean[: cap - 1] + "…"


class _Local:
    """Times and numbers as the viewer reads them."""

    def __init__(self, locale: Locale, zone: str) -> None:
        self.locale = locale
        self.zone = zoneinfo.ZoneInfo(zone)

    def time(self, at: str) -> str:
        moment = self._of(at)
        if moment is None:
            return shown(at, 40)
        if self.locale == "ja":
            return f"{moment.year}年{moment.month}月{moment.day}日 {moment:%H:%M}"
        return f"{moment.day} {moment:%b %Y %H:%M}"

    def day(self, at: str) -> str:
        moment = self._of(at)
        if moment is None:
            return shown(at, 40)
        return f"{moment.month}月{moment.day}日" if self.locale == "ja" else f"{moment.day} {moment:%b}"

    def _of(self, at: str) -> dt.datetime | None:
        try:
            return dt.datetime.fromisoformat(at).astimezone(self.zone)
        except (ValueError, OverflowError):
            return None


def _translate(locale: Locale) -> Callable[..., str]:
    def say(section: str, key: str, **values: object) -> str:
        return catalogue().say(locale, section, key, **values)

    return say


def _said(locale: Locale, key: str) -> str:
    section, _, name = key.partition(".")
    return catalogue().say(locale, section, name) if catalogue().has(section, name) else ""


def _token(who: Viewer | None) -> markupsafe.Markup:
    token = who.csrf if who else ""
    return markupsafe.Markup('<input type="hidden" name="{}" value="{}">').format(forms.FIELD, token)


@cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("sekisho.center.portal", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["asset"] = assets.address
    made.globals["menu"] = MENU
    made.filters["shown"] = shown

    @jinja2.pass_context
    def when(context: jinja2.runtime.Context, at: str) -> str:
        text: str = context["local"].time(at)
        return text

    @jinja2.pass_context
    def day(context: jinja2.runtime.Context, at: str) -> str:
        text: str = context["local"].day(at)
        return text

    made.filters["when"] = when
    made.filters["day"] = day
    made.filters["octets"] = amounts.octets
    made.filters["percent"] = amounts.percent
    made.filters["number"] = lambda number: f"{number:,}"
    return made


MENU: Final[tuple[tuple[str, str, Right], ...]] = (
    ("home", "/", "home.see"),
    ("alerts", "/alerts", "alerts.see"),
    ("devices", "/devices", "devices.see"),
    ("log", "/log", "log.see"),
    ("health", "/health-of-boxes", "health.see"),
    ("statistics", "/statistics", "statistics.see"),
    ("cases", "/cases", "cases.see"),
    ("report", "/report", "report.see"),
    ("notices", "/notices", "notices.see"),
    ("boxes", "/boxes/enrol", "boxes.enrol"),
    ("settings", "/settings", "settings.see"),
    ("contract", "/contract", "contract.see"),
    ("customers", "/customers", "customers.see"),
    ("applications", "/applications", "customers.approve"),
    ("fleet", "/fleet", "fleet.see"),
    ("members", "/members", "members.manage"),
    ("audit", "/audit", "audit.see"),
    ("account", "/account", "self"),
)
"""(key of its name in [nav], path, right it needs), in the order of the menu."""
