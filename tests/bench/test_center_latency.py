"""An alert of a real box reaches the disk and the mail server in time, beside boxes that report; scaled down."""

from __future__ import annotations

from pathlib import Path

from sekisho.bench import center_latency
from sekisho.bench.center_stand import standing


def test_an_alert_is_stored_and_mailed_in_time_beside_fifty_boxes(tmp_path: Path) -> None:
    with standing(tmp_path) as stand:
        stand.start_broker(50, workers=1)
        stand.start_worker(1)
        stand.start_box()
        assert stand.start_fleet(50).connected == 50
        stored = center_latency.stored(stand, 50, alerts=30)
        mailed = center_latency.mailed(stand, 50, mails=5)
    assert (stored.detail["alerts"], stored.detail["alerts that did not come in time"]) == (30, 0)
    assert (mailed.detail["mails"], mailed.detail["mails that did not come in time"]) == (5, 0)
    assert stored.detail["ms p50"] <= center_latency.STORED_MS, stored  # its p99 is the bench's
    assert mailed.held, mailed
