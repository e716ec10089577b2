"""A person at a browser: real Chromium of one width, its pages photographed and checked for accessibility.

Photographs go to artifacts/journey/WIDTH/NN-name.png, to be looked at.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

WIDTHS: Final = (390, 1280)
ARTIFACTS: Final = Path(__file__).parents[3] / "artifacts" / "journey"
CHROMIUM: Final = "/usr/bin/chromium"
GRAVE: Final = ("serious", "critical")
PATIENCE_MS: Final = 15_000


class Person:
    """Somebody at a screen of this width; `page` is what they look at."""

    def __init__(self, page: Page, width: int) -> None:
        self.page = page
        self.problems: list[str] = []
        """What axe-core holds for serious, and what the browser's console complained about."""
        self._folder = ARTIFACTS / str(width)
        self._number = 0
        shutil.rmtree(self._folder, ignore_errors=True)
        page.on("console", lambda said: self.problems.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda err: self.problems.append(str(err)))

    def look(self, name: str, page: Page | None = None) -> None:
        """Photograph the page whole, and have it checked."""
        looked = page or self.page
        self._number += 1
        self._folder.mkdir(parents=True, exist_ok=True)
        looked.screenshot(path=self._folder / f"{self._number:02}-{name}.png", full_page=True)
        wide = looked.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if wide > 0:
            self.problems.append(f"{name}: the page is {wide} px wider than the screen")
        for found in Axe().run(looked).response["violations"]:
            if found["impact"] in GRAVE:
                where = ", ".join(node["target"][0] for node in found["nodes"][:3])
                self.problems.append(f"{name}: {found['id']} ({where}): {found['help']}")


@contextmanager
def browser(width: int, *, inside: Sequence[str] = (), folder: Path) -> Iterator[Page]:
    """Chromium with one fresh page; `inside` is the command that leads into the network it browses from."""
    program = CHROMIUM
    if inside:
        wrapper = folder / "chromium"
        wrapper.write_text(f'#!/bin/sh\nexec {" ".join(inside)} {CHROMIUM} "$@"\n')
        wrapper.chmod(0o700)
        program = str(wrapper)
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        try:
            context = running.new_context(
                ignore_https_errors=True,  # the lab's authority is nobody's outside
                viewport={"width": width, "height": 844 if width < 600 else 900},
                locale="ja-JP",
                timezone_id="Asia/Tokyo",
                accept_downloads=True,
            )
            context.set_default_timeout(PATIENCE_MS)
            yield context.new_page()
        finally:
            running.close()
