"""From the operator's key to the box and back, all of it real and in one lab: releases come, go wrong, and go back."""

from __future__ import annotations

import email
import email.policy

import pytest
from chainlab import Chain

from sekisho.appliance.core.settings import load
from sekisho.center.portal.words import catalogue
from sekisho.firmware.build.bundle import Terms
from sekisho.lab import layout, rollouts
from sekisho.lab.load import Load
from sekisho.lab.product import STAFF

pytestmark = [pytest.mark.lab]


def words(name: str) -> str:
    return catalogue().say("ja", "rollouts", name)


@pytest.mark.timeout(900)
def test_a_release_is_brought_to_a_box_and_a_broken_one_goes_back_and_halts_by_itself(chain: Chain) -> None:
    with Load(chain.lab) as office:
        good = chain.operations.release(2, "1.2.0", notes="検査を速くしました。")
        rollout = chain.operations.roll_out(2)
        shown = chain.wait(rollout, "done", "halted")
        assert [note.what for note in reversed(shown.notes)] == ["start", "soak", "done"], shown
        assert (shown.boxes[0].how, shown.boxes[0].state) == ("good", "SUCCEEDED")
        assert chain.told(2) == [
            "offered", "downloading", "verified", "staged", "staged", "armed", "activating", "trial", "succeeded",
        ]  # fmt: skip
        assert chain.operations.on_the_box().running.place.release == good.name
        chain.lab.wait(lambda: set(chain.released().values()) == {good.name}, "not every daemon runs it")
        assert words("is_done") in chain.page("operator", f"/fleet/rollouts/{rollout}")

        chain.operations.release(3, "1.3.0", rollouts.BROKEN)
        bad = chain.operations.roll_out(3)
        shown = chain.wait(bad, "done", "halted")
        of = shown.listed.rollout
        assert (of.state, of.why, of.why_box) == ("halted", "bad", "lab-box")
        assert chain.told(3)[-2:] == ["activating", "reverted"]
        chain.lab.wait(lambda: chain.operations.shown(bad).boxes[0].state == "REVERTED", "the job has no end")
        now = chain.operations.on_the_box()
        assert (now.running.counter, now.way) == (2, None) and "telemetry" in now.refused[3]
        assert set(chain.released().values()) == {good.name} and chain.lab.inspecting()
        page = chain.page("operator", f"/fleet/rollouts/{bad}")
        assert words("is_halted") in page and words("how_bad") in page
        chain.lab.wait(lambda: "1[.]3[.]0" in mails(chain), "nobody of the staff was mailed")
        assert words("is_canceled") in chain.page("operator", f"/fleet/rollouts/{bad}", what="cancel")
        went = office.end()
    print(went)
    assert (went.lost, went.canary.got, went.broken) == (0, 0, 0)
    assert went.packets > 10_000 and went.canary.sent > 1000 and went.files.sent > 50
    chain.lab.wait(chain.whole, "an event is missing at the centre", 60)
    told = mails(chain)
    assert told.count("自動で止まりました") == 2 and f"To: {STAFF}" in told, "in one mail's subject and head"
    assert "不安定" not in told, "a switch is no broken line"


@pytest.mark.timeout(600)
def test_what_restarts_the_machine_waits_for_the_customer_s_word_in_the_portal(chain: Chain) -> None:
    """As far as a lab goes: up to the order to start anew, which nothing here carries out."""
    page = f"/settings/utm/{layout.BOX_NAME}/update"
    assert 'name="when"' not in chain.page("admin", page)
    chain.lab.channel.image(5, "2.0.0", Terms(notes_ja="新しいシステムです。"))
    rollout = chain.operations.roll_out(5)
    chain.lab.wait(lambda: chain.operations.shown(rollout).boxes[0].how == "choosing", "nobody is asked", 200)
    one = chain.operations.shown(rollout).boxes[0]
    assert (one.state, one.why, one.step) == ("WAITING", "customer", "staged")
    told = chain.page("admin", page)
    assert 'name="when"' in told and "新しいシステムです。" in told and "2.0.0" in told
    restart = load(chain.lab.lay.box_settings).errands_run / "restart"
    way = chain.operations.on_the_box().way
    assert way is not None and (way.state, way.chosen_by) == ("staged", "") and not restart.exists()
    chain.page("admin", page, counter="5", when="now")
    chain.lab.wait(restart.exists, "the machine is not told to start anew", 120)
    chain.lab.wait(lambda: chain.told(5)[-2:] == ["armed", "activating"], "the centre is not told", 30)
    way = chain.operations.on_the_box().way
    assert way is not None and way.chosen_by == "portal"


def mails(chain: Chain) -> str:
    """Every mail the centre sent."""
    found = []
    for path in sorted(chain.lab.lay.mail.glob("[0-9]*")):
        one = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        body = one.get_body(("plain",))
        assert body is not None
        found.append(f"Subject: {one['subject']}\nTo: {one['to']}\n{body.get_content()}")
    return "\n".join(found)
