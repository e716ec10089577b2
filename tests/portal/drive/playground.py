"""One event of every kind, as a box tells it."""

from __future__ import annotations

from sekisho.telemetry import events as ev
from sekisho.telemetry.events import Event, Flow

MAC = "02:77:00:00:00:10"
FLOW = Flow("192.168.1.10", 50000, "203.0.113.5", 443, "TCP", MAC)
BACK = Flow("203.0.113.5", 80, "192.168.1.10", 50000, "TCP", MAC)


def every_kind(at: str) -> list[Event]:
    """All of them at this time; the important ones have their stars and reasons."""
    return [
        ev.Device(
            at=at, mac=MAC, ipv4=["192.168.1.10"], first_seen=at, last_seen=at, name="DESKTOP-01", kind="computer"
        ),
        ev.Alert(
            at=at, stars=3, why_stars="calls_out", flow=FLOW, sid=2027865, signature="ET MALWARE Beacon", severity=1,
            action="blocked", direction="out", host="bad.example", count=3, until=at,
        ),
        ev.Alert(
            at=at, stars=1, why_stars="rule_broken", flow=FLOW, sid=1, function="url_category", policy="gambling",
            action="blocked", host="bets.example", url="http://bets.example/",
        ),
        ev.Alert(
            at=at, flow=FLOW, sid=1, function="url_category", policy="gambling", exception="x1", host="bets.example"
        ),
        ev.FileVerdict(
            at=at, stars=3, why_stars="file_stopped", flow=BACK, outcome="blocked", rules=["eicar"],
            file_name="eicar.com",
            sha256="ab" * 32, size=68, app="http", url="/eicar.com", host="bad.example", quarantine="q1",
        ),
        ev.FileVerdict(at=at, flow=BACK, outcome="clean", file_name="a.pdf", sha256="cd" * 32, size=9, app="http"),
        ev.Bypass(
            at=at, stars=2, why_stars="inspection_was_off", part="engine", state="ended", reason="restart", seconds=2.5
        ),
        ev.Health(at=at, part="engine", state="started", rules=20000, yara_rules=5000),
        ev.Retro(
            at=at, stars=3, why_stars="file_known_now", sha256="cd" * 32, rules=["late"],
            deliveries=[ev.Delivery(at=at, ip="192.168.1.10", mac=MAC, app="http", file_name="a.pdf")],
        ),
        ev.Coverage(at=at, mac=MAC, hour=at[:13] + ":00:00Z", seconds=3600, inspected=700, opaque=300, unseen=10),
        ev.Web(at=at, flow=FLOW, method="GET", host="www.example", url="http://www.example/", status=200, length=9),
        ev.Tls(at=at, flow=FLOW, sni="www.example", version="TLS 1.3"),
        ev.Dns(at=at, flow=FLOW, name="www.example", rrtype="A"),
        ev.Mail(at=at, flow=FLOW, mail_from="a@example.com", mail_to=["b@example.com"]),
        ev.Vitals(
            at=at, temperature=45.5, disk_free=5 << 30, disk_size=8 << 30, memory_free=300 << 20, memory_size=1 << 30,
            uptime=90_000, version="0.1.0",
        ),
        ev.Signatures(
            at=at, stars=1, why_stars="set_refused", state="refused", number=12, set="0123456789abcdef", rules=20116,
            yara=5883, freshness="fresh", built=at, checked=at, refused=13, sids=[2027865], detail="canary: not caught",
        ),
        ev.Firmware(
            at=at, stars=1, why_stars="restart_waits", state="staged", counter=7, version="1.4.0", tier=3, running=6,
            slot="A", why="customer", expected_s=42.0, deadline=at,
        ),
        ev.Job(
            at=at, stars=1, why_stars="job_failed", id="01JD3Z9V7M2Q4W8X6Y5T3R1P0N", ver=4, state="FAILED",
            kind="sig.update", why="gate:canary", step="testing", pct=60, signers=["tanaka"],
            detail="canary: not caught",
        ),
        ev.Diagnosis(
            at=at, job="01JD3Z9V7M2Q4W8X6Y5T3R1P0N", version="1.4.0", phase="running", rules=10, rules_expected=10,
            ports=[ev.Port(role="wan", link="up", speed=1000, received=5, sent=6)], silent=["inspect"],
        ),
        ev.Gap(at=at, stars=1, why_stars="reports_dropped", first=1, last=2, count=2, why="cap"),
    ]  # fmt: skip
