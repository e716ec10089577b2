"""Everything that may leave the box, field by field, read from the types themselves: docs/privacy.md is made of it.

The meanings are data (`fields.toml`), in Japanese and English; a field without one is an error, so that none can be
added without saying to the owner what it is.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from sekisho.telemetry import masking, privacy
from sekisho.telemetry.batches import Header
from sekisho.telemetry.events import GAP_RUNS, MAX_DELIVERIES, MUTED_SIDS, Event
from sekisho.telemetry.sender import State

TYPES: Final[dict[str, Any]] = {
    **{str(kind.__struct_config__.tag): kind for kind in get_args(Event)},
    "state": State,
    "batch": Header,
}
"""Events first, then the other messages a box publishes."""
_LIST_CAPS: Final = {"deliveries": MAX_DELIVERIES, "runs": GAP_RUNS, "sids": MUTED_SIDS}
_ADDRESSES: Final = frozenset({"src_ip", "dst_ip", "ip", "mac", "ipv4", "ipv6"})


class Field(msgspec.Struct, frozen=True):
    """One field of one type."""

    type: str
    name: str
    """With "." before what belongs to a field's own fields, "[]" where there are several."""
    ja: str
    en: str
    cap: str
    masked: Literal["", "all", "inside"]
    """What mask_internal does: all of it becomes a pseudonym, or what it holds of addresses and device names."""


def every() -> list[Field]:
    """All fields of all types, in their order."""
    return [field for name, kind in TYPES.items() for field in _of(name, kind, "")]


def of_type(name: str) -> tuple[str, str]:
    """A type's meaning in Japanese and English."""
    ja, en = _texts()["type"][name]
    return ja, en


def unused() -> set[str]:
    """Texts that belong to no field: of one that is gone."""
    wanted = {key for name, kind in TYPES.items() for key in _keys(name, kind)}
    return set(_texts()["field"]) - wanted


def _of(type_name: str, kind: Any, prefix: str) -> Iterator[Field]:
    hints = get_type_hints(kind, include_extras=False)
    for name in kind.__struct_fields__:
        hint, several = hints[name], False
        if get_origin(hint) is list:
            (hint,), several = get_args(hint), True
        full = f"{prefix}{name}{'[]' * several}"
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield from _of(type_name, hint, f"{full}.")
            continue
        ja, en = _meaning(type_name, prefix, name)
        yield Field(type_name, full, ja, en, _cap(name, hint, several), _masked(type_name, name, hint))


def _keys(type_name: str, kind: Any) -> Iterator[str]:
    for field in _of(type_name, kind, ""):
        *owner, name = field.name.replace("[]", "").split(".")
        yield _key(type_name, f"{'.'.join(owner)}." if owner else "", name)


def _key(type_name: str, prefix: str, name: str) -> str:
    owner = prefix.replace("[]", "").rstrip(".") or type_name
    return f"{owner}.{name}" if f"{owner}.{name}" in _texts()["field"] else name


def _meaning(type_name: str, prefix: str, name: str) -> tuple[str, str]:
    ja, en = _texts()["field"][_key(type_name, prefix, name)]
    return ja, en


def _cap(name: str, hint: Any, several: bool) -> str:
    """How much a field can hold, in characters where it is text."""
    words = list(_words(hint))
    if words:
        cap = " / ".join(words)
    elif hint is str:
        cap = str(privacy.URL_CAP if name == "url" else privacy.STRING_CAP)
    else:
        cap = "yes / no" if hint is bool else "number"
    return f"{_LIST_CAPS.get(name, privacy.LIST_CAP)} × {cap}" if several else cap


def _words(hint: Any) -> Iterator[str]:
    """The only words a field may hold, where they are listed."""
    if get_origin(hint) is Literal:
        yield from (word for word in get_args(hint) if word)
    elif get_origin(hint) in (Union, UnionType):
        for one in get_args(hint):
            yield from _words(one)


def _masked(type_name: str, name: str, hint: Any) -> Literal["", "all", "inside"]:
    if hint is not str or type_name in ("state", "batch") or name in masking.PLAIN:
        return ""
    return "all" if name in _ADDRESSES or (type_name, name) == ("device", "name") else "inside"


@cache
def _texts() -> dict[str, dict[str, list[str]]]:
    text = files("sekisho.telemetry").joinpath("fields.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, dict[str, list[str]]])
