"""The mailbox server on the internet side: a real Dovecot, POP3 and IMAP, in clear text unless the client asks for TLS.

Every name is a user with the password `PASSWORD`; mails are files that a test puts into the user's Maildir. Runs as
root in the lab's namespace and drops to its package's own users; nothing of it outlives the lab.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from sekisho.center.pki import Credentials
from sekisho.lab import layout
from sekisho.lab.layout import Layout
from sekisho.lab.program import Program

PASSWORD: Final = "office"  # noqa: S105 - a lab's
OWNER: Final = 65534
"""nobody and nogroup own the mails."""

_COMMON = """\
base_dir = {home}/run
state_dir = {home}/state
log_path = {logs}/dovecot-messages.log
protocols = pop3 imap
listen = *, ::
ssl = yes
default_client_limit = 200
service anvil {{
  client_limit = 1000
}}
service pop3-login {{
  service_count = 0
  process_min_avail = 1
}}
service imap-login {{
  service_count = 0
  process_min_avail = 1
}}
"""
_CONFIG_23 = (
    _COMMON
    + """\
disable_plaintext_auth = no
ssl_cert = <{cert}
ssl_key = <{key}
mail_location = maildir:{boxes}/%u
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={owner} gid={owner} home={boxes}/%u
}}
"""
)
_CONFIG_24 = (
    "dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\n"
    + _COMMON
    + """\
auth_allow_cleartext = yes
ssl_server_cert_file = {cert}
ssl_server_key_file = {key}
mail_driver = maildir
mail_path = {boxes}/%{{user}}
passdb static {{
  password = {password}
}}
userdb static {{
  fields {{
    uid = {owner}
    gid = {owner}
    home = {boxes}/%{{user}}
  }}
}}
"""
)
_numbers = itertools.count()


def prepare(lay: Layout, tls: Credentials) -> Program:
    """Write the configuration and return how to start the server."""
    home = lay.wan / "dovecot"
    home.mkdir()
    lay.mailboxes.mkdir()
    os.chown(lay.mailboxes, OWNER, OWNER)
    version = subprocess.run(["dovecot", "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    template = _CONFIG_23 if version.startswith("2.3.") else _CONFIG_24
    places: dict[str, object] = {
        "home": home,
        "logs": lay.logs,
        "boxes": lay.mailboxes,
        "password": PASSWORD,
        "owner": OWNER,
    }
    places |= {"cert": tls.cert, "key": tls.key}
    (home / "dovecot.conf").write_text(template.format_map(places))
    return Program("mailboxes", "wan", ["dovecot", "-F", "-c", f"{home}/dovecot.conf"], [layout.POP3, layout.IMAP])


def deliver(lay: Layout, user: str, mail: bytes) -> Path:
    """Put a mail into a user's mailbox, behind those that are there."""
    box = lay.mailboxes / user
    for folder in (box, box / "new", box / "cur", box / "tmp"):
        if not folder.exists():
            folder.mkdir()
            os.chown(folder, OWNER, OWNER)
    number = next(_numbers)
    path = box / "new" / f"{1_700_000_000 + number}.M{number:06d}.lab"
    path.write_bytes(mail.replace(b"\r\n", b"\n"))
    os.chown(path, OWNER, OWNER)
    return path


def forget(lay: Layout, user: str) -> None:
    """Remove a user's mailbox."""
    shutil.rmtree(lay.mailboxes / user, ignore_errors=True)
