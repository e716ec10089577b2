"""Asking another daemon at its desk, and reading a job's arguments strictly."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from sekisho.appliance.core.desk import ask
from sekisho.appliance.core.errors import PeerError
from sekisho.appliance.core.jobs import Job
from sekisho.portal_agent.jobs.runner import Never

T = TypeVar("T")


def args_of(job: Job, kind: type[T]) -> T:
    """The arguments.

    Raises:
        Never: they are not what this kind takes.

    """
    try:
        return msgspec.convert(job.args, kind, strict=False)
    except msgspec.ValidationError as err:
        raise Never("args", str(err)) from err


def asked(socket: Path, question: msgspec.Struct) -> bytes:
    """The first frame of the answer.

    Raises:
        PeerError: it does not run, or does not answer.
        RejectedInput: it refuses.

    """
    for frame in ask(socket, msgspec.json.encode(question)):
        return frame
    raise PeerError(f"{socket.name} gave no answer.")
