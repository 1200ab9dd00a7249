"""How a code server starts runs: a real one, asked as a daemon asks it."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.remote_representation.code_location import CodeLocation
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget

from dlassets.engines.process_identity import ProcessIdentity
from dlassets.resources.dead_runs import PROCESS_TAG, end_dead_runs
from dlassets.resources.instance import dagster_home
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.pipelines import Pipelines, values

pytestmark = pytest.mark.slow
JOB, ZONES = "ingest_pipeline", ("labeled", "unlabeled")
FORKS = "multiprocessing.forkserver"


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipelines]:
    """A lake with empty zones, and an instance on disk, as another process needs it."""
    root = tmp_path_factory.mktemp("lake")
    for zone in ZONES:
        (root / "landing" / zone).mkdir(parents=True)
    with dg.DagsterInstance.from_config(str(dagster_home(Lake.at(str(root))))) as instance:
        yield Pipelines(Settings(root=str(root)), instance)


@pytest.fixture(scope="module")
def profile(pipelines: Pipelines) -> Path:
    """The file of settings that the code server is given."""
    file = Path(pipelines.settings.root, "profile.yaml")
    file.write_text(f"root: {pipelines.settings.root}\n")
    return file


@pytest.fixture(scope="module")
def code_server(pipelines: Pipelines, profile: Path) -> Iterator[WorkspaceProcessContext]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DLASSETS_PROFILE", str(profile))
        target = ModuleTarget("dlassets.definitions", None, None, "dlassets")
        with create_test_daemon_workspace_context(target, pipelines.instance) as workspace:
            yield workspace


@pytest.fixture
def location(code_server: WorkspaceProcessContext) -> CodeLocation:
    return code_server.create_request_context().get_code_location("dlassets")


@pytest.fixture
def begun(
    pipelines: Pipelines, code_server: WorkspaceProcessContext, location: CodeLocation
) -> tuple[dg.DagsterRun, ProcessIdentity]:
    """A run that has begun, and its process."""
    instance, workspace = pipelines.instance, code_server.create_request_context()
    (repository,) = location.get_repositories().values()
    job = repository.get_full_job(JOB)
    run = instance.create_run_for_job(
        pipelines.defs.resolve_job_def(JOB),
        remote_job_origin=job.get_remote_origin(),
        job_code_origin=job.get_python_origin(),
    )
    instance.launch_run(run.run_id, workspace)

    until(lambda: PROCESS_TAG in instance.get_run_by_id(run.run_id).tags)
    process = ProcessIdentity.parse(instance.get_run_by_id(run.run_id).tags[PROCESS_TAG])
    assert process is not None
    return run, process


def until(happens: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def how_it_ends(pipelines: Pipelines, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    until(lambda: pipelines.instance.get_run_by_id(run.run_id).is_finished)
    return pipelines.instance.get_run_by_id(run.run_id).status


def fork_servers() -> list[psutil.Process]:
    """Those of this process's code servers."""
    below = psutil.Process().children(recursive=True)
    return [
        each for each in below if FORKS in " ".join(each.cmdline()) and FORKS not in " ".join(each.parent().cmdline())
    ]


def test_a_code_server_makes_ready_for_runs(code_server) -> None:
    assert len(fork_servers()) == 1


def test_a_run_is_forked_from_a_process_that_has_imported_mlflow_and_starts_no_thread(pipelines, begun) -> None:
    run, process = begun
    (server,) = fork_servers()
    in_memory = {Path(each.path).name for each in server.memory_maps()}
    threads = {file.read_text().strip() for file in Path(f"/proc/{server.pid}/task").glob("*/comm")}

    assert psutil.Process(process.pid).parent() == server
    assert any(name.startswith("_duckdb") for name in in_memory)
    assert [name for name in in_memory if name.startswith(("libtorch", "libopenvino"))] == []
    # jemalloc's threads, of pyarrow and delta-rs, stand still while a process is forked.
    assert threads - {"jemalloc_bg_thd"} == {server.name()}
    assert how_it_ends(pipelines, run) is dg.DagsterRunStatus.SUCCESS
    until(lambda: process.is_gone)


def test_a_run_is_canceled_as_ever(pipelines, begun) -> None:
    run, process = begun
    assert pipelines.instance.run_launcher.terminate(run.run_id)

    assert how_it_ends(pipelines, run) is dg.DagsterRunStatus.CANCELED
    until(lambda: process.is_gone)


def test_a_run_whose_process_is_killed_is_ended(pipelines, begun) -> None:
    run, process = begun
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: process.is_gone)

    (said,) = end_dead_runs(pipelines.instance)
    assert f"process {process.pid}" in said
    assert how_it_ends(pipelines, run) is dg.DagsterRunStatus.FAILURE


@pytest.fixture
def one_zone(profile: Path) -> Iterator[None]:
    """Settings that are others than when the code server started."""
    before = profile.read_text()
    profile.write_text(before + "landing: {labeled: {uri: labeled, labelled: true}}\n")
    yield
    profile.write_text(before)


def test_a_run_has_the_settings_as_they_stand_when_it_begins(code_server, one_zone, pipelines, begun) -> None:
    run, _ = begun
    assert how_it_ends(pipelines, run) is dg.DagsterRunStatus.SUCCESS

    event = pipelines.instance.get_latest_materialization_event(dg.AssetKey("raw_images"))
    assert event.run_id == run.run_id
    assert values(event.asset_materialization)["by_landing_zone"] == {"labeled": 0}
