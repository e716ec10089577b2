"""The service manager's notification protocol (sd_notify(3)), which is one datagram."""

from __future__ import annotations

import os
import socket

from sekisho.appliance.core import release


def notify(state: str) -> None:
    """Send `state` (e.g. "READY=1", "WATCHDOG=1") to the service manager; does nothing without one.

    With "READY=1" goes which release this process runs.
    """
    if state == "READY=1" and (running := release.name()):
        state += f"\nSTATUS=release {running}"
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), address)
        except OSError:
            return  # the manager went away; the daemon's work does not depend on it
