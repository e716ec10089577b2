"""Makes a bundle and its release from a commit: exported, compiled, gathered, packed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.firmware.build import bundle, engine, wheels
from sekisho.firmware.build.bundle import Terms
from sekisho.firmware.content import ENGINE, REQUIREMENTS, WHEELS, Content, Machine
from sekisho.firmware.published import Release


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be built."""

    machine: Machine
    counter: int
    version: str
    hardware: str = ""
    """Empty: the machine's name."""
    python: str = "3.11"
    """The box's: Debian 12 has 3.11, Debian 13 has 3.13."""
    engine: bool = False
    terms: Terms = Terms()


def build(source: Path, order: Order, out: Path, cache: Path | None = None, commit: str = "HEAD") -> Release:
    """Write COUNTER.tar.zst and release.json of a commit of the repository `source` to `out`.

    `cache` keeps what is fetched for the next build. Takes a minute, and a few times the bundle on the disk.

    Raises:
        RejectedInput: no such commit, or what was asked for makes no release.
        PeerError: a wheel or package cannot be had.
        DeviceFault: a compiler is missing, a build fails, or the disk is full; nothing is left in `out` then.

    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=out) as scratch:
            return _build(source, order, out, cache, commit, Path(scratch))
    except OSError as err:
        raise DeviceFault(f"Cannot build in {out}: {err.strerror or err}.", "Is there room on the disk?") from err


def _build(source: Path, order: Order, out: Path, cache: Path | None, commit: str, scratch: Path) -> Release:
    exported = wheels.export(source, scratch / "source", commit)
    files, requirements = {}, []
    kept = (cache or scratch) / f"wheels-{order.machine}-{order.python}"
    for wheel in wheels.whole(exported, order.machine, order.python, scratch / "own", kept):
        files[f"{WHEELS}/{wheel.name}"] = wheel
        requirements.append(wheels.requirement(*wheels.named(wheel), [wheels.digest(wheel)]))
    listed = scratch / REQUIREMENTS
    listed.write_text("".join(sorted(requirements)))
    files[REQUIREMENTS] = listed
    suricata = ""
    if order.engine:
        suricata, found = engine.gather(order.machine, scratch / "engine", (cache or scratch) / f"debs-{order.machine}")
        files |= {f"{ENGINE}/{name}": path for name, path in found.items()}
    content = Content(
        counter=order.counter,
        version=order.version,
        hardware=order.hardware or order.machine,
        machine=order.machine,
        python=order.python,
        engine=suricata,
    )
    made = scratch / "bundle"
    bundle.pack(content, files, exported.epoch, made)
    release = bundle.describe(content, files, exported.epoch, made, order.terms)
    checked = msgspec.json.encode(release)
    try:
        msgspec.json.decode(checked, type=Release)
    except msgspec.ValidationError as err:
        raise RejectedInput(f"This makes no release: {err}.") from err
    made.rename(out / Path(release.path).name)
    bundle.write(release, out)
    return release
