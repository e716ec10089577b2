"""`sekisho center jobs ...`: an operator's key and signatures (off line), and what the centre is given to send."""

from __future__ import annotations

import argparse
import base64
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, get_args

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.appliance.core import jobs
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.jobs import ENVELOPE_CAP, LIFE_S, Envelope, Job, Kind, When
from sekisho.center.database import Database
from sekisho.center.jobs import book
from sekisho.center.settings import DEFAULT_STORE

HOURS: Final = 72
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_KEY_CAP: Final = 4096


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An operator's key: 0600, on the operator's own machine or token, never at the centre."""

    name: jobs._Name
    person: jobs._Name
    secret: bytes

    @property
    def public(self) -> str:
        return base64.b64encode(
            Ed25519PrivateKey.from_private_bytes(self.secret).public_key().public_bytes_raw()
        ).decode()


def register(group: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `jobs` to the `center` group."""
    verbs = group.add_parser("jobs", help="what operators ask of boxes, signed").add_subparsers(
        required=True, metavar="COMMAND"
    )
    key = verbs.add_parser("key", help="an operator's own key").add_subparsers(required=True, metavar="COMMAND")
    new = _verb(key, "new", "make one; its public half goes into the signed list of operators", _new_key)
    new.add_argument("--out", type=Path, required=True, metavar="FILE")
    new.add_argument("--name", required=True, help="of the key, as in the list of operators")
    new.add_argument("--person", default="", help="whose it is; two keys of one person count once")
    sign = _verb(verbs, "sign", "make and sign a job, off line", _sign)
    sign.add_argument("--key", type=Path, required=True, metavar="FILE")
    sign.add_argument("--kind", required=True, choices=get_args(Kind))
    sign.add_argument("--box", action="append", required=True, metavar="BOX")
    sign.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE")
    sign.add_argument("--hours", type=float, default=HOURS, help=f"until when it may begin ({HOURS})")
    sign.add_argument("--not-before", type=int, default=0, metavar="UNIX")
    sign.add_argument("--mode", choices=("ask", "window", "asap"), default="ask")
    sign.add_argument("--deadline", type=int, default=0, metavar="UNIX", help="the customer is told by then")
    sign.add_argument("--from-counter", type=int, default=0)
    sign.add_argument("--sets-from", type=int, default=0)
    sign.add_argument("--out", type=Path, default=None, metavar="FILE")
    cosign = _verb(verbs, "cosign", "add the signature of a second person, who reads first what is signed", _cosign)
    cosign.add_argument("--key", type=Path, required=True, metavar="FILE")
    cosign.add_argument("envelope", type=Path)
    cosign.add_argument("--out", type=Path, default=None, metavar="FILE")
    submit = _verb(verbs, "submit", "give the centre a signed job to send", _submit)
    submit.add_argument("envelope", type=Path)
    submit.add_argument("--hold", action="store_true", help="keep it; a rollout lets it go")
    listed = _verb(verbs, "list", "the newest jobs", _list)
    show = _verb(verbs, "show", "one job's boxes", _show)
    cancel = _verb(verbs, "cancel", "send it no more; says which boxes need a signed job.cancel", _cancel)
    for parser in (show, cancel):
        parser.add_argument("job")
    for parser in (submit, listed, show, cancel):
        parser.add_argument("--store", default=DEFAULT_STORE, help="path, or postgresql://...")
    for parser in (listed, show, cancel):
        parser.add_argument("--json", action="store_true")


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    func: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text)
    verb.set_defaults(func=func)
    return verb


def ulid(now: float | None = None) -> str:
    """A name nobody has used: 48 bits of time in ms, 80 of chance (ULID)."""
    number = int((time.time() if now is None else now) * 1000) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[number >> 5 * place & 31] for place in range(25, -1, -1))


def load_key(path: Path) -> KeyFile:
    """An operator's key.

    Raises:
        RejectedInput: it is none, or others may read it.

    """
    try:
        if path.stat().st_mode & 0o077:
            raise RejectedInput(f"{path} can be read by others.", f"chmod 600 {path}")
        with path.open("rb") as source:
            key = msgspec.json.decode(source.read(_KEY_CAP), type=KeyFile)
        Ed25519PrivateKey.from_private_bytes(key.secret)
    except (OSError, msgspec.MsgspecError, ValueError) as err:
        raise RejectedInput(f"{path} is no operator's key: {err}.") from err
    return key


def _new_key(args: argparse.Namespace) -> int:
    secret = Ed25519PrivateKey.generate().private_bytes_raw()
    try:
        key = msgspec.convert(
            {"name": args.name, "person": args.person or args.name, "secret": secret}, KeyFile, strict=True
        )
    except msgspec.ValidationError as err:
        raise RejectedInput(f"This cannot be a name: {err}.") from err
    try:
        fd = os.open(args.out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as out:
            out.write(msgspec.json.encode(key))
            out.flush()
            os.fsync(fd)
    except FileExistsError as err:
        raise RejectedInput(f"{args.out} is there already.", "Nothing was changed.") from err
    except OSError as err:
        raise DeviceFault(f"Cannot write {args.out}: {err.strerror}.") from err
    public = msgspec.json.encode({"name": key.name, "person": key.person, "key": key.public}).decode()
    sys.stdout.write(f"{public}\n")
    return 0


def _sign(args: argparse.Namespace) -> int:
    key, now = load_key(args.key), int(time.time())
    nbf = args.not_before or now
    made = {
        "id": ulid(), "boxes": sorted(set(args.box)), "kind": args.kind, "args": dict(map(_pair, args.arg)), "nbf": nbf,
        "exp": nbf + int(args.hours * 3600), "from_counter": args.from_counter, "sets_from": args.sets_from,
        "when": When(mode=args.mode, deadline=args.deadline),
    }  # fmt: skip
    if not 0 < args.hours * 3600 <= LIFE_S:
        raise RejectedInput(f"A job lives at most {LIFE_S // 3600} hours.")
    try:
        job = msgspec.convert(made, Job)
    except msgspec.ValidationError as err:
        raise RejectedInput(f"This is no job: {err}.") from err
    sys.stderr.write(f"{_words(job)}\n")
    if job.kind in jobs.TWO_PEOPLE:
        sys.stderr.write("A second person must sign it: sekisho center jobs cosign. もう一人の署名が必要です。\n")
    return _write(args.out, jobs.sealed(job, [(key.name, key.secret)]))


def _cosign(args: argparse.Namespace) -> int:
    key = load_key(args.key)
    job, envelope = book.read(_read(args.envelope))
    signature = Ed25519PrivateKey.from_private_bytes(key.secret).sign(jobs.preauth(envelope.payload))
    others = [one for one in envelope.signatures if one.keyid != key.name]
    sys.stderr.write(f"{_words(job)}\n")
    both = msgspec.structs.replace(envelope, signatures=[*others, jobs.Signature(key.name, signature)])
    return _write(args.out, msgspec.json.encode(both))


def _submit(args: argparse.Namespace) -> int:
    envelope, database = _read(args.envelope), Database(args.store)
    with database.transaction() as db:
        job = book.submit(db, envelope, by=f"command:{os.environ.get('SUDO_USER') or os.geteuid()}", hold=args.hold)
    sys.stdout.write(f"{job.id}\n")
    return 0


def _list(args: argparse.Namespace) -> int:
    with Database(args.store, read_only=True).reading() as db:
        found = book.jobs(db)
    if args.json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return 0
    for one in found:
        sys.stdout.write(f"{one.id}  {one.at[:19]}  {one.kind:<20}{one.signers}  {one.rollout}\n")
    return 0


def _show(args: argparse.Namespace) -> int:
    """1 when a box failed or is silent past its deadline."""
    with Database(args.store, read_only=True).reading() as db:
        kept, found = book.find(db, args.job), book.states(db, args.job)
    if kept is None:
        raise RejectedInput(f"No job {args.job} is kept.")
    if args.json:
        sys.stdout.write(msgspec.json.encode({"job": kept, "boxes": list(found.values())}).decode() + "\n")
    else:
        for one in found.values():
            why = f"({one.why})" if one.why else ""
            sys.stdout.write(f"{one.box:<24}{one.state}{why}  {one.step}  {one.pct} %  {one.at[:19]}  {one.detail}\n")
    bad = {"FAILED", "REVERTED", "TIMED_OUT", "REJECTED"}
    return 1 if any(one.state in bad for one in found.values()) else 0


def _cancel(args: argparse.Namespace) -> int:
    with Database(args.store).transaction() as db:
        if book.find(db, args.job) is None:
            raise RejectedInput(f"No job {args.job} is kept.")
        left = book.cancel(db, args.job)
    if args.json:
        sys.stdout.write(msgspec.json.encode({"may_have_it": left}).decode() + "\n")
    else:
        sys.stdout.write("It is not sent any more.\n")
        if left:
            boxes = " ".join(f"--box {box}" for box in left[:20])
            hint = f"sekisho center jobs sign --kind job.cancel --arg job={args.job} {boxes}"
            sys.stdout.write(f"{len(left)} boxes may have it. Take it back there: {hint}\n")
    return 0


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise RejectedInput(f"{text!r}: write NAME=VALUE.")
    return name, value


def _words(job: Job) -> str:
    """What is about to be signed."""
    said = " ".join(f"{name}={value}" for name, value in sorted(job.args.items()))
    more = f" and {len(job.boxes) - 5} more" if len(job.boxes) > 5 else ""
    return f"{job.id}: {job.kind} {said} for {', '.join(job.boxes[:5])}{more}"


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as source:
            return source.read(ENVELOPE_CAP + 1)
    except OSError as err:
        raise RejectedInput(f"{path}: {err.strerror}.") from err


def _write(path: Path | None, envelope: bytes) -> int:
    if path is None:
        sys.stdout.write(envelope.decode() + "\n")
        return 0
    try:
        path.write_bytes(envelope)
    except OSError as err:
        raise DeviceFault(f"Cannot write {path}: {err.strerror}.") from err
    return 0


__all__ = ["Envelope", "KeyFile", "load_key", "register", "ulid"]
