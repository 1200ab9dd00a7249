"""Where a step says how far it is and what a person should know of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlassets.engines.base import Progress
    from dlassets.learning.training.job import Event


class Report:
    """Keeps everything to itself. Who shows it, in a log or as bars, overrides what it can show."""

    def progress(self, what: str) -> Progress:
        """Return what is to be called with how many of something are done, and of how many where that is known."""
        return lambda done, total: self.count(what, done, total)

    def count(self, what: str, done: int, total: int | None) -> None:
        """Show how many of something are done."""

    def event(self, event: Event) -> None:
        """Show a training's step or epoch, with what was measured in it."""

    def info(self, message: str) -> None:
        """Show a message for people."""

    def warning(self, message: str) -> None:
        """Show what a person should look at."""
