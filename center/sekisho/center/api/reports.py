"""/v1/tenants/{tenant}/reports: monthly reports that were issued, and their PDFs byte for byte."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import msgspec
from litestar import Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.params import PathParameter, QueryParameter

from sekisho.center.api import problems
from sekisho.center.api.desk import Desk, Tenant, about
from sekisho.center.api.words import moment
from sekisho.center.report import proofs

_Month = Annotated[str, QueryParameter(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$", description="2026-10. 月")]
_Id = Annotated[str, PathParameter(pattern=r"^[0-9A-Z]{1,12}$")]


class Report(msgspec.Struct, frozen=True):
    """One issued report."""

    id: str
    month: str
    language: str
    issued_at: dt.datetime | None
    proof: str
    """The address that its QR code leads to; empty where there is no portal."""


class Reports(msgspec.Struct, frozen=True):
    """A month's reports, the newest first; there are few, so they are one page."""

    items: list[Report]


def router(desk: Desk) -> Router:
    """The routes."""
    origin = desk.settings.portal.origin if desk.settings.portal else ""

    @get(
        "/tenants/{tenant:str}/reports",
        right="report.see",
        operation_id="list_reports",
        summary="月次レポート",
        responses=problems.responses(),
        sync_to_thread=True,
    )
    def overview(tenant: Tenant, month: _Month) -> Reports:
        """The reports of a month that were issued in the portal."""
        with desk.reading.reading() as db:
            found = proofs.listed(db, about(tenant), month)
        return Reports(
            [
                Report(
                    one.id,
                    one.month,
                    one.locale,
                    moment(one.issued_at),
                    f"{origin}/genuine/{one.token}" if origin else "",
                )
                for one in found
            ]
        )

    @get(
        "/tenants/{tenant:str}/reports/{report:str}/pdf",
        right="report.see",
        operation_id="get_report_pdf",
        summary="月次レポートのPDF",
        responses=problems.responses(),
        media_type="application/pdf",
        sync_to_thread=True,
    )
    def pdf(tenant: Tenant, report: _Id) -> Response[bytes]:
        """The PDF as it was issued."""
        with desk.reading.reading() as db:
            found = proofs.pdf_of(db, about(tenant), report)
        if found is None:
            raise NotFoundException()
        month, body = found
        headers = {"content-disposition": f'attachment; filename="sekisho-{month}.pdf"'}
        return Response(body, media_type="application/pdf", headers=headers)

    return Router("/", route_handlers=[overview, pdf])
