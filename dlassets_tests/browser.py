"""Debian's Chromium, driven by Playwright: what a person does with a page, click by click."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
# Nothing of it asks another machine for anything.
OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-proxy-server",
)  # fmt: skip


@contextmanager
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield browser
        browser.close()


@dataclass
class Person:
    """Someone at a page, whose clicks are counted; `problems` are what the browser complained of meanwhile."""

    page: Page
    clicks: int = 0
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda message: self._note(message.type == "error", message.text))
        self.page.on("response", lambda answer: self._note(answer.status >= 400, f"{answer.status} of {answer.url}"))

    def click(self, name: str | Any, role: Any = "link") -> None:
        """Click the first link (or button) of this name, and wait for what it opens."""
        self.page.get_by_role(role, name=name).first.click()
        self.page.wait_for_load_state()
        self.clicks += 1

    def reads(self, text: str) -> bool:
        """Whether a text is on the page, in whatever elements."""
        return text in " ".join(self.page.inner_text("body").split())

    def _note(self, is_problem: bool, text: str) -> None:
        if is_problem:
            self.problems.append(text)
