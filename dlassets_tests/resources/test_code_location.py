"""Under which code location Dagster's Overview and Jobs find the runs that no user interface has started."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from starlette.testclient import TestClient

from dlassets.resources.code_location import give_location
from dlassets.resources.session import session_resource
from dlassets.settings import Settings
from dlassets.web.dagster_webserver import GuardedWebserver

WORKSPACE = Path(__file__).resolve().parents[2] / "workspace.yaml"
RUNS = """query ($label: String!) { runsOrError(filter: {tags: [{key: ".dagster/repository", value: $label}]}) {
... on Runs { results { runId repositoryOrigin { repositoryName repositoryLocationName } } } } }"""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


def location_name() -> str:
    name: str = yaml.safe_load(WORKSPACE.read_text())["load_from"][0]["python_module"]["location_name"]
    return name


def shown(instance: dg.DagsterInstance, location: str) -> list[dict]:
    """Return the runs that are shown below a code location: in Jobs those with its tag, in Overview by their origin."""
    with WorkspaceProcessContext(instance, EmptyWorkspaceTarget(), version="") as context:
        client = TestClient(GuardedWebserver(context).create_asgi_app(), base_url="http://127.0.0.1")
        question = {"query": RUNS, "variables": {"label": f"__repository__@{location}"}}
        return client.post("/graphql", json=question).json()["data"]["runsOrError"]["results"]


def test_a_run_that_a_program_starts_is_shown_below_the_location_of_the_workspace(lake, instance) -> None:
    @dg.op(required_resource_keys={"session"})
    def works() -> None:
        pass

    session = session_resource(Settings(root=lake.root))

    @dg.job(resource_defs={"session": session}, executor_def=dg.in_process_executor, tags={"mine": "kept"})
    def a_job() -> None:
        works()

    run_id = a_job.execute_in_process(instance=instance).run_id

    origin = {"repositoryName": "__repository__", "repositoryLocationName": location_name()}
    assert shown(instance, location_name()) == [{"runId": run_id, "repositoryOrigin": origin}]
    run = instance.get_run_by_id(run_id)
    assert (run.status, run.tags["mine"]) == (dg.DagsterRunStatus.SUCCESS, "kept")
    assert run.tags["dagster/code_location"] == location_name()


def test_a_run_of_another_location_stays_there(instance) -> None:
    elsewhere = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("elsewhere"), "__repository__")
    run = dg.DagsterRun("a_job", remote_job_origin=elsewhere.get_job_origin("a_job"))
    instance.add_run(run)

    give_location(instance, run.run_id)

    assert [each["runId"] for each in shown(instance, "elsewhere")] == [run.run_id]
    assert shown(instance, location_name()) == []
