"""What the customer decides at the centre, laid over the box's own file: bounded, without paths, giving way."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path

import msgspec
import pytest

from sekisho.appliance.core.errors import RejectedInput
from sekisho.policy import overlay, source
from sekisho.policy.model import (
    Application,
    Exemption,
    Group,
    Keyword,
    Policy,
    Schedule,
    UrlCategory,
    WebGuard,
)
from sekisho.policy.overlay import Overlay, Restart, Update, laid_over

FULL = Overlay(
    zone="Asia/Tokyo",
    group=(Group(name="till", devices=("02:00:5e:00:53:01",)),),
    schedule=(Schedule(name="work", times=("mon-fri 09:00-18:00",)),),
    web_guard=(WebGuard(name="blocked", domains=("evil.example",)),),
    url_category=(UrlCategory(categories=("gambling", "adult"), groups=("till",), schedule="work"),),
    keyword=(Keyword(name="words", words=("カジノ",), action="log"),),
    application=(Application(applications=("tiktok",)),),
    exception=(
        Exemption(
            id="x-1", reason="経理", function="url_category", entry="gambling", domains=("bank.example",),
            expires=dt.datetime(2031, 3, 31, tzinfo=dt.UTC),
        ),
    ),
    restart=Restart(days=("sun",), start="03:00"),
    firmware=Update(counter=140, when="tonight", since=1_790_000_000, until=1_790_020_000, by="田中"),
)  # fmt: skip


def test_a_document_is_read_as_it_was_written_and_can_be_put_in_force() -> None:
    overlay.prove(FULL)
    assert overlay.parse(overlay.encode(FULL)) == FULL
    merged, gave_way = laid_over(Policy(), FULL)
    assert gave_way == 0 and merged.zone == "Asia/Tokyo" and merged.exception == FULL.exception


@pytest.mark.protocol("P40")
def test_the_boxes_own_file_goes_before_and_what_gives_way_is_counted() -> None:
    own = source.parse(
        '[[group]]\nname = "till"\ndevices = ["192.168.1.9"]\n[[url_category]]\ncategories = ["gambling"]\n'
        'action = "log"\n[[keyword]]\nname = "words"\nwords = ["own"]\n[[exception]]\nid = "x-1"\nreason = "r"\n'
        'function = "keyword"\n'
    )
    merged, gave_way = laid_over(own, FULL)
    assert gave_way == 4
    assert [(one.categories, one.action) for one in merged.url_category] == [
        (("gambling",), "log"),
        (("adult",), "block"),
    ]
    assert [one.devices for one in merged.group] == [("192.168.1.9",)]
    assert [one.words for one in merged.keyword] == [("own",)] and merged.exception == own.exception
    assert [one.name for one in merged.web_guard] == ["blocked"]


def test_the_zone_of_the_centre_moves_no_schedule_of_the_boxes_own() -> None:
    own = source.parse('[[schedule]]\nname = "own"\ntimes = ["mon 09:00-10:00"]\n')
    assert laid_over(own, FULL)[0].zone == ""
    assert laid_over(source.parse('zone = "UTC"\n'), FULL)[0].zone == "UTC"


@pytest.mark.parametrize(
    "document",
    [
        b"", b"null", b"[]", b"{", b'{"colour":1}', b"[" * 100_000, b'{"keyword":' + b"[" * 9000, b"\xff",
        b'{"web_guard":[{"name":"a","files":["/etc/shadow"]}]}',
        b'{"category":[{"name":"a","files":["/etc/shadow"]}]}',
        b'{"firmware":{"counter":0,"when":"now","since":0}}', b'{"firmware":{"counter":1,"when":"asap","since":0}}',
        b'{"firmware":{"counter":1,"when":"now"}}',
        b'{"firewall":[]}',
        b'{"keyword":[{"name":"a\\n","words":["word"]}]}',
        b'{"keyword":[{"name":"a;b","words":["word"]}]}',
        b'{"exception":[{"id":"a\\n","reason":"r","sids":[1]}]}',
        b'{"restart":{"days":["sun"],"start":"25:00"}}',
        b'{"restart":{"days":["sun"],"start":"03:00\\n"}}',
    ],
)  # fmt: skip
def test_what_is_no_document_is_refused(document: bytes) -> None:
    with pytest.raises(RejectedInput):
        overlay.parse(document)


@pytest.mark.parametrize(
    "made",
    [
        Overlay(url_category=(UrlCategory(categories=("no_such_kind",)),)),
        Overlay(application=(Application(applications=("no_such_program",)),)),
        Overlay(url_category=(UrlCategory(categories=("adult",), groups=("nobody",)),)),
        Overlay(url_category=(UrlCategory(categories=("adult",), schedule="never"),)),
        Overlay(schedule=(Schedule(name="work", times=("mon 25:00-26:00",)),)),
        Overlay(web_guard=(WebGuard(name="a", domains=("no host name",)),)),
        Overlay(group=(Group(name="a"),)),
        Overlay(zone="Mars/Olympus"),
        Overlay(exception=(Exemption(id="a", reason="r", sids=(1,), domains=("<script>",)),)),
        Overlay(exception=(Exemption(id="a", reason="r", sids=(1,)), Exemption(id="a", reason="r", sids=(2,)))),
        Overlay(exception=(Exemption(id="a", reason="r"),)),
        Overlay(keyword=tuple(Keyword(name=f"k{n}", words=("word",) * 100) for n in range(6))),
    ],
)
def test_what_cannot_be_put_in_force_is_refused_at_the_centre(made: Overlay) -> None:
    with pytest.raises(RejectedInput):
        overlay.prove(made)


def test_the_most_a_document_may_hold_is_compiled_in_seconds(tmp_path: Path) -> None:
    words = tuple(f"word{n:04}" for n in range(500))
    hosts = tuple(f"host{n:04}.example" for n in range(500))
    exceptions = tuple(Exemption(id=f"x{n}", reason="r", function="keyword", domains=(hosts[n],)) for n in range(200))
    made = Overlay(
        keyword=(Keyword(name="words", words=words),), web_guard=(WebGuard(name="own", domains=hosts),),
        exception=exceptions,
    )  # fmt: skip
    began = time.monotonic()
    with pytest.raises(RejectedInput, match="rules"):
        overlay.prove(made)
    overlay.prove(msgspec.structs.replace(made, exception=exceptions[:5]))
    assert time.monotonic() - began < 10
