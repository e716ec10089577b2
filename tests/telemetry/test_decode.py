"""EVE lines become events, None or RejectedInput; nothing private survives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.appliance.core.errors import RejectedInput
from sekisho.telemetry import events
from sekisho.telemetry.decode import LINE_CAP, decode_eve, decode_journal
from sekisho.telemetry.events import Alert, Dns, FileVerdict, Flow, Mail, Tls, Web
from sekisho.telemetry.inventory import Inventory
from sekisho.telemetry.privacy import LIST_CAP, STRING_CAP, URL_CAP, mask_url, tidy

NOBODY = Inventory(Path("/nonexistent"))
BASE = {
    "timestamp": "2026-11-21T15:04:05.123456+0900",
    "src_ip": "10.77.0.10",
    "src_port": 40000,
    "dest_ip": "10.77.0.1",
    "dest_port": 80,
    "proto": "TCP",
}


def eve(event_type: str, **more: Any) -> bytes:
    return json.dumps({**BASE, "event_type": event_type, **more}).encode()


def test_an_alert_carries_what_the_centre_needs() -> None:
    event = decode_eve(
        eve(
            "alert",
            app_proto="http",
            alert={
                "signature_id": 9000100,
                "rev": 3,
                "signature": "C2",
                "category": "Domain Observed Used for C2 Detected",
                "severity": 1,
                "action": "blocked",
            },
            http={"hostname": "c2.example", "url": "/in?id=7"},
            files=[{"filename": "a.exe"}],
        ),
        NOBODY,
    )
    assert event == Alert(
        at="2026-11-21T06:04:05.123456Z",
        flow=Flow("10.77.0.10", 40000, "10.77.0.1", 80, "TCP"),
        sid=9000100,
        rev=3,
        signature="C2",
        category="Domain Observed Used for C2 Detected",
        stars=3,
        why_stars="calls_out",
        severity=1,
        action="blocked",
        app="http",
        url="/in?id=…",
        host="c2.example",
        file_name="a.exe",
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (eve("http", http={"hostname": "h", "url": "/x", "http_method": "GET", "status": 200, "length": 5}), Web),
        (eve("tls", tls={"sni": "s.example", "version": "TLS 1.3"}), Tls),
        (eve("quic", quic={"sni": "q.example", "version": "1"}), Tls),
        (eve("dns", dns={"type": "query", "rrname": "d.example", "rrtype": "A"}), Dns),
        (eve("dns", dns={"type": "request", "queries": [{"rrname": "d.example", "rrtype": "A"}]}), Dns),
        (eve("smtp", smtp={"mail_from": "<a@b.example>", "rcpt_to": ["<c@d.example>"]}), Mail),
        (eve("dns", dns={"type": "answer", "rrname": "d.example"}), type(None)),
        (eve("stats"), type(None)),
        (eve("http"), type(None)),
        (eve("alert", alert={"signature_id": 9000001}), type(None)),
        (eve("alert", alert={"signature_id": 9000099}), type(None)),
    ],
)
def test_each_record_type_has_its_event(line: bytes, expected: type) -> None:
    assert type(decode_eve(line, NOBODY)) is expected


def test_mail_addresses_lose_their_brackets_and_subjects_stay_unless_there_is_an_alert() -> None:
    smtp = {"mail_from": "<a@b.example>", "rcpt_to": ["<c@d.example>"]}
    email = {"subject": "Invoice"}
    plain = decode_eve(eve("smtp", smtp=smtp, email=email), NOBODY)
    detected = decode_eve(eve("alert", smtp=smtp, email=email, alert={"signature_id": 1}), NOBODY)
    assert isinstance(plain, Mail) and plain.mail_from == "a@b.example" and plain.mail_to == ["c@d.example"]
    assert b"Invoice" not in events.encode(plain)
    assert isinstance(detected, Alert) and detected.mail_subject == "Invoice"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        eve("alert")[:-9],
        b"\xff\xfe{}",
        eve("http", http={"url": 5}),
        eve("http", src_port=70000),
        eve("http", timestamp="yesterday", http={}),
        eve("http", timestamp="2026-11-21T06:04:05", http={}),
        eve("http", http={"url": "x" * (1 << 20)}),
        b'{"event_type":"http","timestamp":"x","junk":' + b"[" * 100_000,
        b"null",
    ],
)
def test_a_bad_line_is_refused_and_nothing_else_happens(line: bytes) -> None:
    with pytest.raises(RejectedInput):
        decode_eve(line, NOBODY)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_become_an_event_none_or_a_refusal(line: bytes) -> None:
    for decode in (decode_eve, decode_journal):
        try:
            decode(line, NOBODY)
        except RejectedInput:
            continue


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["alert", "http", "tls", "quic", "dns", "smtp", "flow"]),
    st.dictionaries(st.sampled_from(["alert", "http", "tls", "dns", "smtp", "email", "files", "src_port"]), _JSON),
)
def test_any_shape_of_record_becomes_an_event_none_or_a_refusal(event_type: str, fields: dict[str, Any]) -> None:
    try:
        event = decode_eve(json.dumps({**BASE, "event_type": event_type, **fields}).encode(), NOBODY)
    except RejectedInput:
        return
    if event:
        assert events.decode(events.encode(event)) == event


CANARY = "KANARIENVOGEL"


def test_no_canary_survives_from_headers_bodies_forms_or_credentials() -> None:
    http = {
        "hostname": f"user:{CANARY}@h.example",
        "url": f"http://u:{CANARY}@h.example/p;sid={CANARY}?pw={CANARY}&{CANARY}&x=y#{CANARY}",
        "http_user_agent": CANARY,
        "http_refer": CANARY,
        "cookie": CANARY,
        "authorization": CANARY,
        "http_request_body": CANARY,
        "http_response_body_printable": CANARY,
        "request_headers": [{"name": "Authorization", "value": CANARY}],
    }
    more = {
        "http": http,
        "payload": CANARY,
        "payload_printable": CANARY,
        "packet": CANARY,
        "email": {"body_md5": CANARY, "attachment": [CANARY], "received": [CANARY], "cc": [CANARY]},
        "smtp": {"helo": CANARY, "mail_from": "<a@b>", "auth": CANARY},
        "files": [{"filename": f"/dl?token={CANARY}", "magic": CANARY}],
        "alert": {"signature_id": 1, "metadata": {CANARY: [CANARY]}},
        "tls": {"sni": "s", "subject": CANARY, "certificate": CANARY},
        "dns": {"type": "query", "rrname": "n", "answers": [{"rdata": CANARY}]},
    }
    made = [decode_eve(eve(kind, **more), NOBODY) for kind in ("alert", "http", "tls", "dns", "smtp")]
    assert all(made)
    assert not [event for event in made if event and CANARY.encode() in events.encode(event)]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/a/b.html", "/a/b.html"),
        ("/a?q=secret&token=x", "/a?q=…&token=…"),
        ("/a?secret", "/a?…"),
        ("/a?c2VjcmV0==", "/a?…"),
        ("/a?q=1?2&r=3", "/a?q=…&r=…"),
        ("/a?", "/a?"),
        ("http://u:p@h/x#f", "http://h/x"),
        ("/to/http://u:p@h.example/x", "/to/http://h.example/x"),
        ("/a;jsessionid=AB/b", "/a;jsessionid=…/b"),
        ("h.example:443", "h.example:443"),
        ("*", "*"),
        ("", ""),
        ("password=of+a+form+taken+for+a+request", "…"),
    ],
)
def test_a_url_keeps_its_place_and_loses_its_secrets(url: str, expected: str) -> None:
    assert mask_url(url) == expected


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab?&=#@:/;…%", max_size=60), st.sampled_from(["", "/", "http://"]))
def test_masking_twice_changes_nothing(url: str, start: str) -> None:
    once = mask_url(start + url)
    assert mask_url(once) == once and len(once) <= URL_CAP


def test_strings_and_lists_are_cut_at_their_caps_whoever_made_the_event() -> None:
    long = "x" * 5000
    event = tidy(
        FileVerdict(
            at="t",
            reason=long,
            rules=[long] * 40,
            url="/" + long,
            file_name=long,
            flow=Flow(src_ip=long),
            mail_to=["a"],
        )
    )
    assert isinstance(event, FileVerdict)
    assert [len(event.reason), len(event.flow.src_ip), len(event.file_name)] == [STRING_CAP] * 3
    assert len(event.rules) == LIST_CAP and len(event.rules[0]) == STRING_CAP
    assert len(event.url) == URL_CAP and event.mail_to == ["a"]


def test_the_lan_devices_mac_is_joined_and_follows_the_inventory(tmp_path: Path) -> None:
    path = tmp_path / "inventory.json"
    inventory = Inventory(path)
    line = eve("tls", tls={"sni": "s"})

    def mac() -> str:
        inventory.refresh()
        event = decode_eve(line, inventory)
        assert isinstance(event, Tls)
        return event.flow.mac

    assert mac() == ""
    path.write_text('{"10.77.0.10":"aa:aa:aa:aa:aa:aa"}')
    assert mac() == "aa:aa:aa:aa:aa:aa"
    (tmp_path / "new").write_text('{"10.77.0.1":"bb:bb:bb:bb:bb:bb"}')
    (tmp_path / "new").rename(path)
    assert mac() == "bb:bb:bb:bb:bb:bb"
    for broken in (b"{", b"[]", b"\xff", b"[" * 100_000, b" " * (2 << 20)):
        path.write_bytes(broken)
        assert mac() == "bb:bb:bb:bb:bb:bb"


def test_a_journals_event_is_tidied_and_gets_the_mac_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "inventory.json"
    path.write_text('{"10.77.0.10":"aa:aa:aa:aa:aa:aa"}')
    inventory = Inventory(path)
    inventory.refresh()
    verdict = FileVerdict(at="t", url="/a?k=v", flow=Flow(src_ip="10.77.0.1", dst_ip="10.77.0.10"))
    event = decode_journal(events.encode(verdict), inventory)
    assert isinstance(event, FileVerdict)
    assert event.url == "/a?k=…" and event.flow.mac == "aa:aa:aa:aa:aa:aa"


def test_a_journal_line_that_is_no_event_is_refused() -> None:
    for line in (b"{}", b'{"type":"secret","at":"x"}', b'{"type":"alert"}', b"x" * (LINE_CAP + 1)):
        with pytest.raises(RejectedInput):
            decode_journal(line, NOBODY)


def test_an_alert_of_the_policy_says_what_decided_and_whether_it_was_refused() -> None:
    meta = {"sekisho_function": ["url_category"], "sekisho_entry": ["video"], "former_category": ["x"]}
    alert = {"signature_id": 9100001, "action": "allowed"}
    refused = {**alert, "metadata": {**meta, "sekisho_action": ["block"]}}
    excepted = {**alert, "metadata": {**meta, "sekisho_action": ["log"], "sekisho_exception": ["bank"]}}
    foreign = {**alert, "metadata": {"sekisho_function": ["nonsense"], "affected_product": ["a", "b"]}}
    tls = {"sni": "r1.googlevideo.com"}
    made = [
        decode_eve(eve("alert", app_proto="tls", alert=one, tls=tls), NOBODY) for one in (refused, excepted, foreign)
    ]
    said = [
        (one.action, one.function, one.policy, one.exception, one.application) for one in made if isinstance(one, Alert)
    ]
    assert said == [
        ("blocked", "url_category", "video", "", "YouTube"),
        ("allowed", "url_category", "video", "bank", "YouTube"),
        ("allowed", "", "", "", "YouTube"),
    ]


def test_metadata_carries_the_name_of_the_application() -> None:
    softether = "t13d880900_fcb5b95cb75a_b0d3b4ac2a14"
    lines = [
        eve("http", http={"hostname": "WWW.dropbox.com", "url": "/"}),
        eve("tls", tls={"sni": "teams.microsoft.com"}),
        eve("tls", tls={"sni": "vpn.example", "ja4": softether}),
        eve("quic", quic={"sni": "line.me"}),
        eve("dns", dns={"type": "query", "rrname": "zoom.us", "rrtype": "A"}),
        eve("alert", app_proto="rdp", alert={"signature_id": 1}),
        eve("tls", tls={"sni": "unknown.example"}),
    ]
    found = [getattr(decode_eve(line, NOBODY), "application", None) for line in lines]
    assert found == [
        "Dropbox", "Microsoft Teams", "SoftEther VPN", "LINE", "Zoom", "Remote Desktop (RDP)", "",
    ]  # fmt: skip


def test_lists_of_structures_are_tidied_entry_by_entry() -> None:
    delivery = events.Delivery(at="t", file_name="a/b?c", url="http://u:p@h/x#f", host="h" * 999)
    retro = events.Retro(at="t", sha256="ab" * 32, rules=["R" * 999], deliveries=[delivery] * 64)
    told = decode_journal(events.encode(retro), NOBODY)
    assert isinstance(told, events.Retro)
    assert len(told.deliveries) == 64
    assert "u:p" not in told.deliveries[0].url
    assert len(told.deliveries[0].host) == len(told.rules[0]) == 256
    share = events.Coverage(at="t", bypassed=[events.Share("engine_hung", 5)])
    assert decode_journal(events.encode(share), NOBODY) == share
