"""Runs that ended long ago go, with all that was kept of them; what an asset is shown by stays."""

from pathlib import Path

import dagster as dg

from dlassets.resources.old_runs import delete_old_runs


@dg.asset
def thing() -> None:
    pass


def made(instance: dg.DagsterInstance) -> str:
    return dg.materialize([thing], instance=instance).run_id


def test_old_runs_go_with_their_events_and_the_newest_of_an_asset_stays(tmp_path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        first, second = made(instance), made(instance)
        going_on = dg.DagsterRun("job", status=dg.DagsterRunStatus.STARTED)
        instance.add_run(going_on)
        assert delete_old_runs(instance, days=90) == 0
        assert delete_old_runs(instance, days=-1) == 1, "as if it were tomorrow"

        assert {run.run_id for run in instance.get_runs()} == {second, going_on.run_id}
        assert instance.get_latest_materialization_event(thing.key).run_id == second
        left = {path.stem for path in Path(tmp_path, "history", "runs").glob("*.db")}
        assert first not in left
        assert second in left
        assert delete_old_runs(instance, days=90) == 0
