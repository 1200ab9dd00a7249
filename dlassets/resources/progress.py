"""How far a step is, in Dagster's log: the resource `progress`, in whose place a terminal puts its bars."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dagster import AssetExecutionContext

from dlassets.pipeline.report import Report

if TYPE_CHECKING:
    from dlassets.learning.training.job import Event

SECONDS_BETWEEN_LINES = 5.0


class LoggedProgress:
    def of(self, context: AssetExecutionContext) -> Report:
        """Return the report of one step."""
        return LoggedReport(context)


class LoggedReport(Report):
    """Writes a line to the run's log every few seconds."""

    def __init__(self, context: AssetExecutionContext) -> None:
        self._log = context.log
        self._started = time.monotonic()
        self._last = {"epoch": 0.0}

    def count(self, what: str, done: int, total: int | None) -> None:
        if self._is_due(what, SECONDS_BETWEEN_LINES) or done == total:
            rate = done / max(time.monotonic() - self._started, 1e-9)
            self._log.info(f"{done}{'' if total is None else f' of {total}'} {what}, {rate:.0f} a second")

    def event(self, event: Event) -> None:
        if self._is_due(event.kind, SECONDS_BETWEEN_LINES if event.kind == "step" else 1):
            measured = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in event.metrics.items())
            self._log.info(f"{event.kind} {event.number} of at most {event.of}: {measured}")

    def info(self, message: str) -> None:
        self._log.info(message)

    def warning(self, message: str) -> None:
        self._log.warning(message)

    def _is_due(self, kind: str, seconds: float) -> bool:
        now = time.monotonic()
        if now - self._last.get(kind, self._started) < seconds:
            return False
        self._last[kind] = now
        return True
