"""`dagster dev` with its webserver behind the guard: `python -m dlassets.web.dagster_dev`, with the options of that."""

from __future__ import annotations

from subprocess import Popen
from typing import Any

from dagster._cli import ENV_PREFIX, dev

GUARDED = "dlassets.web.dagster_webserver"

_start = dev.open_ipc_subprocess


def _start_guarded(parts: list[str], **options: Any) -> Popen[Any]:
    return _start([GUARDED if part == "dagster_webserver" else part for part in parts], **options)


if __name__ == "__main__":
    dev.open_ipc_subprocess = _start_guarded  # there is no option that would name another webserver
    dev.dev_command(auto_envvar_prefix=f"{ENV_PREFIX}_DEV")
