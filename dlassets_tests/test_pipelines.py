"""The pipelines as Dagster runs them: on photos, on nothing new, on what cannot work."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dlassets.defs.automation import DONE
from dlassets.engines.local import LocalEngine
from dlassets.lakehouse.provenance import code_version
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import TABLES
from dlassets.pipeline.session import Session
from dlassets.registry.store import MlflowStore
from dlassets.registry.validation.validation import CHECKS, VERSION_TAG
from dlassets.settings import RegistrySettings, ValidationSettings
from dlassets_tests.pipelines import Pipelines, arrive, failures, let_guesses_pass, materialized, new_lake, values
from dlassets_tests.programs import dlassets, invoke
from dlassets_tests.tables import get, put

MODEL = "image_classifier"
PIPELINES = ("training_pipeline", "scoring_pipeline", "labeling_pipeline")


def rows(pipelines: Pipelines, table: str, columns: str = "*"):
    return get(LocalEngine(), pipelines.lake, table, columns)


def evaluation(result: dg.ExecuteInProcessResult, check: str) -> dg.AssetCheckEvaluation:
    (found,) = [each for each in result.get_asset_check_evaluations() if each.check_name == check]
    return found


def answer_every_request(pipelines: Pipelines) -> int:
    """Move every photo that was sent to people into the class its name tells."""
    classes = {folder.name[:3]: folder.name for folder in pipelines.zone("labeled").iterdir()}
    sent = rows(pipelines, "label_requests", "request_id, batch_id, path")
    for request in sent:
        (photo,) = Path(pipelines.lake.requests, request["batch_id"]).glob(f"{request['request_id']}.*")
        folder = Path(pipelines.lake.answers, classes[Path(request["path"]).name[:3]])
        folder.mkdir(parents=True, exist_ok=True)
        photo.rename(folder / photo.name)
    return len(sent)


@pytest.fixture(scope="module")
def ran(photos, tmp_path_factory):
    """A lake that went once through everything, with what each run reported."""
    with dg.DagsterInstance.ephemeral() as instance:
        pipelines = new_lake(tmp_path_factory.mktemp("lake"), instance, validation=ValidationSettings())
        arrive(photos, pipelines)
        results = {job: pipelines.run(job) for job in ("training_pipeline", "scoring_pipeline")}
        answer_every_request(pipelines)
        results["labeling_pipeline"] = pipelines.run("labeling_pipeline")
        yield pipelines, results


@pytest.mark.parametrize("job", PIPELINES)
def test_a_pipeline_does_its_work(ran, job) -> None:
    _, results = ran

    assert failures(results[job]) == {}
    assert results[job].success


def test_every_table_reports_its_size_its_place_and_its_version(ran) -> None:
    pipelines, results = ran
    reported = {name: made for result in results.values() for name, made in materialized(result).items()}

    assert set(TABLES) <= set(reported)
    for name in TABLES:
        metadata = values(reported[name])
        version = metadata["delta_version"]
        assert reported[name].tags["dagster/data_version"] == str(version), name
        assert metadata["dagster/uri"] == pipelines.lake.table(name)
        assert version <= pin(pipelines.lake, name).version
        assert metadata["engine"] == "local"
        if version == pin(pipelines.lake, name).version:
            assert metadata["dagster/row_count"] == len(rows(pipelines, name, TABLES[name].key[0])), name


def test_the_tables_hold_what_arrived_was_scored_and_was_answered(ran) -> None:
    pipelines, _ = ran
    sent = rows(pipelines, "label_requests", "path")

    assert len(rows(pipelines, "raw_images", "path")) == 80
    assert len(rows(pipelines, "labeled_images", "path")) == 56 + len(sent)
    assert len(rows(pipelines, "training_set", "path")) == 56
    assert len(rows(pipelines, "predictions", "path")) == len(rows(pipelines, "predictions_current", "path")) == 80
    assert {Path(row["path"]).parts[0] for row in sent} == {"unlabeled"}
    assert {row["status"] for row in rows(pipelines, "human_labels", "status")} == {"accepted"}
    human = rows(pipelines, "labeled_images", "path, label, source")
    answered = [row for row in human if row["source"] == "human"]
    assert sorted(row["path"] for row in answered) == sorted(row["path"] for row in sent)
    assert all(row["label"] == int(Path(row["path"]).name[:3]) for row in answered)


def test_requests_that_were_answered_are_closed_with_their_answers(ran) -> None:
    pipelines, _ = ran
    answered = {row["request_id"] for row in rows(pipelines, "human_labels", "request_id")}
    requests = rows(pipelines, "label_requests", "request_id, status")
    closed = {row["request_id"] for row in requests if row["status"] == "answered"}

    assert closed == answered != set()


def test_people_see_what_was_answered_and_nothing_waits(ran) -> None:
    pipelines, results = ran
    (batch,) = {row["batch_id"] for row in rows(pipelines, "label_requests", "batch_id")}
    folder = Path(pipelines.lake.requests, batch)
    sent = len(rows(pipelines, "label_requests", "request_id"))

    assert f"{batch}: {sent} of {sent} answered</h1>" in (folder / "index.html").read_text()
    assert {path.name for path in folder.iterdir()} == {"index.html", "README.txt", ".lists"}
    made = materialized(results["labeling_pipeline"])
    closed = ("requests_sent", "requests_closed", "requests_withdrawn", "photos_left_to_ask")
    assert [values(made["label_requests"])[name] for name in closed] == [0, sent, 0, 0]
    assert values(made["human_labels"])["answers_refused_now"] == 0


def test_a_materialization_names_the_versions_it_read(ran) -> None:
    _, results = ran
    made = materialized(results["scoring_pipeline"])
    labels = values(made["labeled_images"])["provenance"]
    predictions = values(made["predictions"])["provenance"]

    assert labels["inputs"]["raw_images"] == values(made["raw_images"])["delta_version"]
    assert predictions["inputs"]["image_features"] == values(made["image_features"])["delta_version"]
    assert predictions["model"] == f"{MODEL}/1"
    assert predictions["run_id"] == results["scoring_pipeline"].run_id
    assert predictions["code_version"] == code_version()


def test_dagster_s_run_and_mlflow_s_name_each_other(ran) -> None:
    pipelines, results = ran
    result = results["training_pipeline"]
    metadata = values(materialized(result)["trained_model"])

    run = MlflowStore(pipelines.settings).client.get_run(metadata["mlflow_run_id"])
    assert run.data.tags["dagster_run_id"] == result.run_id
    assert result.run_id in run.data.tags["mlflow.note.content"]
    assert run.info.status == "FINISHED"
    assert metadata["mlflow_run"].endswith(f"/runs/{run.info.run_id}")
    assert metadata["confusion_matrix"].startswith("![confusion matrix](data:image/png;base64,")
    assert metadata["test_accuracy"] == run.data.metrics["test_accuracy"]
    recorded = [found.dataset.name for found in run.inputs.dataset_inputs]
    assert sorted(recorded) == [f"training_set.{name}@v1" for name in ("test", "train", "validation")]


def test_tensorboard_has_the_curves_that_mlflow_has(ran) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    pipelines, results = ran
    run_id = values(materialized(results["training_pipeline"])["trained_model"])["mlflow_run_id"]
    (folder,) = Path(pipelines.lake.tensorboard).iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()

    assert folder.name == f"head-{run_id[:8]}"
    history = MlflowStore(pipelines.settings).client.get_metric_history(run_id, "validation_loss")
    read = {each.step: each.value for each in events.Scalars("validation_loss")}
    assert read == pytest.approx({each.step: each.value for each in history})
    assert len(read) > 1


def test_what_was_scored_and_what_was_wrong_is_seen_in_dagster_in_few_bytes(ran) -> None:
    pipelines, results = ran
    scored = values(materialized(results["scoring_pipeline"])["predictions"])
    evaluated = values(materialized(results["training_pipeline"])["evaluated_rows"])
    held_back = [row for row in rows(pipelines, "training_set", "path, split") if row["split"] != "train"]
    kept = rows(pipelines, "evaluated_rows", "run_id, path, split, label, predicted_label")

    assert sorted((row["path"], row["split"]) for row in kept) == sorted((r["path"], r["split"]) for r in held_back)
    assert {row["run_id"] for row in kept} == {evaluated["mlflow_run_id"]}
    for split in ("validation", "test"):
        of_split = [row["label"] != row["predicted_label"] for row in kept if row["split"] == split]
        assert evaluated[f"{split}_wrong"] == f"{sum(of_split)} of {len(of_split)}"
    wrong = sum(row["split"] == "test" and row["label"] != row["predicted_label"] for row in kept)
    assert evaluated["surest_mistakes"].count("data:image/jpeg;base64,") == min(wrong, 8)
    assert scored["least_sure"].count("data:image/jpeg;base64,") == 8
    assert scored["least_sure"].count("](http://127.0.0.1:4000/photo?path=") == 8
    assert sum(int(line.split(" | ")[1]) for line in scored["classes"].splitlines()[2:]) == 80
    assert sum(int(line.split(" | ")[1]) for line in scored["confidence"].splitlines()[2:]) == 80
    assert max(len(str(scored)), len(str(evaluated))) < 60_000


def test_every_check_ran_and_none_that_blocks_is_broken(ran) -> None:
    _, results = ran
    evaluations = [found for result in results.values() for found in result.get_asset_check_evaluations()]

    assert {found.asset_key.to_user_string() for found in evaluations} >= set(TABLES)
    assert [found.check_name for found in evaluations if found.blocking and not found.passed] == []


@pytest.fixture(scope="module")
def ran_twice(ran):
    """The lake of `ran` after a training on the answers, and then everything once more with nothing new."""
    pipelines, _ = ran
    for job in PIPELINES:
        pipelines.run(job)
    before = pipelines.versions(), MlflowStore(pipelines.settings).client.search_model_versions()
    again = {job: pipelines.run(job) for job in PIPELINES}
    return pipelines, before, again


def test_a_run_with_nothing_new_makes_no_table_version_and_says_so(ran_twice) -> None:
    pipelines, (versions, models), again = ran_twice

    assert pipelines.versions() == versions
    found = MlflowStore(pipelines.settings).client.search_model_versions()
    assert [model.version for model in found] == [model.version for model in models]
    for result in again.values():
        for name, made in materialized(result).items():
            if name != "registered_version":
                assert values(made)["changed"].startswith("nothing new"), name


def test_a_validation_is_seen_in_dagster_with_each_check_and_its_number(ran) -> None:
    pipelines, results = ran
    result = results["training_pipeline"]
    checks = {
        check.check_name: check
        for check in result.get_asset_check_evaluations()
        if check.asset_key == dg.AssetKey("validated_version") and check.check_name != DONE
    }
    metadata = values(materialized(result)["validated_version"])

    assert checks.keys() == CHECKS.keys()
    errors = {name for name, check in checks.items() if check.severity is dg.AssetCheckSeverity.ERROR}
    assert errors == {"loads_in_a_clean_process", "has_signature_and_example", "not_worse_than_champion"}
    assert all(checks[name].passed for name in errors)
    numbers = {name: check.metadata["value"].value for name, check in checks.items() if "value" in check.metadata}
    assert numbers.keys() >= {"accurate", "calibrated", "robust", "fast", "small", "loads_in_a_clean_process"}
    assert metadata["report"].startswith(f"# Validation of {MODEL} version 1\n\n**Passed**: right on ")
    for picture in ("reliability", "robustness"):
        assert metadata[picture].startswith(f"![{picture}.png](data:image/png;base64,")
    tags = MlflowStore(pipelines.settings).client.get_model_version(MODEL, "1").tags
    assert metadata["validation_sha256"] == tags["dlassets.validation_sha256"]
    assert materialized(result)["validated_version"].tags["dagster/data_version"] == metadata["validation_sha256"]


def test_a_run_may_be_asked_to_validate_a_version_by_its_number(ran_twice) -> None:
    pipelines, _, _ = ran_twice
    champion = MlflowStore(pipelines.settings).champion().version

    asked = pipelines.run("validation_pipeline", tags={VERSION_TAG: str(champion)})
    unknown = pipelines.run("validation_pipeline", tags={VERSION_TAG: "99"})

    made = values(materialized(asked)["validated_version"])
    assert (made["version"], made["changed"][:11]) == (champion, "nothing new")
    assert f"{MODEL} has no version 99. It has 1, 2" in failures(unknown)["validated_version"]


def test_a_check_that_warns_stops_nothing(ran_twice) -> None:
    pipelines, _, _ = ran_twice
    strict = pipelines.settings.model_copy(update={"validation": ValidationSettings(milliseconds=1e-3, sample=0)})

    result = Pipelines(strict, pipelines.instance).run_only(
        dg.AssetSelection.assets("validated_version", "predictions_current")
    )

    fast = evaluation(result, "fast")
    assert (fast.passed, fast.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert result.success
    assert "predictions_current" in materialized(result)


def test_the_gate_stops_promotion_and_what_depends_on_it(ran_twice, monkeypatch) -> None:
    import numpy as np

    from dlassets.learning.training import head_training
    from dlassets.learning.training.job import Trained

    pipelines, _, _ = ran_twice
    mlflow = MlflowStore(pipelines.settings)
    champion, learned = mlflow.champion(), head_training.train_head

    def learn_the_wrong_way_round(*arguments: Any) -> Trained:
        trained = learned(*arguments)
        head = replace(trained.head, weight=-trained.head.weight, bias=-trained.head.bias)
        return replace(trained, head=head)

    monkeypatch.setattr(head_training, "train_head", learn_the_wrong_way_round)
    let_guesses_pass(monkeypatch)  # before the gate stops it
    training = pipelines.settings.training.model_copy(update={"seed": 1})
    changed = Pipelines(pipelines.settings.model_copy(update={"training": training}), pipelines.instance)

    result = changed.run_only(
        dg.AssetSelection.assets(
            "trained_model", "registered_version", "validated_version", "predictions", "label_requests"
        )
    )

    assert not result.success
    gate = evaluation(result, "not_worse_than_champion")
    assert not gate.passed
    assert re.search(f"where version {champion.version} is on .*shown to be worse .*refused", str(gate.description))
    assert mlflow.champion() == champion
    newest = Session(changed.settings).registry.history().events[-1]
    assert (newest.event, newest.to_state, newest.reason) == ("validated", "failed", gate.description)
    assert {"predictions", "label_requests"}.isdisjoint(materialized(result))
    accuracy: Any = evaluation(result, "accurate").metadata["value"].value
    assert np.isfinite(accuracy)


def test_scoring_before_any_model_says_what_to_run_and_keeps_what_came_in(empty, photos) -> None:
    arrive(photos, empty, unlabelled_from=0)

    result = empty.run("scoring_pipeline")

    assert failures(result)["predictions"] == (
        "DlassetsError: dlassets.errors.DlassetsError: No version of image_classifier is champion yet. "
        "Run training_pipeline first, or approve a version that waits (dlassets models).\n"
    )
    assert len(rows(empty, "raw_images", "path")) == 80
    assert len(rows(empty, "image_features", "image_id")) == 80


def test_an_answer_is_taken_and_its_request_closed_without_any_model(empty, photos) -> None:
    arrive(photos, empty)
    empty.run("ingest_pipeline")
    (asked, other) = rows(empty, "raw_images", "path, image_id")[-2:]
    opened = {"strategy": "least_confidence", "status": "open", "batch_id": "v1", "service": "folder"}
    put(empty.lake, "label_requests", opened | asked | {"request_id": "a"}, opened | other | {"request_id": "b"})
    for folder in (empty.lake.answers, f"{empty.lake.requests}/v1"):
        Path(folder).mkdir(parents=True)
    Path(empty.lake.requests, "v1", "b.jpg").touch()
    Path(empty.lake.answers, "mine.csv").write_text("request_id,label\na,1\n")

    result = empty.run("labeling_pipeline")

    assert failures(result) == {}
    assert result.success
    statuses = {row["request_id"]: row["status"] for row in rows(empty, "label_requests", "request_id, status")}
    assert statuses == {"a": "answered", "b": "open"}
    metadata = values(materialized(result)["label_requests"])
    assert (metadata["requests_sent"], metadata["requests_closed"], metadata["requests_open"]) == (0, 1, 1)
    assert metadata["requests_page"] == "http://127.0.0.1:4000/requests"


def test_training_before_any_label_says_what_is_missing(empty, photos) -> None:
    shutil.copyfile(next(photos.glob("*/*")), empty.zone("unlabeled") / "a.jpg")

    result = empty.run("training_pipeline")

    assert list(failures(result)) == ["trained_model"]
    message = failures(result)["trained_model"]
    assert "train 0, validation 0, test 0. Put more photos into the labelled landing zone" in message


def test_an_empty_landing_zone_is_nothing_to_take_in(empty) -> None:
    result = empty.run("ingest_pipeline")

    assert result.success
    assert set(empty.versions().values()) == {0}


def test_a_missing_landing_zone_is_said_after_the_others_are_taken_in(empty, photos) -> None:
    arrive(photos, empty)
    shutil.rmtree(empty.zone("unlabeled"))

    result = empty.run("ingest_pipeline")

    (said,) = failures(result).values()
    assert "The landing zone 'unlabeled' is not there" in said
    assert "Create the folder, or change landing.unlabeled.uri" in said
    assert len(rows(empty, "raw_images", "path")) == 56


def test_one_bad_file_of_each_kind_fails_no_run(empty, photos) -> None:
    arrive(photos, empty)
    folder = next(empty.zone("labeled").iterdir())
    good = next(folder.iterdir()).read_bytes()
    (folder / "empty.jpg").touch()
    (folder / "cut.jpg").write_bytes(good[: len(good) // 2])
    (folder / "text.jpg").write_text("no photo")
    (empty.zone("labeled") / "train").mkdir()
    (empty.zone("labeled") / "train" / "a.jpg").write_bytes(good)

    result = empty.run("ingest_pipeline")

    assert result.success
    refused = {Path(row["path"]).name: row["reason"] for row in rows(empty, "quarantined_files", "path, reason")}
    assert set(refused) == {"empty.jpg", "cut.jpg", "text.jpg", "a.jpg"}
    assert all(refused.values())
    warning = evaluation(result, "nothing_quarantined")
    assert (warning.passed, warning.severity) == (False, dg.AssetCheckSeverity.WARN)


@pytest.mark.slow
def test_with_approval_by_a_person_nothing_scores_until_somebody_approves(empty, photos) -> None:
    arrive(photos, empty)
    by_person = RegistrySettings(approval="person", actor="ann")
    asking = Pipelines(empty.settings.model_copy(update={"registry": by_person}), empty.instance)

    trained = asking.run("training_pipeline")

    assert trained.success
    decision = str(values(materialized(trained)["validated_version"])["decision"])
    assert re.fullmatch(
        r"Version 1 \(waits for approval\): .*/report.md\. Answer with .*dlassets reject 1 .*", decision
    )
    MlflowStore(asking.settings).client.set_registered_model_alias("image_classifier", "champion", "1")
    assert "or approve a version that waits" in failures(asking.run("scoring_pipeline"))["predictions"]
    environment = {"DLASSETS_ROOT": asking.settings.root, "DLASSETS_REGISTRY__APPROVAL": "person"}
    approved = invoke("approve", 1, "--reason", "looked at it", "--as", "bob", **environment)
    assert (approved.exit_code, approved.output) == (0, "Version 1 (champion): looked at it.\n")
    assert failures(asking.run("scoring_pipeline")) == {}
    assert len(rows(asking, "predictions_current", "path")) == 80


def dagster(pipelines: Pipelines, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "dagster", *arguments, "-m", "dlassets.definitions")
    return dlassets(command=command, DLASSETS_ROOT=pipelines.settings.root, **environment)


@pytest.mark.slow
def test_dagster_s_own_command_runs_a_pipeline(empty, photos) -> None:
    arrive(photos, empty)

    ran = dagster(empty, "job", "execute", "-j", "training_pipeline")

    assert ran.returncode == 0, ran.stderr[-4000:]
    assert MlflowStore(empty.settings).champion().version == 1


def test_dagster_s_own_command_materializes_an_asset(empty, photos) -> None:
    arrive(photos, empty)

    ran = dagster(empty, "asset", "materialize", "--select", "raw_images")

    assert ran.returncode == 0, ran.stderr[-4000:]
    assert len(rows(empty, "raw_images", "path")) == 80
    assert rows(empty, "labeled_images") == []


@pytest.mark.slow
def test_dagster_s_own_command_says_what_a_setting_cannot_be(empty) -> None:
    ran = dagster(empty, "job", "execute", "-j", "training_pipeline", DLASSETS_ENGINE="sparc")

    assert ran.returncode != 0
    assert "engine: Input should be 'local' or 'spark' (given: 'sparc')" in ran.stderr + ran.stdout
