"""Making enrolment codes. Needs the CA's certificate only, not its key."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from pathlib import Path

import sqlalchemy as sa
from cryptography import x509

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import customers, pki
from sekisho.center.ca import registry
from sekisho.center.ca.tables import ENROL_CODE
from sekisho.center.ca.times import text
from sekisho.telemetry.enrolment import code as codes


def make(
    db: sa.Connection, ca: Path, box: str, tenant: str, who: str, now: dt.datetime, valid: dt.timedelta,
    services: Iterable[str] = (),
) -> codes.EnrolCode:  # fmt: skip
    """A code for `box` of `tenant`; codes made for it before and not used are void from now on.

    `services` are the names of the centre's own, beside `registry.SERVICES`.

    Raises:
        RejectedInput: a name that could not be an MQTT topic level or is a service's, a box of another tenant,
            a tenant whose contract is not in force, no CA certificate.

    """
    for given in (box, tenant):
        pki.check_name(given)
    try:
        pin = codes.pin_of(x509.load_pem_x509_certificate(ca.read_bytes()).public_key())
    except (OSError, ValueError) as err:
        raise RejectedInput(f"The CA's certificate {ca} cannot be read: {err}.") from err
    customers.admit(db, tenant, text(now))
    registry.expect(db, box, tenant, text(now), services)
    open_codes = (ENROL_CODE.c.box == box, ENROL_CODE.c.used_at == "", ENROL_CODE.c.expires_at > text(now))
    db.execute(ENROL_CODE.update().where(*open_codes).values(expires_at=text(now)))
    made = codes.make(pin)
    row = {
        "digest": made.digest,
        "box": box,
        "tenant": tenant,
        "made_at": text(now),
        "made_by": who,
        "expires_at": text(now + valid),
        "used_at": "",
        "used_key": "",
    }
    db.execute(ENROL_CODE.insert(), row)
    return made
