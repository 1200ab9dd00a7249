"""Lanes: which tests run, in which process, in which order, until when, and what they took against their budget.

`make test` runs the fast lane, `make test-all` every test, `make test-slow` those marked `slow`, in turns.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from dlassets.storage.files import write_whole

# Seconds on two cores: of the fast lane as a whole, and of one test of it. Nothing fails for being over them.
BUDGET, BUDGET_OF_A_TEST = 600, 5
SLOWEST_FILES = 10
OUT_OF_TIME = "no time left for it in this turn"
SPARK = "spark"
# Files that take long for the number of their tests. Begun last, as xdist would, each leaves the other process idle.
LONG = (
    "dlassets_tests/test_pipelines.py",
    "dlassets_tests/demo/test_demo.py",
    "dlassets_tests/learning/training/test_pixel_training.py",
    "dlassets_tests/defs/test_operations.py",
    "dlassets_tests/learning/training/test_launch.py",
    "dlassets_tests/pipeline/test_reproduce.py",
    "dlassets_tests/labeling/test_label_studio.py",
    "dlassets_tests/learning/training/test_head_training.py",
    "dlassets_tests/tuning/test_study.py",
    "dlassets_tests/tuning/test_automl.py",
    "dlassets_tests/alerts/test_outbox.py",
    "dlassets_tests/defs/test_tuning.py",
    "dlassets_tests/registry/test_tracking.py",
    "dlassets_tests/pipeline/test_earlier_lake.py",
)

_BEGAN, _DEADLINE = pytest.StashKey[float](), pytest.StashKey[float]()
# A file in which the processes of a run say which tests take a Spark session.
_ON_SPARK = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lanes")
    group.addoption("--lane", choices=("fast", "slow", "all"), default="all", help="Tests not marked slow, or those.")
    group.addoption("--turn", metavar="TEXT", help="Begin in the middle, elsewhere for another text; then go round.")
    group.addoption("--until", type=float, metavar="SECONDS", help="Start no test later than so long after the start.")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    options, beside = config.option, getattr(config, "workerinput", {})
    config.stash[_BEGAN] = time.time()
    if options.until is not None:
        config.stash[_DEADLINE] = beside.get("deadline", config.stash[_BEGAN] + options.until)
    options.loadscopereorder = False  # they come in the order in which they are to be begun
    if getattr(options, "numprocesses", None):
        config.stash[_ON_SPARK] = Path(tempfile.mkdtemp(prefix="dlassets-tests-")) / "on-spark.json"
        # Read when numpy or torch is imported. Threads for every core, in each process, would wait for each other.
        for library in ("OMP", "OPENBLAS", "MKL"):
            os.environ.setdefault(f"{library}_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process beside this one, which starts later, when to stop, and where to say which tests are on Spark."""
    if _DEADLINE in node.config.stash:
        node.workerinput["deadline"] = node.config.stash[_DEADLINE]
    node.workerinput["on_spark"] = str(node.config.stash[_ON_SPARK])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lane, turn = config.option.lane, config.option.turn
    chosen = [item for item in items if lane in ("all", lane_of(item))]
    if hasattr(config, "workerinput") and not turn:
        chosen = _longest_first(chosen)
    config.hook.pytest_deselected(items=[item for item in items if lane not in ("all", lane_of(item))])
    first = place_of(turn, len(chosen)) if turn and chosen else 0
    items[:] = chosen[first:] + chosen[:first]


@pytest.hookimpl(tryfirst=True)  # before the other end is told that this process is ready
def pytest_collection_finish(session: pytest.Session) -> None:
    if file := getattr(session.config, "workerinput", {}).get("on_spark"):
        on_spark = [item.nodeid for item in session.items if item.get_closest_marker(SPARK)]
        write_whole(file, json.dumps(on_spark))  # the same in each process, and read once all have written it


def _longest_first(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests by what one process runs of them: all of Spark, then files that take long, then by their number.

    What takes long is begun while there is more to do, and files of few quick tests fill up the end.
    """
    scopes = defaultdict[str, list[pytest.Item]](list)
    for item in items:
        scopes[_scope(item.nodeid, item.get_closest_marker(SPARK) is not None)].append(item)
    places = {scope: place for place, scope in enumerate((SPARK, *LONG))}
    ordered = sorted(scopes, key=lambda scope: (places.get(scope, len(places)), -len(scopes[scope])))
    return [item for scope in ordered for item in scopes[scope]]


def _scope(test: str, is_on_spark: bool) -> str:
    return SPARK if is_on_spark else test.partition("::")[0]


def lane_of(item: pytest.Item) -> str:
    """Return a test's lane: what is done on both engines is done on Spark in the slow one, but for the contract."""
    parameters = getattr(item, "callspec", None)
    repeated = parameters is not None and parameters.params.get("engine") == SPARK
    is_slow = item.get_closest_marker("slow") or (repeated and not item.get_closest_marker("contract"))
    return "slow" if is_slow else "fast"


def place_of(turn: str, tests: int) -> int:
    """Return where a turn begins: digests are spread evenly, so in some turns every test has been reached."""
    return zlib.crc32(turn.encode()) % tests


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep a file's tests, whose fixtures are made once, in one process, and in one all that take a Spark session."""
    from xdist.scheduler import LoadScopeScheduling

    class OneSession(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        @cached_property
        def on_spark(self) -> frozenset[str]:
            return frozenset(json.loads(config.stash[_ON_SPARK].read_text()))

        def _split_scope(self, nodeid: str) -> str:
            return _scope(nodeid, nodeid in self.on_spark)

    return OneSession(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.time() > item.config.stash.get(_DEADLINE, math.inf):
        pytest.skip(OUT_OF_TIME)


def pytest_unconfigure(config: pytest.Config) -> None:
    if _ON_SPARK in config.stash:
        shutil.rmtree(config.stash[_ON_SPARK].parent)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    reports = [
        report
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport)
    ]
    if not reports:
        return
    waiting = {report.nodeid for report in reports if report.skipped and OUT_OF_TIME in str(report.longrepr)}
    tests, files = defaultdict[str, float](float), defaultdict[str, float](float)
    for report in reports:
        tests[report.nodeid] += report.duration
        files[report.nodeid.partition("::")[0]] += report.duration
    lane = config.option.lane
    took = time.time() - config.stash[_BEGAN]
    write = terminalreporter.write_line
    terminalreporter.section(f"{lane} lane" if lane != "all" else "all lanes")
    write(f"{took:.0f} s" + (f" of a budget of {BUDGET} s" if lane == "fast" else ""))
    for file, seconds in _longest(files)[:SLOWEST_FILES]:
        write(f"{seconds:6.1f} s in {file}")
    if lane == "fast":
        over = [(test, seconds) for test, seconds in _longest(tests) if seconds > BUDGET_OF_A_TEST]
        write(f"{len(over)} tests are over the {BUDGET_OF_A_TEST} s that one may take:")
        for test, seconds in over:
            write(f"{seconds:6.1f} s {test}")
    if config.option.until is not None:
        ran = sorted(set(tests) - waiting)
        write(f"{len(ran)} ran in this turn, {len(waiting)} wait for theirs:")
        for test in ran:
            write(f"         {test}")


def _longest(seconds: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(seconds.items(), key=lambda item: -item[1])
