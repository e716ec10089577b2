"""The monthly report: a page, a PDF to hand on, and the public page that proves one genuine."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Final

import segno
import sqlalchemy as sa
from litestar import Request, Response, Router, get
from litestar.exceptions import NotFoundException, TooManyRequestsException, ValidationException
from litestar.params import PathParameter, QueryParameter

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import tenants
from sekisho.center.portal import amounts, rendering
from sekisho.center.portal.charts import Chart, Series, bars
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.viewer import Viewer, viewer
from sekisho.center.portal.words import catalogue
from sekisho.center.report import month as months
from sekisho.center.report import press, proofs
from sekisho.center.report.advice import advice
from sekisho.center.report.figures import Figures, figures
from sekisho.center.report.month import Month
from sekisho.center.report.often import Often
from sekisho.center.report.proofs import Issued, Key
from sekisho.center.tenants import Locale
from sekisho.center.web.sources import source_of
from sekisho.telemetry import reasons

PROOFS_A_MINUTE: Final = 30
_Asked = Request[Any, Any, Any]
_MonthName = Annotated[str, QueryParameter(max_length=7)]
_NAMES: Final = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September", "October"),
    *("November", "December"),
)


def router(portal: Portal) -> Router:
    """The routes under /report, and /genuine."""
    often = Often(PROOFS_A_MINUTE, 60)

    @get("/report", right="report.see", sync_to_thread=True)
    def shown(request: _Asked, month: _MonthName = "") -> Response[Any]:
        who, now = viewer(request), portal.now()
        if not who.tenant:
            return portal.go("/customers")
        with portal.reading.reading() as db:
            chosen = _month(db, who, month, now)
            made = figures(db, who.tenant, chosen, now)
            issued = proofs.listed(db, who.here, str(chosen))
        later = chosen.after()
        values = _values(made, who.locale, utc.text(now))
        values |= {"issued": issued, "before": str(chosen.before()), "later": str(later) if later.first <= now else ""}
        return portal.page(request, "report/page.html", **values)

    @get("/report/pdf", right="report.see", sync_to_thread=True)
    def pdf(request: _Asked, month: _MonthName = "") -> Response[Any]:
        """The month's PDF; made and issued when these figures were not before."""
        who, now = viewer(request), portal.now()
        with portal.reading.reading() as db:
            chosen = _month(db, who, month, now)
            made = figures(db, who.tenant, chosen, now)
            found = proofs.find(db, who.tenant, made, who.locale)
        try:
            issued = found or _issue(portal, portal.proof_key, who, made, now)
        except (press.Busy, RejectedInput) as err:
            raise TooManyRequestsException() from err
        return _pdf(portal, who, issued.id)

    @get("/report/issued/{report:str}", right="report.see", sync_to_thread=True)
    def again(request: _Asked, report: Annotated[str, PathParameter(max_length=12)]) -> Response[Any]:
        """A PDF that was issued, byte for byte."""
        return _pdf(portal, viewer(request), report)

    @get("/genuine/key", right="public", sync_to_thread=True)
    def public_key() -> Response[bytes]:
        """What signs the reports, for who wants to check without us."""
        return Response(portal.proof_key.pem, media_type="application/x-pem-file")

    @get("/genuine/{token:str}", right="public", sync_to_thread=True)
    def genuine(request: _Asked, token: Annotated[str, PathParameter(max_length=64)]) -> Response[str]:
        """Whether a report is ours, and what it said; nothing else of the customer."""
        now = portal.now()
        source = source_of(request.client.host if request.client else "")
        if not often.may(source, now.timestamp()):
            raise TooManyRequestsException()
        with portal.reading.reading() as db:
            proof = proofs.prove(db, portal.proof_key, token)
        state = "unknown" if proof is None else "genuine" if proof.genuine else "broken"
        name = ""
        if proof is not None:
            name = month_name(proof.statement.month, rendering.language(request))
        values = {"proof": proof, "state": state, "month_name": name, "fingerprint": portal.proof_key.fingerprint}
        return portal.page(request, "report/genuine.html", status=404 if proof is None else 200, **values)

    return Router("/", route_handlers=[shown, pdf, again, public_key, genuine])


def month_name(month: str, locale: Locale) -> str:
    """2026-04 as 2026年4月 or April 2026."""
    year, _, number = month.partition("-")
    return f"{year}年{int(number)}月" if locale == "ja" else f"{_NAMES[int(number) - 1]} {year}"


def _month(db: sa.Connection, who: Viewer, name: str, now: dt.datetime) -> Month:
    if not who.tenant:
        raise NotFoundException()
    try:
        return months.read(name, tenants.load(db, who.tenant).time_zone, now)
    except RejectedInput as err:
        raise ValidationException() from err


def _issue(portal: Portal, key: Key, who: Viewer, made: Figures, now: dt.datetime) -> Issued:
    with portal.reading.reading() as db:
        proofs.check_room(db, who.tenant, made)  # before the work: the presses are everybody's
    names = proofs.new_names()
    address = f"{portal.origin}/genuine/{names[1]}"
    values = _values(made, who.locale, utc.text(now))
    values |= {"report": names[0], "address": address, "fingerprint": key.fingerprint, "qr": _qr(address)}
    sheet = rendering.sheet("report/paper.html", who.locale, made.zone, **values)
    body = press.pressed(sheet)
    with portal.database.transaction() as db:
        return proofs.issue(db, key, who.tenant, made, who.locale, names, body, utc.text(now))


def _pdf(portal: Portal, who: Viewer, report: str) -> Response[bytes]:
    with portal.reading.reading() as db:
        found = proofs.pdf_of(db, who.scope, report)
    if found is None:
        raise NotFoundException()
    name = f"sekisho-report-{found[0]}-{report}.pdf"
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    return Response(found[1], media_type="application/pdf", headers=headers)


def _qr(address: str) -> str:
    return segno.make(address, error="m").svg_inline(scale=3, border=2, omitsize=False)


def _values(made: Figures, locale: Locale, at: str) -> dict[str, Any]:
    """What page and paper show alike."""
    return {
        "figures": made,
        "advice": advice(made),
        "month_name": month_name(made.month, locale),
        "made_at": at,
        "what": lambda why: reasons.of(why, locale).what,
        "percent": amounts.percent,
        "octets": amounts.octets,
        "minutes": lambda seconds: (seconds // 3600, seconds % 3600 // 60),
        "summary": _summary(made),
        "chart": _chart(made, locale) if made.detections else None,
    }


def _chart(made: Figures, locale: Locale) -> Chart:
    say = catalogue().say
    series = [
        Series(say(locale, "report", "was_blocked"), [day.blocked for day in made.days]),
        Series(say(locale, "report", "passed"), [day.passed for day in made.days]),
    ]
    labels = [str(int(day.day[-2:])) for day in made.days]
    return bars(say(locale, "report", "daily"), labels, series, stacked=True, height=200)


def _summary(made: Figures) -> str:
    if made.detections:
        return "some"
    return "none" if made.watched_s or made.traffic.total else "silent"
