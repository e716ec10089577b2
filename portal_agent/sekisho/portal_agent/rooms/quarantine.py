"""What was stopped; its release with a reason, and only then its content, which nothing opens by itself."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Response, get, post
from litestar.exceptions import NotFoundException
from litestar.response import Stream

from sekisho.appliance.core.errors import RejectedInput
from sekisho.inspect.kept import REASON_CAP, Entry, Kept, List, Read, Release, Show
from sekisho.portal_agent.office import Asked, back, form_of, office_of
from sekisho.portal_agent.shown import attachment


@get("/quarantine", right="owner", sync_to_thread=True)
def listing(request: Asked) -> Response[Any]:
    return office_of(request).page(request, "quarantine.html", kept=_kept(request))


@get("/quarantine/{ident:str}", right="owner", sync_to_thread=True)
def one(request: Asked) -> Response[Any]:
    return office_of(request).page(request, "entry.html", entry=_entry(request), reason_cap=REASON_CAP)


@post("/quarantine/{ident:str}/release", right="owner", sync_to_thread=True)
def release(request: Asked) -> Response[Any]:
    """The reason is required, and so is the tick that one knows what one does."""
    office, form = office_of(request), form_of(request)
    reason = " ".join(form.get("reason", "").split())
    entry = _entry(request)
    if not reason or len(reason) > REASON_CAP or form.get("sure") != "yes":
        return back(request, f"/quarantine/{entry.id}", "release_needs_reason")
    frames = office.ask(office.settings.quarantine_socket, Release(entry.id, reason))
    next(frames)
    office.note(request, "released", f"{entry.id} {reason}")
    return back(request, f"/quarantine/{entry.id}", "released")


@get("/quarantine/{ident:str}/file", right="owner", sync_to_thread=True)
def content(request: Asked) -> Response[Any]:
    office = office_of(request)
    frames = office.ask(office.settings.quarantine_socket, Read(_ident(request)))
    entry = msgspec.json.decode(next(frames), type=Entry)
    office.note(request, "downloaded", entry.id)
    headers = {"content-disposition": attachment(entry.file_name, entry.id, transfer=entry.form == "transfer")}
    # An answer that is cut short breaks the download off, so that nobody takes a part for the whole.
    return Stream(frames, media_type="application/octet-stream", headers=headers)


def _kept(request: Asked) -> Kept:
    office = office_of(request)
    return msgspec.json.decode(next(office.ask(office.settings.quarantine_socket, List())), type=Kept)


def _entry(request: Asked) -> Entry:
    office = office_of(request)
    try:
        frames = office.ask(office.settings.quarantine_socket, Show(_ident(request)))
        return msgspec.json.decode(next(frames), type=Entry)
    except RejectedInput as err:
        raise NotFoundException from err


def _ident(request: Asked) -> str:
    return str(request.path_params["ident"])[:64]


HANDLERS: Final = (listing, one, release, content)
