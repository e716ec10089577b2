"""The demo's scenes: each sends real traffic with a real client and says whether it came out as promised.

A scene knows what its client must have got and which event the centre must have; it decides by looking
at both, never by what the box says of itself alone.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sekisho.lab import layout, samples
from sekisho.lab.lab import Lab
from sekisho.telemetry.events import Alert, Event, FileVerdict, Tls

C2_PATH = "/sk-c2/checkin"
C2_NAME = "c2.sekisho.example"
GIVE_UP_S = 3
INSPECTED_SHARE_MAX = 0.05


@dataclass(frozen=True)
class Got:
    """What the client was left with."""

    ok: bool
    """As promised."""
    text: str
    verdict: str = ""
    """The box's verdict where it is not in an event: a bypass leaves none."""


@dataclass(frozen=True)
class Scene:
    """One row of the demo."""

    title: str
    act: Callable[[Lab], Got]
    event: Callable[[Event], bool]
    """The event that the centre must have stored."""


def all_scenes() -> list[Scene]:
    return [
        Scene("正常なファイル  clean 1 MB, HTTP v4", _clean, _file("clean", "http")),
        Scene("EICAR 300 kB, HTTP v4", lambda lab: infected(lab, layout.SERVER4), _file("blocked", "http")),
        Scene("EICAR 300 kB, HTTP v6", lambda lab: infected(lab, f"[{layout.SERVER6}]"), _file("blocked", "http")),
        Scene("正常なメール  clean mail, SMTP", _clean_mail, _file("clean", "smtp")),
        Scene("感染メール  infected mail, SMTP", _infected_mail, _file("blocked", "smtp")),
        Scene("EICAR, FTP passive", lambda lab: _infected_ftp(lab, passive=True), _file("blocked", "ftp-data")),
        Scene("EICAR, FTP active", lambda lab: _infected_ftp(lab, passive=False), _file("blocked", "ftp-data")),
        Scene("C2 への通信  C2 check-in, HTTP", _c2_request, _dropped("http")),
        Scene("C2 の名前  C2 name, DNS", _c2_name, _dropped("dns")),
        Scene(
            "暗号化通信  256 MB, TLS", _bulk, lambda event: isinstance(event, Tls) and event.sni == layout.SERVER_NAME
        ),
    ]


def _file(outcome: str, app: str) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, FileVerdict) and (event.outcome, event.app) == (outcome, app)


def _dropped(app: str) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Alert) and (event.action, event.app) == ("blocked", app)


def _download(lab: Lab, url: str) -> tuple[bytes, int, float]:
    """What curl wrote, its exit code and its seconds."""
    target = lab.lay.root / "got"
    target.unlink(missing_ok=True)
    began = time.monotonic()
    done = lab.run("lan", ["curl", "-gs", "--max-time", "20", "-o", str(target), url])
    took = time.monotonic() - began
    return target.read_bytes() if target.exists() else b"", done.returncode, took


def _clean(lab: Lab) -> Got:
    body, _, took = _download(lab, f"http://{layout.SERVER4}/clean/1m.bin")
    intact = hashlib.sha256(body).digest() == hashlib.sha256(samples.clean(1_000_000)).digest()
    return Got(intact, f"{_bytes(len(body))}, {'intact' if intact else 'damaged'}, {took * 1000:.0f} ms")


def infected(lab: Lab, host: str) -> Got:
    """EICAR over HTTP: fine when it did not arrive whole and the client was told."""
    body, code, _ = _download(lab, f"http://{host}/bad/300k.bin")
    end = {56: "connection reset", 18: "cut short", 28: "timeout", 52: "reset before the first byte"}.get(
        code, f"curl exit {code}"
    )
    return Got(len(body) < 300_000 and code in (18, 52, 56), f"{len(body)} of 300000 B, {end}")


def _mail(lab: Lab, *attachments: Path) -> tuple[str, int]:
    """The server's answer to the message's end, and how many mails arrived by it."""
    before = len(list(lab.lay.mail.iterdir()))
    files = [word for path in attachments for word in ("--attach", f"@{path}")]
    envelope = ["--from", "tanaka@office.test", "--to", "suzuki@partner.test", "--header", "Subject: invoice"]
    done = lab.run("lan", ["swaks", "--server", layout.SERVER4, "--timeout", "10", *envelope, *files])
    answers = re.findall(r"^<(?:-|\*\*)\s+(\d{3}.*)$", done.stdout.decode(errors="replace"), re.M)
    answer = next((line for line in reversed(answers) if not line.startswith("221")), "no answer")
    return answer.strip(), len(list(lab.lay.mail.iterdir())) - before


def _clean_mail(lab: Lab) -> Got:
    answer, arrived = _mail(lab, lab.lay.www / "clean" / "1k.bin")
    return Got(arrived == 1 and answer.startswith("250"), f"delivered: {answer[:30]}")


def _infected_mail(lab: Lab) -> Got:
    answer, arrived = _mail(lab, lab.lay.www / "clean" / "1k.bin", lab.lay.www / "bad" / "300k.bin")
    return Got(arrived == 0 and answer.startswith("554"), f"{'refused' if not arrived else 'ARRIVED'}: {answer[:40]}")


def _infected_ftp(lab: Lab, *, passive: bool) -> Got:
    target = lab.lay.root / "got"
    target.unlink(missing_ok=True)
    mode = "on" if passive else "off"
    orders = (
        f"set net:max-retries 1; set net:timeout 5; set xfer:clobber yes; set ftp:passive-mode {mode}; "
        f"open ftp://{layout.SERVER4}; get bad/300k.bin -o {target}"
    )
    lab.run("lan", ["lftp", "-c", orders])
    size = target.stat().st_size if target.exists() else 0
    return Got(size < 300_000, f"{size} of 300000 B")


def _c2_request(lab: Lab) -> Got:
    host = f"Host: {_new()}.{layout.SERVER_NAME}"
    argv = ["curl", "-s", "--max-time", str(GIVE_UP_S), "-H", host, f"http://{layout.SERVER4}{C2_PATH}?id=1"]
    done = lab.run("lan", argv)
    return Got(done.returncode != 0 and not done.stdout, f"no answer (curl exit {done.returncode})")


def _c2_name(lab: Lab) -> Got:
    argv = ["dig", f"@{layout.SERVER4}", f"{_new()}.{C2_NAME}", "+tries=1", f"+time={GIVE_UP_S - 1}", "+short"]
    done = lab.run("lan", argv)
    return Got(done.returncode != 0, f"no answer (dig exit {done.returncode})")


def _new() -> str:
    """A name never asked for before: a repeat of the last minute would be counted, not told at once."""
    return secrets.token_hex(4)


def _bulk(lab: Lab) -> Got:
    inspected, passed = _inspected(lab), _passed(lab)
    trust = ["--cacert", str(lab.lay.web_ca), "--resolve", f"{layout.SERVER_NAME}:443:{layout.SERVER4}"]
    report = ["-o", "/dev/null", "-w", "%{size_download} %{speed_download}"]
    done = lab.run("lan", ["curl", "-s", *trust, *report, f"https://{layout.SERVER_NAME}/bulk.bin"])
    size, speed = (int(float(word)) for word in done.stdout.split())
    share = (_inspected(lab) - inspected) / max(1, _passed(lab) - passed)
    return Got(
        size == samples.BULK_BYTES and share < INSPECTED_SHARE_MAX,
        f"{_bytes(size)}, {speed / 1e6:.0f} MB/s",
        f"bypassed after the handshake: {share:.1%} of packets inspected",
    )


def _inspected(lab: Lab) -> int:
    """Packets that went through the engine's and the gate's queues so far."""
    table = lab.run("box", ["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout.decode()
    return sum(int(line.split()[7]) for line in table.splitlines())


def _passed(lab: Lab) -> int:
    """Packets that came in on either cable of the box so far."""
    table = lab.run("box", ["cat", "/proc/net/dev"]).stdout.decode()
    return sum(
        int(line.split()[2]) for line in table.splitlines() if line.split(":")[0].strip() in ("eth-lan", "eth-wan")
    )


def _bytes(count: int) -> str:
    for unit, size in (("MB", 1_000_000), ("kB", 1_000)):
        if count >= size:
            return f"{count / size:.0f} {unit}"
    return f"{count} B"
