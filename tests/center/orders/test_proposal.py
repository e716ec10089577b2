"""An exception from an alert: this rule, this device, this destination; what strangers wrote becomes nothing else."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from sekisho.center.orders import proposal
from sekisho.center.orders.proposal import NoException, Wanted
from sekisho.policy import overlay
from sekisho.policy.overlay import EMPTY
from sekisho.telemetry.events import Alert, Event, FileVerdict, Flow, Health

MAC = "02:00:5e:00:53:01"
FLOW = Flow("192.168.1.10", 50000, "203.0.113.5", 443, "TCP", MAC)
UNTIL = dt.datetime(2031, 3, 31, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("alert", "wanted"),
    [
        (
            Alert(at="", flow=FLOW, function="url_category", policy="gambling", host="Bets.Example:8080"),
            Wanted("url_category", "gambling", 0, MAC, "bets.example"),
        ),
        (Alert(at="", flow=FLOW, sid=2027865, sni="c2.example"), Wanted("", "", 2027865, MAC, "c2.example")),
        (Alert(at="", flow=FLOW, sid=7, dns_name="日本語.example"), Wanted("", "", 7, MAC, "xn--wgv71a119e.example")),
        (Alert(at="", flow=FLOW, sid=7), Wanted("", "", 7, MAC, "203.0.113.5")),
        (Alert(at="", flow=FLOW, sid=7, host="203.0.113.5"), Wanted("", "", 7, MAC, "203.0.113.5")),
        (Alert(at="", flow=FLOW, sid=7, direction="in"), Wanted("", "", 7, MAC, "192.168.1.10")),
        (
            Alert(at="", flow=FLOW, function="firewall", policy="no-mail", host="a.example"),
            Wanted("firewall", "no-mail", 0, MAC, "203.0.113.5"),
        ),
    ],
)
def test_it_is_as_narrow_as_the_alert(alert: Alert, wanted: Wanted) -> None:
    assert proposal.from_event(alert) == wanted
    made = proposal.add(EMPTY, wanted, "仕事で使います", UNTIL)
    overlay.prove(made)
    assert [one.devices for one in made.group] == [(MAC,)]
    (one,) = made.exception
    assert one.expires == UNTIL and one.groups == (made.group[0].name,) and len(one.domains) + len(one.addresses) == 1


@pytest.mark.parametrize(
    "event",
    [
        FileVerdict(at="", outcome="blocked"), Health(at=""), Alert(at="", flow=FLOW),
        Alert(at="", flow=FLOW, function="known_file", policy="x"),
        Alert(at="", flow=FLOW, function="keyword", policy='x"; drop'),
    ],
)  # fmt: skip
def test_from_some_there_is_none(event: Event) -> None:
    assert proposal.from_event(event) is None


@pytest.mark.parametrize(
    "host", ["<script>", "a b.example", "x" * 70_000, "a\r\nb.example", "\u202eexample", "localhost"]
)
def test_a_hostile_name_leaves_the_address(host: str) -> None:
    assert proposal.from_event(Alert(at="", flow=FLOW, sid=7, host=host)) == Wanted("", "", 7, MAC, "203.0.113.5")


def test_a_masked_device_is_no_device() -> None:
    flow = msgspec.structs.replace(FLOW, mac="mac-abcdefghij")
    assert proposal.from_event(Alert(at="", flow=flow, sid=7)) == Wanted("", "", 7, "", "203.0.113.5")


@pytest.mark.parametrize(
    ("wanted", "reason", "field"),
    [
        (Wanted("keyword", "", 0, "", ""), "r", "too_wide"),
        (Wanted("keyword", "", 0, MAC, ""), "", "reason"),
        (Wanted("keyword", "", 0, MAC, ""), "   ", "reason"),
        (Wanted("keyword", "", 0, MAC, ""), "a\nb", "reason"),
        (Wanted("keyword", "", 0, MAC, ""), "x" * 201, "reason"),
        (Wanted("keyword", "", 0, "02:00", ""), "r", "device"),
        (Wanted("keyword", "", 0, "mac-abcdefghij", ""), "r", "device"),
        (Wanted("colour", "", 0, MAC, ""), "r", "what"),
        (Wanted("url_category", "no_such", 0, MAC, ""), "r", "what"),
        (Wanted("url_category", "a\n", 0, MAC, ""), "r", "what"),
        (Wanted("", "", 0, MAC, ""), "r", "what"),
        (Wanted("firewall", "x", 0, MAC, "a.example"), "r", "destination"),
        (Wanted("keyword", "", 0, "", "com"), "r", "destination"),
        (Wanted("keyword", "", 0, "", "no host"), "r", "destination"),
        (Wanted("keyword", "", 0, "", "a.example\n"), "", "reason"),
    ],
)
def test_what_cannot_be_used_is_named(wanted: Wanted, reason: str, field: str) -> None:
    with pytest.raises(NoException) as refused:
        proposal.add(EMPTY, wanted, reason, UNTIL)
    assert refused.value.field == field


def test_the_same_again_replaces_the_first_and_what_is_removed_leaves_no_group() -> None:
    one, two = Wanted("keyword", "", 0, MAC, "a.example"), Wanted("keyword", "", 0, MAC, "b.example")
    made = proposal.add(EMPTY, one, "first", UNTIL)
    made = proposal.add(made, one, "again", UNTIL + dt.timedelta(days=1))
    assert [entry.reason for entry in made.exception] == ["again"]
    made = proposal.add(made, two, "other", UNTIL)
    assert len(made.exception) == 2 and len(made.group) == 1
    made = proposal.remove(made, made.exception[0].id)
    assert len(made.group) == 1
    assert proposal.remove(made, made.exception[0].id) == EMPTY
