"""Builds a candidate set, proves it, and switches `current` to it in one step; the last good set is kept.

Order: read under caps -> prove (Suricata, YARA, samples) -> write `<id>/` and fsync it -> rename the
`current` link -> fsync the directory. A power cut at any instant leaves the old or the new set in force,
complete. Two daemons may call at once: a lock file lets one work and the other find the result.

Where sets come from: the owner's directories, else the centre's channel (`build` and `switch`, called by the keeper;
`ensure` then leaves in force what it finds), else what ships with the product.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import open_plain, sync_directory, write_atomic
from sekisho.appliance.core.settings import Settings
from sekisho.signatures import traffic
from sekisho.signatures.model import COMPILER_BYTES, MAX_NAMED, MAX_REFUSED_SHARE, Refused, Rule, SetInfo, Source
from sekisho.signatures.press.ruletext import meddles
from sekisho.signatures.sources import SHIPPED, parse_rules, read_directory, read_hashes
from sekisho.signatures.tester import engine_config, prove_rules, suricata_version
from sekisho.signatures.yara_compile import compile_yara

_CANARY = "sekisho-canary.yar"
_RULE = re.compile(rb"^rule ", re.MULTILINE)
_FORMAT = "sekisho set 2"
_INFO_BYTES = 4 << 20


class _Candidate(msgspec.Struct, frozen=True):
    id: str
    settings: Settings
    rules: list[Source]
    yara: list[Source]
    known: bytes
    """Hashes of known malicious files (`read_hashes`)."""
    provers: str
    added: int
    """YARA rules that are the product's own and did not come with the sources."""
    published: Published | None = None


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What the signed manifest says of a set, as far as building it needs that."""

    number: int
    built: str
    rules: int
    """Rules its engine must take, no fewer; likewise `yara`."""
    yara: int


def ensure(settings: Settings) -> SetInfo:
    """The set to work with: built from the sources when they changed, else the one in force.

    When the sources are refused, the last good set stays in force (the shipped one, where there never was
    another) and `SetInfo.rejection` says why: the caller reports it. Blocks for seconds when it builds.

    Raises:
        DeviceFault: not even the shipped set can be proved on this machine, or its disk refuses it.

    """
    if (published := _published_in_force(settings)) is not None:
        return published
    try:
        return _install(settings, _candidate(settings, *_directories(settings)), keep_published=True)
    except RejectedInput as err:
        rejection = str(err)
    last = current(settings)
    if last is None:
        try:
            last = _install(settings, _candidate(settings, SHIPPED / "suricata", SHIPPED / "yara"))
        except RejectedInput as err:
            raise DeviceFault(f"No rule set can be loaded on this machine: {err}") from err
    return msgspec.structs.replace(last, rejection=f"{rejection} The set in force was kept.")


def owners(settings: Settings) -> bool:
    """Whether the owner's own directories are to be in force: then no published set is."""
    return bool(settings.signatures.rules_dir or settings.signatures.yara_dir)


def apply(settings: Settings) -> SetInfo:
    """Prove the sources named in the settings and put them in force.

    Raises:
        RejectedInput: the sources were refused, or there are none while the channel's set is in force; what was in
            force stays in force.
        DeviceFault: the disk refused the set, or Suricata is absent.

    """
    last = current(settings)
    if last is not None and last.number and not owners(settings):
        raise RejectedInput(
            f"Set {last.number} of the channel is in force and stays.",
            "Name directories of your own in [signatures] of the settings, or run `sekisho signatures update`.",
        )
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


def provers(settings: Settings) -> str:
    """Identifies what a set is proven by and for: this machine's engines, and its settings as they see them.

    Raises:
        DeviceFault: Suricata is absent.

    """
    told = f"{suricata_version()}\nyara-python {version('yara-python')}\n{engine_config(settings, Path('/'))}"
    return hashlib.sha256(told.encode()).hexdigest()


def build(settings: Settings, sources: Path, published: Published) -> SetInfo:
    """Prove a published set, unpacked in `sources`, and lay it beside the one in force. Blocks for seconds.

    Unlike an owner's set it is taken whole or not at all: the centre has tried it, so a rule that fails here says
    that it is not for this machine.

    Raises:
        RejectedInput: the engines refuse it.
        DeviceFault: the disk does, or Suricata is absent.

    """
    candidate = _candidate(settings, sources / "rules", sources / "yara", published)
    try:
        settings.sets.mkdir(parents=True, exist_ok=True)
        with _locked(settings.sets / ".making"):
            return _load(settings.sets / candidate.id) or _build_into(settings.sets, candidate, ".make-")
    except OSError as err:
        raise _unwritten(settings.sets, err) from err


def find(settings: Settings, wanted: str) -> SetInfo | None:
    """The set `wanted`, verified against its own hashes; None when it is not there or damaged."""
    return _load(settings.sets / wanted) if wanted else None


def switch(settings: Settings, wanted: str) -> None:
    """Let `current` name `wanted`, and nothing else. Doing it again does no harm.

    Raises:
        DeviceFault: `wanted` is not there whole, or the disk refuses.

    """
    if find(settings, wanted) is None:
        raise DeviceFault(f"The rule set {wanted[:12]} is not whole on the disk any more.")
    try:
        with _locked(settings.sets / ".lock"):
            _link(settings.sets, wanted)
    except OSError as err:
        raise _unwritten(settings.sets, err) from err


def tidy(settings: Settings, keep: Collection[str]) -> None:
    """Remove every set but `keep` and the one in force; what cannot be removed now is the next time."""
    if (settings.sets / "current").is_symlink():
        with suppress(OSError), _locked(settings.sets / ".lock"):
            _prune(settings.sets, keep)


def _published_in_force(settings: Settings) -> SetInfo | None:
    """The channel's set that is to stay. Where the disk damaged it, another one that is still whole is put in force."""
    if owners(settings):
        return None
    last = current(settings)
    if last is not None:
        return last if last.number else None
    whole = [info for path in settings.sets.glob("[0-9a-f]*") if (info := _load(path)) is not None and info.number]
    if not whole:
        return None
    newest = max(whole, key=lambda info: info.number)
    switch(settings, newest.id)
    return newest


def _directories(settings: Settings) -> tuple[Path, Path]:
    wanted = settings.signatures
    return Path(wanted.rules_dir or SHIPPED / "suricata"), Path(wanted.yara_dir or SHIPPED / "yara")


def _candidate(settings: Settings, rules_dir: Path, yara_dir: Path, published: Published | None = None) -> _Candidate:
    rules = read_directory(rules_dir, (".rules",))
    given = read_directory(yara_dir, (".yar", ".yara"))
    yara = [source for source in given if source.name != _CANARY]
    canary = (SHIPPED / "yara" / _CANARY).read_bytes()
    added = len(_RULE.findall(canary)) if len(yara) == len(given) else 0
    yara.append(Source(_CANARY, canary))
    known = read_hashes(yara_dir)
    by = provers(settings)
    digest = hashlib.sha256(f"{_FORMAT}\n{by}\n{len(known)}\n".encode() + known)
    if published is not None:
        digest.update(f"published {published.number} {published.built}\n".encode())
    for kind, sources in (("rules", rules), ("yara", yara)):
        for source in sources:
            digest.update(f"{kind} {source.name!r} {len(source.data)}\n".encode() + source.data)
    return _Candidate(digest.hexdigest(), settings, rules, yara, known, by, added, published)


def _install(settings: Settings, candidate: _Candidate, *, keep_published: bool = False) -> SetInfo:
    sets = settings.sets
    try:
        sets.mkdir(parents=True, exist_ok=True)
        with _locked(sets / ".lock"):
            last = current(settings)
            if keep_published and last is not None and last.number and not owners(settings):
                return last  # the channel was quicker
            info = _load(sets / candidate.id) or _build_into(sets, candidate, ".build-")
            previous = _link(sets, candidate.id)
            if previous != candidate.id:
                _prune(sets, (previous,))
            return info
    except OSError as err:
        raise _unwritten(sets, err) from err


def _unwritten(sets: Path, err: OSError) -> DeviceFault:
    return DeviceFault(f"Cannot write the rule set to {sets}: {err.strerror}.", "Free space on the data partition.")


def _build_into(sets: Path, candidate: _Candidate, prefix: str) -> SetInfo:
    """Build in a directory of its own. Whoever calls holds the lock of this `prefix`: the rest is remains."""
    for remainder in sets.glob(f"{prefix}*"):
        shutil.rmtree(remainder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=sets) as name:
        work, final = Path(name), sets / candidate.id
        _build(candidate, work)
        shutil.rmtree(final, ignore_errors=True)
        out = work / "set"
        out.chmod(0o775)  # the daemons that build and remove sets share a group, not a user
        sync_directory(out)
        out.rename(final)
        sync_directory(sets)
    loaded = _load(final)
    if loaded is None:
        raise DeviceFault(f"The rule set written to {final} reads back damaged.", "Replace the disk.")
    return loaded


def _build(candidate: _Candidate, work: Path) -> SetInfo:
    out, compiled = work / "set", work / "yara.compiled"
    out.mkdir()
    # Side by side: each is a child of its own, and each takes one core for seconds.
    with ThreadPoolExecutor(1) as beside:
        counted = beside.submit(compile_yara, candidate.yara, work, compiled)
        proved, refused = _prove(candidate, work)
        count = counted.result()
    wanted = candidate.published
    if wanted is not None and (len(proved), count) != (wanted.rules, wanted.yara + candidate.added):
        raise RejectedInput(
            f"The set should hold {wanted.rules} rules and {wanted.yara} YARA rules;"
            f" here it makes {len(proved)} and {count - candidate.added}."
        )
    text = "".join(rule.text + "\n" for rule in proved).encode()
    info = SetInfo(
        id=candidate.id,
        number=wanted.number if wanted is not None else 0,
        built=wanted.built if wanted is not None else "",
        provers=candidate.provers,
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


def _prove(candidate: _Candidate, work: Path) -> tuple[list[Rule], list[Refused]]:
    rules, refused = parse_rules(candidate.rules)
    published = candidate.published is not None
    if published and (found := [rule for rule in rules if meddles(rule.text)]):
        raise RejectedInput(
            f"{len(found)} rules of the set do more than judge packets; the first is {found[0].where} (sid"
            f" {found[0].sid})."
        )
    ordinary = traffic.capture() if published else b""  # an owner may be as strict as they like
    proved, failed = prove_rules(rules, engine_config(candidate.settings, work), work, traffic=ordinary)
    refused += failed
    share = 0.0 if published else MAX_REFUSED_SHARE
    if refused and len(refused) >= max(1, (len(proved) + len(refused)) * share):
        first = refused[0]
        raise RejectedInput(
            f"{len(refused)} of {len(proved) + len(refused)} rules are refused by Suricata;"
            f" the first is {first.where} (sid {first.sid}): {first.why}."
        )
    return proved, refused


def _load(directory: Path) -> SetInfo | None:
    try:
        real = directory.resolve(strict=True)
        with open_plain(real / "set.json", _INFO_BYTES) as source:
            info = msgspec.json.decode(source.read(_INFO_BYTES), type=SetInfo)
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
    with open_plain(path, COMPILER_BYTES) as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _link(sets: Path, wanted: str) -> str:
    """Let `current` name `wanted`; what it named before."""
    link = sets / "current"
    previous = link.readlink().name if link.is_symlink() else ""
    if previous != wanted:
        fresh = sets / ".current.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(wanted)
        fresh.replace(link)
    sync_directory(sets)
    return previous


def _prune(sets: Path, keep: Collection[str]) -> None:
    kept = {*keep, (sets / "current").readlink().name}
    for entry in sets.iterdir():
        if entry.is_dir() and not entry.is_symlink() and entry.name not in kept and entry.name[0] != ".":
            shutil.rmtree(entry, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
