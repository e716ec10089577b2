"""What a hostile broker, a stolen key or a wrong operator can send, and what a box does with each: nothing."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec
import pytest
from jobsbox import Box, Died, Hands, name_of
from signing import LISTED, NARROW, NOW, OVER, SATO, STRANGER, TANAKA, TANAKA_TOO, Person, ident, job, signed

from sekisho.appliance.core.errors import PeerError
from sekisho.appliance.core.jobs import ENVELOPE_CAP, PAYLOAD_TYPE, Job, Operators, preauth
from sekisho.portal_agent.jobs import machine, runner
from sekisho.portal_agent.jobs.book import KEPT, OPEN_CAP
from sekisho.portal_agent.jobs.facts import Progress
from sekisho.telemetry.jobs import INBOX_CAP

DONE = ["RECEIVED", "ACCEPTED", "RUNNING", "SUCCEEDED"]


def resealed(made: bytes, payload: bytes) -> bytes:
    """The envelope around another payload, under the old signatures."""
    outer = msgspec.json.decode(made)
    outer["payload"] = base64.b64encode(payload).decode()
    return msgspec.json.encode(outer)


def raw(payload: bytes, secret: bytes = TANAKA.secret) -> bytes:
    """Signed as it is, whatever it is."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    sig = Ed25519PrivateKey.from_private_bytes(secret).sign(preauth(payload))
    signature = {"keyid": TANAKA.name, "sig": base64.b64encode(sig).decode()}
    return msgspec.json.encode(
        {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE, "signatures": [signature]}
    )


def refused(box: Box, envelope: bytes, why: str, name: str = "") -> None:
    """It is told of once, nothing was done, and nothing is remembered under its name."""
    assert box.give(envelope, name or ident())
    box.turn(5)
    assert box.hands.done == []
    assert box.notices() == [("REJECTED", why)]
    assert box.kept().entries == ()


@pytest.mark.protocol("P52")
def test_a_job_of_an_operator_is_done_once_and_every_step_is_told(box: Box) -> None:
    made = job()
    box.give(signed(made))
    box.turn(5)
    assert box.hands.done == [("sig.update", made.id)]
    assert box.states(made.id) == DONE
    assert [one.ver for one in box.told_of(made.id)] == [1, 2, 3, 4]
    assert {tuple(one.signers) for one in box.told_of(made.id)} == {("tanaka",)}


@pytest.mark.protocol("P54")
def test_a_replayed_job_is_answered_with_where_it_is_and_not_done_again(box: Box) -> None:
    envelope = signed(job())
    for _ in range(50):
        box.give(envelope)
        box.turn(60, seconds=60.0)
    assert len(box.hands.done) == 1
    told = box.told_of(name_of(envelope))
    assert {one.state for one in told[4:]} == {"SUCCEEDED"} and {one.ver for one in told[4:]} == {4}
    assert 4 < len(told) <= 60, "answered again, and not with every repeat"


def test_a_job_replayed_after_weeks_and_over_restarts_is_not_done_again(box: Box) -> None:
    envelope = signed(job())
    box.give(envelope)
    box.turn(5)
    box.true += 40 * 86_400
    box.restart()
    box.give(envelope)
    box.turn(5)
    assert len(box.hands.done) == 1


def test_what_was_forgotten_is_never_done_again_even_with_the_clock_set_back(box: Box) -> None:
    first = signed(job(exp=NOW + 600))
    box.give(first)
    box.turn(5)
    for _ in range(210):
        box.give(signed(job("diag.collect")))
        box.turn(3, seconds=2.0)
    box.believe(LISTED, at=box.true)
    box.turn(3)
    assert box.kept().floor <= box.true, "what is remembered of the time is no later than the time"
    assert all(entry.job.id != name_of(first) for entry in box.kept().entries), "it was forgotten"
    done = len(box.hands.done)
    box.true = float(NOW)  # the centre lies about the time, too
    box.believe(LISTED)  # and what the channel was signed at is forgotten with a key that was taken away
    box.give(first)
    box.turn(20)
    assert len(box.hands.done) == done
    assert box.states(name_of(first))[-1] == "EXPIRED"


def test_what_might_come_again_is_not_forgotten_for_what_is_new(box: Box) -> None:
    """To forget it the floor would have to rise into the future, and refuse every job until then."""
    for _ in range(KEPT + OPEN_CAP + 3):
        box.give(signed(job("diag.collect")))
        box.turn(2, seconds=6.0)
    assert len(box.kept().entries) == KEPT + OPEN_CAP and box.kept().floor <= box.true
    assert box.notices() == [("REJECTED", "full")] * 3
    cancel = job("job.cancel", args={"job": ident()})
    box.give(signed(cancel))
    box.turn(12)
    assert box.states(cancel.id)[-1] == "SUCCEEDED"
    box.true += 2 * 86_400
    box.believe(LISTED, at=box.true)
    box.turn()
    late = job("diag.collect", exp=int(box.true) + 600)
    box.give(signed(late))
    box.turn(5)
    assert box.states(late.id) == DONE and len(box.kept().entries) == KEPT


def test_a_box_full_of_jobs_that_wait_can_still_be_stopped(box: Box) -> None:
    box.told = False
    waiting = [job("diag.collect", nbf=NOW * 2, exp=NOW * 2 + 60) for _ in range(OPEN_CAP + 1)]
    for made in waiting:
        box.give(signed(made))
        box.turn()
    assert box.notices() == [("REJECTED", "full")]
    cancel = job("job.cancel", args={"job": waiting[0].id})
    box.give(signed(cancel))
    box.turn(15)
    assert box.states(cancel.id)[-1] == "SUCCEEDED" and box.states(waiting[0].id)[-1] == "CANCELED"
    box.told = True
    box.turn(2)
    assert {box.states(made.id)[-1] for made in waiting[1:OPEN_CAP]} == {"REJECTED(times)"}


def cut_before_it_was_asked(box: Box, monkeypatch: pytest.MonkeyPatch) -> Job:
    """The power fails when it stands in the book that it begins, and nobody was asked yet."""

    def dies(_: str) -> None:
        raise Died

    made = job("engine.restart")
    box.give(signed(made))
    with monkeypatch.context() as patch:
        patch.setattr(box.hands, "step", dies)
        with pytest.raises(Died):
            box.turn(5)
    assert box.kept().entries[0].begun and box.hands.done == []
    return made


def test_what_was_never_asked_for_is_not_begun_after_its_end(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    made = cut_before_it_was_asked(box, monkeypatch)
    box.true += 30 * 86_400
    box.told = False
    box.restart()
    box.turn(5)
    assert box.states(made.id)[-1] == "WAITING(clock)"
    box.told = True
    box.turn(5)
    assert box.states(made.id)[-1] in ("EXPIRED(clock)", "TIMED_OUT(clock)") and box.hands.done == []


def test_what_was_never_asked_for_is_not_begun_when_its_signer_may_no_more(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cut_before_it_was_asked(box, monkeypatch)
    box.believe(Operators(operators=[SATO.operator]))
    box.restart()
    box.turn(5)
    assert box.states(made.id)[-1] == "REJECTED(signature)" and box.hands.done == []
    assert box.hands.withdrawn == [made.id]


def test_a_daemon_that_did_not_answer_is_asked_again(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    made, begin = job(), box.hands.begin
    with monkeypatch.context() as patch:

        def away(_job: Job, _mark: str) -> Progress:
            raise PeerError("It does not run.")

        patch.setattr(box.hands, "begin", away)
        box.give(signed(made))
        box.turn(10)
    assert box.hands.begin == begin and box.hands.done == []
    box.turn(5)
    assert box.states(made.id)[-1] == "SUCCEEDED" and box.hands.done == [("sig.update", made.id)]


@pytest.mark.protocol("P52")
def test_a_job_for_another_box_is_refused(box: Box) -> None:
    made = job(boxes=["box-2", "box-3"])
    refused(box, signed(made), "other_box", made.id)


def test_another_tenants_box_of_a_like_name_is_another_box(box: Box) -> None:
    made = job(boxes=["t2.box-1"])
    refused(box, signed(made), "other_box", made.id)


@pytest.mark.protocol("P53")
def test_an_expired_job_is_not_begun(box: Box) -> None:
    made = job(nbf=NOW - 500, exp=NOW - 100)
    box.give(signed(made))
    box.turn(5)
    assert box.states(made.id) == ["RECEIVED", "EXPIRED"] and box.hands.done == []


@pytest.mark.protocol("P53")
def test_a_job_before_its_time_waits_for_it(box: Box) -> None:
    made = job(nbf=NOW + 100)
    box.give(signed(made))
    box.turn(50)
    assert box.states(made.id) == ["RECEIVED", "ACCEPTED", "WAITING(not_before)"] and box.hands.done == []
    box.turn(60)
    assert box.states(made.id)[-1] == "SUCCEEDED"


def test_a_job_lives_no_longer_than_ninety_days_whatever_it_says(box: Box) -> None:
    made = job(nbf=NOW - 91 * 86_400, exp=NOW + 91 * 86_400)
    box.give(signed(made))
    box.turn(5)
    assert box.states(made.id)[-1] == "EXPIRED"
    late = job(nbf=NOW + 91 * 86_400, exp=NOW + 100 * 86_400)
    refused(Box(box.root / "other", Hands()), signed(late), "times", late.id)


@pytest.mark.protocol("P53")
def test_nothing_begins_while_the_time_is_not_known(box: Box) -> None:
    made = job()
    box.told = False
    box.give(signed(made))
    box.turn(50)
    assert box.states(made.id) == ["RECEIVED", "ACCEPTED", "WAITING(clock)"] and box.hands.done == []
    box.told = True
    box.turn(20)
    assert box.states(made.id)[-1] == "SUCCEEDED"


@pytest.mark.protocol("P50")
def test_a_bad_signature_is_refused(box: Box) -> None:
    made = job()
    outer = msgspec.json.decode(signed(made))
    outer["signatures"][0]["sig"] = base64.b64encode(bytes(64)).decode()
    refused(box, msgspec.json.encode(outer), "signature", made.id)


@pytest.mark.protocol("P50")
def test_a_changed_payload_is_refused(box: Box) -> None:
    made = job()
    other = msgspec.structs.replace(made, kind="engine.restart")
    refused(box, resealed(signed(made), msgspec.json.encode(other)), "signature", made.id)


@pytest.mark.protocol("P50")
def test_a_strangers_signature_is_refused(box: Box) -> None:
    made = job()
    refused(box, signed(made, STRANGER), "signature", made.id)


def test_a_stranger_beside_an_operator_does_no_harm_and_adds_nothing(box: Box) -> None:
    two = job("fw.rollback")
    refused(box, signed(two, TANAKA, STRANGER), "signature", two.id)


@pytest.mark.protocol("P51")
@pytest.mark.parametrize("kind", ["quarantine.release", "fw.rollback", "key.rotate"])
def test_one_person_with_two_keys_is_no_two_people(tmp_path: Path, kind: str) -> None:
    for number, people in enumerate(((TANAKA,), (TANAKA, TANAKA), (TANAKA, TANAKA_TOO))):
        made = job(kind)
        refused(Box(tmp_path / str(number), Hands()), signed(made, *people), "signature", made.id)
    box, made = Box(tmp_path / "both", Hands()), job(kind)
    box.give(signed(made, TANAKA, SATO))
    box.turn(5)
    assert box.hands.done == [(kind, made.id)] and box.told_of(made.id)[-1].signers == ["sato", "tanaka"]


def test_a_second_signature_that_comes_later_makes_the_job_good(box: Box) -> None:
    made = job("fw.rollback")
    box.give(signed(made, TANAKA))
    box.turn(3)
    box.give(signed(made, TANAKA, SATO))
    box.turn(5)
    assert box.states(made.id) == DONE


@pytest.mark.protocol("P50")
def test_a_key_past_its_date_signs_nothing(box: Box) -> None:
    made = job()
    refused(box, signed(made, OVER), "signature", made.id)


@pytest.mark.protocol("P50")
def test_a_key_signs_only_its_kinds(box: Box) -> None:
    made = job("engine.restart")
    refused(box, signed(made, NARROW), "signature", made.id)


@pytest.mark.protocol("P50")
def test_an_operator_who_was_taken_off_the_list_meanwhile_has_nothing_begun(box: Box) -> None:
    made = job(nbf=NOW + 100)
    box.give(signed(made))
    box.turn(3)
    box.believe(Operators(operators=[SATO.operator]))
    box.turn(200)
    assert box.states(made.id)[-1] == "REJECTED(signature)" and box.hands.done == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"kind": "shell.run"}, "malformed"), ({"args": {"command": "reboot"}, "extra": 1}, "malformed"),
        ({"when": {"mode": "ask", "force": True}}, "malformed"), ({"id": "../../etc/passwd"}, "malformed"),
        ({"boxes": []}, "malformed"), ({"boxes": ["box-1"] * 2001}, "malformed"), ({"nbf": -1}, "malformed"),
        ({"args": {str(n): "x" for n in range(17)}}, "malformed"), ({"args": {"a": 1}}, "malformed"),
        ({"args": {"a": "x" * 5000}}, "args"), ({"exp": NOW - 61}, "times"),
    ],
)  # fmt: skip
@pytest.mark.protocol("P50")
def test_what_is_signed_and_is_no_job_is_refused(box: Box, change: dict[str, object], why: str) -> None:
    made = job()
    fields = {**msgspec.to_builtins(made), **change}
    refused(box, raw(msgspec.json.encode(fields)), why, made.id)


def test_a_job_under_another_jobs_name_is_refused(box: Box) -> None:
    refused(box, signed(job()), "name", ident())


def test_two_jobs_under_one_name_are_the_first_of_them(box: Box) -> None:
    made = job("diag.collect")
    other = msgspec.structs.replace(made, kind="engine.restart")
    box.give(signed(made))
    box.turn(5)
    box.give(signed(other))
    box.turn(5)
    assert box.hands.done == [("diag.collect", made.id)] and box.notices() == [("REJECTED", "other_payload")]
    assert box.states(made.id) == DONE


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 200_000, b"{" * 3, b'{"payload":' * 2000, b"\xff" * 100])
def test_what_is_no_json_or_far_too_deep_is_refused(box: Box, data: bytes) -> None:
    name = ident()
    if not data:
        assert not box.give(data, name)
        return
    refused(box, data, "malformed", name)


def test_a_signed_job_of_deep_json_is_refused(box: Box) -> None:
    deep = b'{"id":' + b"[" * 60_000 + b"]" * 60_000 + b"}"
    refused(box, raw(deep), "malformed")


def test_what_is_oversized_is_not_even_kept(box: Box) -> None:
    assert not box.give(b"x" * (ENVELOPE_CAP + 1), ident())
    assert not box.settings.jobs_inbox.exists() and box.inbox.refused == 1
    box.settings.jobs_inbox.mkdir(parents=True)
    (box.settings.jobs_inbox / ident()).write_bytes(b"y" * (ENVELOPE_CAP + 1))
    box.turn(3)
    assert box.notices() == [("REJECTED", "malformed")] and list(box.settings.jobs_inbox.iterdir()) == []


@pytest.mark.parametrize("name", ["../state", "..", "", "x" * 26, "01JD3Z9V7M2Q4W8X6Y5T3R1P0", "a/b", ".hidden"])
def test_what_has_no_jobs_name_is_not_kept(box: Box, name: str) -> None:
    assert not box.inbox.take(name, signed(job()))
    assert not box.settings.jobs_inbox.exists() or list(box.settings.jobs_inbox.iterdir()) == []


def test_an_inbox_that_is_full_takes_no_more_and_empties(tmp_path: Path) -> None:
    box = Box(tmp_path, Hands(), operators=None)
    kept = []
    for _ in range(2 * INBOX_CAP):
        kept.append(box.give(b"no job", ident()))
        box.mono += 60
    assert sum(kept) == INBOX_CAP
    box.believe(LISTED)
    box.turn(3)
    assert list(box.settings.jobs_inbox.iterdir()) == []


def test_what_a_power_cut_left_half_written_takes_no_place_in_the_inbox(box: Box) -> None:
    box.settings.jobs_inbox.mkdir(parents=True)
    for number in range(2 * INBOX_CAP):
        (box.settings.jobs_inbox / f".{ident()}.{number}.tmp").write_bytes(b"{")
    made = job()
    assert box.give(signed(made))
    assert [path.name for path in box.settings.jobs_inbox.iterdir()] == [made.id]


def test_a_broker_that_sends_without_end_does_not_wear_the_disk_out(box: Box) -> None:
    for rest, may in ((0.0, INBOX_CAP), (60.0, 10), (3.0, 0), (3.1, 1), (10**6, INBOX_CAP)):
        box.mono += rest
        kept = 0
        for _ in range(2 * INBOX_CAP):
            kept += box.give(b"no job", ident())
            box.turn(seconds=0.0)
        assert kept == may, rest


def test_a_broker_that_invents_jobs_without_end_fills_neither_disk_nor_line(box: Box) -> None:
    for _ in range(1000):
        box.give(signed(job(), STRANGER))
        box.turn(1, seconds=0.1)
    assert len(box.notices()) == runner.NOTICES and box.kept().entries == ()
    box.turn(10)
    made = job()
    box.give(signed(made))
    box.turn(5)
    assert box.states(made.id) == DONE, "who is listened to is heard all the same"


@pytest.mark.protocol("P55")
def test_a_forgery_under_a_true_jobs_name_takes_nothing_from_it(box: Box) -> None:
    made = job()
    box.give(signed(made, STRANGER))
    box.turn(3)
    box.give(signed(made))
    box.turn(5)
    assert box.notices() == [("REJECTED", "signature")] and box.states(made.id) == DONE
    box.give(signed(made, STRANGER))
    box.turn(5)
    assert box.states(made.id) == DONE


def test_a_job_that_comes_before_the_list_of_operators_waits_for_it(tmp_path: Path) -> None:
    box, made = Box(tmp_path, Hands(), operators=None), job()
    box.give(signed(made))
    box.turn(20)
    assert box.notices() == [("WAITING", "network")] and box.hands.done == []
    box.believe(LISTED)
    box.turn(5)
    assert box.states(made.id) == DONE


def test_where_no_list_can_come_no_job_is_taken(tmp_path: Path) -> None:
    box = Box(tmp_path, Hands(), operators=None)
    box.settings = msgspec.structs.replace(
        box.settings, signatures=msgspec.structs.replace(box.settings.signatures, channel="")
    )
    box.restart()
    box.give(signed(job()))
    box.turn(3)
    assert box.notices() == [("REJECTED", "no_operators")] and list(box.settings.jobs_inbox.iterdir()) == []


def test_what_the_inbox_holds_that_is_no_file_is_passed_over(box: Box) -> None:
    box.settings.jobs_inbox.mkdir(parents=True)
    import os

    os.mkfifo(box.settings.jobs_inbox / ident())
    (box.settings.jobs_inbox / ident()).symlink_to("/dev/zero")
    made = job()
    box.give(signed(made))
    box.turn(5)
    assert box.states(made.id) == DONE


# Waiting, canceling, one at a time


def test_of_the_kinds_that_change_the_box_one_is_under_way(box: Box) -> None:
    first, second, other = job("fw.activate", args={"counter": "7"}), job("sig.update"), job("diag.collect")
    box.hands.outcome[first.id] = Progress("WAITING", "customer")
    for made in (first, second, other):
        box.give(signed(made))
        box.turn(3)
    assert box.states(second.id)[-1] == "WAITING(turn)" and box.states(other.id)[-1] == "SUCCEEDED"
    box.hands.outcome[first.id] = Progress("SUCCEEDED", by="portal")
    box.turn(20)
    assert box.states(second.id)[-1] == "SUCCEEDED" and box.told_of(first.id)[-1].by == "portal"


def test_a_choice_the_customer_never_makes_ends_with_the_job_and_is_taken_back(box: Box) -> None:
    made = job("fw.activate", exp=NOW + 1000)
    box.hands.outcome[made.id] = Progress("WAITING", "customer", "STAGED")
    box.give(signed(made))
    box.turn(1100)
    assert box.states(made.id)[-1] == "EXPIRED(customer)" and box.hands.withdrawn == [made.id]


def test_a_newer_release_takes_the_place_of_one_that_waits_for_a_choice(box: Box) -> None:
    old, new = job("fw.activate", args={"counter": "7"}), job("fw.activate", args={"counter": "8"})
    box.hands.outcome[old.id] = Progress("WAITING", "customer")
    for made in (old, new):
        box.give(signed(made))
        box.turn(10)
    box.turn(10)
    assert box.states(old.id)[-1] == "SUPERSEDED" and box.states(new.id)[-1] == "SUCCEEDED"


@pytest.mark.parametrize("first", ["job", "cancel"])
def test_a_canceled_job_is_not_begun_whichever_comes_first(box: Box, first: str) -> None:
    made = job(nbf=NOW + 100)
    cancel = job("job.cancel", args={"job": made.id})
    for one in (made, cancel) if first == "job" else (cancel, made):
        box.give(signed(one))
        box.turn(15)
    box.turn(200)
    assert box.states(made.id)[-1] == "CANCELED" and box.states(cancel.id)[-1] == "SUCCEEDED"
    assert box.hands.done == []


def test_canceling_what_is_under_way_takes_it_back_or_comes_too_late(box: Box) -> None:
    for too_late, ends in (("", ("CANCELED", "SUCCEEDED")), ("activating", ("SUCCEEDED", "FAILED(too_late)"))):
        made, box.hands.too_late = job("fw.activate"), too_late
        box.hands.outcome[made.id] = Progress("WAITING", "customer")
        box.give(signed(made))
        box.turn(10)
        cancel = job("job.cancel", args={"job": made.id})
        box.give(signed(cancel))
        box.turn(10)
        box.hands.outcome[made.id] = Progress("SUCCEEDED")
        box.turn(10)
        assert (box.states(made.id)[-1], box.states(cancel.id)[-1]) == ends


def test_time_is_only_ever_set_forward_and_never_past_what_was_signed(box: Box) -> None:
    box.believe(LISTED, at=float(NOW))
    for said, state in ((NOW + 50, "SUCCEEDED"), (NOW + 10**7, "REJECTED(args)"), (NOW - 10**7, "REJECTED(args)")):
        made = job("time.set", args={"time": str(said)})
        box.told = False
        box.give(signed(made))
        box.turn(15)
        assert box.states(made.id)[-1] == state
    assert box.kept().floor == NOW + 50
    box.give(signed(job("time.set", args={"time": str(NOW)})))
    box.turn(15)
    assert box.kept().floor == NOW + 50


def test_a_time_of_the_far_future_is_set_by_nobody(box: Box) -> None:
    """A floor is durable: what is beyond reason would refuse every key and job for ever."""
    far, begun = 990_000_000_000, []
    for nbf, until, told in ((far, far * 2, False), (far, far * 2, True), (NOW - 60, NOW + 10, False)):
        signer = Person("nakamura", until=until)
        box.believe(Operators(operators=[signer.operator]), at=float(NOW), expires=float(far * 3))
        box.told = told
        made = job("time.set", nbf=nbf, exp=nbf + 500, args={"time": str(nbf + 100)})
        box.give(signed(made, signer))
        box.turn(15)
        begun.append(box.states(made.id)[-1:] or [box.notices()[-1][1]])
    assert begun == [["WAITING(clock)"], ["times"], ["args"]]
    assert box.kept().floor == 0.0


def test_a_time_that_is_years_ahead_is_not_set_even_where_the_broker_agrees(box: Box) -> None:
    box.true = NOW + machine.AHEAD_S
    signer = Person("nakamura", until=NOW * 2)
    box.believe(Operators(operators=[signer.operator]), expires=NOW * 2.0)
    made = job("time.set", nbf=int(box.true), exp=int(box.true) + 500, args={"time": str(int(box.true) + 100)})
    box.give(signed(made, signer))
    box.turn(15)
    assert box.states(made.id)[-1] == "REJECTED(args)" and box.kept().floor == 0.0


def test_a_broker_that_sets_the_time_back_revives_neither_a_job_nor_a_key(box: Box) -> None:
    old = signed(job("engine.restart", nbf=NOW - 900, exp=NOW - 500))
    key = signed(job("engine.restart", nbf=NOW - 900, exp=NOW + 500), OVER)
    box.believe(LISTED, at=float(NOW))
    box.true = NOW - 800.0
    for envelope in (old, key):
        box.give(envelope)
        box.turn(5)
    assert box.hands.done == [] and box.states(name_of(old))[-1] == "EXPIRED"
    assert box.notices() == [("REJECTED", "signature")]


def test_while_nobody_told_the_time_a_key_that_is_over_by_signed_time_signs_nothing(box: Box) -> None:
    box.believe(LISTED, at=float(NOW))
    box.told = False
    made = job("job.cancel", args={"job": ident()})
    refused(box, signed(made, OVER), "signature", made.id)


def test_a_list_of_operators_past_its_end_lets_nobody_sign(box: Box) -> None:
    waits, late = job(nbf=NOW + 100), job()
    box.believe(LISTED, expires=NOW + 50.0)
    box.give(signed(waits))
    box.turn(60)
    box.give(signed(late))
    box.turn(100)
    assert box.states(waits.id)[-1] == "WAITING(network)" and box.notices() == [("WAITING", "network")]
    assert box.hands.done == []
    box.believe(LISTED, at=box.true)
    box.turn(30)
    assert box.states(waits.id)[-1] == "SUCCEEDED" and box.states(late.id) == DONE


@pytest.mark.parametrize("other", [SATO, NARROW, OVER])
def test_who_did_not_sign_or_may_not_is_not_shown_as_a_signer(box: Box, other: Person) -> None:
    made = job("engine.restart")
    outer = msgspec.json.decode(signed(made, TANAKA, other))
    if other is SATO:
        outer["signatures"][1]["sig"] = base64.b64encode(bytes(64)).decode()
    box.give(msgspec.json.encode(outer), made.id)
    box.turn(5)
    assert {tuple(one.signers) for one in box.told_of(made.id)} == {("tanaka",)}


def test_an_end_is_for_ever_whatever_is_said_later(box: Box) -> None:
    made = job()
    box.hands.outcome[made.id] = Progress("FAILED", "refused")
    box.give(signed(made))
    box.turn(5)
    box.hands.outcome[made.id] = Progress("SUCCEEDED")
    box.restart()
    box.give(signed(made))
    box.turn(2000)
    assert [one for one in box.states(made.id) if one not in DONE] == ["FAILED(refused)"] * 2, (
        "told, and again as asked"
    )
    assert {one.ver for one in box.told_of(made.id) if one.state == "FAILED"} == {4}


def test_every_state_that_is_no_end_has_a_deadline(box: Box) -> None:
    for kind in ("engine.restart", "quarantine.release", "diag.collect"):
        made = job(kind, exp=NOW + 80 * 86_400)
        box.hands.outcome[made.id] = Progress("RUNNING")
        box.give(signed(made, TANAKA, SATO))
        box.turn(3)
        box.turn(20, seconds=100.0)
        assert box.states(made.id)[-1] == "TIMED_OUT(deadline)", kind
    box.told = False
    waits = job()
    box.give(signed(waits))
    box.turn(3)
    box.turn(9, seconds=86_400.0)
    assert box.states(waits.id)[-1] == "TIMED_OUT(clock)"


def test_what_is_for_ever_too_late_to_take_back_ends_at_its_deadline(box: Box) -> None:
    made, box.hands.too_late = job("fw.activate", exp=NOW + 100), "activating"
    box.hands.outcome[made.id] = Progress("WAITING", "customer")
    box.give(signed(made))
    box.turn(200)
    assert box.states(made.id)[-1] == "WAITING(customer)"
    box.turn(95, seconds=86_400.0)
    assert box.states(made.id)[-1] == "TIMED_OUT(customer)"


def test_a_damaged_book_stops_jobs_and_forgets_nothing(box: Box) -> None:
    from sekisho.appliance.core.errors import DeviceFault

    box.give(signed(job()))
    box.turn(5)
    (box.settings.jobs_state / "book.json").write_bytes(b'{"entries":')
    with pytest.raises(DeviceFault, match="no jobs are taken"):
        box.restart()


def test_what_is_read_of_a_job_is_what_was_signed() -> None:
    made = job(args={"a": "b"}, rollout="r1")
    assert msgspec.json.decode(msgspec.json.encode(made), type=Job) == made
