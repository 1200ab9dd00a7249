"""What is shown while a pipeline runs in the foreground: the stage, the step, how far it is, and how long it takes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster_shared.error import SerializableErrorInfo
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dlassets.errors import printed_error
from dlassets.pipeline.report import Report

if TYPE_CHECKING:
    from dlassets.learning.training.job import Event


class Display:
    """One line a finished step; below them, on a terminal, a bar of the step that runs.

    It stands in for the resource `progress` and for the console logger, so it hears of every step and every count.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.elapsed: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self._counts: dict[str, str] = {}
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bar = self._bars.add_task("", visible=False, count="")

    @contextmanager
    def stage(self, number: int, of: int, title: str) -> Iterator[None]:
        """Head a stage; its time goes into the summary."""
        self.console.print(f"[bold]{number}/{of} {title}[/bold]")
        started = time.monotonic()
        with self._bars:
            yield
        self.elapsed[title] = time.monotonic() - started
        self.console.print(f"    [dim]{self.elapsed[title]:.1f} s[/dim]")

    def print(self, text: str) -> None:
        self.console.print(f"    {text}", highlight=False)

    def warn(self, text: str) -> None:
        # As it stands: brackets are no markup in it, and a command in it is to be copied.
        self.console.print(f"    {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)

    def of(self, context: dg.AssetExecutionContext) -> Report:
        """The resource's method: return the report of one step."""
        return _StepReport(self, context.op_execution_context.op_handle.name)

    def count(self, step: str, what: str, done: int, total: int | None) -> None:
        self._counts[step] = count = f"{done:,}{f' of {total:,}' if total else ''} {what}"
        self._bars.update(self._bar, completed=done, total=total, count=count)

    @property
    def logger(self) -> dg.LoggerDefinition:
        """A console logger that turns a run's events into lines, and shows warnings and errors of the pipeline."""

        class Handler(logging.Handler):
            def emit(handler, record: logging.LogRecord) -> None:  # noqa: N805 - self is the display
                meta: dict[str, Any] = getattr(record, "dagster_meta", {}) or {}
                if (event := meta.get("dagster_event")) is not None:
                    self._on_event(event)

        @dg.logger
        def display_logger(context: dg.InitLoggerContext) -> logging.Logger:  # noqa: ARG001 - Dagster's signature
            log = logging.getLogger("dlassets.display")
            log.setLevel(logging.DEBUG)
            log.propagate = False
            log.handlers.clear()
            log.addHandler(Handler())
            return log

        return display_logger

    def _on_event(self, event: dg.DagsterEvent) -> None:
        step = event.step_key or ""
        if event.event_type == dg.DagsterEventType.STEP_START:
            self._started[step] = time.monotonic()
            self._bars.update(self._bar, description=f"    {step}", completed=0, total=None, count="", visible=True)
        elif event.event_type in {dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE}:
            self._bars.update(self._bar, visible=False)
            if event.event_type == dg.DagsterEventType.STEP_FAILURE or not step.endswith("checks"):
                took = time.monotonic() - self._started.get(step, time.monotonic())
                mark = "[green]✓[/green]" if event.event_type == dg.DagsterEventType.STEP_SUCCESS else "[red]✗[/red]"
                count = self._counts.pop(step, "")
                self.console.print(f"  {mark} {step:<22} {took:6.1f} s  {count}", highlight=False)


class _StepReport(Report):
    def __init__(self, display: Display, step: str) -> None:
        self._display = display
        self._step = step

    def count(self, what: str, done: int, total: int | None) -> None:
        self._display.count(self._step, what, done, total)

    def event(self, event: Event) -> None:
        self.count(f"{event.kind}s", event.number, event.of if event.kind == "step" else None)

    def info(self, message: str) -> None:
        self._display.print(message)

    def warning(self, message: str) -> None:
        self._display.warn(message)


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """Return what the failed checks and steps said."""
    messages = [
        f"{check.asset_key.to_user_string()}: the check {check.check_name} did not pass: {check.description}"
        for check in result.get_asset_check_evaluations()
        if check.blocking and not check.passed
    ]
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            error = event.step_failure_data.error
            if error is not None and error.cls_name != "DagsterAssetCheckFailedError":
                messages.append(f"{event.step_key}: {_message(error)}")
    return "\n".join(messages) or "The run failed before its first step; Dagster's UI shows its log."


def _message(error: SerializableErrorInfo) -> str:
    """Return the message for people that an error was caused by, else what its root says."""
    while (ours := printed_error(error.message)) is None and error.cause is not None:
        error = error.cause
    return str(ours or error.message.strip())
