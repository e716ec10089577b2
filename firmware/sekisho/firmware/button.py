"""The box's own button: held for three seconds it says "now" to the release that waits, and nothing else.

Reads Linux input devices that have a restart key (KEY_RESTART, input-event-codes.h; on boards a `gpio-keys` entry) and
asks at the firmware daemon's desk. A shorter press, and one while nothing waits, does nothing: no duster restarts
the office's internet.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import struct
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core import desk as desks
from sekisho.appliance.core import program, settings
from sekisho.appliance.core.errors import SekishoError
from sekisho.appliance.core.sdnotify import notify
from sekisho.appliance.core.settings import Settings
from sekisho.firmware.keeper import desk

KEY_RESTART: Final = 0x198
EV_KEY: Final = 0x01
HELD_S: Final = 3.0
LOOK_S: Final = 0.25
SEARCH_S: Final = 10.0
"""New devices are looked for this often."""
INPUT: Final = Path("/dev/input")
EVENT: Final = struct.Struct("llHHi")
"""struct input_event (linux/input.h) of this machine's word size."""
_KEYS_BYTES: Final = 96
_EVIOCGBIT_KEY: Final = (2 << 30) | (_KEYS_BYTES << 16) | (ord("E") << 8) | (0x20 + EV_KEY)

log = logging.getLogger(__name__)


class Press:
    """Says once for each press when the key has been held for `HELD_S`. Pure: times are monotonic seconds."""

    def __init__(self) -> None:
        self._since: float | None = None

    def read(self, data: bytes, now: float) -> None:
        """Events as they were read; what is cut short or of another kind is passed over."""
        for start in range(0, len(data) - EVENT.size + 1, EVENT.size):
            _, _, kind, code, value = EVENT.unpack_from(data, start)
            if (kind, code) != (EV_KEY, KEY_RESTART):
                continue
            if value == 1:
                self._since = now
            elif value == 0:
                self._since = None

    def held(self, now: float) -> bool:
        """Whether it is time to act; only once for a press."""
        if self._since is None or now - self._since < HELD_S:
            return False
        self._since = None
        return True


class Button:
    """Runs until `stop`."""

    def __init__(self, config: Settings, folder: Path = INPUT) -> None:
        self._settings, self._folder = config, folder
        self._stopped = threading.Event()
        self._press = Press()
        self._open: dict[str, int] = {}
        self._searched = -SEARCH_S

    def run(self) -> None:
        """Until stopped."""
        notify("READY=1")
        while not self._stopped.is_set():
            notify("WATCHDOG=1")
            self.turn(time.monotonic())
        for fd in self._open.values():
            os.close(fd)

    def stop(self) -> None:
        self._stopped.set()

    def turn(self, now: float) -> None:
        """One look, a quarter of a second long."""
        if now - self._searched >= SEARCH_S:
            self._searched = now
            self._search()
        if not self._open:
            self._stopped.wait(LOOK_S)
            return
        ready, _, _ = select.select(list(self._open.values()), [], [], LOOK_S)
        for fd in ready:
            self._read(fd)
        if self._press.held(time.monotonic()):
            self._now()

    def _search(self) -> None:
        for path in sorted(self._folder.glob("event*")):
            if path.name not in self._open:
                with suppress(OSError):
                    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                    if has_key(fd):
                        self._open[path.name] = fd
                        log.info("the button is %s", path)
                    else:
                        os.close(fd)

    def _read(self, fd: int) -> None:
        try:
            self._press.read(os.read(fd, EVENT.size * 64), time.monotonic())
        except BlockingIOError:
            return
        except OSError:  # it was unplugged
            self._open = {name: one for name, one in self._open.items() if one != fd}
            os.close(fd)

    def _now(self) -> None:
        try:
            way = desk.staged(self._ask(desk.Status()))
            if way is None:
                log.info("the button was held, and no release waits")
                return
            self._ask(desk.Activate(counter=way.counter, by="button"))
            log.info("the button was held: release %d now", way.counter)
        except SekishoError as err:
            log.error("the button was held in vain: %s", err)

    def _ask(self, question: desk.Question) -> desk.Shown:
        frames = desks.ask(self._settings.firmware_socket, msgspec.json.encode(question))
        return msgspec.json.decode(next(frames), type=desk.Shown)


def has_key(fd: int) -> bool:
    """Whether the device has a restart key (EVIOCGBIT, linux/input.h)."""
    keys = bytearray(_KEYS_BYTES)
    try:
        fcntl.ioctl(fd, _EVIOCGBIT_KEY, keys)
    except OSError:
        return False
    return bool(keys[KEY_RESTART // 8] & (1 << KEY_RESTART % 8))


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM."""

    def make(path: Path) -> Button:
        return Button(settings.load(path))

    return program.main("sekisho.firmware.button", make, argv)


if __name__ == "__main__":
    sys.exit(main())
