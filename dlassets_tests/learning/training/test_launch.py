"""Training in this process and in others of this machine: what they tell comes back, and none is left behind."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import pytest

from dlassets.errors import DlassetsError, ProcessFailedError
from dlassets.learning.training import process
from dlassets.learning.training.job import Event
from dlassets.learning.training.launch import Place, checked_output, last_lines, launch, place_of
from dlassets.learning.training.process import Start
from dlassets.settings import ComputeSettings
from dlassets_tests.errors import ERRORS, raising
from dlassets_tests.learning.training import trainings
from dlassets_tests.learning.training.trainings import HEARD, SECONDS, STEPS, is_running, job, pids, wait_until

TWO = Place(2)


def ignore(_: Event) -> None:
    pass


@pytest.mark.parametrize(
    ("place", "remarks"),
    [(Place(), ("1 processes, sum 1, first 0", "[0]")), (TWO, ("2 processes, sum 3, first 0", "[0, 1]"))],
)
def test_one_process_is_this_one_and_two_work_together(tmp_path, place, remarks) -> None:
    assert launch(job(tmp_path), place, ignore, trainings.counting).remarks == remarks


@pytest.mark.slow
def test_what_the_first_process_tells_is_heard_while_it_trains(tmp_path) -> None:
    heard = []

    def hear(event: Event) -> None:
        heard.append(event)
        (tmp_path / HEARD).touch()

    launch(job(tmp_path), TWO, hear, trainings.conversing)

    assert heard == [
        Event("step", 1, 2, {"train_loss": 0.5, "rank": 0}),
        Event("epoch", 1, 1, {"validation_loss": 0.25}),
    ]


@pytest.mark.parametrize(
    "place", [0, *(pytest.param(place, marks=pytest.mark.slow) for place in range(1, len(ERRORS)))]
)
def test_an_error_of_the_user_s_in_any_process_comes_back_as_it_was(tmp_path, place) -> None:
    with raising(ERRORS[place]):
        launch(job(tmp_path, seed=place), TWO, ignore, trainings.refusing)


def test_any_other_error_comes_back_with_the_traceback_of_the_process_that_failed_first(tmp_path) -> None:
    with pytest.raises(ProcessFailedError, match=r"in mistaken\n(.*\n)+KeyError: 'no such thing'"):
        launch(job(tmp_path), TWO, ignore, trainings.mistaken)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_training_goes_on_from_where_it_was_when_one_of_its_processes_is_killed(tmp_path, rank) -> None:
    begun_at = []

    def kill_once(event: Event) -> None:
        begun_at.append(event.metrics["first"])
        if len(set(begun_at)) == 1 and event.number == 3:
            os.kill(int((tmp_path / f"pid-{rank}").read_text()), signal.SIGKILL)

    got = launch(job(tmp_path), TWO, kill_once, trainings.stepping)

    assert len(set(begun_at)) == 2
    assert max(begun_at) >= 3
    assert [int(step) for step in (tmp_path / "steps").read_text().split()] == list(range(STEPS))
    assert got.remarks == (
        "A process of this training ended early once: it was started again, from its last checkpoint if any.",
    )


@pytest.mark.slow
def test_a_training_whose_processes_always_die_ends_with_what_they_said(tmp_path) -> None:
    said = r"(?s)ended early in each of 2 attempts \(training.compute.attempts\).*batch_size.*about to die.*code -6"

    with pytest.raises(DlassetsError, match=said):
        launch(job(tmp_path, compute={"attempts": 2}), TWO, ignore, trainings.dying)


@pytest.mark.slow
def test_a_report_that_raises_ends_all_processes(tmp_path) -> None:
    def refuse(_: Event) -> None:
        wait_until(lambda: len(pids(tmp_path)) == 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(job(tmp_path), TWO, refuse, trainings.endless)

    assert len(pids(tmp_path)) == 2
    assert not any(map(is_running, pids(tmp_path)))


# Started in a shell's background, a process would ignore Ctrl-C.
LAUNCHER = """
import signal, sys
from pathlib import Path
from dlassets.learning.training.launch import Place, launch
from dlassets_tests.learning.training import trainings

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
launch(trainings.job(Path(sys.argv[1])), Place(2), print, trainings.endless)
"""


@pytest.mark.parametrize(
    "number", [*(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGINT, signal.SIGTERM)), signal.SIGKILL]
)
def test_no_process_is_left_when_whoever_launched_it_is_ended(tmp_path, number) -> None:
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, tmp_path], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(pids(tmp_path)) == 2)
        launcher.send_signal(number)
        launcher.wait(SECONDS)
        wait_until(lambda: not any(map(is_running, pids(tmp_path))))
    finally:
        launcher.kill()
        launcher.wait()


@pytest.mark.slow
def test_a_gpu_that_is_asked_for_and_absent_is_said_to_be(tmp_path) -> None:
    import torch

    if torch.cuda.device_count() >= 2:
        pytest.skip("this machine has two GPUs")
    wanting = job(tmp_path, compute={"device": "cuda"})

    with pytest.raises(DlassetsError, match=r"training\.compute\.device is cuda, and torch finds . GPUs here for 2"):
        launch(wanting, TWO, ignore, trainings.counting)


def test_as_many_processes_train_as_the_settings_say_and_several_in_spark_s_tasks_where_it_is_the_engine(
    local_engine,
) -> None:
    from dlassets.engines.spark import SparkEngine

    session: Any = object()
    engine = SparkEngine(lambda: session)

    assert place_of(ComputeSettings(), local_engine) == place_of(ComputeSettings(), engine) == Place()
    assert place_of(ComputeSettings(processes=3), local_engine) == Place(3)
    assert place_of(ComputeSettings(processes=2), engine) == Place(2, session)


# What Spark 4.2 prints, cut short.
FAILED = """Job aborted due to stage failure: Could not recover from a failed barrier ResultStage.
{cause}

\tat org.apache.spark.api.python.BasePythonRunner$ReaderIterator.handlePythonException(PythonRunner.scala:776)
\tat org.apache.spark.scheduler.Task.run(Task.scala:147)
Driver stacktrace:"""


@pytest.mark.parametrize(
    ("cause", "advice"),
    [
        (
            "ModuleNotFoundError: No module named 'dlassets'",
            "Spark's workers have no package dlassets. Install dlassets",
        ),
        ("[SPARK-24819]: Barrier execution mode does not allow", "fewer slots than the 3 .* Lower it"),
    ],
)
def test_what_trying_again_does_not_mend_is_said_at_once(cause, advice) -> None:
    with pytest.raises(DlassetsError, match=advice):
        checked_output(FAILED.format(cause=cause), processes=3)


def test_a_process_that_does_not_see_the_exchange_says_so_at_once(tmp_path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    start = json.dumps(asdict(Start(str(tmp_path), "none:none")))
    ran = subprocess.run(
        [sys.executable, "-m", process.__name__, start], env=environment, capture_output=True, text=True, check=False
    )

    with pytest.raises(DlassetsError, match=r"^A process of this training finds no job\.json in .* to 1\.$"):
        checked_output(FAILED.format(cause=ran.stderr), processes=2)


def test_what_spark_says_of_a_killed_process_is_told_without_the_jvm_s_stack() -> None:
    killed = "exitcode  : -9 (pid: 18470)  (SIGKILL)"

    assert last_lines(checked_output(FAILED.format(cause=killed), processes=2)).splitlines() == [
        "Job aborted due to stage failure: Could not recover from a failed barrier ResultStage.",
        killed,
        "",
        "Driver stacktrace:",
    ]
