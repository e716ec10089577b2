"""The units are clean, hardened and restart for ever; nothing in them needs a running systemd to be checked."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sekisho.appliance import handover
from sekisho.appliance.core.settings import Settings
from sekisho.firmware import wishes

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "systemd" / "system"
TASKS = sorted(path for path in FOLDER.glob("*.service") if path.with_suffix(".timer").exists())
ERRANDS = sorted(path for path in FOLDER.glob("*.service") if path.with_suffix(".path").exists())
"""What root does at another one's wish, once and with what is left of its powers."""
AT_START = [FOLDER / f"sekisho-{name}.service" for name in ("former", "panicked")]
"""What root does at each start of the machine, before any daemon."""
SERVICES = sorted(set(FOLDER.glob("*.service")) - set(TASKS) - set(ERRANDS) - set(AT_START))
DAEMONS = (
    {path.parent.name: f"sekisho.{path.parent.name}.daemon" for path in ROOT.glob("*/sekisho/*/daemon.py")}
    | {"jobs": "sekisho.portal_agent.jobs.daemon", "button": "sekisho.firmware.button"}
    | {
        f"center-{path.parent.name}": f"sekisho.center.{path.parent.name}"
        for path in ROOT.glob("center/sekisho/center/*/__main__.py")
    }
)
MAX_EXPOSURE = 3.0
DOCS = "".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
INSTALLED = "/opt/sekisho/venv/bin"
JUDGES = {
    "sekisho-firmware": "/run/sekisho-firmware-errands/keeper/bin",
    "sekisho-firmware_errands": "/opt/sekisho/venv.former/bin",
}
"""Who does not run from a release that is on trial, and from what instead while there is one."""


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have capitals
    parser.read(path)
    return parser


def python(path: Path) -> str:
    """How a unit names its programs: by the link, or found by systemd, in the release before while one is on trial."""
    if path.stem not in JUDGES:
        return f"{INSTALLED}/python"
    assert unit(path)["Service"]["ExecSearchPath"] == f"{JUDGES[path.stem]}:{INSTALLED}:/usr/sbin:/usr/bin"
    return "python"


def test_every_daemon_has_a_unit_and_every_unit_a_daemon() -> None:
    assert {path.stem for path in SERVICES} == {f"sekisho-{room}" for room in DAEMONS}


def test_traffic_comes_first_and_nothing_is_read_twice_before_it() -> None:
    """On one slow core whatever starts beside the bridge makes the office wait for its network."""
    lead = unit(FOLDER / "sekisho-appliance.service")
    text = (FOLDER / "sekisho-appliance.service").read_text()
    assert "Wants=network.target\n" in text
    assert lead["Unit"]["Before"] == "network.target"
    assert not re.findall(r"^ExecStartPre=.*(?:python|sekisho ).*", text, flags=re.M)
    for path in SERVICES:
        if path.stem != "sekisho-appliance" and not path.stem.startswith("sekisho-center"):
            assert "network.target" in unit(path)["Unit"]["After"].split(), path.stem


def test_units_verify_clean(tmp_path: Path) -> None:
    for path in FOLDER.iterdir():
        text = path.read_text().replace(INSTALLED, str(Path(sys.executable).parent))
        text = text.replace("ExecStart=python ", f"ExecStart={sys.executable} ")  # it knows no ExecSearchPath
        (tmp_path / path.name).write_text(re.sub(r"^Documentation=.*\n", "", text, flags=re.M))
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, tmp_path.iterdir())], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("path", [*SERVICES, *TASKS, *ERRANDS, *AT_START], ids=lambda path: path.stem)
def test_exposure_is_low(path: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", done.stdout)
    assert found
    assert float(found[1]) <= MAX_EXPOSURE, done.stdout


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.stem)
def test_a_daemon_is_isolated_watched_and_always_comes_back(path: Path) -> None:
    service = unit(path)["Service"]
    room = path.stem.removeprefix("sekisho-")
    assert service["ExecStart"].startswith(f"{python(path)} -I -m {DAEMONS[room]} --settings /etc/")
    assert (service["Type"], service["Restart"]) == ("notify", "always")
    assert float(service["WatchdogSec"].removesuffix("s")) >= 20
    assert unit(path)["Unit"]["StartLimitIntervalSec"] == "0"


FED = [
    "center",
    "center-web",
    "center-portal",
    "center-api",
    "center-ca",
    "telemetry",
    "portal_agent",
    "signatures",
    "firmware",
    "jobs",
]


@pytest.mark.parametrize("room", FED)
def test_a_daemon_that_strangers_can_feed_has_a_bound_on_its_memory(room: str) -> None:
    assert re.fullmatch(r"[0-9]+[MG]", unit(FOLDER / f"sekisho-{room}.service")["Service"]["MemoryMax"])


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
def test_a_task_runs_once_as_a_user_of_ours_and_its_timer_makes_up_for_a_missed_time(path: Path) -> None:
    service = unit(path)["Service"]
    assert service["Type"] == "oneshot" and service["CapabilityBoundingSet"] == ""
    assert service["User"] in {unit(daemon)["Service"]["User"] for daemon in SERVICES} | {"sekisho-center-updates"}
    assert unit(path.with_suffix(".timer"))["Timer"]["Persistent"] == "yes"


@pytest.mark.parametrize("path", ERRANDS, ids=lambda path: path.stem)
def test_an_errand_runs_once_per_wish_with_few_powers_and_no_shell(path: Path) -> None:
    service = unit(path)["Service"]
    assert service["Type"] == "oneshot" and service["NoNewPrivileges"] == "yes"
    assert service["ExecStart"].startswith((f"{python(path)} -I -m sekisho.", "/bin/rm -f /run/sekisho-"))
    powers = {
        "sekisho-firmware_errands": {"CAP_DAC_OVERRIDE"},
        "sekisho-portal_errands": {"CAP_DAC_OVERRIDE", "CAP_CHOWN"},
        "sekisho-portal_restart": set(),
    }
    assert set(service["CapabilityBoundingSet"].split()) == powers[path.stem]
    assert unit(path.with_suffix(".path"))["Path"]["PathExists"].startswith("/run/sekisho-")
    if "firmware" in path.stem:
        assert unit(path)["Unit"]["StartLimitIntervalSec"] == "0", "no number of bad wishes ends the good ones"


def test_what_the_firmware_errand_writes_is_open_to_it() -> None:
    """A switch, a bundle unpacked, a restart, and what became of the wish; all else is read-only to it."""
    box = Settings(box="box-1")
    written = [
        handover.path_of(box), wishes.wish_file(box), wishes.outcome_file(box), box.errands_run / "restart",
        Path(box.firmware.link), Path(box.firmware.releases) / "7-0123456789abcdef",
    ]  # fmt: skip
    service = unit(FOLDER / "sekisho-firmware_errands.service")["Service"]
    assert service["ProtectSystem"] == "strict"
    opened = service["ReadWritePaths"].split()
    assert [path for path in written if not any(path.is_relative_to(one) for one in opened)] == []
    made = (ROOT / "systemd" / "tmpfiles.d" / "sekisho.conf").read_text()
    assert re.search(rf"^d {handover.path_of(box).parent} +0770 +sekisho-box +sekisho$", made, re.M)


def test_only_a_file_of_roots_restarts_the_machine() -> None:
    restart = FOLDER / "sekisho-portal_restart.service"
    assert [path for path in FOLDER.iterdir() if "reboot" in path.read_text()] == [restart]
    waited = unit(restart.with_suffix(".path"))["Path"]["PathExists"]
    assert unit(restart)["Unit"]["SuccessAction"] == "reboot" and unit(restart)["Service"]["ExecStart"].endswith(waited)
    made = (ROOT / "systemd" / "tmpfiles.d" / "sekisho.conf").read_text()
    assert re.search(rf"^d {Path(waited).parent} +0755 +root +root$", made, re.M)


def test_every_daemon_is_its_own_user_and_none_is_root() -> None:
    users = [unit(path)["Service"]["User"] for path in SERVICES]
    assert len(set(users)) == len(users)
    declared = (ROOT / "systemd" / "sysusers.d" / "sekisho.conf").read_text()
    users += [unit(path)["Service"]["User"] for path in TASKS]
    assert "root" not in users and all(re.search(rf"^u {user} ", declared, re.M) for user in users)


def test_capabilities_are_the_least() -> None:
    held = {path.stem: set(unit(path)["Service"]["CapabilityBoundingSet"].split()) for path in SERVICES}
    assert held == {
        "sekisho-appliance": {"CAP_NET_ADMIN", "CAP_NET_RAW"},
        "sekisho-button": set(),
        "sekisho-firmware": set(),
        "sekisho-inspect": {"CAP_NET_ADMIN"},
        "sekisho-jobs": set(),
        "sekisho-portal_agent": {"CAP_NET_BIND_SERVICE"},
        "sekisho-signatures": set(),
        "sekisho-telemetry": set(),
        "sekisho-center": set(),
        "sekisho-center-api": set(),
        "sekisho-center-brokers": {"CAP_NET_BIND_SERVICE"},
        "sekisho-center-ca": set(),
        "sekisho-center-contracts": set(),
        "sekisho-center-immunity": set(),
        "sekisho-center-jobs": set(),
        "sekisho-center-notify": set(),
        "sekisho-center-orders": set(),
        "sekisho-center-portal": {"CAP_NET_BIND_SERVICE"},
        "sekisho-center-rollout": set(),
        "sekisho-center-web": set(),
    }


def test_a_daemon_of_the_centre_reads_no_other_ones_key(tmp_path: Path) -> None:
    """The modes as systemd-tmpfiles sets them, with every file in the wrong mode before."""
    etc = tmp_path / "etc"
    found = [path for path in (*SERVICES, *TASKS) if path.stem.startswith("sekisho-center")]
    users = sorted({unit(path)["Service"]["User"] for path in found})
    ids = {"root": 0} | {user: number for number, user in enumerate(users, 1000)}
    groups = {"root": 0, "sekisho-center": 2000}
    etc.mkdir()
    (etc / "passwd").write_text("".join(f"{user}:x:{number}:0::/:/bin/false\n" for user, number in ids.items()))
    (etc / "group").write_text("".join(f"{group}:x:{number}:\n" for group, number in groups.items()))
    conf = (ROOT / "systemd" / "tmpfiles.d" / "sekisho.conf").read_text()
    lines = [
        line for line in conf.splitlines() if len(line.split()) > 1 and line.split()[1].startswith("/etc/sekisho-c")
    ]
    made = tmp_path / "etc" / "tmpfiles.d" / "centre.conf"
    made.parent.mkdir()
    made.write_text("\n".join(lines) + "\n")
    named = [Path(found) for found in re.findall(r'^key = "(/etc/\S+)"', DOCS, re.M)]
    places = re.findall(r"^d (/etc/sekisho-center-\S+)", conf, re.M)
    keys = sorted({*named, *(Path(place) / "secret" for place in places)})
    assert len(named) >= 3
    for key in [*keys, Path("/etc/sekisho-center/stray.key")]:
        put = tmp_path / key.relative_to("/")
        put.parent.mkdir(exist_ok=True)
        put.write_text("secret")
        put.chmod(0o644)
    for _ in range(2):  # also what was put there between two runs
        subprocess.run(["systemd-tmpfiles", f"--root={tmp_path}", "--create", "centre.conf"], check=True)
    owners = {key.parent: (tmp_path / key.relative_to("/")).stat().st_uid for key in keys}
    assert len(set(owners.values())) == len(owners) and set(owners.values()) <= set(ids.values()) - {0}
    for key in keys:
        put = tmp_path / key.relative_to("/")
        assert put.stat().st_mode & 0o077 == 0 and put.parent.stat().st_uid == 0, key
    assert (etc / "sekisho-center" / "stray.key").stat().st_mode & 0o077 == 0


def test_every_writable_path_is_made_before() -> None:
    made = set(re.findall(r"^d (\S+)", (ROOT / "systemd" / "tmpfiles.d" / "sekisho.conf").read_text(), re.M))
    for path in [*SERVICES, *TASKS, *ERRANDS, *AT_START]:
        assert set(unit(path)["Service"].get("ReadWritePaths", "").split()) <= made
