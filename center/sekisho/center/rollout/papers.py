"""The file between planning, signing off line and starting: read, signed, checked. No database in here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core import jobs
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.jobs import Envelope, Job
from sekisho.center.jobs.commands import ulid
from sekisho.center.rollout.model import About, Plan, Step

PLAN_CAP: Final = 64 << 20
RELEASE_CAP: Final = 256 << 10
LIST_CAP: Final = 16 << 20


def ulids() -> Iterator[str]:
    """New identifiers."""
    while True:
        yield ulid()


def read(path: Path) -> Plan:
    """The plan in a file.

    Raises:
        RejectedInput: it is none, or larger than its cap.
        DeviceFault: it cannot be read.

    """
    try:
        return msgspec.json.decode(_bytes(path, PLAN_CAP), type=Plan)
    except (msgspec.MsgspecError, ValueError, RecursionError) as err:
        raise RejectedInput(f"{path} is no rollout's plan: {err}.") from err


def write(path: Path, plan: Plan) -> None:
    """Put the plan into a file.

    Raises:
        DeviceFault: it cannot be written.

    """
    try:
        write_atomic(path, msgspec.json.encode(plan) + b"\n", 0o644)
    except OSError as err:
        raise DeviceFault(f"Cannot write {path}: {err.strerror}.") from err


def release(path: Path) -> About:
    """What `release.json` says of the release.

    Raises:
        RejectedInput: it is none.
        DeviceFault: it cannot be read.

    """
    try:
        return msgspec.json.decode(_bytes(path, RELEASE_CAP), type=About)
    except (msgspec.MsgspecError, ValueError, RecursionError) as err:
        raise RejectedInput(f"{path} is no release's description: {err}.") from err


def lines(path: Path) -> list[str]:
    """Names, one on each line.

    Raises:
        RejectedInput: it is no text, or larger than its cap.
        DeviceFault: it cannot be read.

    """
    try:
        return [line.strip() for line in _bytes(path, LIST_CAP).decode().splitlines() if line.strip()]
    except UnicodeDecodeError as err:
        raise RejectedInput(f"{path} is no text.") from err


def sign(plan: Plan, name: str, secret: bytes) -> Plan:
    """The plan with this operator's signature under every job, beside those that are there."""
    papers = [
        msgspec.structs.replace(one, steps=[_both(step, name, secret) for step in one.steps]) for one in plan.papers
    ]
    return msgspec.structs.replace(plan, papers=papers)


def _both(step: Step, name: str, secret: bytes) -> Step:
    return msgspec.structs.replace(
        step,
        envelope=_signed(step.job, step.envelope, name, secret),
        cancel_envelope=_signed(step.cancel, step.cancel_envelope, name, secret),
    )


def _signed(job: Job, there: bytes, name: str, secret: bytes) -> bytes:
    made = msgspec.json.decode(jobs.sealed(job, [(name, secret)]), type=Envelope)
    before = [one for one in _opened(there).signatures if one.keyid != name] if there else []
    if before and _opened(there).payload != made.payload:
        raise RejectedInput("Somebody signed another job than the one that stands beside it.", "Plan it anew.")
    return msgspec.json.encode(msgspec.structs.replace(made, signatures=[*before, *made.signatures]))


def check(plan: Plan) -> None:
    """Refuse a plan that is not signed whole, or in which what was signed is not what stands beside it.

    Whether those who signed may do so is the boxes' to judge: they have the list of operators, not the centre.

    Raises:
        RejectedInput: that.

    """
    for one in plan.papers:
        for step in one.steps:
            _check(step.job, step.envelope)
            _check(step.cancel, step.cancel_envelope)
            back = step.cancel.kind == "job.cancel" and step.cancel.args == {"job": step.job.id}
            if step.job.rollout != plan.id or not back or not step.job.boxes == step.cancel.boxes == one.job.boxes:
                raise RejectedInput(f"The job {step.job.id} is not of this rollout.", "Plan and sign it anew.")
        kinds = ["fw.stage", plan.kind] if plan.kind == "fw.activate" else [plan.kind]
        if [step.job.kind for step in one.steps] != kinds:
            raise RejectedInput(f"The jobs of ring {one.ring + 1} are not those of a {plan.kind}.", "Plan it anew.")
    boxes = [box for ring in plan.rings for box in ring]
    if len(set(boxes)) < len(boxes) or not all(plan.rings):
        raise RejectedInput("A ring of the plan is empty, or a box is in two.", "Plan and sign it anew.")


def _check(job: Job, envelope: bytes) -> None:
    if not envelope:
        raise RejectedInput("The plan is not signed.", "Sign it: sekisho center rollout sign --key FILE PLAN")
    if len(envelope) > jobs.ENVELOPE_CAP:
        raise RejectedInput(f"The job {job.id} is larger than its cap.")
    try:
        inside = msgspec.json.decode(_opened(envelope).payload, type=Job)
    except (msgspec.MsgspecError, ValueError, RecursionError) as err:
        raise RejectedInput(f"The job {job.id} cannot be read: {err}.") from err
    if inside != job:
        raise RejectedInput(f"The signed job {job.id} is not the one of the plan.", "Plan and sign it anew.")


def _opened(envelope: bytes) -> Envelope:
    try:
        return msgspec.json.decode(envelope, type=Envelope)
    except (msgspec.MsgspecError, ValueError, RecursionError) as err:
        raise RejectedInput(f"A signed job of the plan cannot be read: {err}.") from err


def _bytes(path: Path, cap: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(cap + 1)
    except OSError as err:
        raise DeviceFault(f"Cannot read {path}: {err.strerror}.") from err
    if len(data) > cap:
        raise RejectedInput(f"{path} is larger than {cap >> 10} KiB.")
    return data
