"""A person at a browser: real Chromium of one width, its pages photographed and checked for accessibility.

Photographs go to artifacts/NAME/WIDTH/NN-name.png, to be looked at.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

WIDTHS: Final = (390, 1280)
ARTIFACTS: Final = Path(__file__).parents[3] / "artifacts"
CHROMIUM: Final = "/usr/bin/chromium"
GRAVE: Final = ("serious", "critical")
PATIENCE_MS: Final = 15_000


class Critic:
    """Photographs every page it is shown, and gathers what is wrong with it."""

    def __init__(self, album: str) -> None:
        """`album` is the folder of the photographs, below artifacts."""
        self.problems: list[str] = []
        """What axe-core holds for serious, what the console complained about, what does not fit the screen."""
        self._folder = ARTIFACTS / album
        self._number = 0
        shutil.rmtree(self._folder, ignore_errors=True)

    def listen(self, page: Page) -> None:
        """Note what the browser complains about from now on."""
        page.on("console", lambda said: self.problems.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda err: self.problems.append(str(err)))

    def look(self, name: str, looked: Page) -> None:
        """Photograph the page whole, and have it checked."""
        self._number += 1
        self._folder.mkdir(parents=True, exist_ok=True)
        looked.screenshot(path=self._folder / f"{self._number:02}-{name}.png", full_page=True)
        self.measure(name, looked)
        for found in Axe().run(looked, options={"resultTypes": ["violations"]}).response["violations"]:
            if found["impact"] in GRAVE:
                where = ", ".join(node["target"][0] for node in found["nodes"][:3])
                self.problems.append(f"{name}: {found['id']} ({where}): {found['help']}")

    def measure(self, name: str, looked: Page) -> None:
        """See that the page is no wider than the screen."""
        wide = looked.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if wide > 0:
            self.problems.append(f"{name}: the page is {wide} px wider than the screen")


class Screen:
    """Chromium, of one width, browsing from here or from inside another network."""

    def __init__(self, driver: Playwright, width: int, folder: Path) -> None:
        self._driver, self.width, self._folder = driver, width, folder
        self._running: list[Browser] = []

    def open(self, *, inside: Sequence[str] = (), dark: bool = False, locale: str = "ja-JP") -> Page:
        """A browser of its own with one fresh page; `inside` is the command that leads into another network."""
        program = CHROMIUM
        if inside:
            wrapper = self._folder / f"chromium-{len(self._running)}"
            wrapper.write_text(f'#!/bin/sh\nexec {" ".join(inside)} {CHROMIUM} "$@"\n')
            wrapper.chmod(0o700)
            program = str(wrapper)
        # A test's authority is nobody's outside; a page's own permission to go on does not reach what it saves.
        flags = ["--no-sandbox", "--disable-gpu", "--ignore-certificate-errors"]
        running = self._driver.chromium.launch(executable_path=program, args=flags)
        self._running.append(running)
        context = running.new_context(
            viewport={"width": self.width, "height": 844 if self.width < 600 else 900},
            color_scheme="dark" if dark else "light",
            locale=locale,
            timezone_id="Asia/Tokyo",
            accept_downloads=True,
        )
        context.set_default_timeout(PATIENCE_MS)
        return context.new_page()

    def photograph(self, name: str) -> None:
        """What every page shows now."""
        for number, running in enumerate(self._running):
            for page in running.contexts[0].pages:
                page.screenshot(path=ARTIFACTS / f"{name}-{self.width}-{number}.png", full_page=True)

    def close(self) -> None:
        for running in self._running:
            running.close()


@contextmanager
def screen(width: int, folder: Path) -> Iterator[Screen]:
    """Browsers of this width, all closed at the end."""
    with sync_playwright() as driver:
        made = Screen(driver, width, folder)
        try:
            yield made
        except BaseException:
            made.photograph("failed")
            raise
        finally:
            made.close()
