"""The product in the lab: certificates, settings and start commands of the box's and the centre's daemons."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path

from sekisho.center import pki
from sekisho.center.brokers import mosquitto
from sekisho.center.brokers.model import Broker, Member
from sekisho.lab import layout, releases, toml
from sekisho.lab.channel import Channel
from sekisho.lab.layout import Layout
from sekisho.lab.net import command
from sekisho.lab.program import Program

FILESTORE_MB = 512
TRIAL_S, STEADY_S = 30.0, 5.0
"""A tenth of a box's own and less: so long a new release is tried here."""
STAFF = "staff@centre.example"
"""Who of the centre is mailed."""
_BOX_ROOMS = ("appliance", "inspect", "telemetry", "portal_agent")


def prepare(
    lay: Layout,
    overrides: toml.Table,
    *,
    portal: bool = False,
    channel: Channel | None = None,
    firmware: bool = False,
) -> list[Program]:
    """Write certificates and settings, and return how to start everything. `overrides` go into the box's settings.

    With the portal come the CA's daemon and the web service: the box is then no member yet and waits for a code.
    With a `channel` comes its server, and the box's daemon that takes signatures from it. Where the settings name a
    link to a release's programs (`releases`), the box's daemons run from there. With `firmware` (which needs both) they
    run from such a link, and the daemons of releases, rollouts and mails come with them.
    """
    if firmware:
        overrides = toml.merged(_releases(lay), overrides)
    python = _python(overrides)
    authority = lay.authority
    pki.create_ca(authority, "sekisho lab CA")
    server = pki.issue(authority, "broker", "server", (layout.CENTER4, layout.CENTER6))
    center = pki.issue(authority, layout.CENTER_NAME)
    members = (Member(layout.BOX_NAME, layout.TENANT),)
    broker = mosquitto.write_config(
        Broker(lay.center / "broker", server, address="", port=layout.MQTT, members=members)
    )
    immunity = _signing(pki.issue(authority, "immunity"), pki.issue(authority, "immunity-lists", "lists"), "lists")
    orders = _signing(pki.issue(authority, "orders"), pki.issue(authority, "orders-key", "orders"), "orders")
    sender = pki.issue(authority, "jobs")
    jobs: toml.Table = {"cert": str(sender.cert), "key": str(sender.key)}
    settings = toml.merged(_center(lay, center), {"immunity": immunity, "orders": orders, "jobs": jobs})
    if portal:
        settings = toml.merged(settings, _portal(lay))
    if firmware:
        settings = toml.merged(settings, {"notify": _mails()})
    lay.center_settings.write_text(toml.dumps(settings))
    for folder in (lay.box_state, lay.box_run / "filestore"):
        folder.mkdir(parents=True)
    command(["mount", "-t", "tmpfs", "-o", f"size={FILESTORE_MB}m", "sekisho-lab", str(lay.box_run / "filestore")])
    published: tuple[Program, ...] = ()
    base = _box(lay)
    if channel is not None:
        published = (
            channel.prepare(firmware=firmware),
            Program("signatures", "box", _daemon("signatures", lay.box_settings, python)),
        )
        announced: toml.Table = {"immunity": {"published": str(lay.updates / "published.json")}}
        lay.center_settings.write_text(toml.dumps(toml.merged(settings, announced)))
        source = {"channel": channel.url, "channel_ca": str(server.ca), "root": str(lay.updates_root)}
        base = toml.merged(base, {"signatures": source})
    link = {} if portal else _link(pki.issue(authority, layout.BOX_NAME), lay.box_settings.parent / "pki")
    lay.box_settings.write_text(toml.dumps(toml.merged(toml.merged(base, {"telemetry": link}), overrides)))
    return [
        Program("mosquitto", "center", list(broker.argv), [layout.MQTT]),
        Program("center", "center", _daemon("center", lay.center_settings)),
        *(Program(room, "center", _center_room(room, lay.center_settings)) for room in ("immunity", "orders")),
        Program("center-jobs", "center", _center_room("jobs", lay.center_settings)),  # the box has one of that name
        *(_for_people(lay) if portal else ()),
        *(Program(room, "box", _daemon(room, lay.box_settings, python)) for room in _BOX_ROOMS),
        Program("jobs", "box", _daemon("portal_agent.jobs", lay.box_settings, python)),
        *published,
        *(_firmware(lay, python) if firmware else ()),
    ]


def _firmware(lay: Layout, python: str) -> list[Program]:
    errands = [sys.executable, "-I", "-m", "sekisho.lab.errands", lay.name]
    return [
        Program("firmware_errands", "box", errands),
        Program("firmware", "box", _daemon("firmware", lay.box_settings, python)),
        *(Program(room, "center", _center_room(room, lay.center_settings)) for room in ("rollout", "notify")),
    ]


def _releases(lay: Layout) -> toml.Table:
    """Where releases lie on the box, with the programs it came with in use."""
    lay.opt.mkdir(parents=True)
    for folder in (lay.box_run, lay.box_state):  # as systemd's tmpfiles.d makes them
        folder.with_name(f"{folder.name}-firmware").mkdir(parents=True)
    (lay.opt / "venv").symlink_to(releases.system(lay.opt) / "venv")
    said: toml.Table = {"link": str(lay.opt / "venv"), "releases": str(lay.opt / "releases")}
    return {"firmware": {**said, "trial_s": TRIAL_S, "steady_s": STEADY_S}}


def _mails() -> toml.Table:
    return {
        "smtp_host": layout.SERVER4, "smtp_port": layout.SMTP, "security": "none", "sender": "watch@centre.example",
        "operator": [STAFF],
    }  # fmt: skip


def _python(overrides: toml.Table) -> str:
    firmware = overrides.get("firmware")
    link = firmware.get("link") if isinstance(firmware, dict) else None
    return str(Path(str(link)) / "bin" / "python") if link else sys.executable


def _daemon(room: str, settings: Path, python: str = sys.executable) -> list[str]:
    return [python, "-I", "-m", f"sekisho.{room}.daemon", "--settings", str(settings)]


def _center_room(room: str, settings: Path) -> list[str]:
    return [sys.executable, "-I", "-m", f"sekisho.center.{room}", "--settings", str(settings)]


def _signing(client: pki.Credentials, signer: pki.Credentials, what: str) -> toml.Table:
    return {
        "cert": str(client.cert),
        "key": str(client.key),
        f"{what}_cert": str(signer.cert),
        f"{what}_key": str(signer.key),
    }


def _for_people(lay: Layout) -> list[Program]:
    return [
        Program("ca", "center", _center_room("ca", lay.center_settings)),
        Program("web", "center", _center_room("web", lay.center_settings)),
        Program("contracts", "center", _center_room("contracts", lay.center_settings)),
        Program("portal", "host", _center_room("portal", lay.center_settings)),
    ]


def _portal(lay: Layout) -> toml.Table:
    """The web service where the box finds it; the portal where a browser on this machine does."""
    web = pki.issue(lay.authority, "centre", "server", (layout.CENTER4,))
    portal = pki.issue(lay.authority, "portal", "server", ("localhost", "127.0.0.1"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    return {
        "exports": str(lay.center / "exports"),
        "web": {"cert": str(web.cert), "key": str(web.key), "port": layout.ENROLMENT},
        "portal": {
            "cert": str(portal.cert),
            "key": str(portal.key),
            "address": "127.0.0.1",
            "port": port,
            "origin": f"https://localhost:{port}",
            "proof_key": str(lay.center / "reports.key"),
        },
        "ca": {
            "directory": str(lay.authority),
            "socket": str(lay.center / "sign.sock"),
            "revoked": str(lay.center / "revoked"),
            "brokers": [f"{layout.CENTER4}:{layout.MQTT}"],
        },
    }


def _hand_over(made: pki.Credentials, folder: Path) -> pki.Credentials:
    folder.mkdir(mode=0o700)
    return pki.Credentials(*(Path(shutil.copy(path, folder)) for path in (made.ca, made.cert, made.key)))


def _link(made: pki.Credentials, folder: Path) -> toml.Table:
    return {"host": layout.CENTER4, "port": layout.MQTT, **_files(_hand_over(made, folder))}


def _center(lay: Layout, files: pki.Credentials) -> toml.Table:
    link: toml.Table = {"host": layout.CENTER4, "port": layout.MQTT, "client": layout.CENTER_NAME, **_files(files)}
    return {"store": str(lay.center_store), "broker": link}


def _box(lay: Layout) -> toml.Table:
    return {
        "box": layout.BOX_NAME,
        "bridge": {
            "addresses": [f"{layout.BOX4}/24", f"{layout.BOX6}/64"],
            "gateways": [layout.SERVER4, layout.SERVER6],
        },
        "inspection": {"home_networks": list(layout.HOME_NETWORKS)},
        "policy": {"file": str(lay.policy)},
        "paths": {"run": str(lay.box_run), "state": str(lay.box_state)},
    }


def _files(files: pki.Credentials) -> dict[str, str]:
    return {"ca": str(files.ca), "cert": str(files.cert), "key": str(files.key)}
