"""Memory of the box's processes after the other measurements have warmed them up."""

from __future__ import annotations

from sekisho.bench.arms import Arms
from sekisho.bench.figures import Figure
from sekisho.bench.processes import rss_mb

BOX = ("appliance", "inspect", "telemetry", "portal_agent")


def memory(arms: Arms) -> list[Figure]:
    """Python of the box together, children included; Suricata, ours and packaged, for comparison."""
    ours, theirs = rss_mb(arms.product), rss_mb(arms.packaged)
    python = sum(ours.get(room, 0.0) for room in BOX)
    detail = {f"{room} MB": ours.get(room, 0.0) for room in (*BOX, "center")}
    suricata = {"packaged MB": theirs.get("suricata", 0.0)}
    return [
        Figure("python", "all Python processes of the box, resident", python, "MB", 250, "at most", detail),
        Figure("suricata", "Suricata, resident", ours.get("suricata", 0.0), "MB", 0, "report", suricata),
    ]
