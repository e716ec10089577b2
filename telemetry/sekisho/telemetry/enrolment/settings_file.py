"""Writing what enrolment decided into the box's settings file, leaving every other line as its owner wrote it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import msgspec

from sekisho.appliance.core import settings
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import write_atomic

Values = dict[str, str | int | list[str]]


def enrolled(text: str, box: str, tenant: str, telemetry: Values) -> str:
    """`text` with this name, tenant and link; settings the file does not have yet go below their section's head.

    Raises:
        RejectedInput: the file is written in a way this cannot change without changing something else.

    """
    lines = _with(text.splitlines(), "", {"box": box, "tenant": tenant})
    changed = "\n".join(_with(lines, "telemetry", telemetry)) + "\n"
    if _as_wanted(text, box, tenant, telemetry) != settings.parse(changed):
        raise RejectedInput(
            "The settings file is written in a way that cannot be changed safely.",
            f"Write into its section [telemetry]: {', '.join(f'{k} = {json.dumps(v)}' for k, v in telemetry.items())}.",
        )
    return changed


def write(path: Path, text: str) -> None:
    """Replace the file; its owner, group and mode stay.

    Raises:
        DeviceFault: it cannot be written; the old one holds.

    """
    try:
        old = path.stat() if path.exists() else None
        write_atomic(path, text.encode(), old.st_mode & 0o777 if old else 0o640)
        if old and os.geteuid() == 0:
            os.chown(path, old.st_uid, old.st_gid)
    except OSError as err:
        raise DeviceFault(f"Cannot write {path}: {err.strerror}.") from err


def _with(lines: list[str], section: str, values: Values) -> list[str]:
    """`lines` with `values` in `section`; "" is what stands before the first section."""
    heads = [at for at, line in enumerate(lines) if re.match(r"\s*\[", line)]
    if section:
        begin = next((at + 1 for at in heads if re.match(rf"\s*\[\s*{section}\s*\]", lines[at])), None)
        if begin is None:
            lines, begin = [*lines, "", f"[{section}]"], len(lines) + 2
    else:
        begin = 0
    end = next((at for at in heads if at >= begin), len(lines))
    left = [line for line in lines[begin:end] if not re.match(rf"\s*({'|'.join(values)})\s*=", line)]
    return [
        *lines[:begin],
        *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()),
        *left,
        *lines[end:],
    ]


def _as_wanted(text: str, box: str, tenant: str, telemetry: Values) -> settings.Settings:
    before = settings.parse(text)
    link = msgspec.convert({**msgspec.structs.asdict(before.telemetry), **telemetry}, settings.Telemetry)
    return msgspec.structs.replace(before, box=box, tenant=tenant, telemetry=link)
