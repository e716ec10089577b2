"""From an operator's key to a box and back: signed off line, sent until it is answered, shown as the box tells it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from signing import SATO, STRANGER, TANAKA, job, signed

from sekisho.appliance import cli
from sekisho.appliance.core import settings as box_settings
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.jobs import Believed, Job
from sekisho.center import pki
from sekisho.center.ca.tables import BOX_IDENTITY
from sekisho.center.database import Database
from sekisho.center.jobs import book
from sekisho.center.jobs.__main__ import NEVER_AGAIN
from sekisho.center.jobs.book import BoxState
from sekisho.center.jobs.tables import JOB_BOX
from sekisho.telemetry import events


class Way:
    """The test site, with the box's jobs daemon and the centre's sender."""

    def __init__(self, site) -> None:  # type: ignore[no-untyped-def]  # the fixture's class lives in a conftest
        self.site = site
        own = pki.issue(site.pki, "jobs")
        with site.center_toml.open("a") as config:
            config.write(f'[jobs]\ncert = "{own.cert}"\nkey = "{own.key}"\n')
        with site.box_toml.open("a") as config:
            config.write('[signatures]\nchannel = "https://updates.example"\n')
        self.settings = box_settings.load(site.box_toml)
        self.settings.operators.parent.mkdir(parents=True)
        listed = Believed(operators=[TANAKA.operator, SATO.operator], expires=time.time() + 86_400, at=time.time() - 60)
        self.settings.operators.write_bytes(msgspec.json.encode(listed))
        self.database = Database(site.store_url)
        with self.database.transaction() as db:
            db.execute(BOX_IDENTITY.insert().values(box="box-1", tenant="t1", state="active", changed_at=""))

    def start(self, *names: str) -> None:
        modules = {"sender": ("sekisho.center.jobs", self.site.center_toml),
                   "jobs": ("sekisho.portal_agent.jobs.daemon", self.site.box_toml)}  # fmt: skip
        for name in names:
            if name not in modules:
                self.site.start(name)
                continue
            module, path = modules[name]
            argv = [sys.executable, "-I", "-m", module, "--settings", str(path)]
            with (self.site.root / f"{name}.log").open("ab") as log:
                self.site.processes[name] = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)

    def submit(self, envelope: bytes, *, hold: bool = False) -> str:
        with self.database.transaction() as db:
            return book.submit(db, envelope, by="test", hold=hold).id

    def state(self, ident: str) -> BoxState:
        with self.database.reading() as db:
            return book.states(db, ident)["box-1"]

    def wait(self, ident: str, *states: str) -> BoxState:
        self.site.wait(lambda: self.state(ident).state in states)
        return self.state(ident)

    def aside(self) -> set[str]:
        """What the sender does not look at any more."""
        with self.database.reading() as db:
            return set(db.scalars(sa.select(JOB_BOX.c.job).where(JOB_BOX.c.next_at == NEVER_AGAIN)))

    def told(self, ident: str) -> list[events.Job]:
        every = (events.decode(bytes(stored.event)) for stored in self.site.events())
        return [one for one in every if isinstance(one, events.Job) and one.id == ident]


@pytest.fixture
def way(site) -> Iterator[Way]:  # type: ignore[no-untyped-def]
    made = Way(site)
    with closing(made.database):
        yield made


def now_job(kind: str = "time.set", **changes: object) -> Job:
    now = int(time.time())
    values: dict[str, object] = {"nbf": now - 60, "exp": now + 3600, "args": {"time": str(now)}, **changes}
    return job(kind, **values)


@pytest.mark.protocol("P56")
def test_a_job_waits_for_a_box_that_is_away_and_survives_a_broker_that_forgets(way: Way) -> None:
    first = way.submit(signed(now_job()))
    assert way.state(first).state == "WAITS"
    way.start("broker", "center", "sender")
    way.site.wait(lambda: way.state(first).state == "SENT")
    way.start("box", "jobs")  # the broker had it, kept nothing for a box that never was here, and it comes again
    done = way.wait(first, "SUCCEEDED")
    assert done.signers == "tanaka" and done.ver == 3
    for name in ("broker", "jobs"):
        way.site.kill(name)
    way.site.forget()
    second = way.submit(signed(now_job()))
    way.start("broker")
    way.site.wait(lambda: (way.settings.jobs_inbox / second).exists())
    way.site.wait(lambda: way.state(second).state == "SENT")
    way.start("jobs")
    way.wait(second, "SUCCEEDED")
    assert [one.state for one in way.told(second)] == ["RECEIVED", "ACCEPTED", "SUCCEEDED"]
    assert not (way.settings.jobs_inbox / second).exists()
    way.site.kill("sender")
    way.start("sender")
    way.site.wait(lambda: way.aside() == {first, second})


@pytest.mark.protocol("P57")
def test_what_nobody_who_may_has_signed_is_shown_as_refused_and_not_as_done(way: Way) -> None:
    way.start("broker", "center", "sender", "box", "jobs")
    made = now_job()
    forged = way.submit(signed(made, STRANGER))
    way.site.wait(lambda: way.state(forged).refused == "signature")
    assert way.state(forged).state == "SENT" and [one.stars for one in way.told(forged)] == [2]
    way.submit(signed(made, TANAKA))  # the true signature, under the same name
    assert way.wait(forged, "SUCCEEDED").signers == "tanaka"


def test_what_is_held_does_not_leave_and_what_is_canceled_is_taken_back_by_a_signed_job(way: Way) -> None:
    way.start("broker", "center", "sender", "box", "jobs")
    later = now_job(nbf=int(time.time()) + 1800, args={"time": str(int(time.time()) + 1800)})
    held, sent = way.submit(signed(now_job()), hold=True), way.submit(signed(later))
    way.wait(sent, "WAITING")
    assert way.state(held).state == "HELD"
    with way.database.transaction() as db:
        assert book.cancel(db, held) == [] and book.cancel(db, sent) == ["box-1"]
    assert way.state(held).state == "CANCELED" and way.state(sent).why == "not_before"
    taken = way.submit(signed(now_job("job.cancel", args={"job": sent})))
    way.wait(taken, "SUCCEEDED")
    assert way.wait(sent, "CANCELED").by == f"job {taken}"


def test_the_commands_make_a_key_sign_cosign_and_submit(
    way: Way, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*argv: str, ok: int = 0) -> str:
        assert cli.main(["center", "jobs", *argv]) == ok
        return capsys.readouterr().out

    keys = [tmp_path / "a.key", tmp_path / "b.key"]
    public = [run("key", "new", "--out", str(key), "--name", key.stem) for key in keys]
    assert all(key.stat().st_mode & 0o777 == 0o600 for key in keys) and '"name":"a"' in public[0]
    run("key", "new", "--out", str(keys[0]), "--name", "a", ok=2)
    made, both = tmp_path / "job.json", tmp_path / "both.json"
    run("sign", "--key", str(keys[0]), "--kind", "quarantine.release", "--box", "box-1", "--arg", "entry=e1",
        "--arg", "reason=asked", "--out", str(made))  # fmt: skip
    run("cosign", "--key", str(keys[1]), str(made), "--out", str(both))
    job_, envelope = book.read(both.read_bytes())
    assert [one.keyid for one in envelope.signatures] == ["a", "b"] and job_.args["reason"] == "asked"
    store = ("--store", way.site.store_url)
    ident = run("submit", str(both), "--hold", *store).strip()
    assert ident in run("list", *store) and "HELD" in run("show", ident, *store)
    run("sign", "--key", str(keys[0]), "--kind", "time.set", "--box", "box-1", "--hours", "9999", ok=2)
    keys[0].chmod(0o644)
    run("sign", "--key", str(keys[0]), "--kind", "time.set", "--box", "box-1", ok=2)


def test_a_job_for_a_box_of_nobody_or_one_that_is_over_is_not_kept(way: Way) -> None:
    for made in (now_job(boxes=["box-9"]), now_job(nbf=1000, exp=2000)):
        with pytest.raises(RejectedInput), way.database.transaction() as db:
            book.submit(db, signed(made))
    with way.database.reading() as db:
        assert book.jobs(db) == []


def test_a_silent_box_is_shown_as_such_and_its_later_word_counts(way: Way) -> None:
    made = now_job()
    ident = way.submit(signed(made))
    late = made.exp + book.GRACE_S + 1
    with way.database.reading() as db:
        found = book.states(db, ident, late)["box-1"]
    assert (found.state, found.why) == ("TIMED_OUT", "silent")
    way.start("broker", "center", "sender", "box", "jobs")
    way.wait(ident, "SUCCEEDED")
    with way.database.reading() as db:
        assert book.states(db, ident, late)["box-1"].state == "SUCCEEDED"
