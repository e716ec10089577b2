"""The owner in front of the box's page: real Chromium, a phone and a desk, photographs in artifacts/box-page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe
from pagebox import PASSWORD, Box
from playwright.sync_api import Page, sync_playwright

from sekisho.appliance.inventory import Known
from sekisho.telemetry.events import Dns, FileVerdict, Flow

PHOTOGRAPHS = Path(__file__).parents[2] / "artifacts" / "box-page"
AT = "2026-11-21T10:00:00.000000Z"


@contextmanager
def chromium(width: int) -> Iterator[Page]:
    """A fresh browser; the box's certificate is its own, which is what the door explains."""
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        try:
            size = {"width": width, "height": 844}
            context = running.new_context(ignore_https_errors=True, viewport=size, locale="ja-JP")  # type: ignore[arg-type]
            context.set_default_timeout(20_000)
            yield context.new_page()
        finally:
            running.close()


class Owner:
    """What they see is photographed and checked; what went wrong is in `problems`."""

    def __init__(self, page: Page, box: Box, width: int) -> None:
        self.page, self.problems = page, list[str]()
        self._folder, self._number = PHOTOGRAPHS / str(width), 0
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        page.on("console", lambda said: self.problems.append(said.text) if said.type == "error" else None)
        page.on("request", lambda asked: self._from(asked.url, box))

    def _from(self, url: str, box: Box) -> None:
        if not url.startswith((f"{box.origin}/", f"{box.door}/")):
            self.problems.append(f"asked for {url}")

    def look(self, name: str) -> None:
        self._number += 1
        self.page.screenshot(path=self._folder / f"{self._number:02}-{name}.png", full_page=True)
        if self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            self.problems.append(f"{name}: wider than the screen")
        for found in Axe().run(self.page).response["violations"]:
            self.problems.append(f"{name}: {found['id']}: {found['help']}")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("width", [390, 1280])
def test_the_owner_looks_releases_a_file_and_chooses_a_restart(served: Box, width: int) -> None:
    box = served
    box.inspecting()
    known = {f"02:00:00:00:00:0{n}": Known(AT, AT, [f"192.168.1.{n}"], name=f"pc-{n}") for n in range(3)}
    (box.settings.state / "inventory.json").write_bytes(msgspec.json.encode(known))
    flow = Flow("192.168.1.1", 50000, "203.0.113.9", 80, "TCP", "02:00:00:00:00:01")
    box.sent(Dns(at=AT, flow=flow, name="www.example.jp"), FileVerdict(at=AT, flow=flow, outcome="blocked"))
    box.keep(b"quarantined content", file_name="御見積書.exe")
    with chromium(width) as page:
        owner = Owner(page, box, width)
        page.goto(f"{box.door}/")
        owner.look("door")
        page.get_by_role("link", name="装置の画面へ進む").click()
        page.get_by_text("はい。この会社の通信は、いま検査されています。").wait_for()
        owner.look("state")
        page.get_by_role("link", name="ログイン").click()
        owner.look("sign-in")
        page.get_by_label("パスワード").fill(PASSWORD)
        page.get_by_role("button", name="ログイン").click()
        page.get_by_role("link", name="端末").click()
        page.get_by_text("pc-2").wait_for()
        owner.look("devices")
        page.get_by_role("link", name="隔離").click()
        owner.look("quarantine")
        page.get_by_role("link", name="御見積書.exe").click()
        owner.look("file")
        page.get_by_label("取り出す理由(必ず)").fill("取引先に確かめました")
        page.get_by_label("危険を承知のうえで取り出します").check()
        page.get_by_role("button", name="取り出す").click()
        page.get_by_text("取り出しました。下から保存できます。").wait_for()
        owner.look("released")
        with page.expect_download() as saving:
            page.get_by_role("link", name="ファイルを保存する").click()
        assert saving.value.suggested_filename == "御見積書.exe.quarantined"
        assert Path(saving.value.path()).read_bytes() == b"quarantined content"
        page.get_by_role("link", name="送信の記録").click()
        page.get_by_text("名前の問い合わせ").click()
        page.get_by_text('"name":"www.example.jp"').wait_for()
        owner.look("sent")
        page.get_by_role("link", name="送ることがある項目の一覧").click()
        owner.look("fields")
        page.get_by_role("link", name="設定と再起動").click()
        page.get_by_label("時刻(つぎに来るこの時刻)").fill("02:30")
        page.get_by_role("button", name="この時刻に再起動する").click()
        page.get_by_text("02:30 に再起動する予定です。").wait_for()
        owner.look("planned")
        page.get_by_role("button", name="いまは再起動しない").click()
        page.get_by_text("再起動の予定はありません。").wait_for()
        page.get_by_role("button", name="English").click()
        page.get_by_role("heading", name="Settings and restart").wait_for()
        owner.look("english")
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("link", name="Sign in").wait_for()
    assert owner.problems == []
    assert box.office.restarts.kept.plan is None and [h.state for h in box.reported] == ["released"]
