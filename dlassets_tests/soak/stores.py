"""`python -m dlassets_tests.soak.stores`: a lake's stores are killed while they are made, or made by several.

Every round is a lake of its own, whose stores (Dagster's and MLflow's) must be of use to whoever comes next.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

from dlassets.resources.instance import dagster_home
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.soak.forked import Forked, done

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


def survives_a_kill(root: Path, seconds: float, number: signal.Signals) -> bool:
    process = Forked(opened, root)
    time.sleep(seconds)  # where it is then is what the round is about
    process.send(number)
    process.end()
    return done(used, root).is_well


def survives_openers(root: Path, openers: int) -> bool:
    processes = [Forked(opened, root) for _ in range(openers)]
    ended = [process.end() for process in processes]  # all of them, before another comes
    return all(each.is_well for each in ended) and done(used, root).is_well


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dlassets_tests.soak.stores", description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--openers", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    chance, folder = Random(options.seed), Path(tempfile.mkdtemp(prefix="dlassets-first-"))
    try:
        assert done(used, folder / "first").is_well
        _import()
        began = time.monotonic()
        assert done(opened, folder / "timed").is_well
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
