"""How fresh the rules are, in words an owner understands: nothing is called fresh, mended or harmless that is not."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from office import BOXES, THEM, US, Office

from sekisho.appliance.core import utc
from sekisho.center.store import BoxState
from sekisho.telemetry.events import Signatures

Ago = Callable[..., str]
PATH = f"/health-of-boxes/{BOXES[US]}"


def word(ago: Ago, state: str = "freshness", minutes: float = 1, **more: Any) -> Signatures:
    facts = {"number": 12, "set": "ab" * 8, "rules": 20116, "yara": 5883, "freshness": "fresh", **more}
    facts.setdefault("checked", ago(minutes=minutes))
    return Signatures(at=ago(minutes=minutes), state=state, **facts)  # type: ignore[arg-type]


def on(office: Office, tenant: str = US, box: str = "") -> None:
    with office.store.transaction():
        office.store.set_state(BoxState(box or BOXES[tenant], tenant, "on", 1, "e1", 1, utc.now()))


def page(office: Office, path: str = PATH, **who: str) -> str:
    answer = office.client(**who).get(path)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return str(answer.text)


def test_the_customer_reads_how_fresh_the_rules_are_and_what_it_means(office: Office, ago: Ago) -> None:
    assert "お守りの更新" not in page(office, "/health-of-boxes")
    office.feed(word(ago, "active", built=ago(days=1)))
    told = page(office)
    for words in ("お守りの更新", "最新", "12", "20,116", "5,883", "番号 12 の様子見が終わり"):
        assert words in told
    office.feed(word(ago, minutes=0.9, freshness="aging"))
    assert "少し古い" in page(office) and "検査を続けています" in page(office)
    office.feed(word(ago, minutes=0.8, freshness="stale"))
    assert "Goes on" not in page(office, locale="en") and "goes on inspecting" in page(office, locale="en")
    assert '<span class="badge bad">古い</span>' in page(office, "/health-of-boxes")


def test_a_refused_set_is_told_with_what_stays_in_force_and_that_nothing_needs_doing(office: Office, ago: Ago) -> None:
    office.feed(word(ago, "refused", refused=13, detail="test: <b>broken</b>"))
    told = page(office)
    assert "番号 13）は、試したところ問題があった" in told and "それまでの規則で検査を続けています" in told
    assert "作業は必要ありません" in told and "<b>broken" not in told
    office.feed(word(ago, "rolled_back", minutes=0.5, refused=14))
    assert "番号 14）に問題が見つかったため、それまでの規則に戻しました" in page(office)
    office.feed(word(ago, "active", minutes=0.4, number=15))
    assert "取り入れませんでした。それまで" not in page(office).split("できごと")[0]


def test_home_says_one_line_only_when_rules_are_old_or_missing(office: Office, ago: Ago) -> None:
    on(office)
    office.feed(word(ago, minutes=5))
    assert "規則" not in page(office, "/") and "見守り中です" in page(office, "/")
    office.feed(word(ago, minutes=4, freshness="stale"))
    told = page(office, "/")
    assert told.count("検査の規則が古くなっています。検査は続いています。") == 1 and "見守り中です" in told
    on(office, box="box-aoki-2")
    office.feed(word(ago, minutes=4, freshness="stale"), box="box-aoki-2")
    assert page(office, "/").count("規則が古くなっています") == 1 and "UTM 2 台で" in page(office, "/")
    office.feed(word(ago, minutes=3), word(ago, "silent", minutes=2))
    told = page(office, "/")
    assert "対応が必要です" in told and "検査の規則が読み込まれていません" in told
    assert "規則が外れています" in page(office)
    office.feed(word(ago, "repaired", minutes=1, seconds=9.0))
    assert "読み込まれていません" not in page(office, "/")


def test_nobody_is_told_that_inspection_goes_on_where_rules_are_missing(office: Office, ago: Ago) -> None:
    on(office)
    office.feed(word(ago, "refused", minutes=5, refused=13, freshness="stale"), word(ago, "silent", minutes=4))
    card = page(office).split('id="rules-title"')[1].split("</section>")[0]
    assert "規則が外れています" in card and "続けています" not in card
    standing = page(office, "/").split('id="standing"')[1].split("</section>")[0]
    assert "読み込まれていません" in standing and "続いています" not in standing
    assert "規則が外れています" in page(office, "/health-of-boxes")


def test_another_customers_rules_are_not_there(office: Office, ago: Ago) -> None:
    on(office, THEM)
    office.feed(word(ago, freshness="stale"), word(ago, "silent"), tenant=THEM)
    assert "規則" not in page(office, "/") and "お守りの更新" not in page(office, "/health-of-boxes")


def test_the_staff_sees_who_is_without_rules_who_refused_and_who_is_behind(office: Office, ago: Ago) -> None:
    told = page(office, "/fleet/sets", role="operator")
    assert "まだありません" in told and "確認すべきUTMはありません" in told
    on(office)
    on(office, THEM)
    office.feed(word(ago, minutes=9, number=11, sids=[2027865]))
    office.feed(word(ago, "refused", minutes=8, refused=13, detail="test: line 7"), tenant=THEM)
    told = page(office, "/fleet/sets", role="operator")
    assert "いちばん新しい番号: 12" in told and "sid 2027865" in told
    assert told.index("番号 13 を受け付けない") < told.index(">番号が古い</td>") and "test: line 7" in told
    office.feed(word(ago, "silent", minutes=1, detail="engine: 0 rules"))
    told = page(office, "/fleet/sets", role="operator", locale="en")
    assert told.index(">works without rules</td>") < told.index(">refused or took back number 13</td>")
    assert "an older number" not in told.split("<tbody>")[1], "one box stands there once, for the gravest"


def test_rules_of_the_fleet_are_for_the_centre(office: Office) -> None:
    for role in ("admin", "member", "reseller", "helpdesk"):
        assert office.client(role).get("/fleet/sets").status_code == 403


@pytest.mark.parametrize("after", ["9.", "0.", "x.y", ".", "0", "\u00b2.b", "4." + "z" * 66])
def test_a_strange_place_in_the_list_is_answered(office: Office, after: str) -> None:
    assert office.client("operator").get("/fleet/sets", params={"after": after}).status_code == 200


def test_what_a_box_said_long_ago_is_not_called_fresh_now(office: Office, ago: Ago) -> None:
    office.feed(word(ago, minutes=14 * 60))
    told = page(office)
    assert "確かな知らせがありません" in told and ">最新<" not in told
    now = dt.datetime.now(dt.UTC)
    assert utc.text(now)[:4] in told, "when it spoke last is said"
