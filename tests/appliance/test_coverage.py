"""The coverage account as a playbook: readings and absences in, tallies and events out; and its life on disk."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.appliance import meter
from sekisho.appliance.coverage import GROUP, STOPPED, Account, Away, Hour, Moment, State, Tally, events, split
from sekisho.appliance.covering import load_hours, load_state
from sekisho.appliance.handed import Alive, Handed, Shed, Sheds, asked, crossed, taken
from sekisho.appliance.meter import WAYS, Reading, plan
from sekisho.appliance.watchdog import Queue
from sekisho.telemetry.events import Coverage, Share

MAC = "02:00:00:00:00:10"
START = datetime(2026, 1, 1, 9, 0, 0, tzinfo=UTC)
HERE = Away()


def at(seconds: float) -> Moment:
    return Moment(START + timedelta(seconds=seconds), 1000 + seconds)


def reading(epoch: str = "boot:1", /, **ways: int) -> Reading:
    return Reading(epoch, {way: {MAC: octets} for way, octets in ways.items()})


def begun(**ways: int) -> Account:
    return Account.begin(reading("boot:1", **ways), at(0), HERE)


def tally(account: Account, mac: str = MAC) -> Tally:
    return account.state.hour.devices.get(mac, Tally())


def test_what_was_counted_before_the_first_reading_belongs_to_no_hour() -> None:
    assert begun(engine=500).state.hour.devices == {}


@pytest.mark.parametrize(
    ("away", "expected"),
    [
        (Away(), Tally(inspected=7, opaque=8 + 64, unseen=48)),
        (Away("hung"), Tally(inspected=1, opaque=8, unseen=32, bypassed={"engine_hung": 2 + 4 + 16 + 64})),
        (Away("", "absent"), Tally(inspected=4, opaque=8 + 64, unseen=48, bypassed={"gate_absent": 3})),
        (Away("absent", "hung"), Tally(opaque=8, unseen=32, bypassed={"engine_absent": 22 + 64, "gate_hung": 1})),
    ],
)
def test_a_byte_is_inspected_only_if_all_who_had_to_look_were_there(away: Away, expected: Tally) -> None:
    account = begun()
    account.read(reading(gate=1, both=2, engine=4, opaque=8, around=16, other=32, sealed=64), at(60), away, HERE)
    assert tally(account) == expected
    assert (account.state.hour.seconds, account.state.hour.off_seconds) == (60, 60 if away.reason else 0)


def test_what_full_queues_let_pass_was_not_inspected() -> None:
    account = begun()
    ways = reading(engine=1000, both=1000, gate=1000, opaque=1000, sealed=1000)
    account.read(ways, at(60), HERE, HERE, Shed(engine=0.1, gate=0.5))
    assert tally(account) == Tally(
        inspected=900 + 450 + 500, opaque=1900, bypassed={"engine_overload": 300, "gate_overload": 450 + 500}
    )


def test_what_the_gate_let_go_unlooked_at_was_not_inspected_whoever_else_was_there() -> None:
    account = begun()
    account.read(reading(gate=100, large=30, scarce=5), at(60), HERE, HERE, Shed(gate=0.5))
    account.read(reading(gate=100, large=40, scarce=5), at(120), Away("hung"), HERE)
    expected = {"gate_overload": 50, "too_large": 40, "gate_memory": 5}
    assert tally(account) == Tally(inspected=50, bypassed=expected)


def test_what_was_asked_of_an_inspector_that_had_ended_was_not_shed_by_a_full_queue() -> None:
    account = begun()
    ways = reading(engine=1000, both=1000, gate=1000, opaque=1000, sealed=1000)
    account.read(ways, at(60), HERE, Away("absent"), Shed(engine=0.1, engine_left=0.2))
    assert tally(account) == Tally(
        inspected=1400 + 1000, opaque=1700, bypassed={"engine_overload": 300, "engine_absent": 600}
    )


def handed(asked: int, taken: int, meanwhile: int = 0) -> Handed:
    return Handed(asked, taken, taken + meanwhile)


def test_sheds_are_what_lies_between_asking_and_taking() -> None:
    sheds = Sheds()
    followed = [handed(1000, 1000), handed(2000, 1995), handed(12_000, 6000), handed(13_000, 7000)]
    assert [sheds.handle(now) for now in followed] == [0, 0.005, pytest.approx(0.5995), 0]
    assert sheds.handle(handed(20_000, 100)) == 0, "the engine's queue began anew"
    assert sheds.handle(handed(30, 5000)) == 0, "the rules were loaded afresh"
    sheds.forget()
    assert sheds.handle(handed(50_000, 5000)) == 0, "it was away, which is said already"


def test_what_came_while_the_counts_were_read_was_not_shed() -> None:
    """A busy machine takes half a second to read the rules, and a thousand packets come meanwhile."""
    sheds = Sheds()
    followed = [handed(5000, 4000, 1000), handed(9000, 9000, 10), handed(14_500, 13_500, 1000), handed(15_000, 14_100)]
    assert [sheds.handle(now) for now in followed] == [0, 0, 0, 0]
    assert sheds.handle(handed(20_000, 18_000)) == pytest.approx(1000 / 5000), "since the first, what is certain"


def test_what_an_inspector_missed_when_it_had_ended_is_told_apart_from_what_it_shed_before() -> None:
    sheds = Sheds()
    sheds.handle(handed(1000, 1000))
    assert sheds.end(1500, Alive(1300, 7000), 7260) == (0, 0.4), "200 of 500, and 260 frames had come since"
    sheds.forget()
    sheds.handle(handed(2000, 0))
    assert sheds.end(4000, Alive(500, 9000), 9100) == (0.7, 0.05), "its queue had overflowed while it was there"
    sheds.forget()
    sheds.handle(handed(4000, 0))
    sheds.handle(handed(5000, 1000))
    assert sheds.end(5010, Alive(990, 9900), 9950) == (0, 1), "the last reading saw it later than the watchdog"
    sheds.forget()
    assert sheds.end(9000, Alive(0, 0), 10**6) == (0, 0), "it was away before"


@given(st.lists(st.tuples(st.integers(0, 10**5), st.integers(0, 10**5), st.integers(0, 10**5)), max_size=30))
def test_small_sheds_add_up_and_none_is_more_than_what_was_asked(steps: list[tuple[int, int, int]]) -> None:
    sheds, offers, took = Sheds(), 0, 0
    for offered, lost, meanwhile in steps:
        offers += offered
        took += max(0, offered - lost)
        assert 0 <= sheds.handle(handed(offers, took, meanwhile)) <= 1
        assert all(0 <= part <= 1 for part in sheds.end(offers + lost, Alive(took, took), took + offered))


def test_the_counts_are_found_in_the_tools_words() -> None:
    rules = """[7:700] -A SK_Q0 -j NFQUEUE --queue-num 0 --queue-bypass
[1:100] -A SK_Q1 -j NFQUEUE --queue-num 1
[5:9] -A FORWARD -j NFQUEUE --queue-num 3
[3:30] -A SK_FILES -j NFQUEUE --queue-num 64 --queue-bypass
"""
    queues = {0: Queue(0, 6), 1: Queue(0, 1), 64: Queue(1, 2)}
    assert (asked(rules), taken(queues)) == ((8, 3), (7, 2))


def test_the_frames_of_both_ports_are_added_and_a_port_that_is_gone_has_none(tmp_path: Path) -> None:
    for port, frames in (("eth-lan", 40), ("eth-wan", 2)):
        (tmp_path / port / "statistics").mkdir(parents=True)
        (tmp_path / port / "statistics" / "rx_packets").write_text(f"{frames}\n")
    assert crossed("eth-lan", "eth-wan", "eth-gone", root=tmp_path) == 42


def test_only_what_is_new_since_the_last_reading_is_entered() -> None:
    account = begun(engine=100)
    account.read(reading(engine=150), at(60), HERE, HERE)
    account.read(reading(engine=150), at(120), HERE, HERE)
    assert tally(account).inspected == 50


def test_a_device_that_was_forgotten_by_the_kernel_is_counted_from_nothing_again() -> None:
    account = begun(engine=100)
    account.read(reading(engine=30), at(60), HERE, HERE)
    assert tally(account).inspected == 30


def test_a_table_loaded_afresh_is_counted_whole_even_when_it_has_more_than_the_former() -> None:
    account = begun(engine=100)
    account.read(reading("boot:2", engine=130), at(60), HERE, HERE)
    assert tally(account).inspected == 130


def test_riders_are_told_apart_by_samples_and_add_up_to_the_byte() -> None:
    other = "02:00:00:00:00:11"
    account = begun()
    counts = {"riders": {"lan": 1000, "wan": 7}, "sample_lan": {MAC: 20, other: 10}}
    account.read(Reading("boot:1", counts), at(60), HERE, HERE)
    assert (tally(account), tally(account, other)) == (Tally(opaque=667), Tally(opaque=333))
    later = {"riders": {"lan": 1000, "wan": 9}, "sample_lan": {MAC: 20, other: 10}, "sample_wan": {other: 2}}
    account.read(Reading("boot:1", later), at(120), HERE, HERE)
    assert tally(account, other) == Tally(opaque=333 + 9), "riders without a sample wait for one"


@given(st.integers(0, 10**12), st.dictionaries(st.integers(0, 50).map(str), st.integers(1, 10**9), min_size=1))
def test_a_split_loses_nothing(octets: int, samples: dict[str, int]) -> None:
    shares = split(octets, samples)
    assert sum(shares.values()) == octets
    assert min(shares.values()) >= 0


def test_group_addresses_belong_to_no_device_and_still_add_up() -> None:
    account = begun()
    account.read(Reading("boot:1", {"engine": {"33:33:00:00:00:01": 5, "ff:ff:ff:ff:ff:ff": 6}}), at(1), HERE, HERE)
    assert tally(account, GROUP) == Tally(inspected=11)


def test_the_turn_of_the_hour_makes_one_event_for_each_device_that_spoke() -> None:
    account = begun()
    two = Reading("boot:1", {"engine": {MAC: 10, "02:00:00:00:00:11": 0}, "opaque": {MAC: 5}})
    account.read(two, at(3500), HERE, Away("hung"))
    account.read(reading(engine=30, opaque=5), at(3601), Away("hung"), HERE)
    assert account.state.pending == [
        Coverage(
            at="2026-01-01T10:00:01.000000Z", mac=MAC, hour="2026-01-01T09:00:00Z", seconds=3601,
            inspected=10, opaque=5, bypassed=[Share("engine_hung", 20)], off_seconds=101,
        )
    ]  # fmt: skip
    assert account.state.hour == Hour("2026-01-01T10:00:00Z")
    assert [hour.hour for hour in account.finished] == ["2026-01-01T09:00:00Z"]


def resumed(saved: State, now: Away, seconds: float, epoch: str = "boot:1", **ways: int) -> Account:
    copy = msgspec.json.decode(msgspec.json.encode(saved), type=State)
    return Account.resume(copy, reading(epoch, **ways), at(seconds), now)


def test_a_killed_daemon_whose_engine_went_on_loses_nothing() -> None:
    account = resumed(begun(engine=100).state, HERE, 30, engine=400)
    assert tally(account) == Tally(inspected=300)
    assert account.state.hour.off_seconds == 0


def test_what_passed_after_an_orderly_end_was_not_inspected() -> None:
    saved = begun(engine=100).state
    saved.stopped = True
    account = resumed(saved, HERE, 30, engine=400, gate=50)
    assert tally(account) == Tally(inspected=50, bypassed={STOPPED: 300})
    assert account.state.hour.off_seconds == 30
    assert not account.state.stopped


def test_an_inspector_found_away_at_the_start_was_away_since_the_last_reading() -> None:
    account = resumed(begun(engine=100).state, Away("absent"), 30, engine=400)
    assert tally(account).bypassed == {"engine_absent": 300}


def test_after_a_restart_of_the_machine_time_counts_from_its_start() -> None:
    saved = begun(engine=100).state
    saved.boot_mono = 50_000
    account = resumed(saved, HERE, 30, "other:1", engine=7)
    assert tally(account).inspected == 7
    assert account.state.hour.seconds == 1030


aways = st.builds(Away, st.sampled_from(["", "hung", "absent"]), st.sampled_from(["", "hung", "absent"]))
macs = st.sampled_from([MAC, "02:00:00:00:00:11", "33:33:00:00:00:01", ""])
steps = st.lists(st.tuples(st.sampled_from([*WAYS, "full"]), macs, st.integers(0, 10**9), aways), max_size=40)


@given(steps)
def test_whatever_happens_the_tallies_add_up_with_the_counters(taken: list[tuple[str, str, int, Away]]) -> None:
    counts: dict[str, dict[str, int]] = {}
    account = Account.begin(Reading("boot:1", {}), at(0), HERE)
    for number, (way, mac, octets, away) in enumerate(taken):
        counts.setdefault(way, {})[mac] = counts.get(way, {}).get(mac, 0) + octets
        now = Reading("boot:1", {name: dict(devices) for name, devices in counts.items()})
        account.read(now, at(number * 400), away, HERE)
    told = sum(t.total for hour in [*account.finished, account.state.hour] for t in hour.devices.values())
    assert told == sum(octets for _, _, octets, _ in taken)
    sent = sum(e.inspected + e.opaque + e.unseen + sum(s.octets for s in e.bypassed) for e in account.state.pending)
    assert sent == sum(t.total for hour in account.finished for t in hour.devices.values())


def test_a_device_with_nothing_to_tell_makes_no_event() -> None:
    assert events(Hour("2026-01-01T09:00:00Z", devices={MAC: Tally()}), "now") == []


def test_every_way_of_the_table_is_read_back_from_the_tools_words() -> None:
    elements = [{"elem": {"val": MAC, "expires": 7199, "counter": {"packets": 2, "bytes": 108}}}]
    listing = {
        "nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "netdev", "name": "sekisho_coverage", "handle": 4}},
            {"counter": {"family": "netdev", "name": "full", "table": "t", "packets": 1, "bytes": 60}},
            {"set": {"family": "netdev", "name": "gate", "table": "t", "type": "ether_addr", "elem": elements}},
            {"set": {"family": "netdev", "name": "own", "table": "t", "type": "ether_addr"}},
            {"chain": {"family": "netdev", "name": "to_lan"}},
            {"rule": {"comment": "riders_lan", "expr": [{"match": {}}, {"counter": {"packets": 1, "bytes": 77}}]}},
            {"rule": {"expr": [{"set": {"op": "update"}}, {"accept": None}]}},
        ]
    }
    found = meter.parse(json.dumps(listing), "boot")
    assert found == Reading("boot:4", {"full": {"": 60}, "gate": {MAC: 108}, "own": {}, "riders": {"lan": 77}})
    with pytest.raises(msgspec.MsgspecError):
        meter.parse("table netdev", "boot")


def test_the_plan_names_every_way_and_never_stops_a_frame() -> None:
    text = plan("eth-lan", "eth-wan", [MAC])
    assert all(f"set {way} " in text and f"update @{way} " in text for way in WAYS)
    assert "drop" not in text and "reject" not in text


def test_a_damaged_account_begins_anew(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None
    (tmp_path / "now.json").write_bytes(b'{"reading":')
    assert load_state(tmp_path) is None
    (tmp_path / "2026-01-01T090000Z.json").write_bytes(b"[]")
    assert load_hours(tmp_path, 5) == []
