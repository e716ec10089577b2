"""What people read: whole in both languages, true about what was done, and harmless whatever an attacker wrote."""

from __future__ import annotations

import datetime as dt
import email.policy
import re
import string
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from post_office import alert, parse, text_of

from sekisho.center.notify import words
from sekisho.center.notify.harmless import address, defang
from sekisho.center.notify.letter import Entry, Kind, Letter
from sekisho.center.notify.links import ACTIONS
from sekisho.center.notify.message import build, render_html, render_text
from sekisho.center.notify.told import Done, Told, tell
from sekisho.center.notify.view import View, view
from sekisho.center.tenants import Locale
from sekisho.telemetry import reasons
from sekisho.telemetry.events import (
    Alert,
    Bypass,
    Delivery,
    Device,
    Event,
    FileVerdict,
    Flow,
    Gap,
    Health,
    Retro,
)

AT = "2026-01-02T03:04:05.000006Z"
LOCALES: tuple[Locale, ...] = ("ja", "en")
SITES = {"box-1": "本店"}
IN = Flow("203.0.113.7", 25, "192.168.1.40", 50000, "TCP", "00:11:22:33:44:66")
FILE = {"flow": IN, "rules": ["Emotet_Doc"], "sha256": "ab" * 32, "file_name": "請求書.zip", "stars": 2}
LINKS = {"call": "https://centre.example/t/one", "fine": "https://centre.example/t/two"}


def told(event: Event) -> Told:
    made = tell("box-1", event)
    assert made is not None
    return made


def letter(*events: Event, kind: Kind = "alert", locale: Locale = "ja", **fields: object) -> Letter:
    entries = [Entry(told(event), 1, AT, AT) for event in events]
    made = Letter(kind=kind, tenant="t1", at=AT, locale=locale, tenant_name="桜商店", sites=SITES)
    return msgspec.structs.replace(made, entries=entries, total=len(entries), **fields)


def message(shown: View) -> bytes:
    at = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    return build(
        shown,
        id_="ab" * 16,
        thread="cd" * 16,
        sender="watch@centre.example",
        sender_name="見守りセンター",
        recipient="owner@shop.example",
        at=at,
    )


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("why", sorted(reasons.codes()))
def test_every_reason_of_the_rubric_makes_a_whole_mail(why: str, locale: Locale) -> None:
    reason = reasons.of(why, locale)
    text = render_text(view(letter(alert(1, why_stars=why), locale=locale), "03-0000-0000", LINKS))
    for part in (reason.what, reason.matters, reason.todo, "192.168.1.23", "本店", *LINKS.values()):
        assert part in text


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_of_mail_is_whole_and_a_real_message(kind: Kind, locale: Locale) -> None:
    own: dict[str, Any] = {"box": "box-1", "since": AT, "number": 14, "detail": "owner@shop.example: 550 no such user"}
    shown = view(letter(alert(1), kind=kind, locale=locale, **own), "03-0000-0000", LINKS)
    parsed = parse(message(shown))
    assert parsed["Subject"] == shown.subject
    assert parsed["Message-ID"] == f"<{'ab' * 16}@centre.example>"
    assert parsed["In-Reply-To"] == parsed["References"] == f"<{'cd' * 16}@centre.example>"
    assert parsed["Auto-Submitted"] == "auto-generated"
    assert parsed["Content-Language"] == locale
    assert parsed["From"].addresses[0].display_name == "見守りセンター"
    html = parsed.get_body(("html",))
    assert html is not None
    for text in (text_of(parsed), html.get_content()):
        assert "{" not in text.split("</style>")[-1], "a place that was not filled in"
        assert shown.title in text
    if locale == "en":
        ours = render_text(
            view(msgspec.structs.replace(letter(alert(1), kind=kind, **own), tenant_name="", sites={}, locale="en"))
        )
        assert not re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", ours), "Japanese in an English mail"


@pytest.mark.parametrize("locale", LOCALES)
def test_every_sentence_is_there_in_both_languages_with_the_same_places(locale: Locale) -> None:
    places = string.Formatter().parse
    for section in words.sentences().values():
        for sentence in section.values():
            assert sentence.ja.strip()
            assert sentence.en.strip()
            named = [{name for _, name, *_ in places(text) if name} for text in (sentence.ja, sentence.en)]
            assert named[0] == named[1]
    for done in filter(None, get_args(Done)):
        assert words.say(locale, "done", done)
    for action in ACTIONS:
        for state in ("title", "ask", "do", "done"):
            assert words.say(locale, "page", f"{state}_{action}")
    for kind in get_args(Kind):
        assert words.has(f"kind_{kind}", "subject")


@pytest.mark.parametrize(
    ("event", "done", "never"),
    [
        (alert(1), "この通信は遮断しました", ""),
        (alert(1, action="allowed"), "遮断していません", "遮断しました"),
        (FileVerdict(at=AT, outcome="blocked", **FILE), "届ききる前に遮断しました", ""),  # type: ignore[arg-type]
        (FileVerdict(at=AT, outcome="blocked", reason="neutralised", **FILE), "無害化しました", ""),  # type: ignore[arg-type]
        (FileVerdict(at=AT, outcome="delivered_then_found", **FILE), "遮断できていません", "遮断しました"),  # type: ignore[arg-type]
        (FileVerdict(at=AT, outcome="released_by_policy", **FILE), "遮断していません", "遮断しました"),  # type: ignore[arg-type]
        (Retro(at=AT, stars=3, deliveries=[Delivery(AT, "192.168.1.9")]), "遮断できていません", "遮断しました"),
        (Bypass(at=AT, stars=2, part="engine"), "engine", "遮断しました"),
        (Health(at=AT, stars=1, part="disk", state="full"), "disk", "遮断しました"),
        (Gap(at=AT, stars=1, count=7), "7", "遮断しました"),
    ],
)
def test_what_was_done_is_said_as_it_was(event: Event, done: str, never: str) -> None:
    text = render_text(view(letter(event)))
    assert done in text
    if never:
        assert never not in text.split("■")[0].partition("理由")[0]


def test_a_file_found_bad_later_names_the_devices_that_got_it_and_how_many_more() -> None:
    got = [Delivery(AT, f"192.168.1.{number}", file_name="a.zip") for number in range(1, 65)]
    text = render_text(view(letter(Retro(at=AT, stars=3, deliveries=got, more=36))))
    assert "件数: 100" in text
    assert text.count("届いた端末: ") == 8
    assert "192[.]168[.]1[.]8 2026-01-02T03:04:05Z a[.]zip" in text


def test_nobody_is_told_of_metadata() -> None:
    assert tell("box-1", Device(at=AT)) is None


def test_the_subject_of_an_important_one_carries_its_stars_and_of_others_theirs() -> None:
    assert view(letter(alert(1, stars=3))).subject.startswith("【重要】★★★ ")
    assert view(letter(alert(1, stars=2))).subject.startswith("【お知らせ】★★ ")
    assert view(letter(alert(1, stars=3), locale="en")).subject.startswith("[Important] ★★★ ")
    assert "★" not in view(letter(alert(1, stars=2), kind="digest")).subject


def test_repeats_of_one_thing_have_one_topic_and_other_things_another() -> None:
    one = told(alert(1))
    assert told(alert(1, at="2027-01-01T00:00:00.000000Z", host="other.example")).topic == one.topic
    others = [alert(2), alert(1, action="allowed"), alert(1, flow=Flow("192.168.1.99", 1, "203.0.113.9", 443))]
    assert len({one.topic, *(told(other).topic for other in others)}) == 4
    assert tell("box-2", alert(1)).topic != one.topic  # type: ignore[union-attr]


def test_a_device_is_called_what_it_calls_itself_and_nothing_of_that_can_be_opened() -> None:
    made = letter(alert(1))
    (entry,) = made.entries
    named = msgspec.structs.replace(entry, device_name="DESKTOP-01", device_kind="computer")
    shown = render_text(view(msgspec.structs.replace(made, entries=[named])))
    assert "端末: パソコン「DESKTOP-01」 192.168.1.23 (MAC 00:11:22:33:44:55)" in shown
    evil = msgspec.structs.replace(entry, device_name=EVIL, device_kind=EVIL)
    assert "evil.example" not in render_text(view(msgspec.structs.replace(made, entries=[evil], locale="en")))


@pytest.mark.parametrize(
    ("src", "dst", "direction", "device"),
    [
        ("192.168.1.23", "203.0.113.9", "out", "192.168.1.23"),
        ("203.0.113.9", "192.168.1.23", "out", "192.168.1.23"),
        ("203.0.113.9", "192.168.1.80", "in", "192.168.1.80"),
        ("192.168.1.23", "192.168.1.80", "internal", "192.168.1.23"),
        ("2001:db8:1::5", "2001:db8:2::9", "out", "2001:db8:1::5"),
        ("2001:db8:2::9", "2001:db8:1::5", "in", "2001:db8:1::5"),
    ],
)
def test_the_device_is_the_end_in_the_office(src: str, dst: str, direction: Any, device: str) -> None:
    assert told(alert(1, flow=Flow(src, 1, dst, 2, "TCP"), direction=direction)).device == device


EVIL = (
    "https://evil.example/pay?a=<script>alert(1)</script>\r\nBcc: all@evil.example\r\n\r\n"
    "\u202egnp.exe\u2066 www.evil.example http://1.2.3.4/ evil。example mailto:x@evil.example"
)


def test_an_attackers_words_are_no_link_no_markup_no_header_and_not_in_the_subject() -> None:
    fields = ("url", "host", "sni", "dns_name", "mail_from", "mail_subject", "file_name", "signature", "policy")
    evil: dict[str, Any] = dict.fromkeys(fields, EVIL)
    event = alert(1, **evil)
    shown = view(letter(event), "", {})
    parsed = parse(message(shown))
    assert sorted(parsed.keys()) == sorted(parse(message(view(letter(alert(1)), "", {}))).keys())
    assert "evil" not in parsed["Subject"]
    html, text = render_html(shown), render_text(shown)
    assert "<script" not in html
    assert "<a " not in html
    for face in (html, text):
        assert not re.search(r"https?:|www\.|evil\.example|1\.2\.3\.4|@evil", face)
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", face)


def test_a_device_that_is_none_is_no_way_into_the_subject() -> None:
    event = alert(1, flow=Flow(src_ip=EVIL, dst_ip="203.0.113.9"))
    subject = view(letter(event)).subject
    assert "\n" not in subject
    assert "evil.example" not in subject
    assert address("2001:DB8::1") == "2001:db8::1"
    assert "www.evil" not in address("fe80::1%www.evil.example")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=400))
def test_harmless_text_is_short_and_shown_as_it_is_read(text: str) -> None:
    made = defang(text)
    assert made.isprintable()
    assert len(made) <= 3 * 120 + 2
    # Of several dots in a row the last is taken apart; what stands before it names nothing.
    assert not re.search(r"(?i)https?:|[^\s.\[]\.(?!\[\.\])[^\s.\]]|@", made)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300), st.text(max_size=60), st.sampled_from(LOCALES))
def test_any_text_makes_a_message_that_can_be_read(text: str, name: str, locale: Locale) -> None:
    event = Alert(at=text[:40], stars=3, signature=text, host=text, flow=Flow(src_ip=name, dst_ip=text))
    made = msgspec.structs.replace(letter(event, locale=locale), tenant_name=name, sites={"box-1": name})
    raw = message(view(made))
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert raw.isascii()
    assert text_of(parse(raw)).endswith("\n")
    assert email.message_from_bytes(raw, policy=email.policy.default)["To"] == "owner@shop.example"
