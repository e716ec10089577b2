"""`sekisho center rollout ...`: plan in rings, sign off line, start, look, pause, resume, halt, cancel."""

from __future__ import annotations

import argparse
import datetime as dt
import getpass
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import DeviceFault, RejectedInput, SekishoError
from sekisho.appliance.core.jobs import Kind, When
from sekisho.center.database import Database
from sekisho.center.jobs.commands import load_key
from sekisho.center.rollout import book, papers, turn
from sekisho.center.rollout.model import Plan, Rule
from sekisho.center.rollout.plan import SHARES, plan, rings
from sekisho.center.rollout.sending import JOBS
from sekisho.center.settings import DEFAULT_STORE

DAY_S: Final = 86_400


def register(group: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `rollout` to the `center` group."""
    verbs = group.add_parser("rollout", help="bring a release to the boxes, ring by ring").add_subparsers(
        required=True, metavar="COMMAND"
    )
    _plan_verb(verbs)
    sign = _verb(verbs, "sign", "sign every job of a plan, on the operator's own machine", _sign)
    sign.add_argument("--key", type=Path, required=True, metavar="FILE", help="an operator's key; never at the centre")
    sign.add_argument("plan", type=Path)
    start = _verb(verbs, "start", "begin with a signed plan", _start)
    start.add_argument("plan", type=Path)
    status = _verb(verbs, "status", "all rollouts, or one with its rings and what is bad", _status)
    status.add_argument("rollout", nargs="?", default="")
    status.add_argument("--json", action="store_true")
    for what in turn.WISHES:
        one = _verb(verbs, what, f"{what} it", _say(what))
        one.add_argument("rollout")
    for name, verb in verbs.choices.items():
        if name != "sign":
            verb.add_argument("--store", default=DEFAULT_STORE, help="path, or postgresql://...")


def _plan_verb(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    made = _verb(verbs, "plan", "put boxes in rings and write the jobs that are to be signed", _plan)
    made.add_argument("--release", type=Path, required=True, metavar="FILE", help="release.json of the channel")
    made.add_argument("--out", type=Path, required=True, metavar="FILE")
    made.add_argument("--kind", default="fw.activate", choices=get_args(Kind))
    made.add_argument("--ring", action="append", default=[], metavar="BOX,...", help="the first rings, by name")
    made.add_argument("--only", action="store_true", help="nobody but the boxes of --ring")
    made.add_argument("--boxes", type=Path, metavar="FILE", help="only these, one on each line")
    made.add_argument("--tenant", action="append", default=[], help="only this customer's")
    made.add_argument("--soak-hours", type=float, default=24.0)
    made.add_argument("--good", type=float, default=98.0, metavar="PERCENT")
    made.add_argument("--bad", type=float, default=2.0, metavar="PERCENT")
    made.add_argument("--silent-minutes", type=float, default=30.0)
    made.add_argument("--deadline-days", type=float, default=3.0, help="for the boxes of a ring that are not reached")
    made.add_argument("--per-site", type=int, default=2, help="boxes of one site that fetch at one time")
    made.add_argument("--site-mbytes", type=int, default=0, help="and how much there at one time")
    made.add_argument("--life-days", type=float, default=60.0, help="how long the jobs may begin")
    made.add_argument("--mode", choices=("ask", "window", "asap"), default="ask")
    made.add_argument("--customer-days", type=float, default=0.0, help="customers are reminded by then; 0: no date")
    made.add_argument("--json", action="store_true")


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    func: Callable[[argparse.Namespace], None],
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text)
    verb.set_defaults(func=lambda args: _act(func, args))
    return verb


def _act(func: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    try:
        store = getattr(args, "store", "")
        if store and not store.startswith("postgresql:") and not Path(store).exists():
            raise DeviceFault(f"There is no store at {store}.")
        func(args)
    except SekishoError as err:
        sys.stderr.write(f"{err}\n")
        return 2 if isinstance(err, RejectedInput) else 3
    return 0


def _plan(args: argparse.Namespace) -> None:
    about, now = papers.release(args.release), int(time.time())
    with Database(args.store, read_only=True).reading() as db:
        known = book.candidates(db)
    named = [[box for box in ring.split(",") if box] for ring in args.ring]
    wanted = set(papers.lines(args.boxes)) if args.boxes else None
    boxes = [
        one for one in known if (wanted is None or one.box in wanted) and (not args.tenant or one.tenant in args.tenant)
    ]
    newest = about.counter if args.kind in ("fw.stage", "fw.activate") else math.inf
    ahead = [one.box for one in boxes if one.running > newest]
    boxes = [one for one in boxes if one.running <= newest]  # the others would refuse it, and count as bad
    ids = papers.ulids()
    id_ = next(ids)
    when = When(mode=args.mode, deadline=now + int(args.customer_days * DAY_S) if args.customer_days else 0)
    made = plan(
        id_, args.kind, about, _rule(args), rings(id_, boxes, named, shares=() if args.only else SHARES), now, ids,
        args={"counter": str(about.counter)}, when=when, life_s=int(args.life_days * DAY_S),
    )  # fmt: skip
    papers.write(args.out, made)
    if args.json:
        _json({"id": made.id, "rings": made.rings})
    else:
        left = f"Left out, with a newer release in use: {len(ahead)} ({ahead[0]} is one)\n" if ahead else ""
        sys.stdout.write(f"{_words(made)}\n{left}{args.out}: sekisho center rollout sign --key FILE {args.out}\n")


def _rule(args: argparse.Namespace) -> Rule:
    said = {
        "good": args.good / 100,
        "bad": args.bad / 100,
        "soak_s": int(args.soak_hours * 3600),
        "silent_s": int(args.silent_minutes * 60),
        "deadline_s": int(args.deadline_days * DAY_S),
        "per_site": args.per_site,
        "site_bytes": args.site_mbytes * 1_000_000,
    }
    try:
        return msgspec.convert(said, Rule)
    except msgspec.ValidationError as err:
        raise RejectedInput(f"This cannot be a rule: {err}.") from err


def _sign(args: argparse.Namespace) -> None:
    key, made = load_key(args.key), papers.read(args.plan)
    sys.stdout.write(f"{_words(made)}\n")
    papers.write(args.plan, papers.sign(made, key.name, key.secret))
    sys.stdout.write(f"Signed by {key.name}: sekisho center rollout start {args.plan}\n")


def _start(args: argparse.Namespace) -> None:
    made = papers.read(args.plan)
    with Database(args.store).transaction() as db:
        book.start(db, made, JOBS, getpass.getuser(), time.time())
        _note(db, "rollout.start", made.id)
    sys.stdout.write(f"{made.id}\n")


def _say(what: turn.Wish) -> Callable[[argparse.Namespace], None]:
    def say(args: argparse.Namespace) -> None:
        with Database(args.store).transaction() as db:
            now = turn.say(db, JOBS, args.rollout, what, getpass.getuser(), time.time())
            _note(db, f"rollout.{what}", args.rollout)
        sys.stdout.write(f"{args.rollout}: {now.state}\n")

    return say


def _note(db: sa.Connection, action: str, about: str) -> None:
    from sekisho.center.portal import audit  # the portal's framework: no other command waits for it

    audit.AUDIT.create(db, checkfirst=True)  # a centre whose portal never ran
    audit.note_machine(db, getpass.getuser(), action, about)


def _status(args: argparse.Namespace) -> None:
    with Database(args.store, read_only=True).reading() as db:
        if not args.rollout:
            found = book.listed(db)
            if args.json:
                _json(found)
                return
            for one in found:
                ring = f"ring {one.rollout.ring + 1} of {one.rings}"
                line = f"{one.id}  {one.at[:19]}  {one.about.version:<12}{one.rollout.state:<10}{ring:<15}"
                sys.stdout.write(f"{line}{one.boxes} boxes  {_why(one)}\n")
            return
        shown = book.show(db, args.rollout, JOBS)
    if args.json:
        _json(shown)
        return
    _print(shown)


def _print(shown: book.Shown) -> None:
    of = shown.listed
    sys.stdout.write(f"{of.id}  {of.about.version}  {of.rollout.state}  {_why(of)}\n")
    for ring in shown.rings:
        counts = "  ".join(f"{how} {number}" for how, number in ring.counts.items() if number)
        sys.stdout.write(f"{'>' if ring.now else ' '} ring {ring.number}: {ring.boxes} boxes  {counts}\n")
    for one in shown.boxes:
        if one.how in ("bad", "silent", "worse"):
            at = dt.datetime.fromtimestamp(one.word_at, dt.UTC)
            said = " ".join(word for word in (one.state, one.step, one.firmware, one.why, one.worse) if word)
            sys.stdout.write(f"  {one.box}  ring {one.ring}  {one.how}  {said}  {utc.text(at)[:19]}\n")


def _why(of: book.Listed) -> str:
    one = of.rollout
    if one.state != "halted":
        return ""
    return (
        f"{one.why}: ring {one.why_ring + 1}, {one.why_number} of {one.why_of}, {one.why_box} {one.why_detail}".rstrip()
    )


def _words(made: Plan) -> str:
    """What is about to be signed."""
    sizes = ", ".join(str(len(ring)) for ring in made.rings)
    job = made.papers[0].job
    until = utc.of_unix(job.exp)[:16]
    args = " ".join(f"{name}={value}" for name, value in sorted(job.args.items()))
    about = f"{made.about.version} for {made.about.hardware}, tier {made.about.tier}"
    return f"{made.id}: {made.kind} {args} ({about}), rings of {sizes} boxes, until {until}"


def _json(value: Any) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
