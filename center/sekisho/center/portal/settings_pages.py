"""The settings: who is told what, and what each UTM blocks, records or lets pass.

A form that cannot be used comes back with what was entered and the field that is wrong; nothing of it is kept.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import tenants, updates
from sekisho.center.orders import boxes, choices, wishes
from sekisho.center.orders.choices import BadField, Choices
from sekisho.center.orders.wishes import ChangedMeanwhile, Wish
from sekisho.center.portal import audit, sessions
from sekisho.center.portal.forms import Fields
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.viewer import Viewer, viewer
from sekisho.policy.applications import table
from sekisho.policy.categories import titles
from sekisho.policy.schedules import DAYS

MAIL_FIELDS: Final = ("locale", "threshold", "digest", "digest_hour", "quiet_from", "quiet_to", "offline_minutes")
TEST_ENTRIES: Final = frozenset({"malware_test", "sekisho_test"})
"""Shipped to try the product with; no office decides about them."""


def router(portal: Portal) -> Router:
    """Routes of the settings."""

    @get("/settings", right="settings.see", sync_to_thread=True)
    def overview(request: Request[Any, Any, Any]) -> Response[Any]:
        """Who is told, and how far the settings of each UTM have got."""
        who = _customer(request)
        with portal.reading.reading() as db:
            tenant = tenants.load(db, who.tenant)
            places = boxes.named(db, who.here, who.tenant)
            decided = {wish.box: wish for wish in wishes.of_tenant(db, who.here)}
        rows = [(box, name, decided.get(box, Wish(box, who.tenant))) for box, name in places.items()]
        return portal.page(request, "settings/index.html", tenant=tenant, rows=rows)

    @get("/settings/mail", right="settings.see", sync_to_thread=True)
    def mail(request: Request[Any, Any, Any]) -> Response[Any]:
        who = _customer(request)
        with portal.reading.reading() as db:
            tenant = tenants.load(db, who.tenant)
        return portal.page(request, "settings/mail.html", form=_mail_form(tenant), wrong="")

    @post("/settings/mail", right="settings.change", sync_to_thread=True)
    def change_mail(request: Request[Any, Any, Any], data: Fields) -> Response[Any]:
        """Who gets mail, from which importance, when not."""
        who = _customer(request)
        wrong = ""
        try:
            with portal.database.transaction() as db:
                before = tenants.load(db, who.tenant)
                after = _changed(before, data)
                tenants.save(db, after)
                changed = [key for key in after.__struct_fields__ if getattr(after, key) != getattr(before, key)]
                if changed:
                    audit.note(db, who, "settings.mail", ", ".join(changed))
        except BadField as err:
            wrong = err.field
        except RejectedInput:
            wrong = "mail"
        if wrong:
            return portal.page(request, "settings/mail.html", status=400, form=dict(data), wrong=wrong)
        return portal.go("/settings", "settings.saved_mail")

    @get("/settings/utm/{box:str}", right="settings.see", sync_to_thread=True)
    def one_box(request: Request[Any, Any, Any], box: FromPath[str]) -> Response[Any]:
        who = _customer(request)
        name, wish = _of(portal, who, box)
        return _box_page(portal, request, name, wish, choices.shown(wish.overlay))

    @post("/settings/utm/{box:str}", right="settings.change", sync_to_thread=True)
    def change_box(request: Request[Any, Any, Any], box: FromPath[str], data: Fields) -> Response[Any]:
        """What the UTM blocks, records or lets pass, and when it may restart."""
        who = _customer(request)
        name, wish = _of(portal, who, box)
        with portal.reading.reading() as db:
            zone = tenants.load(db, who.tenant).time_zone
        made = Choices()
        try:
            made = choices.read(data)
            if data.get("n") != str(wish.n):
                raise ChangedMeanwhile("")
            change = wishes.prepare(wish, lambda now: choices.put(now, made, zone))
            restarts = change is not None and change.overlay.restart != wish.overlay.restart
            if restarts and not sessions.fresh(who, portal.now()):  # what may restart a box wants to know who asks
                return portal.go(f"/confirm?next={quote(f'/settings/utm/{box}', safe='')}")
            if change is not None:
                with portal.database.transaction() as db:
                    wishes.commit(db, change, who.name)
                    audit.note(db, who, "settings.utm", box)
        except ChangedMeanwhile:
            _, newest = _of(portal, who, box)
            return _box_page(portal, request, name, newest, made, "meanwhile")
        except BadField as err:
            return _box_page(portal, request, name, wish, made, err.field, err.value)
        except RejectedInput:
            return _box_page(portal, request, name, wish, made, "too_much")
        return portal.go(f"/settings/utm/{box}", "settings.saved_box" if change else "settings.saved_nothing")

    @post("/settings/utm/{box:str}/place", right="settings.change", sync_to_thread=True)
    def name_place(request: Request[Any, Any, Any], box: FromPath[str], data: Fields) -> Response[Any]:
        """What people call the place of the UTM."""
        who = _customer(request)
        _of(portal, who, box)
        try:
            with portal.database.transaction() as db:
                tenants.name_site(db, who.tenant, box, data.get("place", "").strip())
                audit.note(db, who, "settings.place", box)
        except RejectedInput:
            return portal.go(f"/settings/utm/{box}", "settings.wrong_place")
        return portal.go(f"/settings/utm/{box}", "settings.saved_place")

    return Router("/", route_handlers=[overview, mail, change_mail, one_box, change_box, name_place])


def _customer(request: Request[Any, Any, Any]) -> Viewer:
    """Who asks, with a customer chosen."""
    who = viewer(request)
    if not who.tenant:
        raise NotFoundException()
    return who


def _of(portal: Portal, who: Viewer, box: str) -> tuple[str, Wish]:
    """The place's name and what is decided; as if it were not there where it is another customer's."""
    with portal.reading.reading() as db:
        places = boxes.named(db, who.here, who.tenant)
        if box not in places:
            raise NotFoundException()
        return places[box], wishes.of_box(db, who.here, box) or Wish(box, who.tenant)


def _box_page(
    portal: Portal, request: Request[Any, Any, Any], name: str, wish: Wish, form: Choices, wrong: str = "",
    value: str = "",
) -> Response[Any]:  # fmt: skip
    who = viewer(request)
    with portal.reading.reading() as db:
        devices = boxes.devices(db, who.here, wish.box)
        can_choose = updates.of_box(db, who.here, wish.box).can_choose
    return portal.page(
        request, "settings/utm.html", status=400 if wrong else 200, name=name, wish=wish, form=form, wrong=wrong,
        devices=devices, value=value, days=DAYS, can_choose=can_choose,
        categories={key: one for key, one in titles().items() if key not in TEST_ENTRIES},
        applications={key: one for key, one in table().items() if key not in TEST_ENTRIES},
    )  # fmt: skip


def _mail_form(tenant: tenants.Tenant) -> dict[str, str]:
    form = {key: str(getattr(tenant, key)) for key in MAIL_FIELDS}
    form |= {"recipients": "\n".join(tenant.recipients)}
    for key in ("quiet_holds_important", "immunity"):
        form |= {key: "yes"} if getattr(tenant, key) else {}
    return form


def _changed(before: tenants.Tenant, data: dict[str, str]) -> tenants.Tenant:
    """The settings the form asks for.

    Raises:
        BadField: one of its fields cannot be used.

    """
    recipients = tuple(dict.fromkeys(line.strip() for line in data.get("recipients", "").splitlines() if line.strip()))
    after = _try("recipients", before, {"recipients": recipients})
    for key in ("locale", "threshold", "digest", "digest_hour", "offline_minutes"):
        after = _try(key, after, {key: data.get(key, "")})
    after = _try("quiet", after, {key: data.get(key, "") for key in ("quiet_from", "quiet_to")})
    flags = {key: data.get(key) == "yes" for key in ("quiet_holds_important", "immunity")}
    return msgspec.structs.replace(after, **flags)


def _try(field: str, tenant: tenants.Tenant, values: dict[str, Any]) -> tenants.Tenant:
    try:
        return tenants.changed(tenant, values)
    except RejectedInput as err:
        raise BadField(field, "") from err
