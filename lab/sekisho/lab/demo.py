"""`sekisho lab demo`: the whole product on real traffic, in a table that fills as things happen."""

from __future__ import annotations

import datetime as dt
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from sekisho.appliance.core.errors import PeerError
from sekisho.lab import layout, people
from sekisho.lab.lab import Lab, Stored
from sekisho.lab.scenes import Got, Scene, all_scenes
from sekisho.telemetry.events import Alert, Event, FileVerdict

EVENT_WITHIN_S = 10
PLAIN_WIDTH = 150
"""Columns where there is no terminal to ask."""


@dataclass(frozen=True)
class Row:
    """One scene and how far it got."""

    title: str
    got: str = ""
    verdict: str = ""
    event: str = ""
    ms: str = ""
    ok: bool | None = None


def run(name: str, *, once: bool) -> int:
    """Play every scene; 0 when each came out as promised. Without `once` stays until Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    lab = Lab(name)
    found_up = lab.is_up()
    try:
        if not found_up:
            console.print("関所を組み立てています  building the office, the box, the internet and the centre …")
            lab.up(portal=True)
            _open_portal(lab, console)
        good = _play(lab, console)
        if not once:
            _invite(lab, console)
            signal.pause()
        return 0 if good else 1
    except KeyboardInterrupt:
        return 0 if not once else 130
    finally:
        if not found_up:
            lab.down()


def _open_portal(lab: Lab, console: Console) -> None:
    """Before anything happens, so that whoever looks sees it happen."""
    access = people.move_in(lab)
    people.enrol(lab)
    console.print(
        f"""
ポータル  the portal:  {access.url}/
  ログイン  login     {access.login}
  パスワード  password  {access.password}
  この証明書は実演用です。ブラウザーの警告は続けて開いてください。 The demo's own certificate: go on past the warning.
""",
        markup=False,
        highlight=False,
    )


def _play(lab: Lab, console: Console) -> bool:
    scenes = all_scenes()
    rows = [Row(scene.title) for scene in scenes]
    with Live(_table(rows), console=console, refresh_per_second=8) as live:
        for number, scene in enumerate(scenes):
            for row in _perform(lab, scene, rows[number]):
                rows[number] = row
                live.update(_table(rows))
    good = sum(row.ok is True for row in rows)
    style = "green" if good == len(rows) else "red"
    console.print(f"\n[{style}]{good} / {len(rows)} 約束どおり  as promised[/]")
    return good == len(rows)


def _perform(lab: Lab, scene: Scene, row: Row) -> list[Row]:
    """The row after the client's part and after the centre's."""
    began = dt.datetime.now(dt.UTC)
    try:
        got = scene.act(lab)
    except Exception as err:  # noqa: BLE001 - whatever a scene meets is its outcome; the next one is played
        got = Got(False, str(err))
    seen = replace(row, got=got.text, verdict=got.verdict)
    try:
        stored = lab.wait_event(lambda event: _at(event.at) >= began and scene.event(event), EVENT_WITHIN_S)
    except PeerError:
        return [seen, replace(seen, event="no event", ok=False)]
    late = (_at(stored.received_at) - _at(stored.event.at)).total_seconds() * 1000
    verdict = got.verdict or _verdict(stored.event)
    return [seen, replace(seen, verdict=verdict, event=_told(stored), ms=f"{late:.0f}", ok=got.ok)]


def _verdict(event: Event) -> str:
    match event:
        case FileVerdict(outcome=outcome, rules=rules, held_ms=held_ms, stars=stars):
            return f"{'★' * stars} {outcome} {' '.join(rules[:1])} held {held_ms:.1f} ms".strip()
        case Alert(action=action, signature=signature, stars=stars):
            return f"{'★' * stars} {action}: {signature}".strip()
    return ""


def _told(stored: Stored) -> str:
    event = stored.event
    kind = event.__struct_config__.tag
    quarantine = f" 隔離 {event.quarantine}" if isinstance(event, FileVerdict) and event.quarantine else ""
    return f"#{stored.seq} {kind}{quarantine}"


def _table(rows: list[Row]) -> Table:
    table = Table(title="sekisho 関所", expand=True)
    headings = ("何を What", "端末が得たもの Client got", "箱の判定 Box's verdict", "見守りセンター Centre's event")
    for heading in ("", *headings):
        table.add_column(heading, overflow="fold")
    table.add_column("ms", justify="right")
    signs = {True: "[green]✓[/]", False: "[red]✗[/]", None: "·"}
    for row in rows:
        cells = (row.title, row.got, row.verdict, row.event, row.ms)
        table.add_row(signs[row.ok], *(escape(cell) for cell in cells))
    return table


def _invite(lab: Lab, console: Console) -> None:
    program = Path(sys.executable).with_name("sekisho")
    name = "" if lab.lay.name == "sk" else f" --name {lab.lay.name}"
    console.print(
        f"""
ms は箱の判定から見守りセンターの記録まで。 ms: from the box's verdict to the centre's record.

試してみる  try, in another terminal:
  {program} lab exec{name} lan -- curl -v http://{layout.SERVER4}/bad/eicar.com
  {program} lab exec{name} lan -- curl -v -g http://[{layout.SERVER6}]:8080/chunked/bad/20m.bin -o /dev/null
  {program} lab status{name}
  {program} center events --follow --json --store {lab.lay.center_store}
  {program} quarantine list --settings {lab.lay.box_settings}
  {program} box status --settings {lab.lay.box_settings}
ログ  logs: {lab.lay.logs}    設定  settings: {lab.lay.box_settings}
Ctrl-C で終了・片付け  ends it and removes everything.""",
        markup=False,
        highlight=False,
    )


def _at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)
