"""`dagster dev` with its webserver behind the guard: `python -m dlassets.web.dagster_dev`, with the options of that."""

from __future__ import annotations

from collections.abc import Sequence
from subprocess import Popen
from typing import Any

from dagster._cli import ENV_PREFIX, dev
from dagster_shared.ipc import open_ipc_subprocess

GUARDED = "dlassets.web.dagster_webserver"


def _start_guarded(parts: Sequence[str], **kwargs: Any) -> Popen[Any]:
    return open_ipc_subprocess([GUARDED if part == "dagster_webserver" else part for part in parts], **kwargs)


if __name__ == "__main__":
    # There is no option that would name another webserver.
    dev.open_ipc_subprocess = _start_guarded  # type: ignore[attr-defined]
    dev.dev_command(auto_envvar_prefix=f"{ENV_PREFIX}_DEV")
