"""A job of operators has a box's key replaced: real centre, real broker, the box's own telemetry; the old one is kept
until the new one has connected.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.appliance.core import settings as box_settings
from sekisho.appliance.core.errors import PeerError
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.jobs import Job, sealed
from sekisho.center.database import Database
from sekisho.center.jobs import book
from sekisho.center.pki import create_ca, issue
from sekisho.portal_agent.jobs.facts import Progress
from sekisho.portal_agent.jobs.key_desk import Key
from sekisho.telemetry import rotation
from sekisho.telemetry.enrolment.due import due_file
from sekisho.telemetry.rotation import Rotation, Way, former_of

if TYPE_CHECKING:
    from tests.ca.conftest import Box, Centre

MakeBox = Callable[[str], "Box"]
MakeCentre = Callable[..., "Centre"]
QUICK = "import sys; from sekisho.telemetry import daemon, rotation; rotation.TRY_S = 15.0; sys.exit(daemon.main())"
_NUMBERS = itertools.count(1)


def job(box: str) -> Job:
    now = int(time.time())
    ident = f"01JD3Z9V7M2Q4W8X6Y{next(_NUMBERS):08}"
    return Job(id=ident, boxes=[box], kind="key.rotate", nbf=now - 60, exp=now + 3600)


class Site:
    """A centre and one enrolled box, whose telemetry runs."""

    def __init__(self, centre: Centre, box: Box) -> None:
        self.centre, self.box = centre, box
        assert box.enrol(centre.url, centre.code(box.root.name)).returncode == 0
        self.settings = box_settings.load(box.settings)
        self.desk = Key(self.settings)
        self.start()

    def start(self) -> None:
        argv = self.box.daemon()
        self.centre.run("box", [argv[0], "-I", "-c", QUICK, *argv[4:]])
        self.centre.wait(
            lambda: self.asks(lambda: self.desk.withdraw(job(self.box.root.name), "", "CANCELED")) == "", 120
        )

    def asks(self, question: Callable[[], Any]) -> Any:
        """None while nobody answers."""
        try:
            return question()
        except PeerError:
            return None

    def submit(self, made: Job) -> None:
        database = Database(str(self.centre.store))
        with database.transaction() as db:
            book.submit(db, sealed(made, [("tanaka", Ed25519PrivateKey.generate().private_bytes_raw())]))
        database.close()

    def ends(self, made: Job, mark: str) -> Progress:
        last: list[Progress] = []

        def over() -> bool:
            if (found := self.asks(lambda: self.desk.begin(made, mark))) is not None:
                last[:] = [found]
            return bool(last) and last[0].state in ("SUCCEEDED", "FAILED", "CANCELED")

        self.centre.wait(over, 180)
        return last[0]

    def certificates(self) -> list[dict[str, Any]]:
        return self.centre.say("certificates", "--box", self.box.root.name)

    def speaks(self, number: int) -> None:
        """The centre hears of what happens now."""
        self.box.alert(number)
        self.centre.wait(lambda: number in self.centre.sids(self.box.root.name), 180)


@pytest.fixture
def site(tmp_path: Path, make_centre: MakeCentre, make_box: MakeBox) -> Iterator[Site]:
    (tmp_path / "centre").mkdir()
    centre = make_centre(tmp_path / "centre")
    centre.start("ca", "web", "broker", "daemon")
    yield Site(centre, make_box("box-1"))
    centre.stop()


@pytest.mark.timeout(400)
def test_a_job_the_centre_knows_replaces_the_key_once_over_kills_and_the_box_goes_on_speaking(site: Site) -> None:
    site.speaks(1)
    unknown, mark = job("box-1"), site.desk.prepare(job("box-1"))
    assert site.ends(unknown, mark) == Progress("FAILED", "not_due"), "a box alone cannot have its key replaced early"
    before = site.box.serial()
    made = job("box-1")
    site.submit(made)
    for _ in range(3):
        site.asks(lambda: site.desk.begin(made, mark))
        site.centre.kill("box")
        site.start()
    assert site.ends(made, mark).state == "SUCCEEDED"
    assert site.box.serial() != before and len(site.certificates()) == 2
    assert not former_of(site.box.identity / "identity.pem").exists()
    site.speaks(2)
    for _ in range(3):
        assert site.desk.begin(made, mark).state == "SUCCEEDED"
    assert len(site.certificates()) == 2


def test_of_two_that_ask_for_one_job_one_gets_a_certificate(site: Site) -> None:
    """A daemon that was killed leaves the process that it started behind, and the next one starts another."""
    site.centre.kill("box")
    made, before = job("box-1"), rotation.fingerprint(site.box.identity / "identity.pem")
    site.submit(made)
    command = [sys.executable, "-I", "-m", "sekisho.telemetry.enrolment.box", "--settings", str(site.box.settings)]
    two = [subprocess.Popen([*command, "--job", made.id, "--was", before]) for _ in range(2)]
    assert [one.wait(60) for one in two] == [0, 0]
    assert len(site.certificates()) == 2
    assert rotation.fingerprint(former_of(site.box.identity / "identity.pem")) == before


@pytest.mark.timeout(400)
@pytest.mark.full
def test_a_new_key_that_does_not_connect_is_left_for_the_old_one_and_used_when_it_is_asked_for_again(
    site: Site,
) -> None:
    site.speaks(1)
    made, mark, before = job("box-1"), site.desk.prepare(job("box-1")), site.box.serial()
    site.submit(made)
    site.centre.kill("broker")
    assert site.ends(made, mark) == Progress("FAILED", "not_taken")
    assert site.box.serial() == before
    site.centre.start("broker")
    site.speaks(2)
    assert len(site.certificates()) == 2, "the centre gave one, and it waits"
    again = job("box-1")
    site.submit(again)
    assert site.ends(again, mark) == Progress("SUCCEEDED", pct=100)
    assert site.box.serial() != before and len(site.certificates()) == 2, "the same one"
    site.speaks(3)


class Died(BaseException):
    """kill -9."""


class Files:
    """An identity and the next one, without a centre; the process may die at each of its steps."""

    def __init__(self, root: Path, made: tuple[bytes, bytes], patch: pytest.MonkeyPatch, die_at: int) -> None:
        self.identity = root / "identity" / "identity.pem"
        self.identity.parent.mkdir(parents=True)
        self.old, self.new = made
        self.path = root / "rotation.json"
        self.identity.write_bytes(self.old)
        due_file(self.identity).write_bytes(b'{"renew_at":1.0,"life_s":9.0}')
        self.steps, self.die_at = 0, die_at
        unlink = Path.unlink

        def step() -> None:
            self.steps += 1
            if self.steps == self.die_at:
                raise Died

        def writes(path: Path, data: bytes, mode: int = 0o600) -> None:
            step()
            write_atomic(path, data, mode)
            step()

        def unlinks(path: Path, missing_ok: bool = False) -> None:
            step()
            unlink(path, missing_ok=missing_ok)

        self.write = writes
        patch.setattr(rotation, "write_atomic", writes)
        patch.setattr(Path, "unlink", unlinks)

    def grant(self) -> None:
        """As `IdentityFiles.adopt` does it, on trial."""
        former = former_of(self.identity)
        self.write(self.identity.with_name("next.key"), b"key")
        self.write(former.with_suffix(".json"), due_file(self.identity).read_bytes())
        self.write(former, self.identity.read_bytes())
        self.write(self.identity, self.new)
        self.write(due_file(self.identity), b'{"renew_at":5.0,"life_s":9.0}')


def _identity(ca: Path, name: str) -> bytes:
    made = issue(ca, name)
    return Path(made.cert).read_bytes() + Path(made.key).read_bytes()


@pytest.mark.parametrize("takes", [True, False], ids=["connects", "does not connect"])
def test_wherever_it_dies_one_of_the_two_is_whole_and_one_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes: bool
) -> None:
    create_ca(tmp_path / "ca")
    one, two = (_identity(tmp_path / "ca", name) for name in ("one", "two"))
    ident, states = "01JD3Z9V7M2Q4W8X6Y99999999", 0
    for die_at in itertools.count(1):
        with monkeypatch.context() as patch:
            files = Files(tmp_path / f"{takes}-{die_at}", (one, two), patch, die_at)
            mark, found, now = rotation.fingerprint(files.identity), None, 0.0
            for _ in range(60):
                now += 30
                try:
                    found = found or Rotation(files.path, files.identity)
                    list(found.answer(msgspec.json.encode(rotation.Rotate(ident, mark))))
                    if found.begin():
                        files.grant()
                        found.renewed()
                    if takes and files.identity.read_bytes() == two:
                        found.connected()
                    found.turn(now)
                except Died:
                    found = None
                assert files.identity.read_bytes() in (one, two), "neither is whole"
            assert found is not None
            (over,) = found._kept.over
            assert over == rotation.Over(ident, "succeeded" if takes else "failed", "" if takes else "not_taken")
            assert files.identity.read_bytes() == (two if takes else one)
            assert takes or due_file(files.identity).read_bytes().startswith(b'{"renew_at":1')
            assert found._kept.way is None and not former_of(files.identity).exists()
        if files.steps < die_at:
            break
        states += 1
    assert states >= 10


def test_what_was_asked_is_taken_back_until_the_centre_is_asked(tmp_path: Path) -> None:
    identity = tmp_path / "identity.pem"
    identity.write_bytes(b"")
    found = Rotation(tmp_path / "rotation.json", identity)
    ident = "01JD3Z9V7M2Q4W8X6Y99999999"
    ask = msgspec.json.encode(rotation.Rotate(ident, ""))
    withdraw = msgspec.json.encode(rotation.Withdraw(ident))
    list(found.answer(ask))
    assert found._kept.way == Way(ident, was=rotation.fingerprint(identity))
    list(found.answer(withdraw))
    assert found._kept.way is None and found._kept.over[0].state == "canceled" and not found.begin()
    other = Rotation(tmp_path / "other.json", identity)
    list(other.answer(ask))
    asked = other.begin()
    assert asked is not None and asked.job == ident
    list(other.answer(withdraw))
    assert other._kept.way == asked, "the centre is being asked"


def test_a_key_that_was_replaced_meanwhile_is_not_replaced_again(tmp_path: Path) -> None:
    create_ca(tmp_path / "ca")
    identity = tmp_path / "identity.pem"
    identity.write_bytes(_identity(tmp_path / "ca", "one"))
    found, ident = Rotation(tmp_path / "rotation.json", identity), "01JD3Z9V7M2Q4W8X6Y99999999"
    list(found.answer(msgspec.json.encode(rotation.Rotate(ident, rotation.fingerprint(identity)))))
    assert found.begin() is not None
    identity.write_bytes(_identity(tmp_path / "ca", "two"))
    assert not found.renewed()
    assert found._kept == rotation.Kept(None, (rotation.Over(ident, "succeeded"),)) and found.begin() is None
