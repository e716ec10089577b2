"""The rubric gives the stars a person would give: labelled cases of real rules, from the engine's line to the event."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sekisho.telemetry import events, reasons, stars
from sekisho.telemetry.decode import decode_eve, decode_journal
from sekisho.telemetry.events import (
    Alert,
    Bypass,
    Delivery,
    Event,
    FileVerdict,
    Firmware,
    Flow,
    Gap,
    Health,
    Job,
    Retro,
    Signatures,
)
from sekisho.telemetry.inventory import Inventory
from sekisho.telemetry.weigh import weigh

NOW = "2026-01-02T03:04:05.000006Z"
HOME = ("192.168.10.0/24", "fd00::/8")
CASES = tomllib.loads(Path(__file__).with_name("stars_cases.toml").read_text())["case"]
SPELLED_OUT = {name: text for text, name in stars.table().classes.items()}
OURS, INSIDE, OUTSIDE = "192.168.10.20", "192.168.10.30", "198.51.100.9"
ENDS = {"out": (OURS, OUTSIDE), "in": (OUTSIDE, OURS), "internal": (OURS, INSIDE)}
MAC = "02:00:00:00:00:20"


def office(directory: Path, kind: str = "") -> Inventory:
    (directory / "inventory.json").write_text(json.dumps({OURS: MAC, "2001:db8:1::20": MAC}))
    (directory / "kinds.json").write_text(json.dumps({MAC: kind} if kind else {}))
    made = Inventory(directory / "inventory.json", directory / "kinds.json", HOME)
    made.refresh()
    return made


def line(case: dict[str, Any], ends: tuple[str, str], side: str, outcome: str) -> bytes:
    """What the engine writes: the packet's ends, which are the connection's the other way round in an answer."""
    client, server = ends
    src, dst = (server, client) if side == "to_client" else (client, server)
    alert = {
        "signature_id": case["sid"], "signature": case["msg"], "category": SPELLED_OUT[case["classtype"]],
        "action": outcome, "severity": 1, "metadata": case.get("metadata", {}),
    }  # fmt: skip
    eve = {"timestamp": "2026-01-02T03:04:05.000006+0000", "event_type": "alert", "proto": "TCP", "alert": alert}
    return json.dumps({**eve, "src_ip": src, "dest_ip": dst, "direction": side}).encode()


def judged(raw: bytes, inventory: Inventory) -> Alert:
    event = decode_eve(raw, inventory)
    assert isinstance(event, Alert)
    return event


def journaled(event: Event, inventory: Inventory) -> tuple[int, str]:
    made = decode_journal(events.encode(event), inventory)
    return getattr(made, "stars", 0), getattr(made, "why_stars", "")


@pytest.mark.parametrize("case", CASES, ids=[f"{c['sid']}-{c['flow']}-{c['outcome']}-{c['device']}" for c in CASES])
def test_a_labelled_case_gets_its_stars(case: dict[str, Any], tmp_path: Path) -> None:
    event = judged(line(case, ENDS[case["flow"]], case["side"], case["outcome"]), office(tmp_path, case["device"]))
    assert (event.stars, event.direction) == (case["stars"], case["flow"]), (event.why_stars, case["because"])


def test_the_cases_are_many_and_of_every_kind() -> None:
    counted = Counter(case["stars"] for case in CASES)
    assert len(CASES) >= 60
    assert all(counted[number] >= 10 for number in range(4))
    assert len({case["classtype"] for case in CASES}) >= 20


CALL = {"sid": 1, "msg": "ET MALWARE Something CnC Beacon", "classtype": "command-and-control"}


@pytest.mark.parametrize("side", ["to_server", "to_client", ""])
@pytest.mark.parametrize("ends", [(OURS, OUTSIDE), ("2001:db8:1::20", "2001:db8:9::9"), ("fd00::20", "2001:db8:9::9")])
def test_who_called_whom_does_not_depend_on_whose_packet_raised_the_alert(
    side: str, ends: tuple[str, str], tmp_path: Path
) -> None:
    event = judged(line(CALL, ends, side, "blocked"), office(tmp_path))
    assert (event.direction, event.stars, event.why_stars) == ("out", 3, "calls_out")


def test_a_connection_none_of_whose_ends_is_known_is_no_attack_from_outside(tmp_path: Path) -> None:
    unknown = ("2001:db8:7::1", "2001:db8:9::9")
    assert judged(line(CALL, unknown, "to_server", "blocked"), office(tmp_path)).stars == 3
    scan = {"sid": 2, "msg": "ET SCAN Something", "classtype": "network-scan"}
    assert judged(line(scan, unknown, "to_server", "allowed"), office(tmp_path)).stars == 0


@pytest.mark.parametrize(
    ("more", "expected"),
    [({"confidence": ["High"]}, 3), ({"confidence": ["Low"]}, 2), ({"signature_severity": ["Informational"]}, 2)],
)
def test_what_a_rules_author_says_of_its_confidence_counts(
    more: dict[str, list[str]], expected: int, tmp_path: Path
) -> None:
    hedged = "ET MALWARE Possible CnC" if expected == 3 else CALL["msg"]
    case = {**CALL, "msg": hedged, "metadata": more}
    assert judged(line(case, ENDS["out"], "to_server", "allowed"), office(tmp_path)).stars == expected


def test_a_rule_of_a_class_nobody_knows_is_a_weak_sign(tmp_path: Path) -> None:
    own = {"sid": 3, "msg": "our own rule", "classtype": "not-suspicious"}
    raw = json.loads(line(own, ENDS["out"], "to_server", "allowed"))
    raw["alert"]["category"] = "a class nobody listed"
    event = judged(json.dumps(raw).encode(), office(tmp_path))
    assert (event.stars, event.why_stars) == (1, "weak_sign")


IN = Flow(OUTSIDE, 80, OURS, 40000, "TCP")
OUT = Flow(OURS, 40000, OUTSIDE, 25, "TCP")


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (FileVerdict(at=NOW, flow=IN, outcome="blocked", rules=["a"]), (2, "file_stopped")),
        (FileVerdict(at=NOW, flow=IN, outcome="delivered_then_found", rules=["a"]), (3, "file_arrived")),
        (
            FileVerdict(at=NOW, flow=IN, outcome="released_by_policy", reason="detect_only", rules=["a"]),
            (3, "file_arrived"),
        ),
        (FileVerdict(at=NOW, flow=OUT, outcome="blocked", rules=["a"]), (3, "sends_malware")),
        (FileVerdict(at=NOW, flow=IN, outcome="blocked", reason="encrypted"), (1, "file_refused")),
        (FileVerdict(at=NOW, flow=IN, outcome="released_by_policy", reason="too_large"), (0, "")),
        (FileVerdict(at=NOW, flow=IN, outcome="clean"), (0, "")),
        (Retro(at=NOW, deliveries=[Delivery(ip=OURS)]), (3, "file_arrived_before")),
        (Retro(at=NOW), (1, "file_known_now")),
        (Bypass(at=NOW, state="began"), (1, "inspection_off")),
        (Bypass(at=NOW, state="ended", seconds=3.0), (0, "")),
        (Bypass(at=NOW, state="lasts", seconds=60.1), (2, "inspection_stays_off")),
        (Bypass(at=NOW, state="lasts", seconds=600.1), (3, "inspection_stays_off")),
        (Bypass(at=NOW, state="ended", seconds=900.0), (1, "inspection_was_off")),
        (Health(at=NOW, part="engine", state="started", rules=19_000), (0, "")),
        (Health(at=NOW, part="engine", state="reloaded", rules=0), (3, "no_rules")),
        (Health(at=NOW, part="quarantine", state="failed"), (2, "storage_failed")),
        (Signatures(at=NOW, state="silent"), (2, "rules_lost")),
        (Signatures(at=NOW, state="silent", seconds=60.1), (3, "no_rules")),
        (Signatures(at=NOW, state="repaired", seconds=9.0), (1, "rules_back")),
        (Signatures(at=NOW, state="refused", refused=13), (1, "set_refused")),
        (Signatures(at=NOW, state="rolled_back", refused=13), (1, "set_refused")),
        *(
            (Signatures(at=NOW, state=state, freshness="stale", sids=[1]), (0, ""))
            for state in ("active", "soaking", "muted", "freshness")
        ),
        (Firmware(at=NOW, state="staged", tier=3, why="customer"), (1, "restart_waits")),
        (Firmware(at=NOW, state="staged", tier=1, why="customer"), (0, "")),
        (Firmware(at=NOW, state="staged", tier=3, why="window"), (0, "")),
        (Firmware(at=NOW, state="staged", tier=3, why="deadline"), (2, "restart_due")),
        (Firmware(at=NOW, state="staged", tier=2, why="overdue"), (3, "restart_overdue")),
        (Firmware(at=NOW, state="reverted", tier=3, why="gate:forwarding"), (1, "release_taken_back")),
        (Firmware(at=NOW, state="failed", tier=1, why="disk"), (1, "release_not_taken")),
        (Firmware(at=NOW, state="rejected", tier=1, why="refused"), (1, "release_not_taken")),
        *((Firmware(at=NOW, state=state, tier=3), (0, "")) for state in ("offered", "trial", "succeeded", "status")),
        (Job(at=NOW, id="J", ver=1, state="REJECTED", why="signature"), (2, "job_forged")),
        (Job(at=NOW, id="J", ver=9, state="SUCCEEDED", kind="quarantine.release"), (1, "job_released")),
        *(
            (Job(at=NOW, id="J", ver=9, state=state, kind="fw.stage"), (1, "job_failed"))
            for state in ("FAILED", "REVERTED", "TIMED_OUT")
        ),
        *(
            (Job(at=NOW, id="J", ver=2, state=state, kind="fw.stage", why="customer"), (0, ""))
            for state in ("ACCEPTED", "WAITING", "RUNNING", "SUCCEEDED", "REJECTED", "CANCELED", "EXPIRED")
        ),
        (Gap(at=NOW, first=1, last=2, count=2, why="spool_full"), (1, "reports_dropped")),
        (Gap(at=NOW, first=1, last=2, count=2, why="damaged"), (2, "findings_lost")),
        (Alert(at=NOW, flow=OUT, function="url_category", action="blocked"), (0, "")),
        (Alert(at=NOW, flow=OUT, function="web_guard", action="blocked"), (1, "listed_stopped")),
        (Alert(at=NOW, flow=OUT, function="web_guard"), (2, "listed_contact")),
        (Alert(at=NOW, flow=OUT, function="web_guard", exception="fax"), (0, "")),
        (Alert(at=NOW, flow=OUT, function="known_file", action="blocked"), (2, "file_stopped")),
        (Alert(at=NOW, flow=OUT, function="isolation", action="blocked"), (1, "isolated_tries")),
    ],
)
def test_events_of_the_box_itself_get_their_stars(event: Event, expected: tuple[int, str], tmp_path: Path) -> None:
    assert journaled(event, office(tmp_path)) == expected


def test_what_the_office_has_excepted_is_nothing_it_must_be_told_of(tmp_path: Path) -> None:
    """It is counted with its exception; who decided that it may pass is not woken up by it."""
    inventory, call = office(tmp_path), stars.Signature("ET MALWARE CnC Beacon", SPELLED_OUT["trojan-activity"])
    plain = Alert(at=NOW, flow=OUT)
    excepted = msgspec.structs.replace(plain, exception="maintenance")
    assert [getattr(weigh(event, inventory, call), "stars", None) for event in (plain, excepted)] == [3, 0]


def test_nobody_upstream_decides_how_important_an_event_is(tmp_path: Path) -> None:
    boast = FileVerdict(at=NOW, flow=IN, outcome="clean", stars=3, why_stars="calls_out")
    assert journaled(boast, office(tmp_path)) == (0, "")


def test_every_code_has_words_in_both_languages_and_every_kind_a_line() -> None:
    rubric = stars.table()
    assert {row.why for row in rubric.row if row.stars} == reasons.codes()
    for code in reasons.codes():
        for locale in ("ja", "en"):
            said = reasons.of(code, locale)
            assert all((said.what, said.matters, said.todo)) and not said.what.endswith(("。", "."))
    asked = {kind for row in rubric.row for kind in row.kind}
    assert asked | {"nothing"} == {kind.name for kind in rubric.kind}
    assert all((row.stars == 0) == (row.why == "") for row in rubric.row)
    assert len({row for row in rubric.row}) == len(rubric.row)


def test_a_code_of_a_newer_release_still_has_words() -> None:
    assert reasons.of("of_next_year", "en") == reasons.of("weak_sign", "en")
