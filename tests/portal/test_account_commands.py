"""`sekisho center account`: the first operator, and the way back in when nobody has one any more."""

from __future__ import annotations

import argparse
import datetime as dt
import io
import json
import re
from typing import get_args

import pytest
import sqlalchemy as sa
from office import US, Office

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import account_commands, commands
from sekisho.center.portal import accounts, audit
from sekisho.center.portal.access import factors, passkeys, passwords
from sekisho.center.portal.rendering import COOKIE
from sekisho.center.portal.rights import Role

NOW = dt.datetime.now(dt.UTC)
LOGIN, GOOD = "chief@example.com", "ao-neko no kasa 7"


def test_the_command_line_knows_every_role() -> None:
    assert account_commands.ROLES == get_args(Role)


def run(office: Office, *argv: str) -> int:
    parser = argparse.ArgumentParser()
    commands.register(parser.add_subparsers())
    args = parser.parse_args(["center", "account", *argv, "--store", str(office.path)])
    return int(args.func(args))


def test_the_first_operator_comes_in_by_the_link_that_is_printed(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(office, "add", LOGIN, "--role", "operator", "--origin", "https://portal.example") == 0
    link = capsys.readouterr().out.strip()
    assert link.startswith("https://portal.example/welcome/")
    client = office.anonymous()
    answer = client.submit(link.removeprefix("https://portal.example"), password=GOOD, again=GOOD, name="長")
    assert answer.headers["location"] == "/account/second" and COOKIE in answer.headers["set-cookie"]


def test_a_password_from_standard_input_makes_an_account_that_works(
    office: Office, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(GOOD + "\n"))
    assert run(office, "add", LOGIN, "--role", "admin", "--tenant", US, "--password-stdin") == 0
    assert not capsys.readouterr().out
    assert office.anonymous().submit("/login", login=LOGIN, password=GOOD).status_code == 303


def test_a_weak_password_and_a_role_that_does_not_fit_are_refused(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("password1234\n"))
    with pytest.raises(RejectedInput, match="guessed"):
        run(office, "add", LOGIN, "--role", "operator", "--password-stdin")
    for wrong in (["--role", "admin"], ["--role", "operator", "--tenant", US], ["--role", "reseller"]):
        with pytest.raises(RejectedInput, match="customer"):
            run(office, "add", LOGIN, *wrong)
    for login in ("no address", "a@b", "x" * 300 + "@example.com", "a@example.com\nbcc: b@example.com"):
        with pytest.raises(RejectedInput, match="mail address"):
            run(office, "add", login, "--role", "operator")
    run(office, "add", LOGIN, "--role", "operator")
    with pytest.raises(RejectedInput, match="already"):
        run(office, "add", LOGIN.upper(), "--role", "helpdesk")


def test_accounts_are_listed_and_closed_with_all_that_opens_by_them(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    client = office.client("member", US)
    with office.store.transaction() as db:
        row = db.execute(sa.select(accounts.ACCOUNT)).one()
        passwords.set_password(db, row.id, "x", NOW)
        factors.offer(db, row.id, NOW)
        factors.new_recovery_codes(db, row.id)
    assert run(office, "list", "--json") == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown == {
        "login": row.login,
        "role": "member",
        "of": US,
        "state": "active",
        "second_factor": False,
        "name": row.login,
    }
    assert run(office, "list") == 0 and row.login in capsys.readouterr().out
    assert run(office, "close", row.login) == 0
    assert client.get("/account").url.path == "/login"
    with office.store.database.reading() as db:
        for table in (accounts.ACCOUNT, passwords.PASSWORD, factors.TOTP, factors.RECOVERY):
            assert not db.execute(sa.select(table)).all(), table
        assert db.execute(sa.select(audit.AUDIT.c.action, audit.AUDIT.c.login)).all() == [
            ("member.close", "sekisho center account")
        ]
    with pytest.raises(RejectedInput, match="no account"):
        run(office, "close", row.login)


def test_a_reset_takes_second_factors_away_and_gives_a_link(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    client = office.client("operator")
    with office.store.transaction() as db:
        row = db.execute(sa.select(accounts.ACCOUNT)).one()
        factors.offer(db, row.id, NOW)
        db.execute(factors.TOTP.update().values(confirmed_at="2026-01-01T00:00:00.000000Z"))
    assert run(office, "reset", row.login) == 0
    assert re.fullmatch(r"/welcome/[\w-]{43}\n", capsys.readouterr().out)
    assert client.get("/account").url.path == "/login"
    with office.store.database.reading() as db:
        assert not factors.of_account(db, row.id).any and not passkeys.count(db, row.id)
