"""The relay before a real server: nothing without TLS and the right name, every answer understood, no hang for ever."""

from __future__ import annotations

import datetime as dt
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from post_office import MailServer, Office, alert

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import tenants
from sekisho.center.notify import notices, smtp
from sekisho.center.notify.sender import Sender
from sekisho.center.notify.smtp import Deferred, Refused, Relay, Unreachable
from sekisho.center.settings import Notify

MAIL = b"From: a@centre.example\r\nSubject: x\r\n\r\n.a line that begins with a dot\r\n"


@pytest.fixture
def config(office: Office) -> Notify:
    return office.config()


def send(config: Notify) -> str:
    relay = Relay(config)
    try:
        return relay.send("owner@shop.example", MAIL)
    finally:
        relay.close()


def test_a_mail_arrives_as_it_was_over_tls_with_a_login(config: Notify, server: MailServer) -> None:
    assert send(config) == "250 taken"
    assert server.mails == [("owner@shop.example", MAIL.replace(b"\r\n.a", b"\r\n.a"))]


def test_a_connection_is_kept_for_the_next_mail(config: Notify, server: MailServer) -> None:
    relay = Relay(config)
    for _ in range(5):
        relay.send("owner@shop.example", MAIL)
    relay.close()
    assert (len(server.mails), server.connections) == (5, 2), "one EHLO before STARTTLS, one after"


def test_a_connection_the_server_has_dropped_is_made_anew(config: Notify, server: MailServer) -> None:
    relay = Relay(config)
    relay.send("owner@shop.example", MAIL)
    server.stop()
    server.start()
    relay.send("owner@shop.example", MAIL)
    relay.close()
    assert len(server.mails) == 2


@pytest.mark.parametrize(
    ("does", "error"),
    [
        ("451 4.7.1 later", Deferred),
        ("550 5.1.1 nobody", Refused),
        ("421 4.3.2 going down", Unreachable),
        ("data 452 4.3.1 full", Deferred),
        ("data 554 5.7.1 spam", Refused),
        ("die", Unreachable),
    ],
)
def test_every_answer_is_understood(config: Notify, server: MailServer, does: str, error: type[Exception]) -> None:
    server.behave.append(does)
    relay = Relay(config)
    with pytest.raises(error) as caught:
        relay.send("owner@shop.example", MAIL)
    assert type(caught.value) is error
    assert relay.send("owner@shop.example", MAIL) == "250 taken", "the next mail is not hurt"
    relay.close()


def test_an_answer_is_kept_as_one_harmless_line(config: Notify, server: MailServer) -> None:
    server.behave.append("550-5.1.1 \x1b[2Jnobody\r\n550 here")
    with pytest.raises(Refused) as caught:
        send(config)
    assert str(caught.value) == "550 5.1.1 [2Jnobody here"


def test_a_server_without_tls_gets_neither_password_nor_mail(config: Notify, server: MailServer) -> None:
    server.stop()
    server.start(auth=False, starttls=False)
    with pytest.raises(Unreachable, match="STARTTLS"):
        send(config)
    assert server.mails == []


def test_a_server_with_another_name_gets_neither_password_nor_mail(config: Notify, authority: Path) -> None:
    other = MailServer(authority, name="evil.example")
    other.start()
    try:
        with pytest.raises(Unreachable, match="certificate"):
            send(msgspec.structs.replace(config, smtp_port=other.port))
        assert other.mails == []
    finally:
        other.stop()


def test_a_server_nobody_vouches_for_gets_nothing(config: Notify, server: MailServer) -> None:
    with pytest.raises(Unreachable, match="certificate"):
        send(msgspec.structs.replace(config, ca=""))
    assert server.mails == []


def test_a_wrong_password_is_about_us_and_not_about_the_mail(config: Notify, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("wrong")
    with pytest.raises(Unreachable, match="535") as caught:
        send(config)
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [{"sender": ""}, {"security": "none"}, {"ca": "/nowhere"}, {"password_file": "/nowhere"}],
)
def test_settings_that_cannot_work_are_refused_at_once(config: Notify, change: dict[str, str]) -> None:
    with pytest.raises(RejectedInput):
        Relay(msgspec.structs.replace(config, **change))


def test_a_password_that_others_can_read_is_refused(config: Notify, tmp_path: Path) -> None:
    (tmp_path / "password").chmod(0o640)
    with pytest.raises(RejectedInput, match="chmod 600"):
        Relay(config)


def test_a_server_that_hangs_is_left(config: Notify, server: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "COMMAND_S", 0.5)
    server.behave.append("hang")
    with pytest.raises(Unreachable):
        send(config)


@pytest.fixture
def dripping() -> Iterator[int]:
    """The port of a server that never ends its greeting: a byte now and then."""
    listener = socket.create_server(("localhost", 0))
    stop = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"220-")
            while not stop.wait(0.1):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    thread = threading.Thread(target=drip)
    thread.start()
    yield listener.getsockname()[1]
    stop.set()
    thread.join(5)
    listener.close()


def test_a_server_that_drips_is_left(config: Notify, dripping: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "ATTEMPT_S", 1.0)
    began = time.monotonic()
    with pytest.raises(Unreachable):
        send(msgspec.structs.replace(config, smtp_port=dripping))
    assert time.monotonic() - began < 10


def test_a_recipient_at_whom_the_server_breaks_off_holds_up_nobody_else(office: Office, server: MailServer) -> None:
    server.cuts.add("owner@shop.example")
    with office.database.transaction() as db:
        tenants.save(db, tenants.Tenant("t2", threshold=1, recipients=("other@shop.example",)))
    office.add(*[alert(number) for number in range(4)])
    office.add(*[alert(number, stars=1) for number in range(3)], tenant="t2", box="box-2")
    at = dt.datetime.now(dt.UTC)
    notices.plan(office.database, at)
    sender = Sender(office.config(), office.url, lambda: at)
    for _ in range(16):
        sender.step()
        at += dt.timedelta(seconds=30)
    assert [to for to, _ in server.mails] == ["other@shop.example"] * 3
    assert {mail.state for mail in office.mails(tenant="t1")} == {"due"}


def test_an_attempt_is_over_before_its_claim() -> None:
    from sekisho.center.notify.queue import LEASE_S

    assert smtp.ATTEMPT_S + smtp.COMMAND_S < LEASE_S
