"""What the owner is shown of devices and coverage: facts for `--json`, lines for people."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec

from sekisho.appliance import inventory, meter, status
from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.coverage import GROUP, Account, Tally
from sekisho.appliance.covering import folder_of, load_hours, load_state, moment
from sekisho.appliance.devices.vendors import is_random

UNITS: Final = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
KINDS: Final = {
    "computer": "computer パソコン",
    "phone": "phone スマホ・タブレット",
    "printer": "printer プリンター",
    "camera": "camera カメラ",
    "router": "router ルーター",
    "nas": "nas ファイルサーバー",
    "tv": "tv テレビ",
    "other": "other その他",
}
WORDS: Final = {GROUP: "(to all) 全体宛て", "": "(too many) 計数上限超過"}


class Seen(msgspec.Struct):
    """One device of the inventory."""

    mac: str
    random_mac: bool
    name: str
    kind: str
    vendor: str
    ipv4: list[str]
    ipv6: list[str]
    first_seen: str
    last_seen: str


class DeviceShare(msgspec.Struct):
    """One device's bytes, as the ports count them."""

    mac: str
    name: str
    total: int
    tally: Tally


class Told(msgspec.Struct):
    """The box's coverage over some hours."""

    since: str
    until: str
    seconds: float
    off_seconds: float
    total: Tally
    devices: list[DeviceShare]


def devices(settings: Settings) -> list[Seen]:
    """The inventory, who spoke last first; at most `inventory.SAVE_S` old, with new devices after `NEWS_S`."""
    known = inventory.load(settings.state / "inventory.json").devices
    return [
        Seen(
            mac,
            is_random(mac),
            each.name,
            each.kind,
            each.vendor,
            each.ipv4,
            each.ipv6,
            each.first_seen,
            each.last_seen,
        )
        for mac, each in reversed(known.items())
    ]


def device_lines(found: list[Seen]) -> list[str]:
    """A table of devices."""
    head = ("name 名前", "kind 種別", "vendor メーカー", "MAC", "address アドレス", "last seen 最終確認")
    rows = [
        (
            each.name or "-",
            KINDS.get(each.kind, "-"),
            "(random MAC) ランダム" if each.random_mac else each.vendor or "-",
            each.mac,
            ", ".join([*each.ipv4[-2:], *each.ipv6[-1:]]) or "-",
            each.last_seen[:19].replace("T", " ") + " UTC",
        )
        for each in found
    ]
    return [*table([head, *rows]), f"{len(found)} devices 台"]


def coverage(settings: Settings, hours: int, *, live: bool = True) -> Told:
    """The last `hours`, the running one included: up to this instant with `live`, where the kernel's counters may be
    read; else as of the last reading, a minute old at most.

    Raises:
        DeviceFault: nothing has been counted yet.

    """
    folder = folder_of(settings)
    state = load_state(folder)
    if state is None:
        raise DeviceFault("Nothing has been counted yet.", "Start the box: systemctl start sekisho-appliance.")
    now = status.try_read(settings)
    at = moment()
    account = Account(state)
    if live and now is not None and now.fresh and not state.stopped:
        with suppress(DeviceFault):  # not root: as of the last reading
            account.read(meter.read(), at, state.away, state.away)
    running = [*account.finished, account.state.hour]
    told = [*load_hours(folder, hours - len(running)), *running][-hours:]
    tallies: dict[str, Tally] = {}
    for hour in told:
        for mac, tally in hour.devices.items():
            tallies.setdefault(mac, Tally()).take(tally)
    total = Tally()
    for tally in tallies.values():
        total.take(tally)
    names = {each.mac: each.name for each in devices(settings)}
    shares = [DeviceShare(mac, names.get(mac, ""), t.total, t) for mac, t in tallies.items() if t.total]
    return Told(
        since=told[0].hour,
        until=at.text,
        seconds=round(sum(hour.seconds for hour in told), 1),
        off_seconds=round(sum(hour.off_seconds for hour in told), 1),
        total=total,
        devices=sorted(shares, key=lambda share: -share.total),
    )


def coverage_lines(told: Told) -> list[str]:
    """A table: device, bytes, and what share of them was inspected, opaque, bypassed, unseen."""
    head = ("device 端末", "bytes 通信量", "inspected 検査", "encrypted 暗号化", "bypassed 素通り", "unseen 対象外")
    rows = [_row(WORDS.get(share.mac) or f"{share.mac} {share.name}".strip(), share.tally) for share in told.devices]
    reasons = sorted(told.total.bypassed.items(), key=lambda item: -item[1])
    return [
        f"{told.since} - {told.until}, {duration(told.seconds)}, inspection off 検査停止: {duration(told.off_seconds)}",
        *table([head, *rows, _row("total 合計", told.total)]),
        *(f"bypassed 素通り: {why} {size(octets)}" for why, octets in reasons),
    ]


def _row(name: str, tally: Tally) -> tuple[str, ...]:
    whole = tally.total or 1
    parts = (tally.inspected, tally.opaque, sum(tally.bypassed.values()), tally.unseen)
    return (name, size(tally.total), *(f"{part / whole:.1%}" for part in parts))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, wide characters counted as two."""
    widths = [max(_width(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell + " " * (wide - _width(cell)) for cell, wide in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def size(octets: int) -> str:
    """A length for people: 1.2 MB."""
    return next((f"{octets / unit:.1f} {name}" for unit, name in UNITS if octets >= unit), f"{octets} B")


def duration(seconds: float) -> str:
    """A time for people: 1:02:03."""
    return time.strftime("%-H:%M:%S", time.gmtime(seconds)) if seconds < 86400 else f"{seconds / 3600:.1f} h"
