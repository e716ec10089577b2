"""`sekisho signatures publish` and `sekisho signatures repository ...`: the centre's side of the channel."""

from __future__ import annotations

import argparse
import datetime as dt
import getpass
import os
import shutil
import sys
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import write_atomic
from sekisho.signatures.depot import adopting, ceremony, repository, serve
from sekisho.signatures.depot.keys import Ring
from sekisho.signatures.depot.publishing import Outcome, publish
from sekisho.signatures.depot.roles import FURTHER, TERMS
from sekisho.signatures.depot.rotate import rotate
from sekisho.signatures.depot.status import as_text, status
from sekisho.signatures.depot.tree import Tree

DIRECTORY: Final = Path("/var/lib/sekisho-center-updates")
KEYS: Final = Path("/etc/sekisho-center-updates")
_PASSPHRASE_CAP: Final = 1024
_PASSPHRASE_MIN: Final = 12


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `publish` and `repository` to the `signatures` group."""
    verb = verbs.add_parser("publish", help="sign a built set and put it into the repository (centre)")
    verb.add_argument("set", type=Path, metavar="SETDIR", help="directory that `signatures build` made")
    verb.add_argument("--json", action="store_true", help="print facts as JSON")
    common(verb, keys=True)
    verb.set_defaults(func=_publish)
    group = verbs.add_parser("repository", help="the centre's signed repository: make, renew, show")
    acts = group.add_subparsers(dest="act", required=True)
    act = acts.add_parser("init", help="make all keys and an empty repository")
    act.add_argument("--passphrase", action="store_true", help="ask for a passphrase for the offline keys")
    common(act, keys=True)
    act.set_defaults(func=_init)
    act = acts.add_parser("status", help="what is in force, until when, and what to do")
    act.add_argument("--json", action="store_true", help="print facts as JSON")
    common(act, keys=False)
    act.set_defaults(func=_status)
    act = acts.add_parser("renew", help="sign again what is due (timer)")
    common(act, keys=True)
    act.set_defaults(func=_renew)
    act = acts.add_parser("sign", help="sign an offline role for longer, away from the network")
    offline = [role for role, terms in TERMS.items() if terms.offline]
    act.add_argument("role", choices=offline, metavar="ROLE", help=", ".join(offline))
    act.add_argument("--out", type=Path, required=True, help="directory for what `adopt` takes")
    common(act, keys=True)
    act.set_defaults(func=_sign)
    act = acts.add_parser("delegate", help="make keys for releases (fw) or for who may sign jobs (operators)")
    act.add_argument("role", choices=list(FURTHER), metavar="ROLE", help=", ".join(FURTHER))
    act.add_argument("--new-keys", type=Path, required=True, help="directory for the new keys")
    act.add_argument("--passphrase", action="store_true", help="ask for a passphrase for the new keys")
    act.add_argument("--out", type=Path, help="do not put it in force here; directory for what `adopt` takes")
    common(act, keys=True)
    act.set_defaults(func=_delegate)
    act = acts.add_parser("rotate", help="replace all keys of a role by new ones")
    act.add_argument("role", choices=list(TERMS), metavar="ROLE", help=", ".join(TERMS))
    act.add_argument("--new-keys", type=Path, required=True, help="directory for the new keys")
    act.add_argument("--lost", action="store_true", help="too few of the old keys are left to sign with")
    act.add_argument("--passphrase", action="store_true", help="ask for a passphrase for new offline keys")
    act.add_argument("--out", type=Path, help="do not put it in force here; directory for what `adopt` takes")
    common(act, keys=True)
    act.set_defaults(func=_rotate)
    act = acts.add_parser("adopt", help="put in force what was signed away from the network")
    act.add_argument("files", type=Path, nargs="+", metavar="FILE", help="N.ROLE.json; published files beside it")
    act.add_argument("--lost", action="store_true", help="the online keys that are replaced are gone")
    common(act, keys=True)
    act.set_defaults(func=_adopt)
    act = acts.add_parser("nginx-config", help="print how a plain web server hands it out")
    act.add_argument("--certificate", type=Path, required=True, help="PEM file of the server's certificate")
    act.add_argument("--key", type=Path, required=True, help="PEM file of the server's key")
    act.add_argument("--client-ca", type=Path, help="answer only boxes with a certificate of this authority (PEM)")
    act.add_argument("--crl", type=Path, help="that authority's list of revoked certificates (PEM)")
    act.add_argument("--listen", default="443", help="[ADDRESS:]PORT (default: 443)")
    act.add_argument("--name", default="_", help="the server's name (default: any)")
    common(act, keys=False)
    act.set_defaults(func=_nginx_config)


def common(verb: argparse.ArgumentParser, *, keys: bool) -> None:
    """Add what every command with the repository takes; `keys`: and one that signs."""
    verb.add_argument("--dir", type=Path, default=DIRECTORY, help=f"the repository (default: {DIRECTORY})")
    if keys:
        verb.add_argument(
            "--keys", type=Path, action="append", help=f"directory or stick with keys; repeatable (default: {KEYS})"
        )
        verb.add_argument("--passphrase-file", type=Path, help="file whose first line opens the offline keys")
        verb.add_argument("--clock-is-right", action="store_true", help="sign although the last signature is weeks old")


def _init(args: argparse.Namespace) -> int:
    if args.keys is None or len(args.keys) != 1:
        raise RejectedInput("Name one empty directory for the new keys with --keys.")
    [place] = args.keys
    repository.init(tree_of(args), place, _now(), _new_passphrase(args))
    sys.stdout.write(
        f"The repository is in {args.dir}; an empty set list is signed.\n"
        f"{place}/root-1 to root-3 and targets-1 to targets-3: move each to a stick of its own, kept apart,"
        " and delete it here. Two of three sign.\n"
        f"{place}/online: its files go to {KEYS} at the centre. {place}/spare: a second key for sets, for a safe.\n"
        f"Boxes are made with {args.dir}/metadata/1.root.json (settings: signatures.root).\n"
    )
    return 0


def _status(args: argparse.Namespace) -> int:
    found = status(tree_of(args), _now())
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n" if args.json else as_text(found))
    return int(found.in_trouble)


def _renew(args: argparse.Namespace) -> int:
    done = repository.renew(tree_of(args), ring_of(args), _now(), args.clock_is_right)
    sys.stdout.write(f"Signed again: {', '.join(done)}.\n" if done else "Nothing is due.\n")
    left = status(tree_of(args), _now())
    sys.stderr.write("".join(f"{line}\n" for line in left.todo))
    return int(left.in_trouble)


def _sign(args: argparse.Namespace) -> int:
    made = ceremony.extend(tree_of(args), ring_of(args), args.role, _now(), args.clock_is_right)
    hand_over(made, args.out)
    return 0


def _delegate(args: argparse.Namespace) -> int:
    passphrase = _new_passphrase(args)
    tree, ring, now = tree_of(args), ring_of(args), _now()
    made = ceremony.delegate(
        tree, ring, args.role, args.new_keys, now, passphrase=passphrase, clock_is_right=args.clock_is_right
    )
    sys.stdout.write(f"Keys of {args.role}: {', '.join(made.keys)}, below {args.new_keys}; two of three sign.\n")
    if args.out:
        hand_over(made, args.out)
    else:
        adopting.adopt(tree, ring, made, now, clock_is_right=args.clock_is_right)
    return 0


def _rotate(args: argparse.Namespace) -> int:
    passphrase = _new_passphrase(args) if TERMS[args.role].offline else None
    terms = {"lost": args.lost, "passphrase": passphrase, "clock_is_right": args.clock_is_right}
    where = (tree_of(args), ring_of(args), args.role, args.new_keys, _now())
    if args.out:
        made = ceremony.replace(*where, **terms)
        sys.stdout.write(f"New keys of {args.role}: {', '.join(made.keys)}, below {args.new_keys}.\n")
        hand_over(made, args.out)
    else:
        told = rotate(*where, **terms)
        sys.stdout.write(f"New keys of {args.role}, in force now: {', '.join(told)}, below {args.new_keys}.\n")
    if args.role not in ("root", "snapshot", "timestamp"):
        sys.stdout.write("Were the old ones stolen? Rotate snapshot and timestamp too: boxes then forget forgeries.\n")
    return 0


def hand_over(made: ceremony.Made, out: Path) -> None:
    """Write what a ceremony gave for carrying to the centre, and say what to do there.

    Raises:
        DeviceFault: the disk refuses it.

    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, source in made.carried().items():
            shutil.copyfile(source, out / name)
        for name, data in made.files().items():
            write_atomic(out / name, data, 0o644)
    except OSError as err:
        raise DeviceFault(f"Cannot write {out}: {err.strerror}.") from err
    files = " ".join(made.files())
    sys.stdout.write(f"Signed, and not in force yet. At the centre: sekisho signatures repository adopt {files}\n")


def _adopt(args: argparse.Namespace) -> int:
    made = adopting.load(args.files)
    adopting.adopt(tree_of(args), ring_of(args), made, _now(), lost=args.lost, clock_is_right=args.clock_is_right)
    sys.stdout.write("In force.\n")
    return 0


def _publish(args: argparse.Namespace) -> int:
    outcome = publish(tree_of(args), ring_of(args), args.set, _now(), args.clock_is_right)
    sys.stdout.write(msgspec.json.encode(outcome).decode() + "\n" if args.json else _told(outcome))
    return 0


def _nginx_config(args: argparse.Namespace) -> int:
    ways = {"client_ca": args.client_ca, "crl": args.crl, "listen": args.listen, "name": args.name}
    sys.stdout.write(serve.config(args.dir, args.certificate, args.key, **ways))
    return 0


def _told(outcome: Outcome) -> str:
    if outcome.repeated:
        return f"Set {outcome.number} is in force already.\n"
    lines = [f"Set {outcome.number} is in force.", *(f"  {size:>10}  {name}" for name, size in outcome.sizes.items())]
    lines += [f"No delta from set {base}: it is not published here (any more)." for base in outcome.left_out]
    lines.append(f"Tell the boxes: sekisho center rules announce --number {outcome.number}")
    return "\n".join(lines) + "\n"


def tree_of(args: argparse.Namespace) -> Tree:
    """The repository that is meant."""
    os.umask(0o022)  # the web server reads what is written here; keys have modes of their own
    return Tree(args.dir)


def ring_of(args: argparse.Namespace) -> Ring:
    """The keys that are at hand."""

    def ask(path: Path) -> bytes | None:
        if args.passphrase_file:
            return _first_line(args.passphrase_file)
        return getpass.getpass(f"Passphrase of {path}: ").encode() if sys.stdin.isatty() else None

    return Ring(args.keys or [KEYS], ask)


def _new_passphrase(args: argparse.Namespace) -> bytes | None:
    if args.passphrase_file:
        given = _first_line(args.passphrase_file)
    elif args.passphrase:
        given = getpass.getpass("Passphrase for the offline keys: ").encode()
        if getpass.getpass("Once more: ").encode() != given:
            raise RejectedInput("The two passphrases differ.")
    else:
        return None
    if len(given) < _PASSPHRASE_MIN:
        raise RejectedInput(f"The passphrase is too short: {_PASSPHRASE_MIN} characters at least.")
    return given


def _first_line(path: Path) -> bytes:
    try:
        with path.open("rb") as source:
            return source.readline(_PASSPHRASE_CAP).strip()
    except OSError as err:
        raise RejectedInput(f"Cannot read {path}: {err.strerror}.") from err


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
