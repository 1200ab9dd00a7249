"""One process of a deployment as data, and all of them as the supervisor's configuration."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from dlassets.errors import SettingsError
from dlassets.web.ports import HOST

# What a process says is kept as it says it, in so many files of so many MB.
_AS_IT_IS = {
    "disable_json": True,
    "no_metadata": True,
    "no_color": True,
    "flush_each_line": True,
    "fields_order": ["message"],
    "rotation": {"max_size_mb": 10, "max_backups": 3},
}


class Until(StrEnum):
    """What of another process is waited for, in the supervisor's words."""

    HEALTHY = "process_healthy"
    DONE = "process_completed_successfully"
    BEGUN = "process_started"  # so that it is stopped later, and not started later


@dataclass(frozen=True)
class Probe:
    """How it is seen that a process is well: an answer to a request, that something listens, or a command's end."""

    port: int = 0
    path: str = ""
    command: Sequence[str] = ()

    @property
    def rendered(self) -> dict[str, Any]:
        if self.path:
            how: dict[str, Any] = {
                "http_get": {"host": HOST, "scheme": "http", "port": str(self.port), "path": self.path}
            }
        elif self.command:
            how = {"exec": {"command": shlex.join(self.command)}}
        else:
            how = {"exec": {"command": f": < /dev/tcp/{HOST}/{self.port}"}}
        # It is started again once it was not well for two minutes: a busy machine is no reason.
        return {**how, "period_seconds": 1, "timeout_seconds": 10, "failure_threshold": 120}


@dataclass(frozen=True)
class Process:
    """`environment` may hold secrets, and is kept in a file of its own that the supervisor does not read.

    A process without a probe and a log line is one that does something once and ends. `signal` asks it to stop; to its
    children, too, where `whole_group` is True.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    waits_for: Mapping[str, Until] = field(default_factory=dict)
    probe: Probe | None = None
    ready_line: str = ""
    signal: int = 15
    whole_group: bool = False
    grace_seconds: int = 20

    @property
    def is_once(self) -> bool:
        return self.probe is None and not self.ready_line


def rendered(processes: Sequence[Process], environments: Path, logs: Path, folder: Path) -> dict[str, Any]:
    """Return the configuration of process-compose. No secret is in it. Raises SettingsError for an odd path."""
    if "{{" in str(folder):
        raise SettingsError(f"{folder}: the supervisor cannot have {{{{ in a path.")
    return {
        "version": "0.5",
        "is_strict": True,
        "ordered_shutdown": True,
        "disable_env_expansion": True,
        "log_level": "info",
        "processes": {process.name: _rendered(process, environments, logs, folder) for process in processes},
    }


def _rendered(process: Process, environments: Path, logs: Path, folder: Path) -> dict[str, Any]:
    environment = shlex.quote(str(environments / f"{process.name}.env"))
    shown: dict[str, Any] = {
        "command": f". {environment} && exec {shlex.join(map(str, process.command))}",
        "working_dir": str(folder),
        "log_location": str(logs / f"{process.name}.log"),
        "log_configuration": _AS_IT_IS,
        "shutdown": {
            "signal": process.signal,
            "timeout_seconds": process.grace_seconds,
            "parent_only": not process.whole_group,
        },
        "availability": {"restart": "on_failure" if process.is_once else "always", "backoff_seconds": 2},
    }
    if process.is_once:
        shown["availability"]["max_restarts"] = 5
    if process.waits_for:
        shown["depends_on"] = {name: {"condition": str(until)} for name, until in process.waits_for.items()}
    if process.probe is not None:
        shown["readiness_probe"] = process.probe.rendered
    if process.ready_line:
        shown["ready_log_line"] = process.ready_line
    return shown
