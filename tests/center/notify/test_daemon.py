"""The daemon with a real database and a real mail server: what is important arrives in seconds, whatever dies."""

from __future__ import annotations

import signal
import time

import pytest
from post_office import MailServer, Office, alert, text_of

from sekisho.appliance import cli
from sekisho.telemetry.events import Device


def test_an_important_alert_arrives_in_seconds_over_a_connection_that_is_kept(
    office: Office, server: MailServer
) -> None:
    office.start()
    office.add(alert(1))
    server.wait(1)
    times = []
    for number in range(2, 9):
        began = time.monotonic()
        office.add(alert(number))
        mails = server.wait(number)
        times.append(time.monotonic() - began)
    assert max(times) < 5
    assert all(str(mail["Subject"]).startswith("【重要】★★★ ") for mail in mails)
    assert {str(mail["To"]) for mail in mails} == {"owner@shop.example"}
    assert server.connections <= 4, "two senders, one EHLO before and one after STARTTLS"
    office.wait(lambda: {mail.state for mail in office.mails()} == {"sent"})


def test_repeats_are_not_mailed_and_less_important_things_wait(office: Office, server: MailServer) -> None:
    office.start()
    office.add(*[alert(1)] * 50, alert(2, stars=2), alert(3))
    mails = server.wait(2)
    office.wait(lambda: len(office.mails(state="sent")) == 2)
    assert len(mails) == 2
    assert "rule 3" in text_of(mails[1]) or "rule 3" in text_of(mails[0])


def test_the_device_has_the_name_the_box_knows(office: Office, server: MailServer) -> None:
    office.add(Device(at="2026-01-02T03:04:05Z", mac="00:11:22:33:44:55", name="REGI-1", kind="computer"), alert(1))
    office.start()
    (mail,) = server.wait(1)
    assert "パソコン「REGI-1」 192.168.1.23" in text_of(mail)


def test_greylisting_delays_one_mail_and_no_other(office: Office, server: MailServer) -> None:
    server.behave.append("451 4.7.1 Greylisted, try again later")
    office.start()
    office.add(alert(1))
    office.wait(lambda: office.mails()[0].reply.startswith("451") if office.mails() else False)
    office.add(alert(2))
    server.wait(1)
    (first,) = office.mails(state="due")
    assert first.due_at > first.created_at
    office.make_due(first.id)
    assert len(server.wait(2)) == 2


def test_a_refusal_for_good_is_shown_and_told_to_the_staff(
    office: Office, server: MailServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.behave.append("550 5.1.1 No such user")
    office.start()
    office.add(alert(1))
    (told,) = server.wait(1)
    assert told["To"] == "staff@centre.example"
    assert "owner[at]shop[.]example" in text_of(told)
    (failed,) = office.mails(state="failed")
    assert (failed.recipient, failed.reply) == ("owner@shop.example", "550 5.1.1 No such user")
    assert cli.main(["center", "mails", "--failed", f"--store={office.url}"]) == 1
    assert "550 5.1.1 No such user" in capsys.readouterr().out


@pytest.mark.parametrize("does", ["die", "data 451 4.3.0 full"])
def test_a_mail_the_server_did_not_take_is_sent_again(office: Office, server: MailServer, does: str) -> None:
    server.behave.append(does)
    office.start()
    office.add(alert(1))
    office.wait(lambda: office.mails() and office.mails()[0].reply)
    office.make_due()
    server.wait(1)
    office.wait(lambda: office.mails()[0].state == "sent")


def test_what_may_have_arrived_is_sent_again_under_the_same_name(office: Office, server: MailServer) -> None:
    server.behave.append("lose")
    office.start()
    office.add(alert(1))
    first, second = server.wait(2)
    assert first["Message-ID"] == second["Message-ID"]
    assert first["Date"] == second["Date"]
    assert text_of(first) == text_of(second)


def test_killed_at_any_moment_it_loses_no_mail(office: Office, server: MailServer) -> None:
    for number in range(1, 9):
        office.start()
        office.add(alert(number))
        if number % 2:
            server.wait(number // 2 + 1)
        office.kill()
    office.make_due()
    office.start()
    office.wait(lambda: len(office.mails(state="sent")) == 8)
    assert len({str(mail["Message-ID"]) for mail in server.wait(8)}) == 8


def test_two_daemons_share_the_work_and_double_none(office: Office, server: MailServer) -> None:
    office.tenant(mails_per_hour=60)
    office.start()
    office.start()
    for number in range(40):
        office.add(alert(number))
    server.wait(40)
    office.wait(lambda: len(office.mails(state="sent")) == 40)
    assert len(server.mails) == 40


def test_a_server_that_is_away_is_waited_for(office: Office, server: MailServer) -> None:
    server.stop()
    office.start()
    office.add(alert(1), alert(2))
    office.wait(lambda: office.mails() and any(mail.reply for mail in office.mails()))
    server.start()
    server.wait(2)
    assert "cannot be used" in office.log()


def test_it_ends_when_it_is_asked_to(office: Office, server: MailServer) -> None:
    process = office.start()
    office.add(alert(1))
    server.wait(1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
