"""The contract's page: where it stands, its end, taking one's data away; for the centre, the record of a deletion."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any, Final

import anyio.to_thread
from litestar import Request, Response, Router, get, post
from litestar.exceptions import NotFoundException
from litestar.params import PathParameter
from litestar.response import File

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import roster
from sekisho.center.contracts import book, exporting, records, state
from sekisho.center.contracts.exporting import Export
from sekisho.center.contracts.state import Contract
from sekisho.center.portal import audit
from sekisho.center.portal.forms import Fields
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.viewer import Viewer, viewer
from sekisho.center.web.guard import ANSWER_S, prolong

SLOWEST_BYTES_S: Final = 64 << 10
"""The slowest line that a large file is waited for."""
_Id = Annotated[str, PathParameter(max_length=64)]


def router(portal: Portal) -> Router:
    """The routes."""

    @get("/contract", right="contract.see", sync_to_thread=True)
    def show(request: Request[Any, Any, Any]) -> Response[Any]:
        """Where the contract of the customer stands."""
        who = viewer(request)
        if not who.tenant:
            return portal.go("/customers", "boxes.choose")
        with portal.reading.reading() as db:
            contract = book.load(db, who.here, who.tenant) or Contract(who.tenant)
            today = book.today(db, who.tenant, portal.now())
            exports = exporting.listed(db, who.here, who.tenant) if who.may("export.make") else []
        first = today if who.may("customers.manage") else state.earliest(today)
        return portal.page(
            request,
            "contract/show.html",
            contract=contract,
            first=str(first),
            exports=exports,
            making=any(one.state in ("waiting", "running") for one in exports),
            notice_months=state.NOTICE_MONTHS,
            export_months=state.EXPORT_MONTHS,
        )

    @post("/contract/end", right="contract.change", fresh="/contract", sync_to_thread=True)
    def end(request: Request[Any, Any, Any], data: Fields) -> Response[Any]:
        """The contract is to end after a day."""
        who, reason = viewer(request), data.get("reason", "").strip()
        try:
            last = dt.date.fromisoformat(data.get("last", ""))
        except ValueError:
            return portal.go("/contract", "contract.bad_day")

        def change(contract: Contract, today: dt.date) -> Contract:
            early = who.may("customers.manage")
            return state.ask_end(contract, who.login, last, reason, today, early=early)

        return _change(portal, request, change, "contract.end", "contract.asked", "contract.bad_day")

    @post("/contract/withdraw", right="contract.change", fresh="/contract", sync_to_thread=True)
    def withdraw(request: Request[Any, Any, Any]) -> Response[Any]:
        """It goes on after all."""
        return _change(
            portal, request, lambda one, _: state.withdraw(one), "contract.withdraw", "contract.withdrawn",
            "contract.too_late",
        )  # fmt: skip

    @post("/contract/resume", right="customers.manage", fresh="/contract", sync_to_thread=True)
    def resume(request: Request[Any, Any, Any]) -> Response[Any]:
        """The customer comes back before anything is deleted."""
        return _change(
            portal, request, lambda one, _: state.resume(one), "contract.resume", "contract.resumed",
            "contract.too_late",
        )  # fmt: skip

    @post("/contract/export", right="export.make", fresh="/contract", sync_to_thread=True)
    def export(request: Request[Any, Any, Any]) -> Response[Any]:
        """Put everything there is into one file."""
        who = viewer(request)
        if not who.tenant:
            return portal.go("/customers", "boxes.choose")
        try:
            with portal.database.transaction() as db:
                made = exporting.ask(db, who.tenant, who.login, portal.now())
                audit.note(db, who, "contract.export", made)
        except RejectedInput:
            return portal.go("/contract", "contract.no_export")
        return portal.go("/contract", "contract.exporting")

    @get("/contract/export/{export:str}", right="export.make", fresh="/contract")
    async def download(request: Request[Any, Any, Any], export: _Id) -> Response[Any]:
        """The file."""
        found = await anyio.to_thread.run_sync(find, viewer(request), export)
        prolong(request.scope, ANSWER_S + found.size / SLOWEST_BYTES_S)
        name = f"sekisho-{found.tenant}-{found.done_at[:10]}.zip"
        path = Path(portal.settings.exports) / f"{found.id}.zip"
        return File(path, filename=name, media_type="application/zip", content_disposition_type="attachment")

    def find(who: Viewer, export: str) -> Export:
        with portal.database.transaction() as db:
            found = exporting.ready(db, who.scope, export)
            if found is None or not (Path(portal.settings.exports) / f"{found.id}.zip").is_file():
                raise NotFoundException()
            audit.note(db, who, "contract.download", found.id, tenant=found.tenant)
        return found

    @get("/customers/{tenant:str}/record", right="customers.see", sync_to_thread=True)
    def record(request: Request[Any, Any, Any], tenant: _Id) -> Response[Any]:
        """What was deleted of a customer whose contract is over, and the proof."""
        who = viewer(request)
        with portal.reading.reading() as db:
            customer = roster.one(db, who.scope, tenant)
            if customer is None:
                raise NotFoundException()
            found = list(records.found(db, who.scope, tenant))
        return portal.page(request, "contract/record.html", customer=customer, records=found)

    return Router("/", route_handlers=[show, end, withdraw, resume, export, download, record])


def _change(
    portal: Portal, request: Request[Any, Any, Any], change: Any, action: str, said: str, refused: str
) -> Response[Any]:
    who = viewer(request)
    if not who.tenant:
        return portal.go("/customers", "boxes.choose")
    try:
        with portal.database.transaction() as db:
            contract = book.load(db, who.here, who.tenant, hold=True)
            if contract is None:
                raise NotFoundException()
            new = change(contract, book.today(db, who.tenant, portal.now()))
            book.save(db, new, portal.now())
            audit.note(db, who, action, f"{new.state} {new.ends_on}".strip())
    except RejectedInput:
        return portal.go("/contract", refused)
    return portal.go("/contract", said)
