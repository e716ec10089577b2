"""What of a policy is true at a moment: members, switches, packet rules, and when it changes next."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from sekisho.policy.compiler import compile_policy
from sekisho.policy.lists import Names
from sekisho.policy.model import Devices, PacketRule, Service
from sekisho.policy.selectors import Roster
from sekisho.policy.source import parse
from sekisho.policy.state import State, resolve

ROSTER = Roster({"10.0.0.5": "02:00:00:00:00:05", "10.0.0.6": "02:00:00:00:00:06"}, {"02:00:00:00:00:06": "camera"})
GROUPS = (
    '[[group]]\nname = "till"\ndevices = ["02-00-00-00-00-05", "10.1.0.0/16"]\n'
    '[[group]]\nname = "cams"\nkinds = ["camera"]\n'
    '[[schedule]]\nname = "night"\ntimes = ["daily 22:00-06:00"]\n'
)
TOKYO = dt.timezone(dt.timedelta(hours=9))


def at(hour: int, text: str, guards: dict[str, Names] | None = None) -> State:
    policy = parse(GROUPS + text)
    compiled = compile_policy(policy, {}, guards or {}, Path("/x"))
    return resolve(policy, compiled, guards or {}, ROSTER, dt.datetime(2026, 11, 18, hour, tzinfo=TOKYO), TOKYO)


def rules(text: str, hour: int = 12, guards: dict[str, Names] | None = None) -> tuple[PacketRule, ...]:
    return at(hour, text, guards).netfilter.rules


WALL = '[[firewall]]\nname = "mail"\nservices = ["tcp/25", "udp/1000-2000"]\nremote = ["203.0.113.0/24"]\n'


def test_a_packet_rule_names_devices_by_hardware_address_and_network() -> None:
    (rule,) = rules(WALL + 'groups = ["till", "cams"]\n')
    assert rule.devices == Devices(False, ("02:00:00:00:00:05", "02:00:00:00:00:06"), ("10.1.0.0/16",))
    assert rule.services == (Service("tcp", 25, 25), Service("udp", 1000, 2000))
    assert (rule.function, rule.entry, rule.action, rule.direction) == ("firewall", "mail", "block", "out")


def test_a_schedule_takes_a_rule_in_and_out_and_says_when() -> None:
    text = WALL + 'schedule = "night"\n'
    assert rules(text, 12) == () and len(rules(text, 23)) == 1
    assert at(12, text).next_change == dt.datetime(2026, 11, 18, 22, tzinfo=TOKYO)
    assert at(23, text).next_change == dt.datetime(2026, 11, 19, 6, tzinfo=TOKYO)


def test_an_exception_allows_what_both_are_about_right_before_its_rule() -> None:
    more = '[[exception]]\nid = "fax"\nreason = "r"\nfunction = "firewall"\nentry = "mail"\n'
    more += 'groups = ["cams"]\naddresses = ["203.0.113.9", "198.51.100.1"]\n'
    allow, block = rules(WALL + more)
    assert (allow.action, allow.exception, block.action) == ("allow", "fax", "block")
    assert allow.remote == ("203.0.113.9/32",) and allow.devices.macs == ("02:00:00:00:00:06",)
    assert allow.services == block.services
    assert len(rules(WALL + 'groups = ["till"]\n' + more)) == 1
    assert len(rules(WALL + more + "expires = 2026-11-17\n")) == 1
    assert len(rules(WALL + more.replace("203.0.113.9", "192.0.2.9"))) == 1


def test_isolation_leaves_only_what_is_allowed() -> None:
    allow, block = rules(
        '[[isolation]]\nname = "old"\ngroups = ["cams"]\ndevices = ["10.0.0.9"]\nallow = ["198.51.100.7"]\n'
    )
    assert (allow.action, allow.remote, block.action, block.remote) == ("allow", ("198.51.100.7/32",), "block", ())
    assert block.direction == "any"
    assert block.devices == Devices(False, ("02:00:00:00:00:06",), ("10.0.0.9/32",))


def test_the_web_guards_addresses_are_packet_rules_too() -> None:
    guards = {"own": Names(addresses={"203.0.113.0/24", "2001:db8::/32"})}
    (rule,) = rules('[[web_guard]]\nname = "own"\naction = "log"\n', guards=guards)
    assert (rule.function, rule.action, rule.remote) == ("web_guard", "log", ("2001:db8::/32", "203.0.113.0/24"))
    assert rule.devices.everyone


def test_the_lists_hold_addresses_of_members_and_switches() -> None:
    text = '[[keyword]]\nname = "w"\nwords = ["abc"]\ngroups = ["till"]\nschedule = "night"\n'
    day, night = at(12, text), at(23, text)
    assert day.sets == {"sk-g0": [b"10.0.0.5"], "sk-t-night": []}
    assert len(night.sets["sk-t-night"]) == 256
