"""Fetches what a recipe names. Rules from afar come through suricata-update, in a child with a data directory of its
own and none of this machine's filters; other files by HTTP, known by their hash. What is local needs no network.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import urllib3

from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput
from sekisho.signatures.model import Source
from sekisho.signatures.press import local
from sekisho.signatures.press.recipe import FileSource, RuleSource
from sekisho.signatures.published import ARCHIVE_CAP
from sekisho.signatures.sources import read_hashes

FETCH_SECONDS = 600
_STEM = 80
_LOG_BYTES = 1 << 20
_NOT_FETCHED = ("will not be fetched", "No sources configured", "latest cached version")
"""suricata-update then goes on with other rules than were asked for, and ends well."""


def rules(source: RuleSource, work: Path) -> list[Source]:
    """The source's rule files. `work` is an empty directory.

    Raises:
        PeerError: it cannot be fetched.
        RejectedInput: it holds no rules, or is past a cap.
        DeviceFault: a local file is not there, or suricata-update is not installed.

    """
    if source.path:
        return local.files(Path(source.path), (".rules",))
    out = work / "out"
    empty = work / "empty"
    empty.mkdir(parents=True)
    (empty / "none.conf").touch()
    (work / "update.yaml").write_text(f"dist-rule-directory: {empty}\n")
    common = ["-D", str(work / "data"), "-c", str(work / "update.yaml")]
    if source.index:
        _suricata_update("update-sources", *common)
        _suricata_update("enable-source", *common, source.index)
    filters = [f"--{kind}-conf={empty / 'none.conf'}" for kind in ("disable", "enable", "modify", "drop")]
    asked = ["--url", source.url] if source.url else []
    _suricata_update("update", *common, *filters, *asked, "--no-test", "--no-reload", "--fail", "-o", str(out))
    return local.files(out, (".rules",))


def yara(source: FileSource, work: Path) -> list[Source]:
    """The source's YARA files, each named `SOURCE--FILE.yar`. Raises as `rules` does."""
    found = local.files(_here(source, work), (".yar", ".yara"), source.leave_out)
    room = _STEM - len(source.name)
    return [Source(f"{source.name}--{local.safe_stem(file.name, room)}.yar", file.data) for file in found]


def hashes(source: FileSource, work: Path) -> Source:
    """The source's hash lists as one, sorted, in hex. Raises as `rules` does."""
    folder = work / "lists"
    folder.mkdir(parents=True)
    for number, file in enumerate(local.files(_here(source, work), (".sha256",), source.leave_out)):
        (folder / f"{number}.sha256").write_bytes(file.data)
    known = read_hashes(folder)
    lines = (known[at : at + 32].hex() for at in range(0, len(known), 32))
    return Source(f"{source.name}.sha256", "".join(f"{line}\n" for line in lines).encode())


def _here(source: FileSource, work: Path) -> Path:
    path = Path(source.path)
    if source.url:
        work.mkdir(parents=True, exist_ok=True)
        path = work / PurePosixPath(urlsplit(source.url).path or "file").name
        _download(source.url, path)
    if source.sha256:
        if path.is_dir():
            raise RejectedInput(f"{path} is a directory; only a file or archive can be known by its sha256.")
        found = _sha256(path)
        if found != source.sha256:
            raise RejectedInput(
                f"The source {source.name!r} is not what the recipe names: its sha256 is {found}.",
                "Look at what changed, then put the new sha256 into the recipe.",
            )
    return path


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as err:
        raise DeviceFault(f"{path}: {err.strerror}.") from err


def _download(url: str, path: Path) -> None:
    try:
        pool = urllib3.PoolManager(retries=3, timeout=urllib3.Timeout(connect=20, read=60))
        with pool.request("GET", url, preload_content=False) as answer, path.open("xb") as out:
            if answer.status != 200:
                raise PeerError(f"{url} answers {answer.status}.")
            size = 0
            for part in answer.stream(1 << 16, decode_content=False):
                size += len(part)
                if size > ARCHIVE_CAP:
                    raise RejectedInput(f"{url} is larger than the {ARCHIVE_CAP >> 20} MB that are allowed.")
                out.write(part)
    except urllib3.exceptions.HTTPError as err:
        raise PeerError(f"{url} cannot be fetched: {err}.") from err
    except OSError as err:
        raise DeviceFault(f"{path}: {err.strerror}.") from err


def _suricata_update(verb: str, *options: str) -> None:
    tool = Path(sys.executable).with_name("suricata-update")
    if not tool.exists():
        raise DeviceFault("suricata-update is not installed.", "Install sekisho with its `center` part.")
    argv = ["prlimit", f"--fsize={1 << 30}", f"--cpu={FETCH_SECONDS}", "--core=0", "--", str(tool), verb, *options]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=FETCH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as err:
        raise PeerError(f"suricata-update {verb} took longer than {FETCH_SECONDS} s.") from err
    except OSError as err:
        raise DeviceFault(f"suricata-update could not be started: {err.strerror}.") from err
    said = done.stdout[-_LOG_BYTES:].decode(errors="replace")
    if done.returncode or any(words in said for words in _NOT_FETCHED):
        last = " ".join(said.strip().splitlines()[-3:])[-500:]
        raise PeerError(f"suricata-update {verb} did not bring what was asked for: {last or done.returncode}.")
