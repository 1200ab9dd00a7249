"""A deployment as a whole: brought up until all of it is healthy, looked at, and taken down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from dlassets.deployment.home import Home
from dlassets.deployment.plan import Options, Plan
from dlassets.deployment.preparation import prepare
from dlassets.deployment.programs import programs
from dlassets.deployment.supervisor import State, Supervisor, end_of, remains, waiting
from dlassets.errors import DlassetsError

# A process that has ended so often before it was well will not be.
_RESTARTS = 3
_POLL_SECONDS = 0.5

Tell = Callable[[str], None]


def up(folder: Path, options: Options, tell: Tell, timeout: float = 300) -> Plan | None:
    """Start all of a deployment, and return its plan once everything is healthy; None where it was up already.

    Raises DlassetsError, with everything stopped again, where a process keeps ending or is not well in `timeout`
    seconds: it names it and shows the end of its log.
    """
    home = Home(folder.expanduser().resolve())
    found = programs()
    supervisor = Supervisor(home, found.supervisor)
    with home.alone():
        if supervisor.is_there:
            return None
        if remains(home):
            tell("What an earlier supervisor left is ended first.")
            supervisor.stop()
        plan = Plan(home, options, found, home.ports(options.services), home.secrets())
        prepare(plan)
        try:
            supervisor.start()
            _await(supervisor, plan, tell, timeout)
        except BaseException:
            tell("Stopping what was started.")
            supervisor.stop()
            raise
        return plan


def down(folder: Path) -> bool:
    """Stop all of a deployment in order; return whether any of it ran. Raises DlassetsError where something is left."""
    home = Home(folder.expanduser().resolve())
    if not home.folder.is_dir():
        raise DlassetsError(f"There is no deployment in {home.folder}: name its folder by --home.")
    supervisor = Supervisor(home, programs().supervisor)
    with home.alone():
        if not supervisor.is_there and not remains(home):
            return False
        supervisor.stop()
        if left := remains(home):
            named = ", ".join(str(process.pid) for process in left)
            raise DlassetsError(f"Processes of {home.folder} do not end: {named}. Look at them, and end them by hand.")
        return True


def states(folder: Path) -> Mapping[str, State]:
    """Return the state of each process of a deployment that is up; nothing of one that is down."""
    home = Home(folder.expanduser().resolve())
    return Supervisor(home, programs().supervisor).states() or {}


def _await(supervisor: Supervisor, plan: Plan, tell: Tell, timeout: float) -> None:
    began = time.monotonic()
    once = [process.name for process in plan.processes if process.is_once]
    left = {process.name for process in plan.processes}
    while left:
        time.sleep(_POLL_SECONDS)
        elapsed = time.monotonic() - began
        found = supervisor.states()
        if found is None:
            if not supervisor.is_there:
                raise DlassetsError(f"The supervisor ended. {end_of(supervisor.log)}")
            found = {}
        for name in _failed(found, once):
            raise DlassetsError(f"{name} does not start. {end_of(plan.home.logs / f'{name}.log')}")
        unwell = set(waiting(found, once)) if found else left
        for name in sorted(left - unwell):
            tell(f"  {name} {'is done' if name in once else 'is healthy'} after {elapsed:.0f} s")
        left &= unwell
        if left and elapsed > timeout:
            name = min(left, key=[process.name for process in plan.processes].index)
            named = ", ".join(sorted(left))
            raise DlassetsError(f"Not healthy in {timeout:.0f} s: {named}. {end_of(plan.home.logs / f'{name}.log')}")


def _failed(found: Mapping[str, State], once: list[str]) -> list[str]:
    return [
        name
        for name, state in found.items()
        if not state.is_ready and not (name in once and state.is_done) and state.restarts >= _RESTARTS
    ]
