"""`python -m dlassets_tests.soak.shared`: processes of `dlassets up` are killed in turn while a loop runs on it.

Each round is a lake, a model and an experiment of its own on one deployment. The loop must end with the tables of an
undisturbed one; or stop with an error that says what to do, and end so when it is run again.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from dlassets.deployment.deployment import states
from dlassets_tests.contents import contents
from dlassets_tests.deployment.shared import FEWEST_PHOTOS, QUIET, Shared, brought_up

_SETTLE_SECONDS = 180
# Of each round its own: requests are known by the model's name, and who answers goes by their order.
_NAMES = ("model_name", "request_id", "batch_id", "annotator")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spark", choices=("none", "cluster", "connect"), default="none")
    parser.add_argument("--only", nargs="*", help="The processes to kill, by name; else all in turn.")
    given = parser.parse_args()
    engine = ("--engine", "local" if given.spark == "none" else "spark")
    with brought_up("--spark", given.spark, *engine) as shared:
        os.environ.update(shared.environment)  # this process looks at the lakes
        began = time.monotonic()
        _loop(shared, "undisturbed")
        seconds, expected = time.monotonic() - began, _kept("undisturbed")
        names = given.only or [name for name, state in states(shared.home).items() if not state.is_done]
        broken = 0
        for number in range(given.kills):
            name = names[number % len(names)]
            at = Random(f"{given.seed} {number}").uniform(0.1, 0.9) * seconds
            problem = _round(shared, f"round-{number}", name, at, expected)
            sys.stdout.write(f"{name} killed after {at:.1f} s: {problem or 'same tables'}\n")
            sys.stdout.flush()
            broken += problem is not None and problem.startswith("BROKEN")
    sys.stdout.write(f"{broken} of {given.kills} kills broke it\n")
    return int(broken > 0)


def _round(shared: Shared, lake: str, name: str, at: float, expected: Mapping[str, Any]) -> str | None:
    """Return what came of it; None where the loop went on as if nothing had been."""
    before = states(shared.home)[name]
    with shared.start("demo", *FEWEST_PHOTOS, **_own(lake)) as loop:
        deadline = time.monotonic() + at
        while loop.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(before.pid, signal.SIGKILL)
        said, _ = loop.communicate()
    if not _is_well_again(shared):
        return "BROKEN: it does not come back"
    stopped = None
    if loop.returncode != 0:
        last = said.strip().splitlines()[-1] if said.strip() else ""
        if "Traceback (most recent call last)" in said and "error: " not in said:
            return f"BROKEN: no clear stop: {said[-2000:]}"
        stopped = f"stopped ({last[:160]}), then the same tables"
        _loop(shared, lake)
    found = _kept(lake)
    different = [table for table in expected if found[table] != expected[table]]
    return f"BROKEN: {', '.join(different)} differ" if different else stopped


def _loop(shared: Shared, lake: str) -> None:
    shared.run("demo", *FEWEST_PHOTOS, **_own(lake))


def _own(lake: str) -> dict[str, str]:
    return QUIET | {
        "DLASSETS_ROOT": f"s3a://dlassets/{lake}",
        "DLASSETS_REGISTRY__MODEL_NAME": f"model {lake}",
        "DLASSETS_MLFLOW__EXPERIMENT": lake,
        # What a version is on blurred photos takes as long as all the rest of its validation.
        "DLASSETS_VALIDATION__SAMPLE": "0",
    }


def _kept(lake: str) -> dict[str, Any]:
    found = contents(f"s3a://dlassets/{lake}", os.environ["DLASSETS_MLFLOW__TRACKING_URI"])
    del found["registry"]
    return {table: _sorted(rows) for table, rows in found.items()}


def _sorted(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted(str({name: value for name, value in row.items() if name not in _NAMES}) for row in rows)


def _is_well_again(shared: Shared) -> bool:
    deadline = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < deadline:
        found = states(shared.home)
        if found and all(state.is_ready or state.is_done for state in found.values()):
            return True
        time.sleep(0.5)
    return False


if __name__ == "__main__":
    sys.exit(main())
