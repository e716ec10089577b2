"""The product in the lab: certificates, settings and start commands of the box's and the centre's daemons."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from sekisho.center import pki
from sekisho.center.brokers import mosquitto
from sekisho.center.brokers.model import Broker, Member
from sekisho.lab import layout, toml
from sekisho.lab.layout import Layout
from sekisho.lab.net import command
from sekisho.lab.program import Program

FILESTORE_MB = 512


def prepare(lay: Layout, overrides: toml.Table) -> list[Program]:
    """Write certificates and settings, and return how to start everything. `overrides` go into the box's settings."""
    authority = lay.center / "pki"
    pki.create_ca(authority, "sekisho lab CA")
    server = pki.issue(authority, "broker", "server", (layout.CENTER4, layout.CENTER6))
    center = pki.issue(authority, layout.CENTER_NAME)
    members = (Member(layout.BOX_NAME, "default"),)
    broker = mosquitto.write_config(
        Broker(lay.center / "broker", server, address="", port=layout.MQTT, members=members)
    )
    immunity = _immunity(pki.issue(authority, "immunity"), pki.issue(authority, "immunity-lists", "lists"))
    lay.center_settings.write_text(toml.dumps(toml.merged(_center(lay, center), {"immunity": immunity})))
    for folder in (lay.box_state, lay.box_run / "filestore"):
        folder.mkdir(parents=True)
    command(["mount", "-t", "tmpfs", "-o", f"size={FILESTORE_MB}m", "sekisho-lab", str(lay.box_run / "filestore")])
    box = _box(lay, _hand_over(pki.issue(authority, layout.BOX_NAME), lay.box_settings.parent / "pki"))
    lay.box_settings.write_text(toml.dumps(toml.merged(box, overrides)))
    return [
        Program("mosquitto", "center", list(broker.argv), [layout.MQTT]),
        Program("center", "center", _daemon("center", lay.center_settings)),
        Program("immunity", "center", _center_room("immunity", lay.center_settings)),
        *(Program(room, "box", _daemon(room, lay.box_settings)) for room in ("appliance", "inspect", "telemetry")),
    ]


def _daemon(room: str, settings: Path) -> list[str]:
    return [sys.executable, "-I", "-m", f"sekisho.{room}.daemon", "--settings", str(settings)]


def _center_room(room: str, settings: Path) -> list[str]:
    return [sys.executable, "-I", "-m", f"sekisho.center.{room}", "--settings", str(settings)]


def _immunity(client: pki.Credentials, lists: pki.Credentials) -> toml.Table:
    return {
        "cert": str(client.cert),
        "key": str(client.key),
        "lists_cert": str(lists.cert),
        "lists_key": str(lists.key),
    }


def _hand_over(made: pki.Credentials, folder: Path) -> pki.Credentials:
    folder.mkdir(mode=0o700)
    return pki.Credentials(*(Path(shutil.copy(path, folder)) for path in (made.ca, made.cert, made.key)))


def _center(lay: Layout, files: pki.Credentials) -> toml.Table:
    link: toml.Table = {"host": layout.CENTER4, "port": layout.MQTT, "client": layout.CENTER_NAME, **_files(files)}
    return {"store": str(lay.center_store), "broker": link}


def _box(lay: Layout, files: pki.Credentials) -> toml.Table:
    return {
        "box": layout.BOX_NAME,
        "bridge": {
            "addresses": [f"{layout.BOX4}/24", f"{layout.BOX6}/64"],
            "gateways": [layout.SERVER4, layout.SERVER6],
        },
        "inspection": {"home_networks": list(layout.HOME_NETWORKS)},
        "policy": {"file": str(lay.policy)},
        "telemetry": {"host": layout.CENTER4, "port": layout.MQTT, **_files(files)},
        "paths": {"run": str(lay.box_run), "state": str(lay.box_state)},
    }


def _files(files: pki.Credentials) -> dict[str, str]:
    return {"ca": str(files.ca), "cert": str(files.cert), "key": str(files.key)}
