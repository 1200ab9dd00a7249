"""The page for labelling as `dlassets label` serves it, and people at it in a real browser."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.browser import Person
from dlassets_tests.servers import free_port

# The page tries again within two seconds.
_PATIENCE = 30_000
PHONE: dict[str, Any] = {"viewport": {"width": 375, "height": 667}, "has_touch": True, "is_mobile": True}


@dataclass
class Opened:
    """The page of a lake, served by `dlassets label`, which can be killed and started anew at the same address."""

    settings: Settings
    browser: Any
    port: int
    is_public: bool = False
    process: subprocess.Popen[str] | None = None

    def start(self) -> str:
        """Return the address that the command prints."""
        host = ["--host", "0.0.0.0"] if self.is_public else []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dlassets", "label", "--port", str(self.port), *host],
            env=os.environ | {"DLASSETS_ROOT": self.settings.root},
            stdout=subprocess.PIPE,
            text=True,
        )
        printed = self.process.stdout.readline()
        return printed.removeprefix("Label photos on ").partition(" ")[0]

    def end(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(60)
        self.process.stdout.close()

    def person(self, name: str, address: str, **context: Any) -> Person:
        page = self.browser.new_context(**context or {"viewport": {"width": 1280, "height": 860}}).new_page()
        page.set_default_timeout(_PATIENCE)
        person = Person(page)
        page.on("pageerror", lambda error: person.problems.append(str(error)))
        page.goto(address)
        page.get_by_label("Your name").fill(name)
        page.keyboard.press("Enter")
        sees(person)
        return person

    @property
    def lines(self) -> list[dict[str, Any]]:
        folder = Path(Lake.at(self.settings.root).answers, "page")
        return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]

    @property
    def answers(self) -> list[tuple[str, str | None, str]]:
        return [(line["request_id"], line.get("label"), line["status"]) for line in self.lines]

    def has_answers(self, lines: int) -> list[tuple[str, str | None, str]]:
        """Return the answers once so many are written down: a page goes on before the server has heard of one."""
        deadline = time.monotonic() + _PATIENCE / 1000
        while len(self.lines) < lines and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.answers


def sees(person: Person, path: str = "") -> None:
    """Wait until a photo is shown and can be answered, that of this path where one is named."""
    shown = "document.activeElement?.id === 'accept' && document.querySelector('#photo').naturalWidth > 0"
    person.page.wait_for_function(
        f"path => {shown} && document.querySelector('#path').textContent.includes(path)", arg=path
    )


def progressed(person: Person, text: str) -> None:
    person.page.wait_for_function("text => document.querySelector('#progress').textContent.includes(text)", arg=text)


@contextmanager
def opened_page(settings: Settings, browser: Any, *, is_public: bool = False) -> Iterator[tuple[Opened, str]]:
    """Serve the page of a lake; give that, and the address that is printed."""
    served = Opened(settings, browser, free_port(), is_public)
    address = served.start()
    try:
        yield served, address
    finally:
        served.end()
