"""What the device CA remembers: identities, codes, certificates, attempts to get one. Times are RFC 3339, UTC."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from sekisho.center.database import metadata

BOX_IDENTITY: Final = sa.Table(
    "box_identity",
    metadata,
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),  # expected, active, revoked
    sa.Column("changed_at", sa.Text, nullable=False),
    sa.Index("box_identity_by_tenant", "tenant", "box"),
)
"""One row for each box that was ever given a code; a box belongs to one tenant."""

ENROL_CODE: Final = sa.Table(
    "enrol_code",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),  # SHA-256 of the secret; the secret itself is kept nowhere
    sa.Column("box", sa.Text, nullable=False, index=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("made_at", sa.Text, nullable=False),
    sa.Column("made_by", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Text, nullable=False),
    sa.Column("used_at", sa.Text, nullable=False),  # empty until used
    sa.Column("used_key", sa.Text, nullable=False),  # SHA-256 of the public key it was used for
    sa.Index("enrol_code_by_tenant", "tenant", "made_at"),
)

CERTIFICATE: Final = sa.Table(
    "certificate",
    metadata,
    sa.Column("serial", sa.Text, primary_key=True),  # lower-case hexadecimal
    sa.Column("box", sa.Text, nullable=False, index=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False, index=True),  # SHA-256 of the public key (SubjectPublicKeyInfo, DER)
    sa.Column("not_before", sa.Text, nullable=False),
    sa.Column("not_after", sa.Text, nullable=False, index=True),
    sa.Column("issued_at", sa.Text, nullable=False),
    sa.Column("how", sa.Text, nullable=False),  # code, renewal, cut
    sa.Column("by", sa.Text, nullable=False),  # who made the code; the serial of the certificate that was renewed
    sa.Column("renewed_by", sa.Text, nullable=False),  # the serial that took its place; empty = the newest
    sa.Column("revoked_at", sa.Text, nullable=False),  # empty unless revoked
    sa.Column("revoked_by", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("cut_at", sa.Text, nullable=False),  # when its revocation was published and its session closed
    sa.Column("pem", sa.Text, nullable=False),
    sa.Index("certificate_revoked", "revoked_at", "cut_at"),
)

ATTEMPT: Final = sa.Table(
    "enrol_attempt",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.Text, nullable=False, index=True),
    sa.Column("source", sa.Text, nullable=False),  # the address it came from
    sa.Column("how", sa.Text, nullable=False),  # code, renewal
    sa.Column("box", sa.Text, nullable=False),  # empty when it could not be told
    sa.Column("outcome", sa.Text, nullable=False),
)
"""The newest `ATTEMPTS_KEPT`: enough to see who tried what, bounded whatever is tried."""

ATTEMPTS_KEPT: Final = 20_000
