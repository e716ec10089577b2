"""What stands for an office's addresses and names outside of it, where the owner wants that (`mask_internal`).

Every internal address, LAN hardware address and device name in an event becomes a pseudonym: a keyed hash whose key
is made on the box and stays there, so that one device's events still belong together and nobody else can undo it.
The box remembers what each stands for, beside the spool and never in it. Replaced are whole fields that hold an
address or a device's name, and addresses and names inside any other text (a URL, a question in DNS, a subject).

What is no address of the office stays: public addresses, names of public hosts. An office with public addresses of
its own (IPv6) lists their prefix in `home_networks`; those of devices the inventory knows are masked in any case.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

import msgspec

from sekisho.telemetry.aliases import Aliases
from sekisho.telemetry.events import Device, Event
from sekisho.telemetry.inventory import Inventory, Networks

_ALWAYS: Final = ("169.254.0.0/16", "fe80::/10")
"""Addresses that no router passes on; IPv6 ones are made of the hardware address."""
_LOCAL: Final = ("local", "lan", "home", "internal", "localdomain", "corp", "intranet", "home.arpa")
_NAME_LENGTH: Final = 4
"""Shorter device names are too ordinary to be searched for in text."""
_FOUND: Final = re.compile(
    r"(?<![0-9A-Fa-f])(?P<mac>(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2})(?![0-9A-Fa-f])"
    r"|(?<![0-9A-Fa-f])(?P<bare>[0-9A-Fa-f]{12})(?![0-9A-Fa-f])"
    r"|(?<![0-9])(?P<ptr4>(?:[0-9]{1,3}\.){4})(?=in-addr\.arpa)"
    r"|(?P<ptr6>(?:[0-9A-Fa-f]\.){32})(?=ip6\.arpa)"
    r"|(?<![0-9])(?P<v4>[0-9]{1,3}(?P<sep>[.-])[0-9]{1,3}(?P=sep)[0-9]{1,3}(?P=sep)[0-9]{1,3})(?![0-9])"
    r"|(?<![0-9A-Za-z:])(?P<v6>[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3})?)",
    re.IGNORECASE,
)
MAX_MEMO: Final = 16384
_PSEUDONYM: Final = re.compile(r"(?:ip|mac|dev)-[a-z2-7]{10}")
_WORD: Final = re.compile(r"[^\W_](?:[\w-]*[^\W_])?")


class Masker:
    """Puts pseudonyms into events. One per box; its memory is `aliases`."""

    def __init__(self, aliases: Aliases, home_networks: Iterable[str], inventory: Inventory) -> None:
        self._aliases = aliases
        self._inventory = inventory
        self._networks = Networks((*home_networks, *_ALWAYS))
        self._names = aliases.devices()
        self._known = inventory.devices, len(self._names)
        self._memo: dict[tuple[_Rule, str], str] = {}
        """What texts came out as, as long as the same devices are known."""
        self._name = lru_cache(65536)(self._make_name)

    def mask(self, event: Event) -> Event:
        """The event without what identifies a device of the office to a stranger.

        Raises:
            DeviceFault: a new pseudonym could not be noted; nothing may be sent under it.

        """
        if isinstance(event, Device) and event.name:
            for name in {event.name.casefold(), event.name.partition(".")[0].casefold()} - self._names:
                self._names.add(name)
                self._aliases.note(pseudonym(self._aliases.key, "dev", name), name, of_device=True)
        known = self._inventory.devices, len(self._names)
        if known[0] is not self._known[0] or known[1] != self._known[1] or len(self._memo) > MAX_MEMO:
            self._known, self._memo = known, {}
        masked: Event = self._struct(event)
        self._aliases.keep()
        return masked

    def _struct(self, struct: Any) -> Any:
        changed = {}
        for name in struct.__struct_fields__:
            old = getattr(struct, name)
            new = self._value(name, old, isinstance(struct, Device))
            if new != old:
                changed[name] = new
        return msgspec.structs.replace(struct, **changed) if changed else struct

    def _value(self, name: str, value: Any, of_device: bool) -> Any:
        if isinstance(value, str):
            if not value or name in PLAIN:
                return value
            if name == "name" and of_device:
                return self._alias("dev", value)
            rule = _RULES.get(name, Masker._text)
            masked = self._memo.get((rule, value))
            if masked is None:
                masked = self._memo[rule, value] = rule(self, value)
            return masked
        if isinstance(value, list):
            return [self._value(name, item, of_device) for item in value]
        return self._struct(value) if isinstance(value, msgspec.Struct) else value

    def _host(self, text: str) -> str:
        """A host's name or address: a local name is a device's, of another the leading labels may be."""
        if ":" in text and not text.startswith("[") and text.count(":") == 1:
            host, _, port = text.partition(":")
            return f"{self._host(host)}:{port}"
        masked = self._addresses(text)
        if masked != text or text.startswith("[") or ":" in text or not _WORD.search(text) or _is_address(text):
            return masked
        labels = text.rstrip(".").split(".")
        suffix = next((s for s in _LOCAL if len(labels) > s.count(".") + 1 and text.casefold().endswith("." + s)), "")
        if len(labels) == 1 or suffix:
            kept = labels[len(labels) - suffix.count(".") - 1 :] if suffix else []
            own = labels[: len(labels) - len(kept)]
            return ".".join([*(la if la.startswith("_") else self._alias("dev", la) for la in own), *kept])
        return ".".join([*(self._if_known(label) for label in labels[:-2]), *labels[-2:]])

    def _url(self, text: str) -> str:
        scheme, mark, rest = text.partition("://")
        if not mark or "/" in scheme:
            return self._text(text)
        host, slash, path = rest.partition("/")
        return f"{scheme}://{self._host(host)}{slash}{self._text(path)}"

    def _mail(self, text: str) -> str:
        user, at, host = text.rpartition("@")
        return self._text(user) + at + self._host(host) if at else self._text(text)

    def _text(self, text: str) -> str:
        text = self._addresses(text)
        return _WORD.sub(lambda found: self._if_known(found[0]), text) if self._names else text

    def _if_known(self, word: str) -> str:
        known = len(word) >= _NAME_LENGTH and word.casefold() in self._names
        return self._alias("dev", word) if known else word

    def _addresses(self, text: str) -> str:
        return _FOUND.sub(self._found, text)

    def _found(self, found: re.Match[str]) -> str:
        text = found[0]
        if found["mac"]:
            return self._alias("mac", text.replace("-", ":").lower())
        if found["bare"]:
            mac = ":".join(re.findall("..", text.lower()))
            return self._alias("mac", mac) if self._inventory.knows(mac) else text
        if found["ptr4"] or found["ptr6"]:
            digits = text.rstrip(".").split(".")[::-1]
            plain = ".".join(digits) if found["ptr4"] else ":".join(re.findall("....", "".join(digits)))
            alias = self._if_internal(plain)
            return f"{alias}." if alias else text
        return self._if_internal(text.replace("-", ".") if found["v4"] else text) or text

    def _if_internal(self, text: str) -> str:
        """The pseudonym of an internal address, empty for another one or none."""
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return ""
        address = getattr(address, "ipv4_mapped", None) or address
        short = str(address)
        if short in self._networks or self._inventory.mac(short, ""):
            return self._alias("ip", short)
        return ""

    def _alias(self, kind: str, plain: str) -> str:
        if _PSEUDONYM.fullmatch(plain):
            return plain
        return self._name(kind, plain.casefold() if kind == "dev" else plain)

    def _make_name(self, kind: str, plain: str) -> str:
        made = pseudonym(self._aliases.key, kind, plain)
        self._aliases.note(made, plain)
        return made


def pseudonym(key: bytes, kind: str, plain: str) -> str:
    """`ip-`, `mac-` or `dev-` and ten letters that only the box can make of this address or name."""
    digest = blake2b(plain.encode(), key=key, person=kind.encode(), digest_size=10).digest()
    return f"{kind}-{base64.b32encode(digest)[:10].decode().lower()}"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


PLAIN: Final = frozenset(
    "type at until first_seen last_seen hour sha256 quarantine proto app application function action outcome direction"
    " signature category why_stars rules reason part state why kind vendor method version rrtype"
    " set freshness built checked slot by deadline id step rollout signers"
    " job engine_off gate_off connected_since silent".split()
)
"""Fields that hold times, or words of the product and its rules: nothing of the office is in them."""
_Rule = Callable[[Masker, str], str]
_RULES: Final[dict[str, _Rule]] = {
    "host": Masker._host,
    "sni": Masker._host,
    "dns_name": Masker._host,
    "name": Masker._host,
    "url": Masker._url,
    "mail_from": Masker._mail,
    "mail_to": Masker._mail,
}
