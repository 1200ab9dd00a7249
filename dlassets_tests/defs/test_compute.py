"""Compute classes: where steps run, when they are ended or tried again, and who waits for whom."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dlassets.definitions import build_defs
from dlassets.defs import compute
from dlassets.defs.compute import STEP_ASSETS
from dlassets.errors import ConflictError, DlassetsError, SettingsError
from dlassets.settings import Settings, load_settings
from dlassets_tests.pipeline.elsewhere import own_processes, until
from dlassets_tests.pipelines import Pipelines, failures, materialized, new_lake, values

# A step that reads and makes next to nothing.
STEP = "classes"
OWN = {"place": "process"}


def lake_of(
    tmp_path: Path, instance: dg.DagsterInstance, *, stages: dict[str, str] | None = None, **classes: Any
) -> Pipelines:
    return new_lake(tmp_path / "lake", instance, compute={"classes": classes, "stages": stages or {STEP: "own"}})


def run(pipelines: Pipelines, compute_class: str | None = None) -> dg.ExecuteInProcessResult:
    """Materialize the step's asset; a class is what the launchpad's config names."""
    config = {"ops": {STEP: {"config": {"compute": compute_class}}}} if compute_class else {}
    job = dg.define_asset_job("one", dg.AssetSelection.assets(STEP))
    found = dg.Definitions.merge(pipelines.defs, dg.Definitions(jobs=[job])).resolve_job_def("one")
    return found.execute_in_process(instance=pipelines.instance, raise_on_error=False, run_config=config)


def messages(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> str:
    return "\n".join(entry.user_message for entry in instance.all_logs(result.run_id))


def happened(result: dg.ExecuteInProcessResult) -> list[str]:
    kinds = ("STEP_START", "STEP_UP_FOR_RETRY", "STEP_RESTARTED", "STEP_SUCCESS", "STEP_FAILURE")
    return [e.event_type_value for e in result.all_events if e.event_type_value in kinds and e.step_key == STEP]


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], list[int]]:
    """Plant something that the step does first where it runs in this process; return the processes that it ran in."""

    def planted(does: Callable[[], None]) -> list[int]:
        ran: list[int] = []
        asset = STEP_ASSETS[STEP]
        before = asset.results

        def results(*given: Any) -> Any:
            ran.append(os.getpid())
            does()
            return before(*given)

        monkeypatch.setitem(vars(asset), "results", results)
        return ran

    return planted


# ---- where


def test_who_names_no_class_has_steps_without_a_field_in_the_process_of_the_run(tmp_path, instance, work) -> None:
    pipelines = new_lake(tmp_path / "lake", instance)
    ran = work(lambda: None)

    assert run(pipelines).success
    assert ran == [os.getpid()]
    op = pipelines.defs.get_assets_def(STEP).op
    assert "compute" not in repr(op.config_schema.config_type.fields or {})
    assert op.pool is None


def test_a_step_of_a_class_with_a_process_runs_in_one_and_reports_as_it_would_here(tmp_path, instance, work) -> None:
    pipelines = lake_of(tmp_path, instance, own=OWN)
    ran = work(lambda: None)

    result = run(pipelines)

    assert failures(result) == {}
    assert ran == []  # not in this process
    shown = values(materialized(result)[STEP])
    assert shown["changed"] == "nothing new: the table was left as it is"
    assert shown["provenance"]["run_id"] == result.run_id
    assert "classes runs in a process of its own (compute class own)." in messages(instance, result)
    assert own_processes() == []


@pytest.mark.slow
def test_the_care_of_a_table_runs_where_its_stage_says(tmp_path, instance) -> None:
    given = {"stages": {"maintenance": "own", "maintenance__predictions": "default"}, "own": {**OWN, "pool": "few"}}
    pipelines = lake_of(tmp_path, instance, **given)
    defs, care = pipelines.defs, [dg.AssetKey(["maintenance", name]) for name in ("classes", "predictions")]

    assert [defs.get_assets_def(key).op.pool for key in care] == ["few", None]
    result = pipelines.run_only(dg.AssetSelection.assets(care[0]))

    assert failures(result) == {}
    assert values(materialized(result)["maintenance/classes"])["compaction"] == "done"
    assert "maintenance__classes runs in a process of its own, pool few (compute class own)." in messages(
        instance, result
    )
    assert own_processes() == []


def test_the_config_of_a_run_shows_the_classes_and_may_name_another(tmp_path, instance, work) -> None:
    pipelines = lake_of(tmp_path, instance, own={**OWN, "timeout_minutes": 90, "retries": 2, "pool": "few"})
    ran = work(lambda: None)

    field = pipelines.defs.get_assets_def(STEP).op.config_schema.config_type.fields["compute"]
    other = pipelines.defs.get_assets_def("predictions").op.config_schema.config_type.fields

    assert field.default_value == "own"
    assert [value.config_value for value in field.config_type.enum_values] == ["default", "own"]
    assert "own: in a process of its own, at most 90 minutes, tried again 2 times, pool few." in field.description
    assert other.keys() == {"scope", "compute"}
    assert other["compute"].default_value == "default"
    assert run(pipelines, "default").success
    assert ran == [os.getpid()]
    with pytest.raises(dg.DagsterInvalidConfigError, match="nowhere"):
        run(pipelines, "nowhere")


def test_a_step_that_is_named_wins_over_its_stage(tmp_path, instance) -> None:
    stages = {"ingest": "own", "labeled_images": "default"}
    defs = lake_of(tmp_path, instance, stages=stages, own={**OWN, "pool": "few"}).defs

    assert {
        name: defs.get_assets_def(name).op.pool for name in ("raw_images", STEP, "labeled_images", "consensus")
    } == {
        "raw_images": "few",
        STEP: "few",
        "labeled_images": None,
        "consensus": None,
    }


def test_a_class_with_spark_has_the_engine_and_what_the_profile_says_but_for_what_it_changes() -> None:
    compute = {"classes": {"big": {"place": "spark", "spark": {"executors": 3, "conf": {"spark.b": "2"}}}}}
    spark = {"master": "spark://head:7077", "executor_cores": 2, "conf": {"spark.a": "1"}}
    settings = Settings.model_validate({"spark": spark, "compute": compute})

    of_big = settings.of_class("big")

    assert (settings.engine, of_big.engine) == ("local", "spark")
    assert (of_big.spark.master, of_big.spark.most_cores) == ("spark://head:7077", 6)
    assert of_big.spark.conf == {"spark.a": "1", "spark.b": "2"}
    assert settings.of_class("default") is settings


# ---- again


def test_what_may_pass_is_tried_again_later_and_later(tmp_path, instance, work) -> None:
    pipelines = lake_of(tmp_path, instance, own={"retries": 2, "retry_seconds": 0.05})
    left = [RuntimeError("a wire was loose"), ConflictError("another writer was first")]

    def fail_while_any_is_left() -> None:
        if left:
            raise left.pop(0)

    ran = work(fail_while_any_is_left)

    result = run(pipelines)

    assert result.success
    assert len(ran) == 3
    assert happened(result) == ["STEP_START", *["STEP_UP_FOR_RETRY", "STEP_RESTARTED"] * 2, "STEP_SUCCESS"]
    said = messages(instance, result)
    assert "tried again in 0.05 s (1 of 2 times): a wire was loose" in said
    assert "tried again in 0.1 s (2 of 2 times): another writer was first" in said


def test_what_does_not_pass_fails_with_its_own_words_after_the_last_retry(tmp_path, instance, work) -> None:
    pipelines = lake_of(tmp_path, instance, own={"retries": 1, "retry_seconds": 0.01})
    ran = work(lambda: _raise(ConflictError("another writer was first")))

    assert failures(run(pipelines))[STEP] == "ConflictError: dlassets.errors.ConflictError: another writer was first\n"
    assert len(ran) == 2


def test_what_somebody_has_to_put_right_is_not_tried_again(tmp_path, instance, work) -> None:
    pipelines = lake_of(tmp_path, instance, own={"retries": 5, "retry_seconds": 0.01})
    ran = work(lambda: _raise(DlassetsError("rename it")))

    result = run(pipelines)

    assert "rename it" in failures(result)[STEP]
    assert len(ran) == 1
    assert happened(result) == ["STEP_START", "STEP_FAILURE"]


def _raise(error: Exception) -> None:
    raise error


# ---- not too long, and not too many


@pytest.mark.slow
def test_a_step_that_takes_too_long_is_ended_and_the_error_says_what_to_do(tmp_path, instance) -> None:
    # Python itself takes longer to start.
    pipelines = lake_of(tmp_path, instance, own={**OWN, "timeout_minutes": 0.001, "retries": 3})

    result = run(pipelines)

    said = failures(result)[STEP]
    assert "classes took longer than the 0.001 minutes of its compute class own, and was ended." in said
    assert "compute.classes.own.timeout_minutes" in said
    assert happened(result) == ["STEP_START", "STEP_FAILURE"]
    assert own_processes() == []


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 2])
def test_steps_of_a_pool_run_so_many_at_once_in_all_runs_and_the_others_wait(tmp_path, limit, work) -> None:
    (tmp_path / "dagster").mkdir()
    inside: list[None] = []
    seen: list[int] = []
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as kept:
        storage = kept.event_log_storage

        def meet() -> None:
            inside.append(None)
            seen.append(len(inside))
            if limit == 2:
                until(lambda: len(seen) == 2)
            elif len(seen) == 1:
                until(lambda: storage.get_concurrency_info("few").pending_step_count == 1)
            inside.pop()

        work(meet)
        classes = {"classes": {"own": {"pool": "few"}}, "stages": {STEP: "own"}, "pools": {"few": limit}}
        lakes = [new_lake(tmp_path / name, kept, compute=classes) for name in "ab"]
        with ThreadPoolExecutor() as threads:
            results = list(threads.map(run, lakes))

        assert [failures(result) for result in results] == [{}, {}]
        assert max(seen) == limit
        assert {pool.name: pool.limit for pool in storage.get_pool_limits()} == {"few": limit}
        said = "".join(messages(kept, result) for result in results)
        assert ("blocked by limit for pool few" in said) == (limit == 1)


# ---- what cannot be


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"stages": {"training": "gpu"}}, r"training names the class 'gpu', and the classes are default"),
        ({"classes": {"a": {"timeout_minutes": "soon"}}}, r"compute.classes.a.timeout_minutes: .*number.*'soon'"),
        ({"classes": {"a": {"timeout_minutes": 5}}}, r"compute.classes.a: .*set place to process"),
        ({"classes": {"a": {"gpu": False}}}, r"compute.classes.a: .*hides GPUs"),
        ({"classes": {"a": {"spark": {"executors": 2}}}}, r"compute.classes.a: .*with place run there is none"),
        ({"classes": {"a": {"tries": 2}}}, r"tries"),
        (
            {"classes": {"a": {"place": "spark", "spark": {"executors": 2}}}},
            r"classes.a.spark.executors is of a cluster",
        ),
        ({"pools": {"gpu": 2}}, r"no class has the pool gpu"),
        ({"classes": {"two words": {}}}, r"two words"),
    ],
)
def test_a_class_that_cannot_be_is_one_clear_error(given, said) -> None:
    with pytest.raises(SettingsError, match=said) as raised:
        load_settings({}, compute=given)

    assert len(str(raised.value).splitlines()) == 2


def test_a_stage_that_there_is_not_is_named_with_those_that_there_are() -> None:
    settings = Settings.model_validate({"compute": {"stages": {"ingestion": "default"}}})

    with pytest.raises(
        SettingsError, match=r"names ingestion, .* The stages are ingest, labeling, maintenance, scoring, training;.*"
    ):
        build_defs(settings)


def test_a_gpu_that_this_machine_has_not_is_said_when_definitions_load(tmp_path, monkeypatch) -> None:
    gpu = {"compute": {"classes": {"gpu": {"place": "process", "gpu": True}}, "stages": {"trained_model": "gpu"}}}
    monkeypatch.setattr(compute, "_GPUS", [(tmp_path, "nvidia[0-9]*")])

    with pytest.raises(SettingsError, match=r"compute\.classes\.gpu\.gpu is true, and this machine has no GPU"):
        build_defs(Settings.model_validate(gpu))
    (tmp_path / "nvidia0").touch()
    assert build_defs(Settings.model_validate(gpu)).get_assets_def("trained_model").op.tags["dlassets/compute"] == "gpu"


def test_training_on_a_gpu_in_a_class_that_hides_them_is_refused() -> None:
    given = {"classes": {"cpu": {"place": "process", "gpu": False}}, "stages": {"training": "cpu"}}
    settings = Settings.model_validate({"compute": given, "training": {"compute": {"device": "cuda"}}})

    with pytest.raises(
        SettingsError, match=r"training\.compute\.device is cuda, and trained_model is of the class cpu"
    ):
        build_defs(settings)
