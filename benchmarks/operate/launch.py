"""How long after a run is asked for its first step's code runs, in Dagster as `dlassets dev` has it.

The run takes in an empty landing zone, so that nothing but its start is measured. It is asked for as a browser does.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table as Grid

from benchmarks.bench import Bench
from benchmarks.ingest.landing import running
from benchmarks.processes import clean_environment
from dlassets.errors import DlassetsError
from dlassets.resources.instance import dagster_home
from dlassets.storage.lake import Lake

JOB, LAUNCHES = "ingest_pipeline", 10
GOAL_S = 3.0
_PATIENCE_S, _LOOK_S = 120.0, 0.05
# What a run goes through, by the event of Dagster with which each part ends.
_PARTS = {
    "it leaves the queue": "RUN_STARTING",
    "its process begins it": "RUN_START",
    "its first step's code runs": "STEP_START",
}
_LAUNCH = """
mutation ($job: String!, $location: String!, $repository: String!) {
  launchRun(executionParams: {selector: {
    jobName: $job, repositoryLocationName: $location, repositoryName: $repository}}) {
    __typename ... on LaunchRunSuccess { run { id } } ... on PythonError { message }
  }
}"""
_REPOSITORIES = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
_EVENTS = """
query ($run: ID!) {
  logsForRun(runId: $run) { ... on EventConnection { events { ... on MessageEvent { timestamp eventType } } } }
}"""


@dataclass(frozen=True)
class Launched:
    """Seconds from the request to the end of each part, of each launch after the first."""

    first_s: float
    seconds: dict[str, list[float]]

    def tables(self) -> list[Grid]:
        grid = Grid(
            "until", "median", "longest", "goal",
            title=f"From the request to launch {JOB}, {LAUNCHES} times, code server warm", title_justify="left",
        )  # fmt: skip
        for part, seconds in self.seconds.items():
            goal = f"≤ {GOAL_S:.0f} s" if part == [*_PARTS][-1] else ""
            grid.add_row(part, f"{statistics.median(seconds):.2f} s", f"{max(seconds):.2f} s", goal)
        grid.add_row("the same, of the server's first run", f"{self.first_s:.2f} s", "", "")
        return [grid]


def measure(bench: Bench) -> Launched:
    root = bench.place("launch")
    for zone in ("labeled", "unlabeled"):
        (root / "landing" / zone).mkdir(parents=True)
    with _dagster(root) as (address, alive):
        where = _where(address, alive)
        launches = []
        for number in range(LAUNCHES + 1):
            bench.say(f"launch {number}")
            launches.append(_launched(address, where, alive))
    first, *later = launches
    return Launched([*first.values()][-1], {part: [launch[part] for launch in later] for part in _PARTS})


@contextmanager
def _dagster(root: Path) -> Iterator[tuple[str, Any]]:
    from dlassets.web.ports import HOST, free_ports

    (port,) = free_ports(3000)
    environment = clean_environment(DLASSETS_ROOT=str(root), DAGSTER_HOME=str(dagster_home(Lake.at(str(root)))))
    command = [sys.executable, "-m", "dlassets.web.dagster_dev", "-m", "dlassets.definitions"]
    with running([*command, "--host", HOST, "--port", str(port)], environment, root / "process.log") as alive:
        yield f"http://{HOST}:{port}/graphql", alive


def _where(address: str, alive: Any) -> dict[str, str]:
    """Return where the job is, as soon as the server knows."""
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        alive()
        try:
            (node,) = _ask(address, _REPOSITORIES)["repositoriesOrError"]["nodes"]
        except (OSError, ValueError):
            time.sleep(_LOOK_S)
        else:
            return {"job": JOB, "repository": node["name"], "location": node["location"]["name"]}
    raise DlassetsError(f"Dagster has not answered at {address} within {_PATIENCE_S:.0f} s.")


def _launched(address: str, where: dict[str, str], alive: Any) -> dict[str, float]:
    """Launch a run, wait for its end, and return the seconds to the end of each part."""
    began = time.time()
    result = _ask(address, _LAUNCH, **where)["launchRun"]
    if "run" not in result:
        raise DlassetsError(f"Dagster launched no run: {result}")
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        alive()
        events = _ask(address, _EVENTS, run=result["run"]["id"])["logsForRun"]["events"]
        first = _first(events)
        if "RUN_FAILURE" in first:
            raise DlassetsError("A run failed whose start was measured.")
        if "RUN_SUCCESS" in first:
            return {part: first[kind] - began for part, kind in _PARTS.items()}
        time.sleep(_LOOK_S)
    raise DlassetsError(f"A run has not ended within {_PATIENCE_S:.0f} s.")


def _first(events: list[dict[str, Any]]) -> dict[str, float]:
    """Return the second of the first event of each kind."""
    return {event["eventType"]: int(event["timestamp"]) / 1000 for event in reversed(events) if event}


def _ask(address: str, query: str, **variables: str) -> dict[str, Any]:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        data: dict[str, Any] = json.load(reply)["data"]
    return data
