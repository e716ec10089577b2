"""Turns a policy and its lists into the engine's rules and lists. Pure: no clock, no inventory, no file.

What changes by itself (who has which address, what time it is, which exception has ended) is never in the rules:
they ask lists that `state` fills and that change in the running engine. A name is looked up once per number of labels
that a list has: `b.example` covers every host whose last two labels it is, at the price of a hash.

Exceptions are bits of the connection, cleared at every request, set where an exception fits, and asked by the rules it
is about; each such rule has a twin that only reports, and so counts the exception's use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import idna
import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.policy import channels
from sekisho.policy.applications import table
from sekisho.policy.channels import ALL_QUIC, DNS, HTTP, NAMED, TLS, Channel, Rulebook, Sets
from sekisho.policy.exceptions import Exceptions
from sekisho.policy.lists import Names
from sekisho.policy.model import Application, Keyword, Policy, UrlCategory, WebGuard
from sekisho.policy.names import by_depth, pruned
from sekisho.policy.selectors import Selectors

MAX_BUCKETS: Final = 16
MAX_SEGMENTS: Final = 4
ENCODINGS: Final = ("utf-8", "cp932", "euc_jp")
AMBIGUOUS: Final = "ambiguous_host"
"""Requests that name two hosts, or one no name can be: nobody could say which list they belong to."""
_NO_NAME: Final = 'http.host; pcre:"/[^a-z0-9._:\\[\\]\\x80-\\xff-]/"; '

_Named = WebGuard | UrlCategory | Keyword | Application


class Compiled(msgspec.Struct):
    """Everything that does not change by itself."""

    book: Rulebook
    sets: Sets
    selectors: Selectors
    switches: dict[str, str]
    """Name of a list that is a switch -> the schedule, or "!" and the exception, that turns it on and off."""
    detect: bool
    """Nothing is refused, everything is told."""
    signature_exceptions: dict[int, list[tuple[str, str]]]
    """Signature -> (bit, exception) of the exceptions that may apply to it."""


class Compiler:
    """One run; `compile_policy` is its only user."""

    def __init__(
        self, policy: Policy, categories: dict[str, Names], guards: dict[str, Names], directory: Path, detect: bool
    ) -> None:
        self._policy = policy
        self._categories = categories
        self._guards = guards
        self._detect = detect
        self.sets = Sets(directory)
        self.book = Rulebook()
        self.switches: dict[str, str] = {}
        self.selectors = Selectors(policy)
        self.exceptions = Exceptions(policy, self.book, self.sets, self.selectors, self.switches)
        self._lists: dict[str, str] = {}
        self._refusing: dict[tuple[tuple[str, ...], str], None] = {}

    def run(self) -> None:
        for guard in self._policy.web_guard:
            self._names("web_guard", guard.name, guard, self._guards[guard.name])
        for choice in self._policy.url_category:
            for name in choice.categories:
                self._names("url_category", name, choice, self._categories[name])
        for keyword in self._policy.keyword:
            self._words(keyword)
        for application in self._policy.application:
            for name in application.applications:
                self._application(name, application)
        if self._policy.quic == "block":
            self._verdict(ALL_QUIC, Application(applications=("quic",)), "", "application", "quic")
        for groups, schedule in self._refusing:
            strict = Application(applications=(AMBIGUOUS,), groups=groups, schedule=schedule)
            for body in ("app-layer-event:http.host_header_ambiguous; ", _NO_NAME):
                self._verdict(HTTP, strict, body, "web_guard", AMBIGUOUS)
        self.exceptions.finish()

    def _verdict(self, channel: Channel, entry: _Named, body: str, function: str, name: str) -> None:
        """The rules for one way of asking: for each source, what is refused, and each exception's use."""
        action = entry.action if channel is not DNS or entry.action == "log" else entry.dns
        if action == "off":
            return
        if self._detect:
            action = "log"
        if not channel.name and action == "log":
            body += f"flowbits:isnotset,sk.said.{name}; flowbits:set,sk.said.{name}; "
        body = self._switch(channel, entry.schedule) + body
        for source in self.selectors.sources(entry.groups, self.sets):
            passes = self.exceptions.about(function, name, channel)
            unless = "".join(f"flowbits:isnotset,{bit}; " for bit, _ in passes)
            self.book.verdict(channel, source, body + unless, function, name, action)
            for bit, exemption in passes:
                used = body + f"flowbits:isset,{bit}; "
                self.book.verdict(channel, source, used, function, name, action, exemption)

    def _switch(self, channel: Channel, schedule: str) -> str:
        if not schedule:
            return ""
        name = f"sk-t-{schedule}"
        self.switches[name] = schedule
        return channels.switch(self.sets, channel, name)

    def _names(self, function: str, name: str, entry: WebGuard | UrlCategory, found: Names) -> None:
        hosts = pruned(found.domains | {text.partition("/")[0] for text in found.addresses if text.endswith("/32")})
        if entry.action == "block":
            self._refusing[entry.groups, entry.schedule] = None
        for depth, looked_up in self._name_lists(f"{function}-{name}", hosts).items():
            for channel in NAMED:
                body = f"{channel.named}{channels.last_labels(depth)}{looked_up}"
                self._verdict(channel, entry, body, function, name)
        for body in self._url_bodies(f"{function}-{name}", found.urls):
            self._verdict(HTTP, entry, body, function, name)

    def _name_lists(self, key: str, hosts: set[str]) -> dict[int, str]:
        """Number of labels -> the keyword that asks the list of names with so many."""
        number = self._lists.setdefault(key, f"sk-n{len(self._lists)}")
        return {
            depth: self.sets.put(f"{number}-{depth}", "string", [name.encode() for name in names])
            for depth, names in by_depth(hosts).items()
        }

    def _url_bodies(self, key: str, urls: set[tuple[str, bytes]]) -> list[str]:
        """Matches for pages: a list of hosts and a list of paths, in up to `MAX_BUCKETS` pairs.

        Within a pair a host also matches with the path of another: the price of lists instead of 100,000 rules.
        """
        number = self._lists.setdefault(f"{key}-urls", f"sk-u{len(self._lists)}")
        order = {host: place % MAX_BUCKETS for place, host in enumerate(sorted({host for host, _ in urls}))}
        buckets: dict[tuple[int, int], tuple[set[str], set[bytes]]] = {}
        for host, target in urls:
            segments = _segments(target)
            hosts, paths = buckets.setdefault((order[host], segments), (set(), set()))
            hosts |= {host, f"www.{host}"}
            paths.add(target.rstrip(b"/") if segments else target)
        bodies = []
        for (bucket, segments), (hosts, paths) in sorted(buckets.items()):
            at = f"{number}-{bucket}-{segments}"
            of_hosts = self.sets.put(f"{at}-h", "string", sorted(host.encode() for host in hosts))
            of_paths = self.sets.put(f"{at}-p", "string", sorted(paths))
            path = f"http.uri; {channels.first_segments(segments)}{of_paths}"
            bodies.append(f'{HTTP.named}pcrexform:"^([^/]*?)\\.*$"; {of_hosts}{path}')
        return bodies

    def _words(self, keyword: Keyword) -> None:
        for word in keyword.words:
            for form in _forms(word):
                body = f"http.uri.raw; url_decode; url_decode; {channels.content(form)}nocase; "
                if self.exceptions.by_name("keyword", keyword.name):
                    self._verdict(HTTP, keyword, f"{body}{HTTP.named}bsize:>0; ", "keyword", keyword.name)
                    body += 'http.host; content:!"."; '
                self._verdict(HTTP, keyword, body, "keyword", keyword.name)
            if host := _host_word(word):
                for channel in NAMED:
                    body = f"{channel.name}; {channel.fold}{channels.content(host.encode())}"
                    self._verdict(channel, keyword, body, "keyword", keyword.name)
        if keyword.action == "block":
            self._refusing[keyword.groups, keyword.schedule] = None

    def _application(self, name: str, entry: Application) -> None:
        known = table().get(name)
        if known is None:
            raise RejectedInput(f"application: there is no application {name!r}.", "See: sekisho policy show.")
        if entry.action == "block" and known.names:
            self._refusing[entry.groups, entry.schedule] = None
        for depth, looked_up in self._name_lists(f"application-{name}", pruned(known.names)).items():
            for channel in NAMED:
                body = f"{channel.named}{channels.last_labels(depth)}{looked_up}"
                self._verdict(channel, entry, body, "application", name)
        for print_ in known.ja4:
            self._verdict(TLS, entry, f"ja4.hash; {channels.content(print_.encode())}", "application", name)
        for word in known.protocols:
            self._verdict(channels.of_protocol(word), entry, "", "application", name)


def compile_policy(
    policy: Policy, categories: dict[str, Names], guards: dict[str, Names], directory: Path, *, detect: bool = False
) -> Compiled:
    """Rules and lists; the engine will load the lists from `directory`. `detect` turns every "block" into "log".

    Raises:
        RejectedInput: the policy names something that does not exist, or makes too many rules.

    """
    work = Compiler(policy, categories, guards, directory, detect)
    try:
        work.run()
    except ValueError as err:
        raise RejectedInput(f"policy: {err}.") from err
    return Compiled(work.book, work.sets, work.selectors, work.switches, detect, work.exceptions.for_signatures)


def _segments(target: bytes) -> int:
    """How many segments of the path decide; 0 = the whole target, exactly."""
    count = target.rstrip(b"/").count(b"/")
    plain = b"?" not in target and b"//" not in target
    return count if plain and 1 <= count <= MAX_SEGMENTS else 0


def _forms(word: str) -> list[bytes]:
    """The bytes a word may have in a URL, in the encodings Japanese sites use."""
    forms = dict.fromkeys(form for form in (_encoded(word, name) for name in ENCODINGS) if form)
    return list(forms)


def _encoded(word: str, name: str) -> bytes:
    try:
        return word.encode(name)
    except UnicodeEncodeError:
        return b""


def _host_word(word: str) -> str:
    """The word as it would stand in a host name; empty when none can hold it."""
    text = word.lower()
    if not text.isascii():
        try:
            return idna.encode(text, uts46=True).decode()
        except idna.IDNAError:
            return ""
    return text if all(letter.isalnum() or letter in ".-_" for letter in text) else ""
