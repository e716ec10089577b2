"""What signing in keeps in the database, on both databases, and with several portals at once."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pyotp
import pytest

from sekisho.center.database import Database
from sekisho.center.portal import accounts, audit, sessions
from sekisho.center.portal.access import factors, known, onetime, passkeys, passwords, throttle
from sekisho.center.portal.access.signing_in import Browser, Opened, Second, SignIn, Wait
from sekisho.center.scope import EVERYONE, only

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
LOGIN, GOOD = "aoki@example.com", "ao-neko no kasa 7"
HOME = Browser("192.0.2.1", "Firefox", "", "")


@pytest.fixture
def database(store_url: str) -> Iterator[Database]:
    made = Database(store_url)
    yield made
    made.close()


@pytest.fixture
def account(database: Database) -> str:
    with database.transaction() as db:
        made = accounts.make(db, LOGIN, "admin", tenant="t1", now=NOW)
        passwords.set_password(db, made, passwords.hashed(GOOD), NOW)
    return made


def test_signing_in_by_password_and_code(database: Database, account: str) -> None:
    signing = SignIn(database)
    opened = signing.password(LOGIN, GOOD, HOME, "/", NOW)
    assert isinstance(opened, Opened) and not opened.enrol
    with database.transaction() as db:
        secret = factors.offer(db, account, NOW)
        assert factors.prove(db, account, pyotp.TOTP(secret).at(NOW), NOW)
        codes = factors.new_recovery_codes(db, account)
    later = NOW + dt.timedelta(minutes=1)
    step = signing.password(LOGIN, GOOD, HOME, "/alerts", later)
    assert isinstance(step, Second)
    found = signing.second(step.secret, pyotp.TOTP(secret).at(later), HOME, later)
    assert isinstance(found, tuple) and found[1:] == ("/alerts", "code")
    step = signing.password(LOGIN, GOOD, HOME, "/", later)
    assert isinstance(step, Second)
    assert signing.second(step.secret, pyotp.TOTP(secret).at(later), HOME, later) is None
    found = signing.second(step.secret, codes[3], HOME, later)
    assert isinstance(found, tuple) and found[2] == "recovery"
    with database.reading() as db:
        who = sessions.find(db, found[0].session, later)
        assert who is not None and who.scope == only("t1")
        assert [row.action for row in audit.of(db, EVERYONE)] == [
            "session.recovery",
            "session.code",
            "session.password",
        ]
        assert audit.of(db, only("t2")) == []


def test_many_guesses_at_once_are_no_more_than_one_after_the_other(database: Database, account: str) -> None:
    def guess(number: int) -> bool:
        with database.transaction() as db:
            return throttle.take(db, NOW, throttle.key("login", LOGIN, throttle.OF_ACCOUNT)) == 0

    with ThreadPoolExecutor(8) as threads:
        allowed = sum(threads.map(guess, range(24)))
    assert allowed == throttle.OF_ACCOUNT.free + 1


def test_one_code_opens_once_however_many_send_it_at_once(database: Database, account: str) -> None:
    with database.transaction() as db:
        secret = factors.offer(db, account, NOW)
        factors.prove(db, account, pyotp.TOTP(secret).at(NOW), NOW)
    later = NOW + dt.timedelta(minutes=5)
    code = pyotp.TOTP(secret).at(later)

    def send(_: int) -> bool:
        with database.transaction() as db:
            return factors.take_code(db, account, code, later)

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(send, range(16))) == 1


def test_one_link_is_used_once_however_many_use_it_at_once(database: Database, account: str) -> None:
    with database.transaction() as db:
        token = onetime.make(db, account, "password", NOW).rpartition("/")[2]

    def use(_: int) -> bool:
        with database.transaction() as db:
            return onetime.use(db, token, NOW)

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(use, range(16))) == 1


def test_a_wrong_password_waits_and_the_known_browser_does_not(database: Database, account: str) -> None:
    signing = SignIn(database)
    opened = signing.password(LOGIN, GOOD, HOME, "/", NOW)
    assert isinstance(opened, Opened)
    elsewhere = Browser("198.51.100.7", "", "", "")
    found = [signing.password(LOGIN, "guess", elsewhere, "/", NOW) for _ in range(8)]
    assert found[:6] == [None] * 6 and isinstance(found[6], Wait)
    assert isinstance(signing.password(LOGIN, GOOD, HOME, "/", NOW), Wait), "at home, in another browser"
    mine = Browser("192.0.2.1", "Firefox", "", opened.known)
    assert isinstance(signing.password(LOGIN, GOOD, mine, "/", NOW), Opened)


def test_browsers_are_remembered_up_to_a_number(database: Database, account: str) -> None:
    with database.transaction() as db:
        for number in range(known.OF_ACCOUNT_CAP + 5):
            newest = known.remember(db, account, NOW + dt.timedelta(seconds=number))
        count = len(db.execute(known.KNOWN.select()).all())
        assert count == known.OF_ACCOUNT_CAP
        limit = known.limit(db, newest, account, LOGIN, NOW)
    assert limit[0].startswith("known:")


def test_a_removed_account_leaves_nothing_that_opens(database: Database, account: str) -> None:
    with database.transaction() as db:
        secret = sessions.begin(db, account, NOW)
        who = sessions.find(db, secret, NOW)
        assert who is not None
        factors.offer(db, account, NOW)
        factors.new_recovery_codes(db, account)
        known.remember(db, account, NOW)
        onetime.make(db, account, "password", NOW)
        key = {"credential": "c", "id": "i", "account": account, "public_key": b"k", "sign_count": 0}
        db.execute(passkeys.PASSKEY.insert().values(**key, name="", made_at="", used_at=""))
        accounts.remove(db, account)
        for table in (sessions.SESSION, factors.TOTP, factors.RECOVERY, known.KNOWN, onetime.ONETIME, passkeys.PASSKEY):
            assert not db.execute(table.select()).all(), table.name
        assert not db.execute(passwords.PASSWORD.select()).all()
        assert sessions.find(db, secret, NOW) is None


def test_a_session_is_ended_by_its_short_name(database: Database, account: str) -> None:
    with database.transaction() as db:
        mine, other = sessions.begin(db, account, NOW), sessions.begin(db, account, NOW)
        who = sessions.find(db, mine, NOW)
        assert who is not None and sessions.end_one(db, who, sessions.digest(other)[:16])
        assert [row.digest for row in sessions.of_account(db, account, NOW)] == [who.session]
        newer = sessions.renew(db, who, NOW)
        assert sessions.find(db, mine, NOW) is None
        found = sessions.find(db, newer, NOW)
        assert found is not None and found.csrf != who.csrf
