"""The staff's pages of rollouts, and the customer's page of what waits for its UTM: true, in words, role-checked."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from objects import rollout as make_rollout
from office import BOXES, THEM, US, Office

from sekisho.appliance.core import utc
from sekisho.center import updates
from sekisho.center.orders import wishes
from sekisho.center.portal.audit import AUDIT
from sekisho.center.portal.sessions import SESSION
from sekisho.center.portal.words import catalogue
from sekisho.center.rollout import turn
from sekisho.center.rollout.book import STANDINGS
from sekisho.center.rollout.model import Rollout
from sekisho.center.rollout.tables import ROLLOUT, ROLLOUT_BOX
from sekisho.center.scope import only
from sekisho.center.store import BoxState
from sekisho.policy.overlay import EMPTY, Restart, Update
from sekisho.telemetry.events import Firmware

Ago = Callable[..., str]
PATH = f"/settings/utm/{BOXES[US]}/update"
NOW = dt.datetime(2026, 11, 22, 3, 0, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def known(office: Office) -> None:
    """Both customers' boxes were heard."""
    with office.store.transaction():
        for tenant, box in BOXES.items():
            office.store.set_state(BoxState(box, tenant, "on", 1, "e1", 1, utc.now()))


def said(ago: Ago, state: str, minutes: float = 1, **more: Any) -> Firmware:
    facts = {"counter": 140, "version": "1.4.0", "tier": 3, "running": 139, **more}
    return Firmware(at=ago(minutes=minutes), state=state, **facts)  # type: ignore[arg-type]


def page(office: Office, path: str = PATH, role: str = "admin", **who: str) -> str:
    answer = office.client(role, **who).get(path)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return str(answer.text)


def halted(office: Office, id_: str, **why: Any) -> None:
    with office.store.transaction() as db:
        row = turn.load(db, id_)
        now = msgspec.structs.replace(turn.saved(row), state="halted", **why)
        db.execute(ROLLOUT.update().values(state="halted", saved=msgspec.json.encode(now)))


def test_a_customer_reads_what_is_new_what_it_needs_and_what_this_box_took_before(office: Office, ago: Ago) -> None:
    assert "待っている更新はありません" in page(office) and "お届け時のソフトウエア" in page(office)
    make_rollout(office, US)
    for n, took in enumerate((38.0, 41.0, 44.0)):
        office.feed(said(ago, "succeeded", 9000 - n, counter=130 + n, version=f"1.3.{n}", running=130 + n, took_s=took))
    office.feed(said(ago, "staged", running=132))
    told = page(office)
    for words in (
        "いま使っている版: 1.3.2", "新しい版 1.4.0", "検査を速くしました。", "UTMの再起動が必要です", "およそ 44 秒",
        "過去 3 回の実績", "準備ができ、適用を待っています（まだ使われていません）", "通信が止まった時間: 41 秒",
    ):  # fmt: skip
        assert words in told, words
    english = page(office, locale="en")
    assert "Inspection is faster." in english and "About 44 s" in english and "own last 3" in english


def test_nothing_is_said_of_an_interruption_that_was_never_measured(office: Office, ago: Ago) -> None:
    office.feed(said(ago, "staged"))
    assert "まだ測った記録がありません" in page(office)
    office.feed(said(ago, "staged", 0.5, expected_s=50.0))
    assert "およそ 50 秒" in page(office) and "（UTMによる見込み）" in page(office)
    office.feed(said(ago, "staged", 0.4, tier=1))
    told = page(office)
    assert "通信を止めずに切り替わります" in told and "通信が止まる時間" not in told and 'name="when"' not in told


def test_what_came_of_it_is_told_with_its_reason_and_nothing_is_called_updated_that_went_back(
    office: Office, ago: Ago
) -> None:
    office.feed(said(ago, "reverted", 3, why="gate:forwarding", took_s=62.0))
    told = page(office)
    assert "問題があったため、前の版に戻しました" in told and "切り替え後の確認に合格しませんでした" in told
    assert "更新しました" not in told and "待っている更新はありません" in told
    office.feed(said(ago, "failed", 2, counter=141, version="1.4.1", why="<script>x"))
    told = page(office)
    assert "前の版のまま動いています" in told and "<script>x" not in told


def test_a_deadline_is_shown_with_what_it_does_not_do(office: Office, ago: Ago) -> None:
    make_rollout(office, US, urgent=True)
    office.feed(said(ago, "staged", deadline="2027-01-02T03:00:00.000000Z"))
    told = page(office)
    assert (
        "安全のための更新" in told and "2027年1月2日 12:00" in told and "UTMが自分で再起動することはありません" in told
    )


@pytest.mark.parametrize("when", updates.CHOICES)
def test_a_choice_goes_into_the_signed_settings_and_is_shown_as_far_as_it_got(
    office: Office, ago: Ago, when: str
) -> None:
    office.feed(said(ago, "staged"))
    with office.store.transaction() as db:
        seen = wishes.Wish(BOXES[US], US)
        change = wishes.prepare(
            seen, lambda now: msgspec.structs.replace(now, restart=Restart(days=("sun",), start="03:00"))
        )
        assert change is not None
        wishes.commit(db, change, "x")
    client = office.client()
    assert client.submit(PATH, counter="140", when=when).headers["location"] == PATH
    with office.store.database.reading() as db:
        wish = wishes.of_box(db, only(US), BOXES[US])
        noted = db.execute(sa.select(AUDIT).where(AUDIT.c.action == "settings.update")).all()
    assert wish is not None and wish.overlay.firmware is not None and wish.overlay.restart is not None
    made = wish.overlay.firmware
    assert (made.counter, made.when) == (140, when) and len(noted) == 1 and noted[0].tenant == US
    told = client.get(PATH).text
    assert "送信待ち" in told and {"now": "いますぐ。", "later": "あとで決める。"}.get(when, "選択: ") in told
    assert "UTMのソフトウエアを更新する時刻を選んだ" in client.get("/audit").text


def test_times_of_a_choice_are_the_customers_and_end(ago: Ago) -> None:
    waiting = updates.Release(140, "1.4.0", 3, "staged", "", "", "", 0.0, 0.0, "", "")

    def of(when: str, now: dt.datetime) -> Update:
        made = updates.choice(waiting, when, now, "Asia/Tokyo", "田中", EMPTY)
        assert made.firmware is not None and made.zone == "Asia/Tokyo"
        return made.firmware

    at = int(NOW.timestamp())
    assert (of("now", NOW).since, of("now", NOW).until) == (at, at + 7200)
    tonight = of("tonight", NOW)  # noon in Tokyo: the coming night begins at 16:00 UTC
    assert (tonight.since, tonight.until) == (at + 13 * 3600, at + 17 * 3600)
    early = of("tonight", NOW + dt.timedelta(hours=14))  # two in the morning: what is left of this night
    assert (early.since, early.until) == (at + 14 * 3600, at + 17 * 3600)
    assert of("later", NOW).since == at + 7 * 86_400
    assert (of("now", NOW).by, of("now", NOW).when) == ("田中", "now")


def test_what_cannot_be_chosen_is_not(office: Office, ago: Ago) -> None:
    client = office.client()
    office.feed(said(ago, "staged"))
    for fields in ({"counter": "139", "when": "now"}, {"counter": "140", "when": "never"}, {"counter": "140"}):
        assert client.submit(PATH, **fields).status_code == 303
    assert client.submit(PATH, counter="140", when="window").status_code == 303, "no weekly time was set"
    office.feed(said(ago, "trial", 0.5))
    assert client.submit(PATH, counter="140", when="later").status_code == 303
    with office.store.database.reading() as db:
        assert wishes.of_box(db, only(US), BOXES[US]) is None
    office.feed(said(ago, "staged", 0.4, counter=150, running=139))
    assert office.client("member").get(PATH).status_code == 403
    assert office.client("helpdesk").submit(PATH, counter="150", when="now").status_code == 403
    assert office.client(tenant=THEM).get(PATH).status_code == 404
    assert office.client(tenant=THEM).submit(PATH, counter="150", when="now").status_code == 404


def test_who_lets_a_box_restart_has_proved_a_short_while_ago_who_they_are(office: Office, ago: Ago) -> None:
    office.feed(said(ago, "staged"))
    client = office.client()
    with office.store.transaction() as db:
        db.execute(SESSION.update().values(confirmed_at=utc.text(dt.datetime.now(dt.UTC) - dt.timedelta(hours=3))))
    assert client.submit(PATH, counter="140", when="now").headers["location"] == "/confirm?next=%2Fsettings"
    assert client.get(PATH).status_code == 200
    with office.store.database.reading() as db:
        assert wishes.of_box(db, only(US), BOXES[US]) is None


def test_staff_sees_each_rollout_ring_by_ring_and_what_halted_it_in_words(office: Office) -> None:
    assert "配布はまだありません" in page(office, "/fleet/rollouts", "operator")
    id_ = make_rollout(office, US)
    told = page(office, f"/fleet/rollouts/{id_}", "operator")
    for words in (
        "1.4.0 の配布",
        "配布中",
        "まだ届けていない",
        BOXES[US],
        "配布を始めました",
        "通信を止めずに切り替わります",
    ):
        assert words in told, words
    halted(office, id_, why="silent", why_ring=1, why_box="box-9", why_number=1, why_of=47)
    for path in ("/fleet/rollouts", f"/fleet/rollouts/{id_}"):
        assert "第2段階の box-9 が、切り替えの途中か、新しい版にしたあとから応答していません" in page(
            office, path, "operator"
        )
        assert "In ring 2, box-9 has been silent since it began to switch, or" in page(
            office, path, "operator", locale="en"
        )
    assert office.client("operator").get("/fleet/rollouts/nothing").status_code == 404


def test_staff_pauses_resumes_halts_and_cancels_and_each_is_written_down(office: Office) -> None:
    id_ = make_rollout(office, US)
    client = office.client("operator")
    for what, state in (("pause", "paused"), ("resume", "running"), ("halt", "halted"), ("cancel", "canceled")):
        assert client.submit(f"/fleet/rollouts/{id_}", what=what).headers["location"] == f"/fleet/rollouts/{id_}"
        with office.store.database.reading() as db:
            assert turn.saved(turn.load(db, id_)).state == state
    assert client.submit(f"/fleet/rollouts/{id_}", what="resume").status_code == 303
    assert client.submit(f"/fleet/rollouts/{id_}", what="start").status_code == 404
    with office.store.database.reading() as db:
        found = list(db.scalars(sa.select(AUDIT.c.action).where(AUDIT.c.action.like("rollout.%"))))
        assert turn.saved(turn.load(db, id_)).state == "canceled"
    assert found == ["rollout.pause", "rollout.resume", "rollout.halt", "rollout.cancel"]
    assert all(catalogue().has("audited", action.replace(".", "_")) for action in found)
    for role in ("admin", "member", "helpdesk", "reseller"):
        assert office.client(role).get(f"/fleet/rollouts/{id_}").status_code == 403
        assert office.client(role).submit(f"/fleet/rollouts/{id_}", what="halt").status_code == 403


def test_every_reason_and_every_worsening_has_its_words(office: Office) -> None:
    id_ = make_rollout(office, US)
    for why in ("bad", "silent", "worse", "absent", "hand"):
        for detail in ("off", "drops", "memory", "heat", "alerts") if why == "worse" else ("",):
            halted(office, id_, why=why, why_box="b", why_number=1, why_of=3, why_detail=detail)
            told = page(office, f"/fleet/rollouts/{id_}", "operator")
            kept, taken = "すでに届けた分は取り消していません" in told, "取り消しを送っています" in told
            assert (kept, taken) == (why == "absent", why != "absent")
    assert Rollout(id="x", kind="fw.activate").why == ""


@pytest.mark.parametrize("how", STANDINGS)
def test_however_a_box_stands_it_has_its_words_and_its_place_in_the_bar(office: Office, how: str) -> None:
    id_ = make_rollout(office, US)
    with office.store.transaction() as db:
        db.execute(ROLLOUT_BOX.update().values(how=how))
    words = catalogue()
    for locale in ("ja", "en"):
        assert f"{words.say(locale, 'rollouts', f'how_{how}')}: 1" in page(
            office, f"/fleet/rollouts/{id_}", "operator", locale=locale
        )
    assert '<rect class="' in page(office, f"/fleet/rollouts/{id_}", "operator")
