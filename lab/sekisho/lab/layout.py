"""Where everything of one lab is: namespaces, addresses, ports and files. Pure; touches nothing.

Each lab has a name; every namespace starts with it and every file is below `ROOT/name`, which is a
tmpfs of its own. So labs stand side by side, and removing one cannot leave a file behind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from sekisho.appliance.core.errors import RejectedInput

Place = Literal["lan", "box", "wan", "center"]
PLACES: Final[tuple[Place, ...]] = ("lan", "box", "wan", "center")
Where = Literal["lan", "box", "wan", "center", "host"]
"""Where a program runs: in a namespace, or beside them, where the browser of whoever looks at the lab is."""

ROOT: Final = Path("/run/sekisho-lab")
ENV_MARK: Final = "SEKISHO_LAB"
"""Every process of a lab carries this variable, so that `down` finds the ones that left their namespace."""

CLIENT4: Final = "10.77.0.10"
CLIENT6: Final = "fd77::10"
CLIENT_MAC: Final = "02:77:00:00:00:10"
BOX4: Final = "10.77.0.2"
BOX6: Final = "fd77::2"
SERVER4: Final = "10.77.0.1"
SERVER6: Final = "fd77::1"
CENTER_GATE4: Final = "10.78.0.1"
CENTER_GATE6: Final = "fd78::1"
CENTER4: Final = "10.78.0.2"
CENTER6: Final = "fd78::2"
HOME_NETWORKS: Final = ("10.77.0.8/29", "fd77::10/124")
"""The office as the rules see it: the client, but not the servers, which stand for the internet."""

HTTP, HTTPS, SHAPES, SMTP, FTP, DNS, MQTT = 80, 443, 8080, 25, 21, 53, 8883
ENROLMENT: Final = 8443
UPDATES: Final = 8444
SUBMISSION: Final = 587
POP3, IMAP = 110, 143
BOX_NAME: Final = "lab-box"
SERVER_NAME: Final = "www.sekisho.test"
CENTER_NAME: Final = "center"
TENANT: Final = "default"


@dataclass(frozen=True)
class Layout:
    """The names and paths of one lab."""

    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", self.name):
            raise RejectedInput(f"{self.name!r} is not a lab name: small letters, digits and '-', at most 32.")

    def netns(self, place: Place) -> str:
        return f"{self.name}-{place}"

    @property
    def root(self) -> Path:
        return ROOT / self.name

    @property
    def box_run(self) -> Path:
        return self.root / "box" / "run"

    @property
    def box_state(self) -> Path:
        return self.root / "box" / "state"

    @property
    def box_settings(self) -> Path:
        return self.root / "box" / "box.toml"

    @property
    def opt(self) -> Path:
        """The box's /opt/sekisho: the programs it came with, its releases, and the link to what is in use."""
        return self.root / "box" / "opt"

    @property
    def policy(self) -> Path:
        """The owner's policy; none at first."""
        return self.box_settings.with_name("policy.toml")

    @property
    def center(self) -> Path:
        return self.root / "center"

    @property
    def center_settings(self) -> Path:
        return self.center / "center.toml"

    @property
    def center_store(self) -> Path:
        return self.center / "center.db"

    @property
    def authority(self) -> Path:
        """The lab's own certificate authority."""
        return self.center / "pki"

    @property
    def updates(self) -> Path:
        """The centre's signed repository of rule sets."""
        return self.center / "updates"

    @property
    def updates_root(self) -> Path:
        """Whom the box believes in matters of signatures."""
        return self.box_settings.with_name("updates-root.json")

    @property
    def wan(self) -> Path:
        return self.root / "wan"

    @property
    def www(self) -> Path:
        """What nginx, the shapes server and the FTP server offer."""
        return self.wan / "www"

    @property
    def web_ca(self) -> Path:
        """The authority of the web server's certificate: what a client gives to `curl --cacert`."""
        return self.wan / "pki" / "ca.crt"

    @property
    def mail(self) -> Path:
        """Mails the SMTP server accepted, one file each."""
        return self.wan / "mail"

    @property
    def mailboxes(self) -> Path:
        """What the POP3 and IMAP server has for each user, one Maildir each."""
        return self.wan / "mailboxes"

    @property
    def uploads(self) -> Path:
        """Bodies the shapes server received by POST, one file each."""
        return self.wan / "uploads"

    @property
    def ftp_incoming(self) -> Path:
        return self.www / "incoming"

    @property
    def logs(self) -> Path:
        return self.root / "log"

    @property
    def programs(self) -> Path:
        return self.root / "programs.json"

    @property
    def control(self) -> Path:
        """The supervisor's command socket."""
        return self.root / "supervisor.sock"

    @property
    def pidfile(self) -> Path:
        return self.root / "supervisor.pid"
