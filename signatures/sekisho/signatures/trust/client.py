"""`sekisho signatures tuf-client init|refresh|download`: this room as the public TUF conformance suite drives it.

Also for an engineer with a repository at hand: it judges as the box does, floors and all, in a directory of its own.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sekisho.appliance.core.errors import SekishoError
from sekisho.signatures.trust.disk import Disk
from sekisho.signatures.trust.trust import Trust
from sekisho.signatures.trust.web import Web

_ROOT_CAP: Final = 512_000
_TARGET_CAP: Final = 64 << 20
_ROOT: Final = "trusted-root"


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `tuf-client` verb."""
    verb = verbs.add_parser("tuf-client", help="judge a TUF repository as the box does, in a directory of its own")
    verb.add_argument("--metadata-dir", type=Path, required=True, help="where verified metadata and floors are kept")
    verb.add_argument("--metadata-url", default="", help="the repository's metadata")
    verb.add_argument("--target-name", action="append", default=[], help="path of a target; may be repeated")
    verb.add_argument("--target-base-url", default="", help="the repository's targets")
    verb.add_argument("--target-dir", type=Path, help="where targets are put")
    commands = verb.add_subparsers(dest="client_command", required=True)
    init = commands.add_parser("init", help="begin with a root")
    init.add_argument("trusted_root", type=Path)
    init.set_defaults(func=_guarded(_init))
    commands.add_parser("refresh", help="read the newest metadata").set_defaults(func=_guarded(_refresh))
    commands.add_parser("download", help="and fetch targets").set_defaults(func=_guarded(_download))


def _guarded(func: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        try:
            func(args)
        except (SekishoError, OSError) as err:
            sys.stderr.write(f"{getattr(err, 'code', '')} {err}\n".lstrip())
            return 1
        return 0

    return run


def _init(args: argparse.Namespace) -> None:
    disk = Disk()
    root = disk.read(args.trusted_root, _ROOT_CAP)
    args.metadata_dir.mkdir(parents=True, exist_ok=True)
    for name in (_ROOT, "root.json"):
        disk.replace(args.metadata_dir / name, root)


def _opened(args: argparse.Namespace) -> Trust:
    root = Disk().read(args.metadata_dir / _ROOT, _ROOT_CAP)
    web = Web("", metadata=args.metadata_url, targets=args.target_base_url or args.metadata_url)
    trust = Trust(args.metadata_dir, root, web, built=0.0)
    now = time.time()
    trust.refresh(now, now)
    return trust


def _refresh(args: argparse.Namespace) -> None:
    _opened(args).close()


def _download(args: argparse.Namespace) -> None:
    trust = _opened(args)
    disk = Disk()
    args.target_dir.mkdir(parents=True, exist_ok=True)
    for name in args.target_name:
        target = trust.target(name)
        path = args.target_dir / quote(name, "")
        if path.is_file() and path.stat().st_size == target.length and target.verify(path.read_bytes()):
            continue
        disk.replace(path, trust.fetch(target, _TARGET_CAP))
    trust.close()
