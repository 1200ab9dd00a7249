"""A run whose process was killed is ended by whoever comes next, and no other is."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import dagster as dg
import pytest

from dlassets.resources.dead_runs import PROCESS_TAG, claim, end_dead_runs
from dlassets.resources.session import session_resource
from dlassets.settings import Settings

KILLED = """
import os, signal, sys
import dagster as dg
from dlassets.resources.session import session_resource
from dlassets.settings import Settings

@dg.op(required_resource_keys={"session"})
def dies(context):
    os.kill(os.getpid(), signal.SIGKILL)

@dg.job(resource_defs={"session": session_resource(Settings(root=sys.argv[1]))}, executor_def=dg.in_process_executor)
def pipeline():
    dies()

with dg.DagsterInstance.local_temp(sys.argv[2]) as instance:
    pipeline.execute_in_process(instance=instance)
"""


@pytest.fixture
def instance(tmp_path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        yield instance


def test_the_next_run_ends_one_whose_process_was_killed_and_says_so(tmp_path, instance) -> None:
    root = str(tmp_path / "lake")
    killed = subprocess.run([sys.executable, "-c", KILLED, root, tmp_path / "dagster"], check=False)
    assert killed.returncode == -9
    (dead,) = instance.get_runs()
    assert dead.status is dg.DagsterRunStatus.STARTED

    @dg.op(required_resource_keys={"session"})
    def lives() -> None:
        pass

    @dg.job(resource_defs={"session": session_resource(Settings(root=root))}, executor_def=dg.in_process_executor)
    def pipeline() -> None:
        lives()

    result = pipeline.execute_in_process(instance=instance)
    assert result.success

    assert instance.get_run_by_id(dead.run_id).status is dg.DagsterRunStatus.FAILURE
    said = [event.user_message for event in instance.all_logs(result.run_id)]
    assert any(message.startswith(f"Run {dead.run_id} of pipeline is ended. Its process") for message in said)


@pytest.mark.parametrize(
    ("tag", "status", "then"),
    [
        ("this", "STARTED", "STARTED"),
        ("gone", "STARTED", "FAILURE"),
        ("gone", "CANCELING", "CANCELED"),
        ("elsewhere 1 1.5", "STARTED", "STARTED"),
        (None, "STARTED", "STARTED"),
    ],
)
def test_only_a_run_that_goes_on_of_a_process_of_this_machine_that_is_gone_is_ended(
    instance, tag, status, then
) -> None:
    gone = f"{socket.gethostname()} {os.getpid()} 1.5"
    run = dg.DagsterRun("pipeline", status=dg.DagsterRunStatus[status])
    instance.add_run(run)
    if tag == "this":
        claim(instance, run.run_id)
    elif tag:
        instance.add_run_tags(run.run_id, {PROCESS_TAG: gone if tag == "gone" else tag})

    assert bool(end_dead_runs(instance)) == (status != then)
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus[then]
