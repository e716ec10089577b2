"""What a string loses before it may leave the box: length, credentials, form content.

Every event passes `tidy`, whichever room made it. Applying a function here twice changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final, get_args, get_origin, get_type_hints

import msgspec

from sekisho.telemetry.events import MUTED_SIDS, Event

URL_CAP = 2048
STRING_CAP = 256
STRUCT_CAP = 256
"""Entries of a list whose entries have fields of their own."""
LIST_CAP = 16
MASK = "…"

_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")
_PATH_PARAM = re.compile(r"(;[^=;/?]*=)[^;/?]+")
_PLACE = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]{0,20}://|\*$|[A-Za-z0-9._\-\[\]:]{1,255}:[0-9]{1,5}$")
"""How a request target begins (RFC 9112 3.2); anything else may be a body that was taken for a request."""
_METHOD = re.compile(r"[A-Za-z-]{1,20}")
_KEY = re.compile(r"[A-Za-z0-9_.\-\[\]%]{1,64}")


def mask_url(url: str) -> str:
    """The URL without user, password and fragment; of the query (and `;` parameters) only the keys.

    A query part without `=` may itself be a secret and is masked whole, as is a key no form would have.
    """
    if not _PLACE.match(url):
        return MASK if url else ""
    url = url[: 4 * URL_CAP]
    url = _USERINFO.sub("", url.partition("#")[0])
    path, mark, query = url.partition("?")
    path = _PATH_PARAM.sub(r"\1" + MASK, path)
    return (path + mark + "&".join(map(_mask_pair, query.split("&"))) if query else path + mark)[:URL_CAP]


def _mask_pair(pair: str) -> str:
    key, equals, value = pair.partition("=")
    if not equals or not value.strip("=") or not _KEY.fullmatch(key):
        return MASK if pair else ""
    return f"{key}={MASK}"


def file_name(name: str) -> str:
    """A file's name without the query that an HTTP file's name may drag along."""
    return name.partition("?")[0][:STRING_CAP]


def host_name(name: str) -> str:
    """A Host header without the user information it must not have."""
    return name.rpartition("@")[2][:STRING_CAP]


def method(name: str) -> str:
    """A request method, or nothing where the word is none."""
    return name if _METHOD.fullmatch(name) else ""


def _cut(text: str) -> str:
    return text if len(text) <= STRING_CAP else text[:STRING_CAP]


_RULES: Final[dict[str, Callable[[str], str]]] = {
    "url": mask_url,
    "file_name": file_name,
    "host": host_name,
    "method": method,
}
_CAPS: Final = {"sids": MUTED_SIDS}


def tidy(event: Event) -> Event:
    """The event with every string, list and URL cut to what may leave the box."""
    tidied: Event = _struct(event)
    return tidied


def _struct(struct: msgspec.Struct) -> Any:
    changed: dict[str, Any] = {}
    for name, rule in _rules_of(type(struct)):
        old = getattr(struct, name)
        if old and (new := rule(old)) is not old and new != old:
            changed[name] = new
    return msgspec.structs.replace(struct, **changed) if changed else struct


@cache
def _rules_of(kind: type) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    """What is done to each field of a type that can hold text; the others are numbers and words of a list."""
    return tuple(
        (name, rule) for name, hint in get_type_hints(kind).items() if (rule := _rule_of(name, hint)) is not None
    )


def _rule_of(name: str, hint: Any) -> Callable[[Any], Any] | None:
    if hint is str:
        return _RULES.get(name, _cut)
    if get_origin(hint) is list:
        (inner,) = get_args(hint)
        rule, cap = _rule_of(name, inner), LIST_CAP if inner is str else _CAPS.get(name, STRUCT_CAP)
        return lambda items: [rule(item) if rule else item for item in items[:cap]]
    return _struct if isinstance(hint, type) and issubclass(hint, msgspec.Struct) else None
