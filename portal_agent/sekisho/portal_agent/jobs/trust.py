"""What came by the broker is a hint: only what people signed who may, for this box, becomes a job."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.fsio import open_plain
from sekisho.appliance.core.jobs import LIFE_S, Believed, Envelope, Operators, verified
from sekisho.portal_agent.jobs.facts import Came

OPERATORS_CAP: Final = 1 << 20
ARGS_CAP: Final = 4096
"""Characters of a job's arguments, together."""

_envelope = msgspec.json.Decoder(Envelope).decode


class Refused(RejectedInput):
    """It is no job for this box; `why` is the code that is told."""

    def __init__(self, why: str, message: str) -> None:
        super().__init__(message)
        self.why = why


def try_operators(path: Path) -> Believed | None:
    """Who may sign, as the firmware daemon verified it, perhaps long ago; None while that never came or is damaged."""
    try:
        with open_plain(path, OPERATORS_CAP) as source:
            return msgspec.json.decode(source.read(), type=Believed)
    except (OSError, msgspec.MsgspecError):
        return None


def judge(name: str, data: bytes, operators: Operators, box: str, now: float, *, sure: bool = True) -> Came:
    """The job in a message. `name`: what the broker called it; `now`: unix seconds; it is at least so late, and just so
    late where that is `sure`.

    Raises:
        Refused: it is not authentic, or not for this box.

    """
    try:
        job, signers = verified(data, operators, now)
    except RejectedInput as err:
        raise Refused("signature" if "signed" in str(err) else "malformed", str(err)) from err
    if job.id != name:
        raise Refused("name", "The job came under another job's name.")
    if box not in job.boxes:
        raise Refused("other_box", "The job is for other boxes.")
    if sum(len(key) + len(value) for key, value in job.args.items()) > ARGS_CAP:
        raise Refused("args", "The job's arguments are larger than their cap.")
    if job.exp <= job.nbf or (sure and job.nbf > now + LIFE_S):
        raise Refused("times", "The job is for no time that will come.")
    said = job.args.get("time", "") if job.kind == "time.set" else ""
    if said.isdecimal() and int(said) > max(one.until for one in signers):
        raise Refused("args", "It sets a time after the end of its signer's key.")
    people = {one.person for one in signers}
    mine = msgspec.structs.replace(job, boxes=[box])
    return Came(mine, hashlib.sha256(_envelope(data).payload).hexdigest(), tuple(sorted(people)))
