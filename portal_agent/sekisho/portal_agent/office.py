"""What all rooms of the page share: the box's settings, who is signed in, how a page is made of a template."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import MediaType, Request, Response
from litestar.response import Redirect

from sekisho.appliance.core import desk
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.fsio import stamp
from sekisho.appliance.core.settings import Settings, load
from sekisho.portal_agent import certificate, wishes, words
from sekisho.portal_agent.delays import Delays
from sekisho.portal_agent.password import Password
from sekisho.portal_agent.record import Deed, Record
from sekisho.portal_agent.restarts import Restarts
from sekisho.portal_agent.sessions import Session, Sessions
from sekisho.portal_agent.shown import shown
from sekisho.portal_agent.words import LOCALES, Locale

Asked = Request[Any, Any, Any]
COOKIE: Final = "__Host-sekisho"
LANGUAGE: Final = "__Host-language"


class Office:
    """One box's page."""

    def __init__(self, settings: Settings, file: Path, now: Callable[[], float] = time.monotonic) -> None:
        """Read what is on the disk; `file` is where the settings come from, `now` monotonic seconds.

        Raises:
            DeviceFault: the first password cannot be written.

        """
        folder = settings.page_state
        self.settings, self.now = settings, now
        self._file = file
        self._said, self._said_stamp = settings, stamp(file)
        self.password = Password(folder)
        self.password.ensure()
        self.sessions, self.delays = Sessions(), Delays()
        self.record = Record(folder / "record.jsonl")
        self.restarts = Restarts(folder / "restart.json", partial(wishes.make, settings, wishes.Restart()))
        self._password_stamp = self.password.stamp()
        self._templates = Environment(
            loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip
        filters: dict[str, Callable[..., str]] = {"shown": shown, "when": when}
        self._templates.filters.update(filters)

    @property
    def told(self) -> Settings:
        """The settings as they are by now, for what is only shown: a code changes whose box this is."""
        now = stamp(self._file)
        if now != self._said_stamp:
            self._said_stamp = now
            with suppress(RejectedInput):
                self._said = load(self._file)
        return self._said

    @property
    def fingerprint(self) -> str:
        return certificate.fingerprint(certificate_file(self.settings))

    def session(self, request: Asked) -> Session | None:
        """Who asks; a new password ends all sessions, whoever set it."""
        now = self.password.stamp()
        if now != self._password_stamp:
            self._password_stamp = now
            self.sessions.end_all()
        return self.sessions.of(request.cookies.get(COOKIE, ""), self.now())

    def keep_sessions(self) -> None:
        """The password was changed by the page itself."""
        self._password_stamp = self.password.stamp()

    def note(self, request: Asked, deed: Deed, about: str = "") -> None:
        """Write down a deed."""
        self.record.note(deed, request.client.host if request.client else "", about)

    def page(self, request: Asked, template: str, status: int = 200, **values: object) -> Response[str]:
        """A whole page in the viewer's language."""
        locale = locale_of(request)
        session: Session | None = request.state.session
        said = ""
        if session is not None and session.said:
            said, session.said = words.say(locale, "said", session.said), ""
        made = self._templates.get_template(template).render(
            t=partial(words.say, locale),
            word_of=partial(words.say_or, locale),
            locale=locale,
            csrf=session.csrf if session else "",
            signed_in=session is not None,
            box=self.told.box,
            path=request.url.path,
            said=said,
            help_desk=self.told.help_desk,
            **values,
        )
        return Response(made, media_type=MediaType.HTML, status_code=status)

    def ask(self, path: Path, question: msgspec.Struct) -> Iterator[bytes]:
        """Frames of another daemon's answer.

        Raises:
            PeerError, RejectedInput: as `desk.ask`, when the first frame is taken.

        """
        return desk.ask(path, msgspec.json.encode(question))


def certificate_file(settings: Settings) -> Path:
    return settings.page_state / "page.pem"


def locale_of(request: Asked) -> Locale:
    """What was chosen, else what the browser asks for."""
    chosen = request.cookies.get(LANGUAGE, "")
    for locale in LOCALES:
        if chosen == locale:
            return locale
    return words.preferred(request.headers.get("accept-language", ""))


def office_of(request: Asked) -> Office:
    office: Office = request.app.state.office
    return office


def form_of(request: Asked) -> dict[str, str]:
    """The fields of the form that was sent, each at most once."""
    form: dict[str, str] = request.state.form
    return form


def back(request: Asked, path: str, said: str = "") -> Redirect:
    """To a page of ours after a form, with a sentence of the section `said` on it."""
    session: Session | None = request.state.session
    if said and session is not None:
        session.said = said
    return Redirect(path, status_code=303)


def when(at: str | float, *, seconds: bool = False) -> str:
    """A time in the box's own zone; what is no time as it is."""
    try:
        moment = dt.datetime.fromtimestamp(at, dt.UTC) if isinstance(at, float) else dt.datetime.fromisoformat(at)
        return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return shown(at, 40)
