"""An office at work while something changes on its box: what was lost, what came through that must not, how late.

The office and the internet ping each other, datagrams cross from the internet, one kind of them named by a `drop` rule
(`sets.CANARY_RULE`) that every rule set must hold, files are fetched, and malicious ones asked for. See `streams`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Final, Self

import msgspec

from sekisho.appliance.core.errors import DeviceFault
from sekisho.lab import layout
from sekisho.lab.lab import Lab
from sekisho.lab.layout import Place
from sekisho.lab.samples import SIZES
from sekisho.lab.sets import CANARY_PORT, CANARY_WORD
from sekisho.lab.streams import STRAGGLERS_S, Counted, Fetch, Pings, Plan, Send, Take

PLAIN_PORT: Final = 4445
_ARGV: Final = [sys.executable, "-I", "-m", "sekisho.lab.streams"]
_END_WITHIN_S: Final = 40


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """How everything went; milliseconds of pings are round trips, of datagrams one way."""

    seconds: float
    out: Counted
    """Pings of the office; `back` are those of the internet."""
    back: Counted
    plain: Counted
    canary: Counted
    files: Counted
    bad: Counted

    @property
    def packets(self) -> int:
        """Sent, of those that must arrive."""
        return self.out.sent + self.back.sent + self.plain.sent

    @property
    def lost(self) -> int:
        return self.packets - self.out.got - self.back.got - self.plain.got

    @property
    def broken(self) -> int:
        """Downloads that did not arrive whole and right."""
        return self.files.sent - self.files.got

    @property
    def leaked(self) -> int:
        """Canaries and malicious files that arrived."""
        return self.canary.got + self.bad.got

    @property
    def worst_ms(self) -> float:
        return max(self.out.worst_ms, self.back.worst_ms, self.plain.worst_ms)

    def clean(self) -> bool:
        """Everything was there to be counted, nothing was lost, nothing came through."""
        return not (self.lost or self.broken or self.leaked) and min(self.canary.sent, self.bad.sent, self.packets) > 0


class Load:
    """The office at work inside a `with` block; `end` says how it went."""

    def __init__(self, lab: Lab, *, pings: int = 500, datagrams: int = 200, bytes_s: int = 1_000_000) -> None:
        self._began = time.monotonic()
        self._office = _Side(
            lab,
            "lan",
            {
                "out": Pings(layout.SERVER4, pings),
                "plain": Take(PLAIN_PORT),
                "canary": Take(CANARY_PORT),
                "files": Fetch(layout.SERVER4, layout.SHAPES, "/identity/clean/300k.bin", SIZES["300k"], bytes_s),
                "bad": Fetch(layout.SERVER4, layout.SHAPES, "/identity/bad/1k.bin", SIZES["1k"], 120, bad=True),
            },
        )
        try:
            lab.wait(lambda: _listens(lab), "the office does not listen")
            to = layout.CLIENT4
            self._internet = _Side(
                lab,
                "wan",
                {
                    "back": Pings(to, pings),
                    "plain": Send(to, PLAIN_PORT, datagrams, "good day"),
                    "canary": Send(to, CANARY_PORT, datagrams, CANARY_WORD),
                },
            )
        except BaseException:
            self._office.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._internet.kill()
        self._office.kill()

    def end(self) -> Traffic:
        """Stop, wait for stragglers, and count.

        Raises:
            DeviceFault: one side ended by itself.

        """
        sent = self._internet.end()
        time.sleep(STRAGGLERS_S)
        took = self._office.end()
        both = {name: msgspec.structs.replace(took[name], sent=sent[name].sent) for name in ("plain", "canary")}
        return Traffic(
            seconds=time.monotonic() - self._began,
            out=took["out"],
            back=sent["back"],
            files=took["files"],
            bad=took["bad"],
            **both,
        )


class _Side:
    def __init__(self, lab: Lab, place: Place, streams: dict[str, Pings | Send | Take | Fetch]) -> None:
        self._process = subprocess.Popen(
            lab.inside(place, _ARGV),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=lab.env(),
        )
        if self._process.stdin is not None:
            self._process.stdin.write(msgspec.json.encode(Plan(streams)) + b"\n")
            self._process.stdin.flush()

    def end(self) -> dict[str, Counted]:
        out, err = self._process.communicate(timeout=_END_WITHIN_S)
        if self._process.returncode:
            raise DeviceFault(f"The traffic ended by itself: {err.decode(errors='replace')[-500:].strip()}.")
        return msgspec.json.decode(out, type=dict[str, Counted])

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def _listens(lab: Lab) -> bool:
    """Both takers have their port."""
    table = lab.run("lan", ["cat", "/proc/net/udp"]).stdout.decode()
    return all(f":{port:04X} " in table for port in (CANARY_PORT, PLAIN_PORT))
