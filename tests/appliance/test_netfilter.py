"""The rule generator as text; what the kernel makes of it is in test_netfilter_lab."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.appliance.core import marks
from sekisho.appliance.netfilter import GATE_QUEUE, Mode, plan

GOLDEN = """\
*mangle
:SK_LOOK - [0:0]
:SK_KEEP - [0:0]
:SK_SEEN - [0:0]
:SK_CANARY - [0:0]
:SK_Q0 - [0:0]
:SK_Q1 - [0:0]
-A SK_LOOK -m mark --mark 0x400/0x400 -j RETURN
-A SK_LOOK -m mark --mark 0x100/0x100 -j CONNMARK --or-mark 0x100
-A SK_LOOK -m connmark --mark 0x2/0x2 -j RETURN
-A SK_LOOK -m connmark --mark 0x80/0x80 -g SK_SEEN
-A SK_LOOK -m connmark --mark 0x200/0x200 -m conntrack --ctdir REPLY -g SK_SEEN
-A SK_LOOK -m connmark --mark 0x200/0x200 @BARE_ACK@ -g SK_SEEN
-A SK_LOOK -j HMARK --hmark-tuple src,dst,sport,dport --hmark-mod 2 --hmark-offset 0x10000 --hmark-rnd 7
-A SK_LOOK -m mark --mark 0x10001 -j SK_Q1
-A SK_LOOK -j SK_Q0
-A SK_Q0 -j MARK --set-mark 0x1
-A SK_Q0 -j NFQUEUE --queue-num 0 --queue-bypass
-A SK_Q1 -j MARK --set-mark 0x1001
-A SK_Q1 -j NFQUEUE --queue-num 1 --queue-bypass
-A SK_CANARY -m mark --mark 0x7ca00000 -j SK_Q0
-A SK_CANARY -m mark --mark 0x7ca00001 -j SK_Q1
-A SK_SEEN -j MARK --or-mark 0x1
-A SK_KEEP -m mark --mark 0x80/0x80 -j CONNMARK --or-mark 0x80
-A SK_KEEP -m mark --mark 0x200/0x200 -j CONNMARK --or-mark 0x200
-A SK_KEEP -m mark --mark 0x1000000/0x1000000 -m conntrack --ctdir REPLY ! --ctstatus ASSURED \
-j CONNMARK --or-mark 0x10000
-A SK_KEEP -m mark --mark 0x1000000/0x1000000 -m conntrack --ctdir ORIGINAL -j CONNMARK --and-mark 0xfffeffff
COMMIT
*filter
:SK_GATE - [0:0]
:SK_SAVE - [0:0]
:SK_REFUSE - [0:0]
:SK_FILES - [0:0]
:SK_UNKNOWN - [0:0]
:SK_HOLD - [0:0]
-A SK_GATE -m mark --mark 0x400/0x400 -j SK_REFUSE
-A SK_GATE -m connmark --mark 0x2/0x2 -j RETURN
-A SK_GATE -m mark ! --mark 0x0/0xe0072 -j SK_SAVE
-A SK_GATE -p tcp -m connmark --mark 0x400/0x400 -j SK_REFUSE
-A SK_GATE -p tcp -m connmark --mark 0x80/0x80 -j REJECT --reject-with tcp-reset
-A SK_GATE -p tcp -m connmark ! --mark 0x0/0xe0070 -j SK_FILES
-A SK_GATE -p tcp --tcp-flags FIN,SYN,RST,ACK SYN,ACK -m connmark --mark 0x0/0xe04f2 -m conntrack --ctdir REPLY \
-j SK_HOLD
-A SK_GATE -p tcp -m connmark --mark 0x10000/0xf04f2 -m conntrack --ctdir ORIGINAL -j SK_UNKNOWN
-A SK_UNKNOWN @BARE_ACK@ -j RETURN
-A SK_UNKNOWN -j MARK --or-mark 0x1000000
-A SK_UNKNOWN -j SK_HOLD
-A SK_SAVE -m mark --mark 0x2/0x2 -j CONNMARK --or-mark 0x2
-A SK_SAVE -m mark --mark 0x10/0x10 -j CONNMARK --or-mark 0x10
-A SK_SAVE -m mark --mark 0x20/0x20 -j CONNMARK --or-mark 0x20
-A SK_SAVE -m mark --mark 0x40/0x40 -j CONNMARK --or-mark 0x40
-A SK_SAVE -m mark --mark 0x20000/0x20000 -j CONNMARK --or-mark 0x20000
-A SK_SAVE -m mark --mark 0x40000/0x40000 -j CONNMARK --or-mark 0x40000
-A SK_SAVE -m mark --mark 0x80000/0x80000 -j CONNMARK --or-mark 0x80000
-A SK_REFUSE -m mark ! --mark 0x0/0xe0070 -j SK_SAVE
-A SK_REFUSE -p tcp -m mark --mark 0x400/0x400 -j CONNMARK --save-mark --nfmask 0xf00400 --ctmask 0xf00402
-A SK_REFUSE -p tcp -m tcp --tcp-flags SYN,ACK SYN -m mark --mark 0x0/0x400 -j DROP
-A SK_REFUSE -p tcp -m connmark --mark 0x400/0x400 -j CONNMARK --restore-mark --nfmask 0xf00400 --ctmask 0xf00400
-A SK_REFUSE -p tcp -m connmark --mark 0x80/0x80 -j REJECT --reject-with tcp-reset
-A SK_REFUSE -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j SK_HOLD
-A SK_REFUSE -j ACCEPT
-A SK_FILES -m connmark --mark 0x0/0x20 @BARE_ACK@ -j RETURN
-A SK_FILES -j SK_HOLD
-A SK_HOLD -m connmark --mark 0x10/0x10 -j MARK --or-mark 0x10
-A SK_HOLD -m connmark --mark 0x20/0x20 -j MARK --or-mark 0x20
-A SK_HOLD -m connmark --mark 0x40/0x40 -j MARK --or-mark 0x40
-A SK_HOLD -m connmark --mark 0x20000/0x20000 -j MARK --or-mark 0x20000
-A SK_HOLD -m connmark --mark 0x40000/0x40000 -j MARK --or-mark 0x40000
-A SK_HOLD -m connmark --mark 0x80000/0x80000 -j MARK --or-mark 0x80000
-A SK_HOLD -m connmark --mark 0x100/0x100 -j MARK --or-mark 0x100
-A SK_HOLD -m connmark --mark 0x200/0x200 -j MARK --or-mark 0x200
-A SK_HOLD -m conntrack --ctdir REPLY -j MARK --or-mark 0x8
-A SK_HOLD -j NFQUEUE --queue-num 64 --queue-bypass
COMMIT
"""

VERBS = {"RETURN", "HMARK", "MARK", "CONNMARK", "NFQUEUE", "REJECT", "ACCEPT", "DROP"}
modes = st.builds(Mode, engine_bypass=st.booleans(), gate_bypass=st.booleans())


def queue_rules(text: str) -> dict[int, str]:
    return {int(m[1]): m[0] for m in re.finditer(r"-j NFQUEUE --queue-num (\d+)[^\n]*", text)}


def test_the_plan_for_two_queues_is_the_published_one() -> None:
    assert plan(2, False) == GOLDEN


@given(st.integers(1, 16), st.booleans(), modes)
def test_every_plan_queues_exactly_where_its_mode_says(queues: int, closed: bool, mode: Mode) -> None:
    text = plan(queues, closed, mode)
    expected = set() if mode.engine_bypass else set(range(queues))
    expected |= set() if mode.gate_bypass else {GATE_QUEUE}
    rules = queue_rules(text)
    assert set(rules) == expected
    assert all(("--queue-bypass" in rule) is not closed for rule in rules.values())


@given(st.integers(1, 16), st.booleans(), modes)
def test_every_plan_stays_in_its_own_chains_and_ends_both_tables(queues: int, closed: bool, mode: Mode) -> None:
    lines = plan(queues, closed, mode).splitlines()
    declared = {line[1:].split()[0] for line in lines if line.startswith(":")}
    assert all(name.startswith("SK_") for name in declared)
    for line in lines:
        if line.startswith("-A "):
            assert line.split()[1] in declared
            jump = re.split(" -[jg] ", line)[1].split()[0]
            assert jump in declared or jump in {
                "RETURN",
                "HMARK",
                "MARK",
                "CONNMARK",
                "NFQUEUE",
                "REJECT",
                "ACCEPT",
                "DROP",
            }
    assert [line for line in lines if line.startswith("*")] == ["*mangle", "*filter"]
    assert lines.count("COMMIT") == 2


def test_the_gates_marks_stay_when_it_is_led_around() -> None:
    """The coverage says by them what passed without the gate's look."""
    marked = [line for line in plan(2, False).splitlines() if line.startswith("-A SK_HOLD") and "--or-mark" in line]
    led_around = plan(2, False, Mode(gate_bypass=True)).splitlines()
    assert [line for line in marked if line not in led_around] == [marked[-1]]
    assert "REPLY" in marked[-1]


@given(st.integers(2, 16))
def test_the_spread_value_gives_way_to_the_queue_number_before_the_engine_sees_the_packet(queues: int) -> None:
    lines = plan(queues, False).splitlines()
    for number in range(queues):
        wipe = lines.index(f"-A SK_Q{number} -j MARK --set-mark {number << marks.ENGINE_SHIFT | marks.SEEN:#x}")
        assert lines[wipe + 1].startswith(f"-A SK_Q{number} -j NFQUEUE")


def test_the_marks_do_not_overlap() -> None:
    bits = [
        marks.SEEN,
        marks.BYPASS,
        marks.REPLY,
        marks.HTTP,
        marks.MAIL,
        marks.FTPDATA,
        marks.CUT,
        marks.PPPOE,
        marks.DEEP,
        marks.REFUSE,
    ]
    bits += [marks.EXPRESS, *(1 << shift for shift in range(marks.ENGINE_SHIFT, marks.ENGINE_SHIFT + 4))]
    assert sum(bits) == 0x1 | 0x2 | 0x8 | 0x10 | 0x20 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800 | marks.ENGINE
    assert all(bit.bit_count() == 1 for bit in bits) and sum(bits) < marks.SPREAD


@pytest.mark.parametrize("queues", [0, 17])
def test_a_number_of_queues_that_cannot_be_is_our_own_mistake(queues: int) -> None:
    with pytest.raises(ValueError, match="queues"):
        plan(queues, False)
