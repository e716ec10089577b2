"""Builds a candidate set, proves it, and switches `current` to it in one step; the last good set is kept.

Order: read under caps -> prove (Suricata, YARA, samples) -> write `<id>/` and fsync it -> rename the
`current` link -> fsync the directory. A power cut at any instant leaves the old or the new set in force,
complete. Two daemons may call at once: a lock file lets one work and the other find the result.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import sync_directory, write_atomic
from sekisho.appliance.core.settings import Settings
from sekisho.signatures.model import MAX_NAMED, MAX_REFUSED_SHARE, SetInfo, Source
from sekisho.signatures.sources import SHIPPED, parse_rules, read_directory, read_hashes
from sekisho.signatures.tester import engine_config, prove_rules, suricata_version
from sekisho.signatures.yara_compile import compile_yara

_CANARY = "sekisho-canary.yar"
_FORMAT = "sekisho set 2"


class _Candidate(msgspec.Struct, frozen=True):
    id: str
    settings: Settings
    rules: list[Source]
    yara: list[Source]
    known: bytes
    """Hashes of known malicious files (`read_hashes`)."""


def ensure(settings: Settings) -> SetInfo:
    """The set to work with: built from the sources when they changed, else the one in force.

    When the sources are refused, the last good set stays in force (the shipped one, where there never was
    another) and `SetInfo.rejection` says why: the caller reports it. Blocks for seconds when it builds.

    Raises:
        DeviceFault: not even the shipped set can be proved on this machine, or its disk refuses it.

    """
    try:
        return apply(settings)
    except RejectedInput as err:
        rejection = str(err)
    last = current(settings)
    if last is None:
        try:
            last = _install(settings, _candidate(settings, SHIPPED / "suricata", SHIPPED / "yara"))
        except RejectedInput as err:
            raise DeviceFault(f"No rule set can be loaded on this machine: {err}") from err
    return msgspec.structs.replace(last, rejection=f"{rejection} The set in force was kept.")


def apply(settings: Settings) -> SetInfo:
    """Prove the sources named in the settings and put them in force.

    Raises:
        RejectedInput: the sources were refused; what was in force stays in force.
        DeviceFault: the disk refused the set, or Suricata is absent.

    """
    return _install(settings, _candidate(settings, *_directories(settings)))


def check(settings: Settings) -> SetInfo:
    """Prove the sources as `apply` does, and change nothing.

    Raises:
        RejectedInput: the sources were refused.
        DeviceFault: Suricata is absent.

    """
    with tempfile.TemporaryDirectory(prefix="sekisho-check-") as work:
        return _build(_candidate(settings, *_directories(settings)), Path(work))


def current(settings: Settings) -> SetInfo | None:
    """The set in force, verified against its own hashes; None when there is none or the disk damaged it."""
    return _load(settings.sets / "current")


def _directories(settings: Settings) -> tuple[Path, Path]:
    wanted = settings.signatures
    return Path(wanted.rules_dir or SHIPPED / "suricata"), Path(wanted.yara_dir or SHIPPED / "yara")


def _candidate(settings: Settings, rules_dir: Path, yara_dir: Path) -> _Candidate:
    rules = read_directory(rules_dir, (".rules",))
    yara = [source for source in read_directory(yara_dir, (".yar", ".yara")) if source.name != _CANARY]
    yara.append(Source(_CANARY, (SHIPPED / "yara" / _CANARY).read_bytes()))
    provers = f"{suricata_version()}\nyara-python {version('yara-python')}\n{engine_config(settings, Path('/'))}"
    known = read_hashes(yara_dir)
    digest = hashlib.sha256(f"{_FORMAT}\n{provers}\n{len(known)}\n".encode() + known)
    for kind, sources in (("rules", rules), ("yara", yara)):
        for source in sources:
            digest.update(f"{kind} {source.name!r} {len(source.data)}\n".encode() + source.data)
    return _Candidate(digest.hexdigest(), settings, rules, yara, known)


def _install(settings: Settings, candidate: _Candidate) -> SetInfo:
    sets = settings.sets
    try:
        sets.mkdir(parents=True, exist_ok=True)
        with _locked(sets / ".lock"):
            info = _load(sets / candidate.id)
            if info is None:
                info = _build_into(sets, candidate)
            _switch(sets, candidate.id)
            return info
    except OSError as err:
        raise DeviceFault(
            f"Cannot write the rule set to {sets}: {err.strerror}.", "Free space on the data partition."
        ) from err


def _build_into(sets: Path, candidate: _Candidate) -> SetInfo:
    with tempfile.TemporaryDirectory(prefix=".build-", dir=sets) as name:
        work, final = Path(name), sets / candidate.id
        _build(candidate, work)
        shutil.rmtree(final, ignore_errors=True)
        out = work / "set"
        out.chmod(0o755)
        sync_directory(out)
        out.rename(final)
        sync_directory(sets)
    loaded = _load(final)
    if loaded is None:
        raise DeviceFault(f"The rule set written to {final} reads back damaged.", "Replace the disk.")
    return loaded


def _build(candidate: _Candidate, work: Path) -> SetInfo:
    rules, refused = parse_rules(candidate.rules)
    proved, failed = prove_rules(rules, engine_config(candidate.settings, work), work)
    refused += failed
    if len(refused) >= max(1, (len(proved) + len(refused)) * MAX_REFUSED_SHARE):
        first = refused[0]
        raise RejectedInput(
            f"{len(refused)} of {len(proved) + len(refused)} rules are refused by Suricata;"
            f" the first is {first.where} (sid {first.sid}): {first.why}."
        )
    out = work / "set"
    out.mkdir()
    text = "".join(rule.text + "\n" for rule in proved).encode()
    compiled = work / "yara.compiled"
    count = compile_yara(candidate.yara, work, compiled)
    info = SetInfo(
        id=candidate.id,
        suricata_rules=len(proved),
        yara_rules=count,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        refused_total=len(refused),
        refused=refused[:MAX_NAMED],
        rules_sha256=hashlib.sha256(text).hexdigest(),
        yara_sha256=_hash(compiled),
        known_sha256=hashlib.sha256(candidate.known).hexdigest(),
        known_files=len(candidate.known) // 32,
    )
    write_atomic(out / "suricata.rules", text, 0o644)
    write_atomic(out / "known.bin", candidate.known, 0o644)
    write_atomic(out / "yara.compiled", compiled.read_bytes(), 0o644)
    write_atomic(out / "set.json", msgspec.json.format(msgspec.json.encode(info)) + b"\n", 0o644)
    return info


def _load(directory: Path) -> SetInfo | None:
    try:
        real = directory.resolve(strict=True)
        info = msgspec.json.decode((real / "set.json").read_bytes(), type=SetInfo)
        sound = (
            info.id == real.name
            and _hash(real / "suricata.rules") == info.rules_sha256
            and _hash(real / "yara.compiled") == info.yara_sha256
            and _hash(real / "known.bin") == info.known_sha256
        )
    except (OSError, msgspec.MsgspecError):
        return None
    return msgspec.structs.replace(info, path=str(real)) if sound else None


def _hash(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _switch(sets: Path, wanted: str) -> None:
    link = sets / "current"
    previous = link.readlink().name if link.is_symlink() else ""
    if previous == wanted:
        return
    fresh = sets / ".current.new"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(wanted)
    fresh.replace(link)
    sync_directory(sets)
    for entry in sets.iterdir():
        if entry.is_dir() and not entry.is_symlink() and entry.name not in (wanted, previous):
            shutil.rmtree(entry, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
