"""The lab's centre as publisher of rule sets and releases: a signed repository, and nginx that hands it out and counts
bytes. All keys lie in one place here, as they never do.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from sekisho.center import pki
from sekisho.firmware.build import publishing
from sekisho.firmware.build.bundle import Terms
from sekisho.firmware.published import Release
from sekisho.lab import layout, releases, sets
from sekisho.lab.layout import Layout
from sekisho.lab.program import Program
from sekisho.signatures.depot import ceremony, repository, serve
from sekisho.signatures.depot.adopting import adopt
from sekisho.signatures.depot.keys import Ring
from sekisho.signatures.depot.publishing import publish
from sekisho.signatures.depot.tree import Tree
from sekisho.signatures.published import Manifest

_COUNTED: Final = """\
log_format counted '{"uri":"$uri","status":$status,"sent":$bytes_sent,"got":$request_length,'
                     '"connection":$connection,"at":$msec}';
  access_log %s counted;"""
_PLAIN: Final = Terms()


class Asked(msgspec.Struct, frozen=True):
    """One request as nginx counted it; bytes include the heads, not TLS."""

    uri: str
    status: int
    sent: int
    got: int
    connection: int
    at: float
    """Unix time of its end."""


class Channel:
    """What the centre publishes, and what boxes asked for."""

    def __init__(self, lay: Layout) -> None:
        self._lay = lay
        self._sets: dict[int, sets.Files] = {}

    @property
    def tree(self) -> Tree:
        return Tree(self._lay.updates)

    @property
    def url(self) -> str:
        return f"https://{layout.CENTER4}:{layout.UPDATES}"

    def prepare(self, *, firmware: bool = False) -> Program:
        """Make keys and an empty repository, give the box its root, and return how nginx starts. With `firmware` it may
        also list releases, and who signs jobs.
        """
        lay = self._lay
        work = lay.updates.with_name("updates-server")
        work.mkdir(parents=True)
        repository.init(self.tree, self.keys, datetime.now(UTC))
        for role in (publishing.FW, publishing.OPERATORS_ROLE) if firmware else ():
            ring, now = Ring([self.keys]), datetime.now(UTC)
            adopt(self.tree, ring, ceremony.delegate(self.tree, ring, role, self.keys, now), now)
        lay.updates_root.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.tree.versioned(1, "root"), lay.updates_root)
        made = pki.issue(lay.authority, "updates", "server", (layout.CENTER4,))
        config = work / "nginx.conf"
        text = serve.alone(serve.config(lay.updates, made.cert, made.key, listen=str(layout.UPDATES)), work, "root")
        config.write_text(text.replace("access_log off;", _COUNTED % (work / "access.log")))
        return Program("depot", "center", ["nginx", "-c", str(config)], [layout.UPDATES])

    def publish(
        self,
        number: int,
        files: sets.Files,
        new_drops: Collection[int] = (),
        urgent: Collection[int] = (),
        **claims: int,
    ) -> Manifest:
        """Sign set `number` as `sekisho signatures publish` does, with deltas from the last ones."""
        manifest = self.lay_out(number, files, new_drops, urgent, **claims)
        self.sign(number)
        return manifest

    def lay_out(
        self,
        number: int,
        files: sets.Files,
        new_drops: Collection[int] = (),
        urgent: Collection[int] = (),
        **claims: int,
    ) -> Manifest:
        """Make set `number`, which takes a minute for a large one, and leave it unsigned."""
        manifest = sets.write(self._folder(number), number, files, self._sets, new_drops, urgent, **claims)
        self._sets = dict(sorted({**self._sets, number: files}.items())[-sets.DELTAS :])
        return manifest

    def sign(self, number: int) -> None:
        """Put set `number`, as it was laid out, in force at the centre."""
        publish(self.tree, Ring([self.keys]), self._folder(number), datetime.now(UTC))
        shutil.rmtree(self._folder(number))

    def release(
        self, counter: int, version: str, changed: Mapping[str, str] | None = None, terms: Terms = _PLAIN
    ) -> Release:
        """Build a release of this tree (`releases.build`) and sign it as `sekisho firmware publish` does."""
        made = releases.build(self.built(counter), counter, version, changed or {}, terms)
        self._sign(counter)
        return made

    def image(self, counter: int, version: str, terms: Terms = _PLAIN) -> Release:
        """Likewise one of the whole system (`releases.image`)."""
        made = releases.image(self.built(counter), counter, version, terms)
        self._sign(counter)
        return made

    def _sign(self, counter: int) -> None:
        ring, now = Ring([self.keys]), datetime.now(UTC)
        adopt(self.tree, ring, publishing.release(self.tree, ring, self.built(counter), now)[1], now)

    def built(self, counter: int) -> Path:
        """Where a release's bundle and its release.json are."""
        return self._lay.updates.with_name("releases") / str(counter)

    def asked(self) -> list[Asked]:
        """Every request so far, in the order of their ends."""
        log = self._lay.updates.with_name("updates-server") / "access.log"
        lines = log.read_bytes().splitlines() if log.exists() else []
        return [msgspec.json.decode(line, type=Asked) for line in lines]

    def _folder(self, number: int) -> Path:
        return self._lay.updates.with_name("sets") / str(number)

    @property
    def keys(self) -> Path:
        return self._lay.updates.with_name("updates-keys")
