"""What looking into a mailbox costs: one 10 MB mail over POP3, clean and new to the box, through each arm in turn."""

from __future__ import annotations

import secrets
import sys

import msgspec

from sekisho.appliance.core.errors import DeviceFault
from sekisho.bench.arms import Arms
from sekisho.bench.figures import Figure, median
from sekisho.bench.processes import cpu_seconds
from sekisho.lab import layout, mailboxes
from sekisho.lab.client import message
from sekisho.lab.client_mail import Fetched, Pop
from sekisho.lab.lab import Lab

ROUNDS = 5
ATTACHED_BYTES = 7_400_000
"""As base64 and with its header about 10 MB."""
_TIMEOUT_S = 120


def pop3(arms: Arms) -> list[Figure]:
    """Seconds from the connection to the last byte, and what the box adds for each megabyte."""
    seconds: dict[str, list[float]] = {"product": [], "bare": [], "packaged": []}
    before = cpu_seconds(arms.product)["inspect"]
    for _round in range(ROUNDS):
        for name, taken in seconds.items():
            taken.append(fetch(arms.lab(name), ATTACHED_BYTES))
    detail = {f"{name} s": median(values) for name, values in seconds.items()}
    detail["inspect, processor s per mail"] = (cpu_seconds(arms.product)["inspect"] - before) / ROUNDS
    size_mb = len(message([("clean", ATTACHED_BYTES)], "x")) / 1e6
    added = (detail["product s"] - detail["bare s"]) * 1e3 / size_mb
    return [Figure("pop3", "POP3 of a 10 MB mail, added by looking into it", added, "ms/MB", 0.0, "report", detail)]


def fetch(lab: Lab, attached: int) -> float:
    """Seconds that a mailbox with one new mail takes.

    Raises:
        DeviceFault: the mail did not come as it was sent.

    """
    user = f"bench-{secrets.token_hex(6)}"
    mail = message([("clean", attached)], user)
    mailboxes.deliver(lab.lay, user, mail)
    argv = [sys.executable, "-I", "-m", "sekisho.lab.client_mail"]
    task = msgspec.json.encode(Pop(layout.SERVER4, user))
    done = lab.run("lan", argv, stdin=task, timeout_s=_TIMEOUT_S, check=True)
    mailboxes.forget(lab.lay, user)
    got = msgspec.json.decode(done.stdout, type=Fetched)
    if got.contents != [mail]:
        raise DeviceFault(f"A mail did not come whole over POP3: {got.error or 'changed'}.")
    return got.seconds
