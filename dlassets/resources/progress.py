"""How far a long step is: in Dagster's log by default, as bars where someone watches a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dagster import AssetExecutionContext

if TYPE_CHECKING:
    from dlassets.learning.training.job import Event

SECONDS_BETWEEN_LINES = 5.0


class LoggedProgress:
    """Writes a line to the run's log every few seconds."""

    def of(self, context: AssetExecutionContext, what: str) -> Callable[[int, int | None], None]:
        """Return a function to be told how many are done, and of how many where that is known."""
        started = last = time.monotonic()

        def report(done: int, total: int | None = None) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= SECONDS_BETWEEN_LINES or done == total:
                last = now
                rate = done / max(now - started, 1e-9)
                context.log.info(f"{done}{'' if total is None else f' of {total}'} {what}, {rate:.0f} a second")

        return report

    def of_training(self, context: AssetExecutionContext) -> Callable[[Event], None]:
        """Return a function to be told of a training's steps and epochs, with what was measured in each."""
        last = {"step": time.monotonic(), "epoch": 0.0}

        def report(event: Event) -> None:
            now = time.monotonic()
            if now - last[event.kind] >= (SECONDS_BETWEEN_LINES if event.kind == "step" else 1):
                last[event.kind] = now
                measured = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in event.metrics.items())
                context.log.info(f"{event.kind} {event.number} of at most {event.of}: {measured}")

        return report
