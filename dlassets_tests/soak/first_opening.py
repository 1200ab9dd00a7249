"""`python -m dlassets_tests.soak.first_opening`: a lake's stores are killed while they are made, or made by several.

Every round is a lake of its own, whose stores (Dagster's and MLflow's) must be of use to whoever comes next.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from dlassets.resources.instance import dagster_home
from dlassets.settings import Settings
from dlassets.storage.lake import Lake

SIGNALS = (signal.SIGKILL, signal.SIGINT)


def opened(root: Path) -> None:
    """Open both stores, as a first run does."""
    from dagster import DagsterInstance

    from dlassets.registry.store import MlflowStore

    with DagsterInstance.from_config(str(dagster_home(Lake.at(str(root))))):
        pass
    MlflowStore(Settings(root=str(root))).client.search_experiments()


def used(root: Path) -> None:
    """Write to both stores, and read what was written."""
    from dagster import DagsterInstance, DagsterRun

    from dlassets.registry.store import MlflowStore

    with DagsterInstance.from_config(str(dagster_home(Lake.at(str(root))))) as instance:
        instance.add_run(DagsterRun(job_name="job"))
        assert instance.get_runs_count() == 1
    store = MlflowStore(Settings(root=str(root)))
    with store.run() as mlflow:
        mlflow.log_param("a", 1)
    (run,) = store.client.search_runs([store.client.get_experiment_by_name(store.experiment).experiment_id])
    assert run.data.params == {"a": "1"}
    left = [path for path in root.rglob(".new-*") if path.is_dir()]
    assert not left, left


def _import() -> None:
    """Import what every round needs. No store is opened here: a fork must not share a connection with its parent."""
    import dagster  # noqa: F401
    import mlflow  # noqa: F401
    from mlflow.store.tracking import sqlalchemy_store  # noqa: F401


def begun(work: Callable[[Path], None], root: Path) -> int:
    """Begin this in a process of its own; return its id."""
    if pid := os.fork():
        return pid
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 1
    try:
        work(root)
        code = 0
    except KeyboardInterrupt:
        code = 130
    except BaseException:  # noqa: BLE001 - the parent must not go on in two processes
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def survives_a_kill(root: Path, seconds: float, number: signal.Signals) -> bool:
    pid = begun(opened, root)
    time.sleep(seconds)  # where it is then is what the round is about
    os.kill(pid, number)
    ended(pid)
    return ended(begun(used, root)) == 0


def survives_openers(root: Path, openers: int) -> bool:
    pids = [begun(opened, root) for _ in range(openers)]
    codes = [ended(pid) for pid in pids]  # all of them, before another comes
    return not any(codes) and ended(begun(used, root)) == 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dlassets_tests.soak.first_opening", description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--openers", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    chance, folder = Random(options.seed), Path(tempfile.mkdtemp(prefix="dlassets-first-"))
    try:
        assert ended(begun(used, folder / "first")) == 0
        _import()
        began = time.monotonic()
        assert ended(begun(opened, folder / "timed")) == 0
        whole = time.monotonic() - began
        broken_kills = broken_openings = 0
        for turn in range(options.kills):
            root = folder / f"kill-{turn}"
            if not survives_a_kill(root, chance.uniform(0, whole), SIGNALS[turn % len(SIGNALS)]):
                broken_kills += 1
            shutil.rmtree(root, ignore_errors=True)
        for turn in range(options.openers):
            root = folder / f"open-{turn}"
            if not survives_openers(root, chance.randint(2, 4)):
                broken_openings += 1
            shutil.rmtree(root, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    said = f"{broken_kills} of {options.kills} kills, {broken_openings} of {options.openers} openings at once broke it"
    sys.stdout.write(f"{said}\n")
    return int(bool(broken_kills or broken_openings))


if __name__ == "__main__":
    sys.exit(main())
