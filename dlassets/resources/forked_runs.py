"""Runs of Dagster that are forked from a process in which what they need is imported, instead of each importing it.

A code server starts a process for each run, which takes seconds to import Dagster, the definitions and MLflow. Here it
is forked from Python's fork server, a process beside the code server that does nothing else. All else is as Dagster has
it: a run is a process of its own, whose end is noticed and which is cancelled in the same way. The definitions
themselves are made anew in each run, so that it has the settings as they stand when it begins.
"""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import sys
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

# What runs import where they need it. Not torch and OpenVINO, which take hundreds of MB or start threads: of a process
# that is forked none may hold a lock.
FOR_STEPS = (
    "dagster._core.definitions.freshness_evaluator",
    "dagster._core.executor.in_process",
    "dagster._core.instance.factory",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.sqlite_storage",
    "dagster._grpc.impl",
    "dagster_deltalake",
    "duckdb",
    "jinja2",
    "mlflow",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.tracing.processor.base_mlflow",
    "pandas",
    "pyarrow.dataset",
    "scipy.sparse.csgraph",
    "simplejpeg",
    "upath",
    "dlassets.engines.local",
    "dlassets.images.data_uri",
    "dlassets.intake.damage",
    "dlassets.intake.ingest",
    "dlassets.labeling.closing",
    "dlassets.labeling.folder",
    "dlassets.labeling.requests",
    "dlassets.labeling.selection.choice",
    "dlassets.lakehouse.derived",
    "dlassets.lakehouse.listed_labels",
    "dlassets.lakehouse.profiles",
    "dlassets.lakehouse.split_groups",
    "dlassets.learning.features",
    "dlassets.monitoring.gallery",
    "dlassets.monitoring.markdown",
    "dlassets.monitoring.outcomes",
    "dlassets.registry.model_registry",
    "dlassets.resources.mlflow",
    "dlassets.scoring.batch",
    "dlassets.scoring.current",
    "dlassets.scoring.served",
)
# It reads the settings, which each run does itself.
DEFINITIONS = "dlassets.definitions"
# The command of every code server, however it is started.
_CODE_SERVER = ["api", "grpc"]


def fork_runs() -> None:
    """Have the code server that loads the definitions, if this process is one, fork its runs, on Linux.

    Dagster has no setting for how it starts them. The fork server is started at once: a daemon that loads the code
    itself has a new code server every minute, and may want a run of it as soon.
    """
    is_code_server = sys.argv[1:3] == _CODE_SERVER and multiprocessing.parent_process() is None
    if not is_code_server or sys.platform != "linux":  # elsewhere the system's own libraries are not made for it
        return
    from dagster._grpc.server import DagsterApiServer

    forked, start = _context(), DagsterApiServer.StartRun
    forkserver.ensure_running()

    @functools.wraps(start)
    def start_forked(code_server: Any, *request: Any) -> Any:
        code_server._mp_ctx = forked  # noqa: SLF001 - as above
        return start(code_server, *request)

    DagsterApiServer.StartRun = start_forked  # type: ignore[assignment, method-assign]


class _Run(ForkServerProcess):
    """A run's process, which ends as one does that Python has started: with what is to be done at its exit."""

    def run(self) -> None:
        import numpy as np

        np.random.seed()  # noqa: NPY002 - or the numbers of all runs would be the same
        try:
            super().run()
        finally:
            atexit._run_exitfuncs()  # noqa: SLF001 - which a fork server leaves out


class _Context(ForkServerContext):
    Process = _Run


def _context() -> _Context:
    loaded = sorted(name for name in sys.modules if name.startswith("dlassets.") and name != DEFINITIONS)
    multiprocessing.set_forkserver_preload([*loaded, *FOR_STEPS])
    return _Context()
