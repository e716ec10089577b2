"""The engine's whole configuration as a typed model, rendered to the YAML Suricata reads.

Nothing is inherited from a distribution's file: what is not written here has Suricata's built-in
default. Every path is absolute (a reload with a relative rule file answers "OK" and loads nothing),
every exception policy is set on purpose (`auto` drops in IPS mode). JSON is YAML, so it is rendered
as JSON under a YAML header.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any, Final

import msgspec

from sekisho.appliance.core import marks
from sekisho.appliance.core.settings import Settings

DISTRIBUTION: Final = Path("/etc/suricata")
PROTOCOLS: Final = (
    "bittorrent-dht", "dcerpc", "dhcp", "dnp3", "enip", "ftp", "http2", "ike", "imap", "krb5", "modbus", "mqtt",
    "nfs", "ntp", "pgsql", "quic", "rdp", "rfb", "sip", "smb", "snmp", "ssh", "telnet", "tftp",
)  # fmt: skip
"""Enabled with nothing but their defaults: a rule for a protocol that is off would be refused."""


class _Kebab(msgspec.Struct, rename="kebab"):
    pass


class Nfq(_Kebab, kw_only=True):
    """Accept mode: `repeat` loses its mark with batches. A full queue passes traffic when we fail open."""

    mode: str = "accept"
    bypass_mark: int = marks.BYPASS
    bypass_mask: int = marks.BYPASS
    batchcount: int = 20
    fail_open: bool = True


class Reassembly(_Kebab, kw_only=True):
    memcap: str = "128mb"
    memcap_policy: str
    depth: str = "1mb"
    """Where the file store does not ask for more; beyond it a flow is no longer looked at."""
    toserver_chunk_size: int = 2560
    toclient_chunk_size: int = 2560
    randomize_chunk_size: bool = False


class Stream(_Kebab, kw_only=True):
    memcap: str = "64mb"
    memcap_policy: str
    checksum_validation: bool = False
    """Packets arrive before their checksums are final where a port computes them in hardware."""
    inline: bool = True
    bypass: bool = False
    """A flow past its depth may still carry a file: only encrypted flows leave for the kernel's fast path."""
    drop_invalid: bool = False
    midstream: bool = True
    midstream_policy: str = "ignore"
    """Connections older than the engine are looked at from where they are, never cut."""
    reassembly: Reassembly


class Capped(_Kebab, kw_only=True):
    memcap: str
    memcap_policy: str


class Outputs(_Kebab, kw_only=True):
    """The engine's three outputs and the file store; nothing else is written."""

    eve: str
    files_log: str
    files_socket: str
    filestore: str
    scan_limit_mb: int

    def render(self) -> list[dict[str, Any]]:
        alert = {
            "payload": False, "payload-printable": False, "packet": False, "http-body": False,
            "http-body-printable": False, "tagged-packets": False,
            "metadata": {"app-layer": True, "flow": False, "rule": {"metadata": True, "raw": False}},
        }  # fmt: skip
        seen: list[Any] = [
            {"alert": alert},
            {"http": {"extended": True}},  # method and status; no header is dumped
            {"tls": {"custom": ["sni", "version", "ja4"]}},
            {"quic": {}},
            {"dns": {"version": 2, "requests": True, "responses": False}},
            {"smtp": {}},
        ]
        files = [{"files": {"force-magic": False, "force-hash": ["sha256"]}}]
        # What an FTP data connection carries is said in another one, and known to the engine alone: the alert of a
        # steering rule tells the name before the first of the data reaches the gate.
        names = {"alert": {**alert, "metadata": {"app-layer": True, "flow": False, "rule": False}}}
        store = {
            "version": 2, "enabled": True, "dir": self.filestore, "force-filestore": True, "write-fileinfo": False,
            "stream-depth": f"{self.scan_limit_mb}mb",
        }  # fmt: skip
        return [
            {"eve-log": {"enabled": True, "filetype": "regular", "filename": self.eve, "types": seen}},
            {"eve-log": {"enabled": True, "filetype": "regular", "filename": self.files_log, "types": files}},
            {
                "eve-log": {
                    "enabled": True,
                    "filetype": "unix_dgram",
                    "filename": self.files_socket,
                    "types": [*files, names],
                }
            },
            {"file-store": store},
        ]


class Config(_Kebab, kw_only=True):
    """One engine configuration; `render` gives the file's text."""

    home_networks: tuple[str, ...]
    log_dir: str
    control_socket: str
    rule_files: list[str]
    nfq: Nfq
    stream: Stream
    flow: Capped
    defrag: Capped
    outputs: Outputs

    def render(self) -> str:
        """The YAML text."""
        config = {
            "vars": _variables(self.home_networks),
            "default-log-dir": self.log_dir,
            "stats": {"enabled": True, "interval": 8},
            "host-os-policy": {"linux": ["0.0.0.0/0", "::/0"]},
            "outputs": self.outputs.render(),
            "logging": {"default-log-level": "notice", "outputs": [{"console": {"enabled": True}}]},
            "nfq": self.nfq,
            "unix-command": {"enabled": True, "filename": self.control_socket},
            "max-pending-packets": 2048,
            "runmode": "workers",
            "exception-policy": "ignore",
            "app-layer": {"error-policy": "ignore", "protocols": _protocols()},
            "stream": self.stream,
            "flow": {**msgspec.to_builtins(self.flow), "hash-size": 65536, "prealloc": 1000},
            "defrag": self.defrag,
            "host": {"memcap": "16mb"},
            "ippair": {"memcap": "16mb"},
            "detect": {"profile": "medium", "sgh-mpm-context": "auto", "inspection-recursion-limit": 3000},
            "detect-engine": [{"rule-reload": True}],
            # Rules that set a bit report nothing and are no drops: they must run before the drops that ask for it.
            "action-order": ["pass", "alert", "drop", "reject"],
            "mpm-algo": "auto",
            # Preparing 20,000 rules' single patterns for the fast matcher takes as long as all the rest of a load
            # (14.5 s against 7.7), and 16 MB; on traffic the plain one costs no more.
            "spm-algo": "bm",
            "default-rule-path": str(Path(self.rule_files[0]).parent) if self.rule_files else "/",
            "rule-files": self.rule_files,
            **_tables(),
        }
        text = msgspec.json.format(msgspec.json.encode(_yaml_words(msgspec.to_builtins(config))), indent=1).decode()
        return f"%YAML 1.1\n---\n{text}\n"


def _yaml_words(node: Any) -> Any:
    """Suricata compares words, not YAML types: true is "yes"."""
    if isinstance(node, dict):
        return {key: _yaml_words(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_yaml_words(value) for value in node]
    return {True: "yes", False: "no"}[node] if isinstance(node, bool) else node


def steer_rules() -> Path:
    """The product's own rules that mark which flows carry files."""
    return Path(str(resources.files("sekisho.appliance") / "steer.rules"))


def queue_count(settings: Settings) -> int:
    return settings.inspection.queues or min(os.cpu_count() or 1, 16)


def model(
    settings: Settings, rule_files: list[Path], *, socket: Path | None = None, filestore: Path | None = None
) -> Config:
    """The configuration for one box; `rule_files` are absolute. An engine beside another has its own two places."""
    if not all(path.is_absolute() for path in rule_files):
        raise ValueError("rule files must be absolute paths")
    is_open = settings.inspection.fail_mode == "open"
    flow_policy, packet_policy = ("ignore", "ignore") if is_open else ("drop-flow", "drop-packet")
    return Config(
        home_networks=settings.inspection.home_networks,
        log_dir=str(settings.control_socket.parent),
        control_socket=str(socket or settings.control_socket),
        rule_files=[str(path) for path in rule_files],
        nfq=Nfq(fail_open=is_open),
        stream=Stream(memcap_policy=packet_policy, reassembly=Reassembly(memcap_policy=flow_policy)),
        flow=Capped(memcap="64mb", memcap_policy=packet_policy),
        defrag=Capped(memcap="16mb", memcap_policy=packet_policy),
        outputs=Outputs(
            eve=str(settings.eve),
            files_log=str(settings.files_log),
            files_socket=str(settings.files_socket),
            filestore=str(filestore or settings.filestore),
            scan_limit_mb=settings.inspection.scan_limit_mb,
        ),
    )


def _tables() -> dict[str, str]:
    names = {
        "classification-file": "classification.config",
        "reference-config-file": "reference.config",
        "threshold-file": "threshold.config",
    }
    return {key: str(DISTRIBUTION / name) for key, name in names.items() if (DISTRIBUTION / name).exists()}


def _protocols() -> dict[str, Any]:
    libhtp = {
        "personality": "IDS", "request-body-limit": "1mb", "response-body-limit": "1mb",
        "response-body-decompress-layer-limit": 2, "http-body-inline": "auto",
        "double-decode-path": False, "double-decode-query": False,
    }  # fmt: skip
    mime = {
        "decode-mime": True, "decode-base64": True, "decode-quoted-printable": True, "header-value-depth": 2000,
        "extract-urls": False, "body-md5": False,
    }  # fmt: skip
    tracker = {"content-limit": 100000, "content-inspect-min-size": 32768, "content-inspect-window": 4096}
    return {
        **{name: {"enabled": True} for name in PROTOCOLS},
        # Industrial protocols claim connections by port number alone, a client's own port included: a mail or a page
        # fetched from port 20000 was then seen as neither. An office has none of them.
        "modbus": {"enabled": False, "detection-ports": {"dp": 502}, "stream-depth": 0},
        "dnp3": {"enabled": False, "detection-ports": {"dp": 20000}},
        "enip": {"enabled": False, "detection-ports": {"dp": 44818, "sp": 44818}},
        "tls": {
            "enabled": True,
            "detection-ports": {"dp": 443},
            "encryption-handling": "bypass",
            "ja4-fingerprints": True,
        },
        "http": {"enabled": True, "libhtp": {"default-config": libhtp}},
        "smtp": {"enabled": True, "raw-extraction": False, "mime": mime, "inspected-tracker": tracker},
        "ftp": {"enabled": True, "memcap": "64mb"},
        "dns": {
            "tcp": {"enabled": True, "detection-ports": {"dp": 53}},
            "udp": {"enabled": True, "detection-ports": {"dp": 53}},
        },
    }


def _variables(home: tuple[str, ...]) -> dict[str, dict[str, str | int]]:
    ours = ("HTTP", "SMTP", "SQL", "DNS", "TELNET", "DC")
    plants = ("DNP3_SERVER", "DNP3_CLIENT", "MODBUS_CLIENT", "MODBUS_SERVER", "ENIP_CLIENT", "ENIP_SERVER")
    return {
        "address-groups": {
            "HOME_NET": f"[{','.join(home)}]" if home else "any",
            "EXTERNAL_NET": "!$HOME_NET" if home else "any",
            **{f"{name}_SERVERS": "$HOME_NET" for name in ours},
            **dict.fromkeys(plants, "$HOME_NET"),
            "AIM_SERVERS": "$EXTERNAL_NET",
        },
        "port-groups": {
            "HTTP_PORTS": "80", "SHELLCODE_PORTS": "!80", "ORACLE_PORTS": 1521, "SSH_PORTS": 22, "DNP3_PORTS": 20000,
            "MODBUS_PORTS": 502, "FILE_DATA_PORTS": "[$HTTP_PORTS,110,143]", "FTP_PORTS": 21, "GENEVE_PORTS": 6081,
            "VXLAN_PORTS": 4789, "TEREDO_PORTS": 3544,
        },
    }  # fmt: skip
