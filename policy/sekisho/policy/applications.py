"""Applications by the names a shop owner knows, found from a host name, a protocol or a TLS fingerprint.

The table is data (`shipped/applications.toml`). Reading it costs once; `find` walks the labels of a name from the
whole down to the last two, so that the longest listed name decides.
"""

from __future__ import annotations

import tomllib
from functools import cache, lru_cache
from importlib import resources

import msgspec


class Known(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One application."""

    id: str
    ja: str
    en: str
    names: tuple[str, ...] = ()
    """Canonical host names; sub-domains belong to them."""
    protocols: tuple[str, ...] = ()
    """The engine's words: rdp, ssh, bittorrent-dht."""
    ja4: tuple[str, ...] = ()


class _Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    application: tuple[Known, ...]


@cache
def table() -> dict[str, Known]:
    """Every application by its id."""
    text = (resources.files("sekisho.policy") / "shipped" / "applications.toml").read_text()
    return {known.id: known for known in msgspec.convert(tomllib.loads(text), _Table).application}


@cache
def _suffixes() -> dict[str, str]:
    return {name: known.en for known in table().values() for name in known.names}


@cache
def _protocols() -> dict[str, str]:
    return {word: known.en for known in table().values() for word in known.protocols}


@cache
def _fingerprints() -> dict[str, str]:
    return {print_: known.en for known in table().values() for print_ in known.ja4}


@lru_cache(maxsize=8192)
def find(name: str, protocol: str = "", ja4: str = "") -> str:
    """The application's name in English; empty when the table knows none.

    The host name decides before the fingerprint, and that before the protocol. Any text may come in.
    """
    suffixes = _suffixes()
    rest = name.lower().rstrip(".")[:253]
    while "." in rest:
        if known := suffixes.get(rest):
            return known
        rest = rest.partition(".")[2]
    return _fingerprints().get(ja4) or _protocols().get(protocol, "")
