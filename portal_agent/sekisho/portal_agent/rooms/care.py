"""What the owner can do: choose when the box restarts, join the centre with a code; and what was done on this page."""

from __future__ import annotations

import datetime as dt
import re
import time
from statistics import median
from typing import Any, Final

import msgspec
from litestar import Response, get, post

from sekisho.appliance.core.errors import PeerError, RejectedInput
from sekisho.appliance.core.settings import Settings
from sekisho.firmware.reboot import desk as reboot_desk
from sekisho.portal_agent import restarts, wishes
from sekisho.portal_agent.jobs import shown as jobs
from sekisho.portal_agent.office import Asked, Office, back, form_of, office_of
from sekisho.portal_agent.password import MIN_CHARS
from sekisho.portal_agent.support import desks
from sekisho.portal_agent.support.session import Allow, Refuse, Session, Show, Word

BY: Final = "local-page"
HOUR: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")


@get("/care", right="owner", sync_to_thread=True)
def care(request: Asked) -> Response[Any]:
    office = office_of(request)
    kept = office.restarts.kept
    return office.page(
        request,
        "care.html",
        jobs=jobs.try_read(office.settings),
        plan=kept.plan,
        restarting=bool(kept.asked),
        not_done=kept.not_done,
        took=round(median(kept.took_s)) if kept.took_s else None,
        times=len(kept.took_s),
        waits=wishes.waits(office.settings),
        outcome=wishes.outcome(office.settings),
        support=(asked := _support(office.settings)),
        support_left=max(1, round(asked.left_s(time.monotonic()) / 60)) if asked else 0,
        support_signers=_signers(office.settings, asked.job) if asked else (),
        wanted=(restart := _restart(office)),
        wanted_signers=_signers(office.settings, restart.wanted.job.removeprefix("job "))
        if restart and restart.wanted
        else (),
        centre=office.told.telemetry.centre,
        lines=office.record.newest(),
        fingerprint=office.fingerprint,
        first_password=bool(office.password.label()),
        min_chars=MIN_CHARS,
    )


@post("/care/restart", right="owner", sync_to_thread=True)
def restart(request: Asked) -> Response[Any]:
    """Now, tonight at an hour, or not now: one of three words."""
    office, form = office_of(request), form_of(request)
    match form.get("when"):
        case "now" if form.get("sure") == "yes":
            office.restarts.plan(time.time())
            office.note(request, "restart_planned")
            return back(request, "/care", "restart_now")
        case "tonight" if hour := HOUR.fullmatch(form.get("at", "")):
            at = restarts.tonight(int(hour[1]), int(hour[2]), dt.datetime.now().astimezone())
            office.restarts.plan(at.timestamp())
            office.note(request, "restart_planned", at.isoformat())
            return back(request, "/care", "restart_planned")
        case "never":
            office.restarts.cancel()
            office.note(request, "restart_cancelled")
            return back(request, "/care", "restart_cancelled")
        case _:
            return back(request, "/care", "restart_unclear")


@post("/care/wanted", right="owner", sync_to_thread=True)
def wanted(request: Asked) -> Response[Any]:
    """The word on a restart that the centre's people ask for: now, tonight, in the weekly window, or no."""
    office, form = office_of(request), form_of(request)
    job, when, at = form.get("job", ""), form.get("when", ""), 0.0
    if when == "tonight" and (hour := HOUR.fullmatch(form.get("at", ""))):
        at = restarts.tonight(int(hour[1]), int(hour[2]), dt.datetime.now().astimezone()).timestamp()
    elif when not in ("window", "no") and not (when == "now" and form.get("sure") == "yes"):
        return back(request, "/care", "restart_unclear")
    question = (
        reboot_desk.Refuse(job, BY) if when == "no" else reboot_desk.Choose(job, BY, at=at, window=when == "window")
    )
    try:
        next(office.ask(reboot_desk.socket_of(office.settings), question))
    except (PeerError, RejectedInput):
        return back(request, "/care", "restart_gone")
    if when == "no":
        office.note(request, "restart_denied", job)
        return back(request, "/care", "restart_denied")
    office.note(request, "restart_agreed", f"{job} {when}")
    return back(request, "/care", "restart_agreed")


def _restart(office: Office) -> reboot_desk.Shown | None:
    """The restart that waits; None also while the firmware daemon does not run."""
    try:
        frames = office.ask(reboot_desk.socket_of(office.settings), reboot_desk.Show())
        return msgspec.json.decode(next(frames), type=reboot_desk.Shown)
    except (PeerError, RejectedInput):
        return None


@post("/care/enrol", right="owner", sync_to_thread=True)
def enrol(request: Asked) -> Response[Any]:
    """Hand the code to root's errand; it is written nowhere else."""
    office, form = office_of(request), form_of(request)
    centre = form.get("centre", "").strip()
    if centre and "://" not in centre:
        centre = f"https://{centre}"
    try:
        wishes.make(office.settings, wishes.Enrol(centre, form.get("code", "").strip()))
    except RejectedInput:
        return back(request, "/care", "enrol_unfit")
    office.note(request, "enrol_asked", centre)
    return back(request, "/care", "enrol_asked")


@post("/care/support", right="owner", sync_to_thread=True)
def support(request: Asked) -> Response[Any]:
    """Let the centre look for a while, or not (any more)."""
    office, form = office_of(request), form_of(request)
    job, minutes = form.get("job", ""), form.get("minutes", "")
    word: Word = Refuse(job, BY)
    if form.get("word") == "allow":
        if not minutes.isdecimal() or len(minutes) > 3 or form.get("sure") != "yes":
            return back(request, "/care", "support_unclear")
        word = Allow(job, int(minutes), BY)
    try:
        desks.ask(office.settings, word)
    except PeerError:
        return back(request, "/care", "support_unheard")
    except RejectedInput:
        return back(request, "/care", "support_gone")
    if isinstance(word, Allow):
        office.note(request, "support_allowed", job)
        return back(request, "/care", "support_allowed")
    office.note(request, "support_ended", job)
    return back(request, "/care", "support_ended")


def _support(settings: Settings) -> Session | None:
    """The newest session; None also while the jobs daemon does not run."""
    try:
        return desks.ask(settings, Show())
    except (PeerError, RejectedInput):
        return None


def _signers(settings: Settings, job: str) -> tuple[str, ...]:
    return next((one.signers for one in jobs.try_read(settings) or () if one.id == job), ())


HANDLERS: Final = (care, restart, wanted, enrol, support)
