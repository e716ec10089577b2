"""A centre with its real ingest path and a fleet of simulated boxes, on a clock that is moved by hand."""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from sekisho.appliance.core import utc
from sekisho.appliance.core.jobs import Operator, Operators
from sekisho.bench.fleet_jobs import Fate, JobBox
from sekisho.center import intake
from sekisho.center.ca.tables import BOX_IDENTITY
from sekisho.center.database import insert_new
from sekisho.center.intake import Message
from sekisho.center.jobs.__main__ import due as due_jobs
from sekisho.center.jobs.tables import JOB_BOX
from sekisho.center.pulse import PULSE
from sekisho.center.rollout import book, papers, plan, turn
from sekisho.center.rollout.model import About, Plan, Rollout, Rule
from sekisho.center.rollout.sending import JOBS
from sekisho.center.store import Store
from sekisho.telemetry import events

START = 1_800_000_000.0
ABOUT = About(
    counter=140, version="1.4.0", hardware="amd64", tier=1, length=9_000_000, notes_ja="検査を速くしました。",
    notes_en="Inspection is faster.",
)  # fmt: skip
RULE = Rule(soak_s=600, silent_s=900, deadline_s=86_400, per_site=50)

_private = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
KEY = _private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
PUBLIC = _private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
OPERATORS = Operators(
    operators=[
        Operator(
            name="suzuki", person="suzuki", key=PUBLIC, kinds=["fw.activate", "fw.stage", "job.cancel"], until=1 << 40
        )
    ]
)


def is_truthful(shown: book.Shown, boxes: Mapping[str, JobBox], spoken: Mapping[str, list[str]]) -> None:
    """Nothing is shown of any box that it did not say (`spoken`), and of no box less than it said."""
    for one in shown.boxes:
        box, said = boxes[one.box], spoken.get(one.box, [])
        assert f" {one.state}" in f" {' '.join(said)}" if said else not one.state, one
        mine = [state for state in said if not state.startswith("fetch")]
        assert (
            one.state in (*mine[-1:], *(state[6:] for state in said[-2:] if state.startswith("fetch"))) or not said
        ), one
        if one.how in ("good", "gone"):
            assert box.truth.running == 140 and mine[-1] == "SUCCEEDED", one
        if one.how in ("bad", "silent"):
            assert box.truth.running == 139 and box.fate != "good", one
        if box.truth.running == 140:
            assert one.how == "good" or (one.how == "gone" and not one.connected), one
        if one.how == "unasked":
            assert not said, one
        if one.state in ("REVERTED", "FAILED"):
            assert one.how == "bad" and one.why in ("gate:forwarding", "refused"), one
    for ring in shown.rings:
        assert sum(ring.counts.values()) == ring.boxes
        counted = Counter(one.how for one in shown.boxes if one.ring == ring.number)
        assert {how: n for how, n in ring.counts.items() if n} == dict(counted)


class World:
    """Everything; `run` lets time pass."""

    def __init__(self, path: Path, boxes: int = 1000, tenants: int = 100) -> None:
        self.now = START
        self._path = path / "centre.db"
        self.store = Store(self._path)
        self.database = self.store.database
        self.sender = JOBS
        self.boxes = {f"box-{n}": JobBox(f"office-{n % tenants}", f"box-{n}", OPERATORS) for n in range(boxes)}
        self.said: dict[str, list[str]] = {}
        """Box -> the states it reported of jobs, in order."""
        self._given: set[tuple[str, str]] = set()
        self.deaf = False
        self.deliver_nothing_to: set[str] = set()
        self.late: set[str] = set()
        """Boxes whose words stay in their spools, until `arrive`."""
        self._spools: dict[str, list[tuple[list[str], tuple[str, bytes]]]] = {}
        with self.store.transaction() as db:
            made = {"state": "active", "changed_at": utc.of_unix(START)}
            db.execute(
                BOX_IDENTITY.insert(), [{"box": one.name, "tenant": one.tenant, **made} for one in self.boxes.values()]
            )
        self.connect(self.boxes)

    def close(self) -> None:
        self.store.close()

    def reopen(self) -> None:
        """The centre's processes begin anew."""
        self.store.close()
        self.store = Store(self._path)
        self.database = self.store.database

    def moment(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.now, dt.UTC)

    def tell(self, name: str, *said: events.Event) -> None:
        self._deliver(self._send(name, list(said)))

    def connect(self, names: Iterable[str]) -> None:
        self._deliver([self.boxes[name].birth() for name in names])

    def lose(self, names: Iterable[str]) -> None:
        self._deliver([self.boxes[name].will() for name in names])

    def plan(
        self, rule: Rule = RULE, chosen: Sequence[Sequence[str]] = (), seed: str = "A",
        shares: Sequence[float] = plan.SHARES,
    ) -> Plan:  # fmt: skip
        with self.database.reading() as db:
            of = book.candidates(db)
        ids = papers.ulids()
        id_ = "01JD3" + seed * 21
        made = plan.plan(
            id_,
            "fw.activate",
            ABOUT,
            rule,
            plan.rings(id_, of, chosen, shares=shares),
            int(self.now),
            ids,
            args={"counter": "140"},
        )
        return papers.sign(made, "suzuki", KEY)

    def start(self, made: Plan) -> None:
        with self.database.transaction() as db:
            book.start(db, made, self.sender, "suzuki", self.now)

    def fates(self, made: Plan, share: float, kinds: Sequence[Fate], first: int = 1) -> set[str]:
        """Make so many boxes bad, spread evenly over the rings from `first` on; which."""
        rng, bad = random.Random(4), set()
        for ring in made.rings[first:]:
            for n, box in enumerate(rng.sample(ring, round(share * len(ring)))):
                self.boxes[box].fate = kinds[n % len(kinds)]
                bad.add(box)
        return bad

    def run(self, seconds: float, every: float = 60.0) -> None:
        """Let time pass: boxes get what was let go, say what they came to, the rollout is looked at."""
        until = self.now + seconds
        while self.now < until:
            self.now += every
            self.pass_on()

    def pass_on(self) -> None:
        self.say_on()
        self.look()

    def say_on(self) -> None:
        """Boxes get what was let go, and say what they came to."""
        self.hand_over()
        said, gone = [], []
        for name, box in self.boxes.items():
            alive = box.alive
            said += self._send(name, box.tick(self.now))
            if alive and not box.alive:
                gone.append(name)
        self._deliver(said)
        self.lose(gone)

    def look(self) -> None:
        self.hear()
        self.step()

    def step(self) -> None:
        turn.step(self.database, self.sender, lambda: self.now)

    def hear(self) -> None:
        """The intake hears the broker."""
        if not self.deaf:
            with self.database.transaction() as db:
                db.execute(insert_new(db, PULSE), {"id": 1, "at": ""})
                db.execute(PULSE.update().values(at=utc.of_unix(self.now)))

    def hand_over(self) -> None:
        """What the broker would deliver: each job once."""
        with self.database.reading() as db:
            due = list(db.execute(due_jobs(int(self.now), 10_000)))
        away = self.deliver_nothing_to
        new = [row for row in due if (row.id, row.box) not in self._given and row.box not in away]
        if new:
            with self.database.transaction() as db:
                left = sa.tuple_(JOB_BOX.c.job, JOB_BOX.c.box).in_([(row.id, row.box) for row in new])
                db.execute(JOB_BOX.update().where(left).values(sent_at=utc.of_unix(self.now)))
        said = []
        for row in new:
            self._given.add((row.id, row.box))
            said += self._send(row.box, self.boxes[row.box].take(row.envelope, self.now))
        self._deliver(said)

    def say(self, what: turn.Wish, id_: str) -> Rollout:
        with self.database.transaction() as db:
            return turn.say(db, self.sender, id_, what, "tanaka", self.now)

    def rollout(self, id_: str) -> Rollout:
        with self.database.reading() as db:
            return turn.saved(turn.load(db, id_))

    def shown(self, id_: str) -> book.Shown:
        with self.database.reading() as db:
            return book.show(db, id_, self.sender)

    def is_truthful(self, made: Plan) -> None:
        is_truthful(self.shown(made.id), self.boxes, self.said)

    def asked(self) -> set[str]:
        return {box for _, box in self._given}

    def _send(self, name: str, said: list[events.Event]) -> list[tuple[str, bytes]]:
        if not said:
            return []
        jobs = [one for one in said if isinstance(one, events.Job)]
        states = [one.state if one.kind == "fw.activate" else f"fetch {one.state}" for one in jobs]
        message = self.boxes[name].batch(said)
        if name in self.late:
            self._spools.setdefault(name, []).append((states, message))
            return []
        self.said.setdefault(name, []).extend(states)
        return [message]

    def arrive(self, name: str) -> None:
        """What a box had in its spool, in its order."""
        self.late.discard(name)
        spool = self._spools.pop(name, [])
        self.said.setdefault(name, []).extend(state for states, _ in spool for state in states)
        self._deliver([message for _, message in spool])

    def _deliver(self, messages: Sequence[tuple[str, bytes]]) -> None:
        if messages:
            intake.take(self.store, [Message(*one) for one in messages], utc.of_unix(self.now))
