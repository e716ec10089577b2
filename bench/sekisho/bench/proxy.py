"""The other way to do it: squid, c-icap and ClamAV of the distribution, as boxes with a proxy chain them.

A lab of its own whose bridge redirects port 80 into squid; each answer goes through ICAP to clamd. ClamAV gets one
signature, for the test string, so its memory here is that of the programs alone. Caching is off. The sizes that
ClamAV and c-icap would refuse to look at are raised; the rest is as packaged, but for one setting.

The squid of Debian 12 (seen in 5.7-2+deb12u6) has squid's bug 5352, which came with the fix for CVE-2024-25111: it
stops reading from the server for good once the 64 kB between server and ICAP service are full, and it empties them
early only after the service has begun to answer. So c-icap is told to begin with the first kilobyte in place of the
packaged 2 MB: the client then has up to 5 % of a file (packaged value) before the verdict, never the whole of a bad
one. That needs c-icap's plain service: its `avscan` alias has `mode=simple`, which never answers before the end of
the body, and stalls.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sekisho.appliance.core.errors import DeviceFault, PeerError
from sekisho.lab import layout
from sekisho.lab.lab import Lab
from sekisho.lab.ports import listening
from sekisho.lab.samples import EICAR

SQUID_EXPLICIT, SQUID, ICAP = 3128, 3129, 1344
PROGRAMS = ("squid", "c-icap", "clamd")
_READY_S = 60
_WORKS_S = 20
_FETCH_S = 30
_TIMED_OUT = 28

_SQUID = """\
http_port {explicit}
http_port {squid} intercept
acl office src 10.77.0.0/24
http_access allow office
cache deny all
cache_mem 8 MB
coredump_dir {work}
pid_filename {work}/squid.pid
access_log none
cache_log {work}/squid.log
visible_hostname box
host_verify_strict off
shutdown_lifetime 0 seconds
pinger_enable off
icap_enable on
icap_preview_enable on
icap_preview_size 1024
icap_service scan respmod_precache icap://127.0.0.1:{icap}/virus_scan bypass=off
adaptation_access scan allow all
"""
_CICAP = """\
PidFile {work}/c-icap.pid
CommandsSocket {work}/c-icap.ctl
Port 127.0.0.1:{icap}
User root
Group root
TmpDir {work}/tmp
ModulesDir {modules}
ServicesDir {modules}
TemplateDir /usr/share/c_icap/templates/
LoadMagicFile /etc/c-icap/c-icap.magic
ServerLog {work}/c-icap.log
DebugLevel 1
StartServers 3
MaxServers 10
ThreadsPerChild 10
Include /etc/c-icap/virus_scan.conf
Module common clamd_mod.so
clamd_mod.ClamdSocket {work}/clamd.sock
virus_scan.DefaultEngine clamd
virus_scan.MaxObjectSize 200M
virus_scan.StartSendPercentDataAfter 1K
"""
_CLAMD = """\
LocalSocket {work}/clamd.sock
DatabaseDirectory {work}/db
TemporaryDirectory {work}/tmp
LogFile {work}/clamd.log
Foreground yes
User root
StreamMaxLength 200M
MaxFileSize 200M
MaxScanSize 200M
"""


def installed() -> bool:
    """Whether the three programs are here; `setup/apt.sh` brings them with the names in the Makefile's bench."""
    return all(shutil.which(program) for program in PROGRAMS)


@contextmanager
def standing(name: str) -> Iterator[Lab]:
    """The chain, ready: what is fetched from port 80 has been through ClamAV.

    Raises:
        DeviceFault: a program did not get ready, or the chain lets the test string pass.

    """
    with Lab(f"{name}-proxy") as lab, ExitStack() as stack:
        lab.up(with_product=False)
        work = lab.lay.root / "proxy"
        (work / "db").mkdir(parents=True)
        (work / "tmp").mkdir()
        (work / "db" / "own.ndb").write_text(f"Test.String:0:*:{EICAR.hex()}\n")
        modules = next(Path("/usr/lib").glob("*/c_icap"), Path("/usr/lib/c_icap"))
        places = {"work": work, "modules": modules, "explicit": SQUID_EXPLICIT, "squid": SQUID, "icap": ICAP}
        for file, text in (("squid.conf", _SQUID), ("c-icap.conf", _CICAP), ("clamd.conf", _CLAMD)):
            (work / file).write_text(text.format_map(places))
        for path in (work, work / "tmp"):
            path.chmod(0o777)  # squid and its helpers give up root
        _start(lab, stack, ["clamd", f"--config-file={work}/clamd.conf"], work)
        lab.wait((work / "clamd.sock").exists, "clamd is not ready", _READY_S)
        for argv, port in (
            (["c-icap", "-N", "-f", f"{work}/c-icap.conf"], ICAP),
            (["squid", "-N", "-f", f"{work}/squid.conf"], SQUID),
        ):
            program = _start(lab, stack, argv, work)
            lab.wait(
                lambda program=program, port=port: program.poll() is not None or port in listening(program.pid),  # type: ignore[misc]
                f"{argv[0]} is not ready",
                _READY_S,
            )
        _redirect(lab)
        _works(lab, work)
        yield lab


def _start(lab: Lab, stack: ExitStack, argv: list[str], work: Path) -> subprocess.Popen[bytes]:
    with (work / f"{argv[0]}.out").open("wb") as out:
        program = subprocess.Popen(
            lab.inside("box", argv), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=lab.env(), cwd=work
        )
    stack.callback(program.wait)
    stack.callback(program.kill)
    return program


def _redirect(lab: Lab) -> None:
    """Frames of the bridge are taken up to the box's own TCP, where squid answers in the server's name."""
    calls = [f"net.bridge.bridge-nf-call-{table}=1" for table in ("iptables", "ip6tables")]
    lab.run("box", ["sysctl", "-q", "-w", *calls, "net.ipv4.ip_forward=1"], check=True)
    rule = ["-i", "br0", "-p", "tcp", "--dport", str(layout.HTTP), "-j", "REDIRECT", "--to-ports", str(SQUID)]
    lab.run("box", ["iptables", "-t", "nat", "-A", "PREROUTING", *rule], check=True)


def _works(lab: Lab, work: Path) -> None:
    """A clean file arrives and a bad one is found and cut short, or the figures would be about something else."""
    good = (lab.lay.www / "clean" / "1m.bin").read_bytes()
    try:
        lab.wait(lambda: fetched(lab, "clean/1m.bin") == (0, good), "no clean file arrives", _WORKS_S)
        for bad in ("bad/1m.bin", "bad/eicar.com"):
            found = detections(lab)
            ended, body = fetched(lab, bad)
            if ended == _TIMED_OUT or EICAR in body or detections(lab) <= found:
                raise PeerError(f"{bad} is not stopped ({len(body)} bytes arrived)")
    except PeerError as err:
        logs = (work / "squid.log").read_text(errors="replace")[-200:]
        raise DeviceFault(f"they do not work together, {err} {logs}") from err


def fetched(lab: Lab, path: str) -> tuple[int, bytes]:
    """How curl ended (18: the body was cut short) and what the office got of a file of the lab's web server."""
    argv = ["curl", "-s", "--max-time", str(_FETCH_S), f"http://{layout.SERVER4}/{path}"]
    done = lab.run("lan", argv, timeout_s=_FETCH_S + 5)
    return done.returncode, done.stdout


def detections(lab: Lab) -> int:
    """How often ClamAV has said FOUND so far."""
    return (lab.lay.root / "proxy" / "clamd.log").read_bytes().count(b" FOUND")
