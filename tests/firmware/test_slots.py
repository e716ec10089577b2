"""The boot loader's choice, run from the very grub.cfg of the image, and the memory both sides write."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest

from sekisho.appliance.core.errors import RejectedInput
from sekisho.firmware import slots
from sekisho.firmware.image import layout
from sekisho.firmware.slots import Memory, Slot

ROOT = Path(__file__).parents[2]
STUBS = """
regexp() { disk=hd0; }
load_env() { :; }
save_env() { echo "SAVED $ORDER/$A_OK/$A_TRY/$B_OK/$B_TRY/$ROUND"; }
source() { case $1 in *gpt$BROKEN*) return 1;; esac; verity=x; options=y; }
linux() { case " $* " in *" rauc.slot=$chosen "*) :;; *) return 1;; esac; }
initrd() { :; }
boot() { echo "BOOT $chosen"; exit 0; }
reboot() { echo REBOOT; exit 0; }
sleep() { :; }
"""


def as_shell(memory: Memory, broken: str = "none") -> str:
    """grub.cfg as a shell script: its language differs in `set` and `function` alone, as far as it is used there."""
    lines = []
    for line in (ROOT / "firmware/image/grub.cfg").read_text().splitlines():
        words = line.replace("function choose {", "choose() {").replace("set --", "SET--")
        lines.append(words.replace("set=1:disk", "one").replace("set ", "") if "regexp" not in words else "disk=hd0")
    values = {"ORDER": " ".join(memory.order), "ROUND": str(memory.rounds), "BROKEN": broken}
    for name, slot in memory.slots.items():
        values |= {f"{name}_OK": str(int(slot.ok)), f"{name}_TRY": str(slot.tried)}
    given = "".join(f'{key}="{value}"\n' for key, value in values.items())
    script = "\n".join(lines)
    return STUBS.replace("load_env() { :; }", f"load_env() {{ {given.replace(chr(10), ';')} }}") + script


def start(memory: Memory, broken: str = "none") -> tuple[str, Memory]:
    """What GRUB would start, and what it has written down before."""
    done = subprocess.run(["sh", "-c", as_shell(memory, broken)], capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    saved = next(line for line in said if line.startswith("SAVED ")).removeprefix("SAVED ").split("/")
    counted = {"A": Slot(saved[1] == "1", int(saved[2])), "B": Slot(saved[3] == "1", int(saved[4]))}
    return said[-1].removeprefix("BOOT "), Memory(tuple(saved[0].split()), counted, int(saved[5]))


EVERY = [
    Memory(order, {"A": Slot(a, at), "B": Slot(b, bt)}, rounds)
    for rounds, order, a, at, b, bt in itertools.product(
        range(slots.ROUNDS), [("A", "B"), ("B", "A")], [True, False], range(4), [True, False], range(4)
    )
]


def test_in_every_state_the_boot_loader_starts_what_we_say_it_starts() -> None:
    for memory in EVERY:
        chosen, _ = start(memory)
        assert chosen == slots.primary(memory), memory


def test_in_every_state_something_is_started_and_the_attempt_is_counted_before() -> None:
    for memory in EVERY:
        chosen, after = start(memory)
        assert chosen in ("A", "B")
        fresh = memory.slots[chosen].ok and memory.slots[chosen].tried < slots.ATTEMPTS
        assert after.slots[chosen].tried == (memory.slots[chosen].tried + 1 if fresh else 1), memory


def test_a_slot_that_never_proves_itself_has_three_attempts_and_the_other_one_follows() -> None:
    memory = slots.chosen(Memory(("A", "B"), {"A": Slot(True, 0), "B": Slot(False, 0)}), "B")
    seen = []
    for _ in range(5):
        chosen, memory = start(memory)
        seen.append(chosen)
        if chosen == "A":
            memory = slots.marked(memory, "A", good=True)
    assert seen == ["B", "B", "B", "A", "A"]


def test_power_cuts_never_start_what_nobody_chose_and_one_start_that_holds_forgets_them() -> None:
    for tried in range(slots.ATTEMPTS + 1):
        memory = Memory(("A", "B"), {"A": Slot(True, tried), "B": Slot(False, 0)})
        for _ in range(3):
            for _ in range(2 * slots.ATTEMPTS):
                chosen, memory = start(memory)
                assert chosen == "A", memory
            memory = slots.marked(memory, "A", good=True)


def test_power_cuts_do_not_stop_a_box_with_one_slot() -> None:
    memory, seen = Memory(("A", "B"), {"A": Slot(True, 0), "B": Slot(False, 0)}), []
    for _ in range(15):
        chosen, memory = start(memory, broken="5")
        seen.append(chosen)
    assert seen == ["A"] * 9 + ["REBOOT"] * 3 + ["A"] * 3


def test_no_slot_is_all_that_is_ever_tried_whatever_was_marked_bad() -> None:
    """Of a slot that never comes up the other one is started after a few rounds of it, in every state."""
    for memory in EVERY:
        for bad in slots.NAMES:
            now = memory
            for _ in range((slots.ROUNDS + 1) * slots.ATTEMPTS + 1):
                chosen, now = start(now)
                if chosen != bad:
                    break
            assert chosen != bad, memory


def test_a_slot_that_cannot_be_read_starts_the_machine_again_and_was_counted() -> None:
    chosen, after = start(Memory(("A", "B"), {"A": Slot(True, 0), "B": Slot(True, 0)}), broken="3")
    assert chosen == "REBOOT"
    assert after.slots["A"].tried == 1


def test_what_is_written_is_read_again_and_lies_in_one_sector() -> None:
    for memory in EVERY:
        block = slots.render(memory)
        assert slots.parse(block) == memory
        assert set(block[slots.SECTOR :]) == {ord("#")}


def test_a_torn_write_of_the_memory_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    disk = tmp_path / "env"
    old = Memory(("A", "B"), {"A": Slot(True, 2), "B": Slot(False, 0)})
    disk.write_bytes(layout.environment())
    slots.write(old, disk)
    before = disk.read_bytes()
    slots.write(slots.chosen(old, "B"), disk)
    after = disk.read_bytes()
    changed = [i for i in range(len(before)) if before[i] != after[i]]
    assert len({i // slots.SECTOR for i in changed}) == 1
    assert slots.read(disk) == slots.chosen(old, "B")


def test_rauc_gets_its_answers_and_every_command_is_one_that_can_be_read_back(tmp_path: Path) -> None:
    disk = tmp_path / "env"
    disk.write_bytes(layout.environment())
    assert slots.answer(["get-primary"], disk) == "A"
    assert slots.answer(["get-state", "B"], disk) == "bad"
    slots.answer(["set-primary", "B"], disk)
    assert (slots.answer(["get-primary"], disk), slots.answer(["get-state", "B"], disk)) == ("B", "good")
    slots.answer(["set-state", "B", "bad"], disk)
    assert slots.answer(["get-primary"], disk) == "A"
    slots.answer(["set-state", "B", "good"], disk)
    assert slots.read(disk).first == "B"


@pytest.mark.parametrize("words", [["get-primary", "x"], ["set-primary", "C"], ["set-state", "A", "so-so"], []])
def test_anything_else_is_refused(tmp_path: Path, words: list[str]) -> None:
    disk = tmp_path / "env"
    disk.write_bytes(layout.environment())
    with pytest.raises(RejectedInput):
        slots.answer(words, disk)
    assert disk.read_bytes() == layout.environment()


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"#" * 1024,
        slots.SIGNATURE.ljust(1024, b"#"),
        (slots.SIGNATURE + b"ORDER=C\n").ljust(1024, b"#"),
        (slots.SIGNATURE + b"ORDER=A A\n").ljust(1024, b"#"),
        (slots.SIGNATURE + b"ORDER=A B\nA_TRY=-1\n").ljust(1024, b"#"),
        (slots.SIGNATURE + b"ORDER=A B\nA_TRY=99999999\n").ljust(1024, b"#"),
        (slots.SIGNATURE + b"ORDER=A B\nROUND=x\n").ljust(1024, b"#"),
        bytes(1024),
    ],
)
def test_a_damaged_memory_is_said(block: bytes) -> None:
    with pytest.raises(RejectedInput):
        slots.parse(block)


def test_what_the_kernel_was_told_is_understood_and_elsewhere_nothing() -> None:
    told = slots.booted("BOOT_IMAGE=x ro rauc.slot=B sekisho.attempt=2 sekisho.verity=ab:4096 panic=10")
    assert told == {"slot": "B", "attempt": "2", "root": "ab", "deadline": ""}
    assert slots.booted("root=/dev/vda ro quiet") == {}
