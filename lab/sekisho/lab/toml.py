"""Writes the settings files of a lab: plain nested tables of text, numbers, truth values and lists."""

from __future__ import annotations

import json
from collections.abc import Mapping

Value = str | int | float | bool | list[str] | tuple[str, ...]
Table = Mapping[str, "Value | Table"]


def merged(base: Table, over: Table) -> dict[str, Value | Table]:
    """`base` with the values of `over` on top, table by table."""
    result: dict[str, Value | Table] = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def dumps(table: Table) -> str:
    """TOML text of one table of values and one level of tables below it (JSON's scalars are TOML's, too)."""
    lines = [
        f"{key} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in table.items()
        if not isinstance(value, Mapping)
    ]
    for name, inner in table.items():
        if isinstance(inner, Mapping):
            lines += ["", f"[{name}]", dumps(inner)]
    return "\n".join(lines) + "\n"
