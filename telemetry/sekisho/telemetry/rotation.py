r"""The box's key is replaced at the word of operators; the old one is kept until the new one has connected.

    ASKED --renewed--> TRYING --connected--> succeeded
       \ refused          \ not connected in time: the old one again, failed

What is on the disk says where it is: `former.pem` beside the identity is the old one of a new one on trial. A power cut
at any moment leaves one of them in force, and what it was about is taken up again. The key that was asked for is kept
as well, so the centre is asked for one certificate, however often; of two that ask, because the first outlived a
daemon that was killed, the second waits (`renew.lock`) and finds that another certificate is there.
"""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import open_plain, write_atomic
from sekisho.appliance.core.settings import Settings

USERS: Final = ("sekisho-jobs",)
TRY_S: Final = 300.0
"""A new certificate that has not connected by then is taken back."""
OVER_CAP: Final = 20
CAP: Final = 64 << 10

_Job = Annotated[str, msgspec.Meta(pattern="^[0-9A-HJKMNP-TV-Z]{26}$")]


class Way(msgspec.Struct, frozen=True):
    """One on its way; without a job where it was forgotten by whom it was asked."""

    job: str
    state: Literal["asked", "trying"] = "asked"
    was: str = ""
    """SHA-256 of the certificate to be replaced, while it is to be: another one is not asked about."""


class Over(msgspec.Struct, frozen=True):
    job: str
    state: Literal["succeeded", "failed", "canceled"]
    why: str = ""


class Kept(msgspec.Struct, frozen=True):
    """`rotation.json`."""

    way: Way | None = None
    over: Annotated[tuple[Over, ...], msgspec.Meta(max_length=OVER_CAP)] = ()
    """Newest first."""


class Show(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="show"):
    """How it is."""


class Rotate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="rotate"):
    """Replace the certificate `was`, once per job."""

    job: _Job
    was: Annotated[str, msgspec.Meta(max_length=64)]


class Withdraw(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="withdraw"):
    """Not any more, if the centre was not asked yet."""

    job: _Job


class Told(msgspec.Struct, frozen=True):
    """The answer to each."""

    certificate: str
    """SHA-256 of the one in force; empty where there is none."""
    enrolled: bool
    """It was got with a code, so that it can be renewed."""
    kept: Kept
    working: bool = False
    """The centre is being asked."""


def socket_of(settings: Settings) -> Path:
    return settings.run / "telemetry" / "rotate.sock"


def former_of(identity: Path) -> Path:
    """Where the old one is while the new one is on trial; beside it, as `.json`, when it was to be renewed."""
    return identity.with_name("former.pem")


def fingerprint(path: Path) -> str:
    """SHA-256 of the certificate in a PEM file; empty where there is none."""
    try:
        with open_plain(path, CAP) as source:
            text = source.read().decode("ascii", "replace")
        begin, end = text.index("-----BEGIN CERTIFICATE-----"), text.index("-----END CERTIFICATE-----")
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text[begin : end + 25])).hexdigest()
    except (OSError, ValueError):
        return ""


class Rotation:
    """One box's. The loop calls `turn` and what it has learned; the desk's threads call `answer`."""

    def __init__(self, path: Path, identity: Path | None) -> None:
        """Take up where the last one ended; `identity` is None where the box was not enrolled with a code.

        Raises:
            DeviceFault: the disk refuses.

        """
        self._path, self._identity = path, identity
        self._lock = threading.RLock()
        self._working = False
        self._until = 0.0
        self._kept = self._load()
        self._take_up()

    @property
    def trying(self) -> bool:
        way = self._kept.way
        return way is not None and way.state == "trying"

    def begin(self) -> Way | None:
        """What the centre is to be asked now, if anything. Ends with `renewed` or `refused`."""
        with self._lock:
            way = self._kept.way
            if way is None or way.state != "asked" or self._working:
                return None
            self._working = True
            return way

    def renewed(self) -> bool:
        """The centre gave one, which is in force from the next connection on; whether there is one to try."""
        with self._lock:
            self._working = False
            self._take_up()
            way = self._kept.way
            if way is not None and way.state == "asked" and self._certificate() != way.was:
                self._end("succeeded")  # it was replaced without the job meanwhile
            return self.trying

    def refused(self, why: str) -> None:
        """The centre will not; nothing has changed. An empty `why`: it was not reached, and is asked again."""
        with self._lock:
            self._working = False
            if why:
                self._end("failed", why)

    def connected(self) -> None:
        """With what is in force."""
        with self._lock:
            if self.trying and self._identity is not None:
                former_of(self._identity).unlink(missing_ok=True)  # first: without it there is no way back
                self._end("succeeded")
                self._identity.with_name("next.key").unlink(missing_ok=True)

    def turn(self, now: float) -> bool:
        """Whether the connection is to be begun anew: the old certificate is in force again.

        Raises:
            DeviceFault: it cannot be written back yet.

        """
        with self._lock:
            if not self.trying:
                self._until = 0.0
                return False
            self._until = self._until or now + TRY_S
            if now < self._until or self._identity is None:
                return False
            try:
                former = former_of(self._identity)
                for old, name in ((former.with_suffix(".json"), "renewal.json"), (former, self._identity.name)):
                    with open_plain(old, CAP) as source:
                        write_atomic(self._identity.with_name(name), source.read(), 0o600)
            except OSError as err:
                raise DeviceFault(f"Cannot write {self._identity}: {err.strerror}.") from err
            self._take_up()
            return True

    def answer(self, question: bytes) -> Iterator[bytes]:
        """One frame; what was asked is on the disk before it is given.

        Raises:
            RejectedInput: no question, or it cannot be done as things are.
            DeviceFault: it could not be kept.

        """
        try:
            asked: Any = msgspec.json.decode(question, type=Show | Rotate | Withdraw)
        except msgspec.MsgspecError as err:
            raise RejectedInput(f"The question is not understood: {err}.") from err
        with self._lock:
            match asked:
                case Rotate(job, was):
                    self._asked(job, was)
                case Withdraw(job) if self._is_asked(job) and not self._working:
                    self._end("canceled")
            yield msgspec.json.encode(Told(self._certificate(), self._enrolled(), self._kept, self._working))

    def _is_asked(self, job: str) -> bool:
        way = self._kept.way
        return way is not None and (way.job, way.state) == (job, "asked")

    def _asked(self, job: str, was: str) -> None:
        way = self._kept.way
        if any(one.job == job for one in self._kept.over) or (way is not None and way.job == job):
            return
        if way is not None:
            raise RejectedInput("Another key is being replaced.")
        if was == self._certificate():
            self._save(Kept(Way(job, was=was), self._kept.over))

    def _certificate(self) -> str:
        return fingerprint(self._identity) if self._identity is not None else ""

    def _enrolled(self) -> bool:
        return self._identity is not None and self._identity.with_name("renewal.json").exists()

    def _take_up(self) -> None:
        """Have the files say where it is."""
        if self._identity is None:
            return
        way, former = self._kept.way, former_of(self._identity)
        if not former.exists():
            if way is not None and way.state == "trying":
                self._end("succeeded")  # it had connected, and the old one was let go
            return
        same = fingerprint(former) == self._certificate()
        if way is None or way.state == "asked":
            if not same:
                self._save(Kept(Way(way.job if way is not None else "", "trying"), self._kept.over))
            elif way is None:
                former.unlink(missing_ok=True)  # it is in force again, and that was told
        elif same:
            self._end("failed", "not_taken")
            former.unlink(missing_ok=True)

    def _end(self, state: Literal["succeeded", "failed", "canceled"], why: str = "") -> None:
        job = self._kept.way.job if self._kept.way is not None else ""
        self._save(Kept(None, (Over(job, state, why), *self._kept.over)[:OVER_CAP]))

    def _load(self) -> Kept:
        try:
            with open_plain(self._path, CAP) as source:
                return msgspec.json.decode(source.read(), type=Kept)
        except (OSError, msgspec.MsgspecError):  # the files beside the identity say what is under way
            return Kept()

    def _save(self, kept: Kept) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, msgspec.json.encode(kept), 0o600)
        except OSError as err:
            raise DeviceFault(f"Cannot write {self._path}: {err.strerror}.") from err
        self._kept = kept
