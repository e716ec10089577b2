"""Compares what works now with what worked before. Pure. What did not work before is not asked of a new release.

A cable that was unplugged, an office where nobody works, a centre that could not be reached: none of them is the new
release's fault, and none takes it back.
"""

from __future__ import annotations

from typing import Final

from sekisho.firmware.keeper.journal import Seen

SHARE: Final = 0.98
"""Of the rules that were in force."""


def failing(before: Seen, now: Seen) -> tuple[str, ...]:
    """Names of the gates that do not hold, the most telling first."""
    gates = {
        "link_lan": before.lan and not now.lan,
        "link_wan": before.wan and not now.wan,
        "forward_out": before.out == "yes" and now.out == "no",
        "forward_in": before.back == "yes" and now.back == "no",
        "rules": now.rules < SHARE * before.rules,
        "canary": before.engine_canary and not now.engine_canary,
        "scanner": before.scanner_canary and not now.scanner_canary,
        "quarantine": before.quarantine and not now.quarantine,
        "spool": bool(before.epoch) and (now.epoch != before.epoch or now.spool < before.spool),
        "centre": before.centre and not now.centre,
    }
    return tuple(name for name, fails in gates.items() if fails)
