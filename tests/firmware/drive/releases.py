"""Throwaway releases: a wheel of a few lines in a bundle of a few kB, and a repository that publishes them."""

from __future__ import annotations

import base64
import copy
import datetime as dt
import hashlib
import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from repository import Depot
from tuf.api.metadata import Metadata, MetaFile, TargetFile, Targets, Timestamp

from sekisho.appliance.core.settings import Firmware, Paths, Settings, Signatures
from sekisho.firmware.build import bundle, publishing, wheels
from sekisho.firmware.build.bundle import Terms
from sekisho.firmware.content import Content, Machine
from sekisho.firmware.published import Release
from sekisho.signatures.depot import ceremony
from sekisho.signatures.depot.adopting import adopt
from sekisho.signatures.depot.signing import sign

EPOCH = 1_795_000_000
HERE: Machine = "arm64" if os.uname().machine == "aarch64" else "amd64"
SCRIPT = "tiny = tiny:main"


def wheel(folder: Path, name: str = "tiny", version: str = "1.0", needs: str = "") -> Path:
    """A sound wheel with one module and one command that prints its version."""
    told = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (f"Requires-Dist: {needs}\n" if needs else "")
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"def main():\n    print({version!r})\n",
        f"{info}/METADATA": told,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}\n"
        for path, text in files.items()
    )
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as out:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            out.writestr(zipfile.ZipInfo(path), text)
    return made


def release(
    out: Path,
    counter: int,
    extra: dict[str, bytes] | None = None,
    needs: str = "",
    terms: Terms = Terms(),  # noqa: B008 - frozen
    **changed: Any,
) -> Release:
    """A built release in `out`, as `firmware build` makes it; `extra` files besides the one wheel."""
    python = f"3.{sys.version_info.minor}"
    told = {"counter": counter, "version": f"1.{counter}", "hardware": HERE, "machine": HERE, "python": python}
    content = msgspec.convert({**told, **changed}, Content)
    parts = out / "parts"
    one = wheel(parts, needs=needs)
    listed = parts / "requirements.txt"
    listed.write_text(wheels.requirement("tiny", "1.0", [wheels.digest(one)]))
    files = {f"wheels/{one.name}": one, "requirements.txt": listed}
    for name, data in (extra or {}).items():
        path = parts / name.replace("/", "-")
        path.write_bytes(data)
        files[name] = path
    path = out / f"{counter}.tar.zst"
    bundle.pack(content, files, EPOCH, path)
    made = bundle.describe(content, files, EPOCH, path, terms)
    bundle.write(made, out)
    return made


@dataclass
class Centre:
    """A repository with the delegations for releases and operators, whose keys are all at hand."""

    depot: Depot

    def __post_init__(self) -> None:
        for role in ("fw", "operators"):
            self.adopt(ceremony.delegate(self.depot.tree, self.depot.ring, role, self.depot.keys, self.depot.now))

    def adopt(self, made: ceremony.Made) -> None:
        adopt(self.depot.tree, self.depot.ring, made, self.depot.now)

    def publish(self, counter: int, **how: Any) -> Release:
        folder = self.depot.root / "releases" / str(counter)
        folder.mkdir(parents=True)
        found = release(folder, counter, **how)
        self.adopt(publishing.release(self.depot.tree, self.depot.ring, folder, self.depot.now)[1])
        return found

    def bundle(self, found: Release) -> Path:
        return self.depot.root / "releases" / str(found.counter) / Path(found.path).name

    def settings(self, box: str = "box", hardware: str = HERE) -> Settings:
        """Of a box that believes this repository."""
        root = self.depot.root / box
        root.mkdir(exist_ok=True)
        (root / "root.json").write_bytes(self.depot.trusted)
        return Settings(
            box="b",
            paths=Paths(run=str(root / "run"), state=str(root / "state")),
            signatures=Signatures(root=str(root / "root.json")),
            firmware=Firmware(hardware=hardware),
        )

    def listed(self) -> Targets:
        """What `fw` lists, to be changed by whoever has its keys."""
        return copy.deepcopy(self.depot.tree.chain().delegated["fw"].signed)

    def put(self, signed: Targets, path: str, data: bytes) -> None:
        """A target of any content."""
        target = TargetFile.from_data(path, data, ["sha256"])
        signed.targets[path] = target
        self.depot.tree.target(target).parent.mkdir(parents=True, exist_ok=True)
        self.depot.tree.put(self.depot.tree.target(target), data)

    def signed(self, listed: Targets, signers: int = 2) -> Metadata[Targets]:
        """By so many of the keyholders of `fw`."""
        listed.version += 1
        listed.expires = self.depot.now.replace(microsecond=0) + dt.timedelta(days=90)
        made = Metadata(listed)
        terms = self.depot.tree.chain().targets.signed.get_delegated_role("fw")
        keys = [self.depot.tree.chain().targets.signed.get_key(keyid) for keyid in terms.keyids]
        for signer in self.depot.ring.signers("fw", keys, signers):
            made.sign(signer, append=True)
        return made

    def force(self, made: Metadata[Targets]) -> None:
        """Serve this list of `fw` whatever it is, as whoever has all online keys can."""
        tree, ring, chain, now = self.depot.tree, self.depot.ring, self.depot.tree.chain(), self.depot.now
        tree.put(tree.versioned(made.signed.version, "fw"), made.to_bytes())
        listed = copy.deepcopy(chain.snapshot.signed)
        listed.version += 1
        listed.meta["fw.json"] = MetaFile.from_data(made.signed.version, made.to_bytes(), ["sha256"])
        snapshot = sign(ring, "snapshot", listed, [chain.root], now)
        tree.put(tree.versioned(listed.version, "snapshot"), snapshot.to_bytes())
        beat = Timestamp(
            snapshot_meta=MetaFile.from_data(listed.version, snapshot.to_bytes(), ["sha256"]),
            unrecognized_fields=dict(chain.timestamp.signed.unrecognized_fields),
        )
        beat.version = chain.timestamp.signed.version + 1
        tree.put(tree.metadata / "timestamp.json", sign(ring, "timestamp", beat, [chain.root], now).to_bytes())
