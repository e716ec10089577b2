"""The watchdog's playbook: looks in, commands out."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sekisho.appliance.netfilter import GATE_QUEUE, NORMAL, Mode
from sekisho.appliance.watchdog import (
    BypassWatchdog,
    Command,
    Observation,
    Part,
    Queue,
    Report,
    RestartEngine,
    SetMode,
    observe,
    parse_queues,
)

IDLE = {0: Queue(0, 10), 1: Queue(0, 20), GATE_QUEUE: Queue(0, 5)}


class Player:
    """Plays looks at 10 a second and keeps what was commanded, with the instant."""

    def __init__(self, *, closed: bool = False, saved: tuple[Part, ...] = ()) -> None:
        self.dog = BypassWatchdog(2, closed, saved)
        self.now = 1000.0
        self.said: list[tuple[float, Command]] = []

    def play(self, queues: dict[int, Queue], seconds: float = 0.1, *, beats: bool = True) -> list[Command]:
        start = len(self.said)
        beat = None if beats else self.now
        for _ in range(round(seconds * 10)):
            self.now = round(self.now + 0.1, 3)
            seen = Observation(queues, self.now if beat is None else beat)
            self.said += [(self.now, command) for command in self.dog.handle(seen, self.now)]
        return [command for _, command in self.said[start:]]


def stuck(waiting: int = 3) -> dict[int, Queue]:
    return IDLE | {0: Queue(waiting, 10 + waiting)}


def test_silent_while_both_inspect() -> None:
    player = Player()
    assert player.play(IDLE, 5) == []
    assert player.dog.mode == NORMAL


def test_a_hung_engine_is_led_around_within_half_a_second_and_back_at_once() -> None:
    player = Player()
    player.play(IDLE)
    start = player.now
    commands = player.play(stuck(), 0.6)
    assert commands == [SetMode(Mode(engine_bypass=True)), Report("engine", "began", "hung", 0.0, 0.0)]
    assert player.said[0][0] - start < 0.65
    back = player.play(IDLE | {0: Queue(0, 13)})
    assert back[0] == SetMode(NORMAL)
    assert isinstance(back[1], Report) and back[1].state == "ended" and back[1].seconds > 0


def test_a_busy_engine_is_not_a_hung_one() -> None:
    player = Player()
    for step in range(50):
        assert player.play(IDLE | {0: Queue(100, 200 + step)}) == []


def test_one_hung_thread_is_enough_while_the_other_moves() -> None:
    player = Player()
    for step in range(8):
        player.play(stuck() | {1: Queue(1, 50 + step)})
    assert player.dog.mode.engine_bypass


def test_a_dead_engine_is_counted_but_not_flipped_because_the_kernel_passes_by_itself() -> None:
    player = Player()
    player.play(IDLE)
    gone = {GATE_QUEUE: Queue(0, 5)}
    assert player.play(gone, 2) == [Report("engine", "began", "absent", 0.0, 0.0)]
    (ended,) = player.play(IDLE)
    assert isinstance(ended, Report)
    assert ended.state == "ended" and abs(ended.seconds - 2.0) < 0.15 and ended.total == ended.seconds


def test_half_of_the_queues_is_not_an_engine() -> None:
    player = Player()
    assert player.play({0: Queue(0, 1), GATE_QUEUE: Queue(0, 5)}) == [Report("engine", "began", "absent", 0.0, 0.0)]


def test_a_gate_without_a_beat_is_led_around_and_the_engine_is_not() -> None:
    player = Player()
    player.play(IDLE)
    commands = player.play(IDLE, 1.0, beats=False)
    assert commands == [SetMode(Mode(gate_bypass=True)), Report("gate", "began", "hung", 0.0, 0.0)]
    assert player.play(IDLE)[0] == SetMode(NORMAL)


def test_fail_closed_never_flips_but_counts() -> None:
    player = Player(closed=True)
    player.play(IDLE)
    assert player.play(stuck(), 2) == [Report("engine", "began", "stopped_hung", 0.0, 0.0)]
    assert player.dog.mode == NORMAL
    player.play(IDLE | {0: Queue(0, 13)})
    assert player.play(IDLE | {0: Queue(0, 13)}, 1.5, beats=False) == [
        Report("gate", "began", "stopped_hung", 0.0, 0.0)
    ]
    assert player.dog.mode == NORMAL


def test_a_bypass_that_lasts_is_told_while_it_does_and_not_again() -> None:
    player = Player()
    said = [one for one in player.play(stuck(), 700) if isinstance(one, Report)]
    assert [(one.state, round(one.seconds)) for one in said] == [("began", 0), ("lasts", 60), ("lasts", 600)]
    again = Player(saved=(player.dog.engine, player.dog.gate))
    again.now = player.now
    assert not [one for one in again.play(stuck(), 5) if isinstance(one, Report)], "a restart of ours is no news"


def test_an_engine_that_hangs_for_long_is_restarted_once() -> None:
    player = Player()
    commands = player.play(stuck(), 60)
    assert commands.count(RestartEngine()) == 1


def test_what_a_former_engine_left_in_its_queues_is_not_held_against_the_one_in_its_place() -> None:
    player = Player()
    player.play(stuck(), 0.3)
    new = {2: Queue(0, 10), 3: Queue(0, 20), GATE_QUEUE: Queue(0, 5)}

    def look(queues: dict[int, Queue], seconds: float) -> list[Command]:
        said: list[Command] = []
        for _ in range(round(seconds * 10)):
            player.now = round(player.now + 0.1, 3)
            said += player.dog.handle(Observation(stuck() | queues, player.now, first=2), player.now)
        return said

    assert look(new, 0.3) == []
    assert look(new | {2: Queue(1, 11)}, 0.6)[0] == SetMode(Mode(engine_bypass=True)), "it hangs for a moment"
    assert look(new | {2: Queue(0, 11)}, 0.1)[0] == SetMode(NORMAL)
    assert look(new | {2: Queue(0, 11)}, 40) == [], "and is not restarted for it"


def test_a_running_engine_that_let_go_of_its_queues_is_restarted_but_a_starting_one_is_waited_for() -> None:
    for runs, expected in ((True, 1), (False, 0)):
        player = Player()
        player.play(IDLE)
        asked = 0
        for _ in range(30):
            player.now += 0.1
            seen = Observation({GATE_QUEUE: Queue(0, 5)}, player.now, engine_runs=runs)
            asked += player.dog.handle(seen, player.now).count(RestartEngine())
        assert asked == expected


def test_a_successor_goes_on_with_the_account_and_the_mode() -> None:
    saved = Part("engine", "hung", since=990.0, total=7.0)
    player = Player(saved=(saved,))
    assert player.dog.mode == Mode(engine_bypass=True)
    assert player.play(stuck(), 0.2) == []
    ended = player.play(IDLE | {0: Queue(0, 13)})[1]
    assert isinstance(ended, Report) and abs(ended.seconds - 10.3) < 0.01 and abs(ended.total - 17.3) < 0.01


def test_a_flip_that_failed_is_asked_for_again() -> None:
    player = Player()
    player.play(stuck(), 1)
    player.dog.retry_mode()
    assert SetMode(Mode(engine_bypass=True)) in player.play(stuck())


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 50), st.booleans()), max_size=80))
def test_the_account_never_shrinks_and_every_end_has_a_beginning(
    looks: list[tuple[bool, int, int, bool]],
) -> None:
    player = Player()
    open_parts: dict[str, str] = {}
    total = 0.0
    for bound, waiting, sequence, beats in looks:
        queues = IDLE | {0: Queue(waiting, sequence)} if bound else {}
        for command in player.play(queues, beats=beats):
            if isinstance(command, Report) and command.state == "began":
                assert command.part not in open_parts
                open_parts[command.part] = command.reason
            elif isinstance(command, Report):
                assert open_parts.pop(command.part) == command.reason
        now = player.dog.engine.seconds(player.now) + player.dog.gate.seconds(player.now)
        assert now >= total - 1e-6
        total = now


def test_the_kernels_table_is_read_by_column() -> None:
    table = "    0  12904     2 2 65531     1     4       17  1\n    1 3414143955     0 2 65531     0     0  6  1\n"
    assert parse_queues(table) == {0: Queue(2, 17, 5), 1: Queue(0, 6, 0)}


@given(st.text(max_size=200))
def test_a_strange_table_is_no_crash(text: str) -> None:
    parse_queues(text)


def test_a_torn_or_missing_beat_is_no_beat(tmp_path: Path) -> None:
    table = tmp_path / "queues"
    table.write_text("")
    beat = tmp_path / "beat"
    assert observe(beat, table).beat_at is None
    beat.write_bytes(b"123")
    assert observe(beat, table).beat_at is None
    beat.write_bytes((1500).to_bytes(8, "little"))
    assert observe(beat, table).beat_at == 1.5
