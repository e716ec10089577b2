"""`sekisho local-page ...`: for whoever stands in front of the box as root: label, password, fingerprint."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core import settings
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.settings import Settings

DEFAULT_SETTINGS: Final = Path("/etc/sekisho/box.toml")


class Label(msgspec.Struct, frozen=True):
    """What goes onto the box's label."""

    addresses: list[str]
    password: str
    """Empty once the owner has changed it."""
    fingerprint: str


def register(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `local-page` group."""
    group = sub.add_parser("local-page", help="the box's own page for the office").add_subparsers(
        required=True, metavar="COMMAND"
    )
    label = group.add_parser("label", help="address, first password, the certificate's fingerprint")
    label.set_defaults(func=_label)
    password = group.add_parser("password", help="set the owner's password; read from the standard input")
    password.set_defaults(func=_password)
    for parser in (label, password):
        parser.add_argument("--settings", type=Path, default=DEFAULT_SETTINGS, metavar="FILE")
        parser.add_argument("--json", action="store_true", help="print facts as JSON")


def _label(args: argparse.Namespace) -> int:
    from sekisho.portal_agent import certificate
    from sekisho.portal_agent.office import certificate_file
    from sekisho.portal_agent.password import Password

    config = settings.load(args.settings)
    _check(config)
    label = Label(
        addresses=_addresses(config),
        password=Password(config.page_state).label(),
        fingerprint=certificate.fingerprint(certificate_file(config)),
    )
    lines = [
        f"address      {' '.join(label.addresses) or '- (set [bridge] addresses)'}",
        f"password     {label.password or '(changed by the owner 変更済み)'}",
        f"fingerprint  {label.fingerprint or '- (the page was never started)'}",
    ]
    sys.stdout.write((msgspec.json.encode(label).decode() if args.json else "\n".join(lines)) + "\n")
    return 0


def _password(args: argparse.Namespace) -> int:
    from sekisho.portal_agent.password import Password

    config = settings.load(args.settings)
    _check(config)
    if sys.stdin.isatty():
        new = getpass.getpass("New password 新しいパスワード: ")
        if new != getpass.getpass("Again もう一度: "):
            raise RejectedInput("The two are not the same.", "Nothing was changed.")
    else:
        new = sys.stdin.readline(1000).rstrip("\n")
    Password(config.page_state).change(new)
    _hand_over(config.page_state)
    line = "The password is changed; whoever was signed in is signed out. パスワードを変更しました。"
    sys.stdout.write(('{"ok":true}' if args.json else line) + "\n")
    return 0


def _check(config: Settings) -> None:
    if not os.access(config.page_state, os.R_OK | os.W_OK | os.X_OK):
        raise DeviceFault(
            f"{config.page_state} cannot be opened.", "Run this as root, after the page was started once."
        )


def _hand_over(folder: Path) -> None:
    """What root wrote belongs to the page's user."""
    if os.geteuid() == 0:
        owner = folder.stat()
        for path in folder.iterdir():
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _addresses(config: Settings) -> list[str]:
    port = "" if config.page.port == 443 else f":{config.page.port}"
    plain = [address.partition("/")[0] for address in config.bridge.addresses]
    return [f"https://{f'[{a}]' if ':' in a else a}{port}/" for a in plain]
