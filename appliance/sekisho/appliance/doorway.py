"""Keeps the internet's side from the box's own page: who comes in by any port but the office's gets no answer.

A bridge has no inside address, so the page's address is reachable from both cables; a bridge table of its own drops
what asks for the page and did not come in by the office's port. While it is loaded `settings.doorway` is there,
and the page answers nobody without it.
"""

from __future__ import annotations

from typing import Final

from sekisho.appliance import nft
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import Settings

TABLE: Final = "sekisho_doorway"
WHAT: Final = "The rule that keeps strangers from the box's page"


def plan(settings: Settings) -> list[str]:
    """The nft lines, which replace what is loaded of them in one transaction."""
    page = settings.page
    ports = ", ".join(str(port) for port in sorted({page.port, page.door_port} - {0}))
    return [
        f"add table bridge {TABLE}",
        f"delete table bridge {TABLE}",
        f"add table bridge {TABLE}",
        f"add chain bridge {TABLE} in {{ type filter hook input priority -310; policy accept; }}",
        f'add rule bridge {TABLE} in iifname != "{settings.bridge.lan}" meta l4proto tcp tcp dport {{ {ports} }} drop',
    ]


def install(settings: Settings) -> None:
    """Load the rule, then say so.

    Raises:
        DeviceFault: nft refused it; the page stays shut.
        OSError: tmpfs full; the page stays shut.

    """
    settings.doorway.unlink(missing_ok=True)
    nft.load_anew("bridge", TABLE, "\n".join((*plan(settings), "")), WHAT)
    write_atomic(settings.doorway, b"", 0o644)


def present() -> bool:
    return nft.present("bridge", TABLE)


def remove(settings: Settings) -> None:
    """Shut the page, then take the rule out.

    Raises:
        DeviceFault: nft failed.

    """
    settings.doorway.unlink(missing_ok=True)
    if present():
        nft.run(["delete", "table", "bridge", TABLE], WHAT)
