"""What labelling bought, of tables: what counts, by either engine; what is written when; what is told of versions."""

import datetime as dt
import io
from typing import Any

import pytest

from dlassets.engines.base import Commit, Engine, Snapshot
from dlassets.engines.local import LocalEngine
from dlassets.lakehouse.model_versions import KnownModel, record_models
from dlassets.lakehouse.snapshots import evolve, pin
from dlassets.lakehouse.tables import LABEL_REQUESTS, MODEL_VERSIONS
from dlassets.monitoring.labeling_report import pictures
from dlassets.monitoring.labeling_report.measures import Measure, Period
from dlassets.monitoring.labeling_report.report import Counted, count, standing_measures, write
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.registry.description import LABELLED
from dlassets.registry.models import ModelVersion
from dlassets.registry.store import MlflowStore
from dlassets.registry.tracking import artifact_of
from dlassets.settings import LabelingSettings, MlflowSettings, Settings
from dlassets.storage.lake import Lake
from dlassets_tests.pipelines import Warnings
from dlassets_tests.registry.conftest import Registry, opened, registry  # noqa: F401 - a fixture
from dlassets_tests.servers import free_port
from dlassets_tests.tables import NOON, arrow, get, image_id, local_alone, pins, put

MODEL = "image_classifier"
FIRST, SECOND = ModelVersion(MODEL, 1, "p" * 64), ModelVersion(MODEL, 2, "q" * 64)
EARLIER, LATER = NOON - dt.timedelta(hours=1), NOON + dt.timedelta(hours=1)
TABLES = (
    "predictions",
    "labeled_images",
    "human_labels",
    "label_requests",
    "evaluated_rows",
    "training_set",
    "classes",
)
RIGHT, WRONG = 1, 2


def photo(name: str) -> dict[str, str]:
    return {"path": f"unlabeled/{name}.jpg", "image_id": image_id(name)}


def answer(name: str, **more: Any) -> dict[str, Any]:
    row = {"request_id": f"of {name}", "label": RIGHT, "annotator": "Ann", "status": "accepted", "answered_at": LATER}
    return photo(name) | row | {"service": "page"} | more


def request(name: str, strategy: str = "margin", **more: Any) -> dict[str, Any]:
    row = {"request_id": f"of {name}", "strategy": strategy, "status": "answered", "requested_at": NOON}
    return photo(name) | row | more


def label(name: str, source: str = "human", **more: Any) -> dict[str, Any]:
    return photo(name) | {"label": RIGHT, "source": source, "split": "train", "labeled_at": LATER} | more


def prediction(name: str, said: int, model: ModelVersion = FIRST, **more: Any) -> dict[str, Any]:
    return photo(name) | model.row.to_pylist()[0] | {"predicted_label": said, "scored_at": NOON} | more


def evaluated(run_id: str, name: str, said: int) -> dict[str, Any]:
    row = {"run_id": run_id, "split": "test", "label": RIGHT, "predicted_label": said}
    return photo(name) | row


@pytest.fixture
def answered(lake: Lake) -> Lake:
    """A lake in which people answered about photos of every kind, and two versions said what they are.

    The first version learned from a training set that is there; of the second's nobody knows.
    """
    seen = [label("learned"), label("tested", split="test"), label("by folder", "folder")]
    put(lake, "labeled_images", *seen)
    made_of = Commit({"inputs": {"labeled_images": pin(lake, "labeled_images").version}})
    columns = ("path", "image_id", "label", "split")
    put(lake, "training_set", *({name: row[name] for name in columns} for row in seen), commit=made_of)
    record_models(
        LocalEngine(),
        lake,
        [
            KnownModel(*FIRST[:2], "run 1", FIRST.package, pin(lake, "training_set").version),
            KnownModel(*SECOND[:2], "run 2", SECOND.package),
            KnownModel("another", 1, "run 3"),
            KnownModel(MODEL, 3, "run 4", forgotten_at=NOON),
        ],
        {},
    )
    put(
        lake,
        "labeled_images",
        label("chance right"),
        label("chance right", path="unlabeled/copy.jpg"),
        label("chance wrong"),
        label("chosen wrong", labeled_at=EARLIER),
        label("honey", "folder"),
        label("honey answered"),
    )
    put(
        lake,
        "label_requests",
        *map(request, ("learned", "tested", "chosen wrong")),
        *(request(name, "audit") for name in ("chance right", "chance wrong")),
        request("chance open", "audit", status="open", requested_at=EARLIER),
        *(request(name, "honeypot") for name in ("honey", "honey answered")),
        request("taken back", status="withdrawn"),
    )
    put(
        lake,
        "human_labels",
        *(answer(name) for name in ("learned", "chosen wrong", "chance wrong", "honey", "honey answered")),
        answer("tested", annotator="Bob", seconds=30.0, answered_at=LATER + dt.timedelta(days=9), read_at=LATER),
        answer("chance right", label=WRONG, seconds=60.0),
        answer("chance right", read_order=2, annotator="Bob", seconds=90.0, service="folder"),
        answer("taken back"),
        answer("taken back", status="taken_back", read_order=2),
        answer("learned", status="skipped", annotator="Eve", seconds=20.0),
        answer("learned", status="refused", annotator="Eve", seconds=1e6),
    )
    known = ("learned", "tested", "chance right", "by folder", "honey", "honey answered", "taken back")
    put(
        lake,
        "predictions",
        *(prediction(name, RIGHT) for name in known),
        prediction("chance right", RIGHT, path="unlabeled/copy.jpg"),
        *(prediction(name, WRONG) for name in ("chance wrong", "chosen wrong")),
        prediction("chance wrong", RIGHT, FIRST._replace(package="another's")),
        *(prediction(name, RIGHT, SECOND) for name in ("learned", "chosen wrong", "chance wrong", "honey answered")),
    )
    put(
        lake,
        "evaluated_rows",
        *(evaluated("run 1", name, said) for name, said in (("a", RIGHT), ("b", WRONG), ("c", RIGHT))),
        *(evaluated("run 2", name, said) for name, said in (("a", RIGHT), ("b", RIGHT), ("new", WRONG))),
        evaluated("run 2", "c", RIGHT) | {"label": WRONG},
        evaluated("run 1", "d", RIGHT) | {"split": "validation"},
    )
    return lake


def tables_of(lake: Lake) -> dict[str, Snapshot]:
    return {**pins(lake, *TABLES), MODEL_VERSIONS.name: evolve(lake, MODEL_VERSIONS)}


def counted(engine: Engine, lake: Lake, now: dt.datetime = LATER, cost_per_hour: float | None = 36) -> Counted:
    settings = Settings(root=lake.root, labeling=LabelingSettings(cost_per_hour=cost_per_hour))
    return count(engine, tables_of(lake), settings, now)


def in_all(found: Counted) -> dict[tuple[Any, ...], tuple[float | None, int]]:
    """Return value and count of what is of all time, by figure, slice and version, as far as there are any."""
    return {
        tuple(part for part in (each.figure, each.slice, each.model and each.model.version) if part): (
            each.value and round(each.value, 6),
            each.count,
        )
        for each in found.measures
        if each.period is None
    }


def written(lake: Lake) -> list[Measure]:
    return standing_measures(get(LocalEngine(), lake, "labeling_report"))


@pytest.mark.parametrize(
    "engine", ["local", pytest.param("spark", marks=[pytest.mark.spark, pytest.mark.slow])], indirect=True
)
def test_photos_count_that_people_labelled_and_a_version_did_not_learn_from_however_they_were_chosen(
    engine, answered
) -> None:
    found = counted(engine, answered)

    assert in_all(found) == {
        # Of the first version: not what it learned from, nor what a folder says, was settled before or taken back.
        ("accuracy", 1): (0.5, 4),
        ("accuracy", "audit", 1): (0.5, 2),
        ("accuracy", "asked", 1): (0.5, 2),
        # Of the second, what was labelled after it had said what it is.
        ("accuracy", 2): (1.0, 2),
        ("accuracy", "audit", 2): (1.0, 1),
        ("accuracy", "asked", 2): (1.0, 1),
        ("audit_answered",): (round(2 / 3, 6), 3),
        ("human_labels", 1): (2.0, 3),
        ("test_accuracy", 1): (round(2 / 3, 6), 3),
        ("test_accuracy", 2): (0.5, 4),
        ("accuracy_gain", "since_previous", 2): (0.5, 2),
        ("accuracy_gain", "since_first", 2): (0.5, 2),
        ("queue", "open"): (1.0, 1),
        ("queue", "planned"): (0.0, 0),
        ("queue_age", "median"): (7200.0, 1),
        ("queue_age", "oldest"): (7200.0, 1),
        ("requests", "asked"): (9.0, 9),
        ("requests", "answered"): (7.0, 7),
        ("requests", "withdrawn"): (1.0, 1),
        ("time_to_answer", "median"): (3600.0, 7),
        ("time_to_answer", "p90"): (3600.0, 7),
        ("answers_by_service", "page"): (7.0, 7),
        ("answers_by_service", "folder"): (1.0, 1),
        ("answers_by_person", "Ann"): (6.0, 6),
        ("answers_by_person", "Bob"): (2.0, 2),
        ("answers_unmeasured",): (6.0, 10),
        ("seconds_of_work",): (200.0, 4),
        ("seconds_per_answer", "median"): (45.0, 4),
        ("cost",): (2.0, 4),
        ("cost_per_label",): (1.0, 2),
    }
    accuracy = [each for each in found.measures if each.figure == "accuracy" and each.model == FIRST]
    assert {each.period and each.period.start for each in accuracy} == {None, dt.date(2026, 1, 26)}
    assert [version.model for version in found.versions] == [FIRST, SECOND]


@local_alone
def test_where_nobody_has_answered_the_queue_alone_is_told_and_where_nobody_was_asked_nothing(engine, lake) -> None:
    assert counted(engine, lake).measures == []

    put(lake, "label_requests", request("a", status="open"), request("b", status="planned"))

    assert {each.figure for each in counted(engine, lake).measures} == {"queue", "queue_age", "requests"}


@local_alone
def test_what_is_otherwise_is_written_and_what_was_known_on_a_day_before_stays(engine, answered) -> None:
    def report(at: dt.datetime) -> Any:
        return write(engine, pin(answered, "labeling_report"), counted(engine, answered, at), Commit())

    first = report(LATER)
    assert first.changed
    assert sorted(written(answered), key=repr) == sorted(counted(engine, answered).measures, key=repr)
    again = report(LATER)
    assert (again.changed, again.version) == (False, first.version)

    put(answered, "human_labels", answer("chance wrong", status="taken_back", read_order=9))
    put(answered, "label_requests", request("gone", status="withdrawn", closed_at=LATER + dt.timedelta(days=1)))
    tomorrow = report(LATER + dt.timedelta(days=1))

    assert tomorrow.changed
    rows = get(LocalEngine(), answered, "labeling_report")
    of_chance = sorted(
        (row["reported_on"], row["value"], row["count"])
        for row in rows
        if (row["figure"], row["slice"], row["model_version"], row["period_start"]) == ("accuracy", "audit", 1, None)
    )
    assert of_chance == [(NOON.date(), 0.5, 2), (dt.date(2026, 2, 1), 1.0, 1)]
    # The second version's only photo that chance chose is no more among them.
    of_second = [each for each in written(answered) if each.model == SECOND and each.slice == "audit"]
    assert {(each.value, each.count) for each in of_second} == {(None, 0)}
    days = [each for each in written(answered) if each.slice == "withdrawn" and each.period]
    assert [(each.period.start.day, each.count) for each in days] == [(1, 1)]
    assert {row["reported_on"] for row in rows if row["figure"] == "cost"} == {NOON.date()}  # it is the same still


def test_days_of_which_an_earlier_release_told_withdrawals_stand_until_each_one_s_day_is_known(tmp_path) -> None:
    lake, engine = Lake.at(str(tmp_path)), LocalEngine()
    of_days = [
        Measure("requests", 2, 2, "withdrawn", period=Period.day(NOON.date() + dt.timedelta(days))) for days in (-1, 0)
    ]

    def standing(*asked: dict[str, Any]) -> dict[int, float | None]:
        put(lake, "label_requests", *asked)
        write(engine, pin(lake, "labeling_report"), counted(engine, lake), Commit())
        return {
            each.period.start.day: each.value for each in written(lake) if each.slice == "withdrawn" and each.period
        }

    write(engine, pin(lake, "labeling_report"), Counted(EARLIER, of_days), Commit())
    old = [request(name, status="withdrawn") for name in "ab"]
    assert standing(*old, request("c", status="withdrawn", closed_at=LATER)) == {30: 2, 31: 1}

    rows = arrow("label_requests", *({**row, "closed_at": LATER} for row in old))
    engine.merge(engine.rows(rows), LABEL_REQUESTS, pin(lake, "label_requests").uri, Commit())
    assert standing() == {30: None, 31: 3}


def of_run(settings: Settings, model: ModelVersion, run_id: str) -> Lake:
    """Return a lake in which people answered about two photos that this version had right and wrong."""
    lake = Lake.at(settings.root)
    record_models(LocalEngine(), lake, [KnownModel(model.name, model.version, run_id, model.package)], {})
    put(lake, "label_requests", request("right", "audit"), request("wrong"))
    put(lake, "human_labels", answer("right"), answer("wrong"))
    put(lake, "labeled_images", label("right"), label("wrong"))
    put(lake, "predictions", prediction("right", RIGHT, model), prediction("wrong", WRONG, model))
    return lake


def session_of(settings: Settings, store: MlflowStore) -> Session:
    session = Session(settings)
    session.mlflow = store
    return session


def page_of(registry: Registry, model: ModelVersion) -> str:  # noqa: F811
    return str(registry.client.get_model_version(MODEL, str(model.version)).description)


def test_a_version_s_page_says_what_people_say_of_it_and_is_written_when_that_changes(
    registry,  # noqa: F811
    settings,
) -> None:
    model = registry.entered()
    run_id = registry.client.get_model_version(MODEL, str(model.version)).run_id
    lake = of_run(settings, model, run_id)
    session = session_of(settings, registry.resource)

    first = steps.labeling_report.run(session)

    page = page_of(registry, model)
    says = "50.0% of 2 that people labelled (95% interval: 9.5% to 90.5%); 100.0% of 1 of these that chance chose"
    assert f"- by people's answers, on photos that it did not learn from: {says}" in page
    assert f"![what_people_say.png](get-artifact?path=labeling%2Fwhat_people_say.png&run_id={run_id})" in page
    assert "[what labelling bought](http://127.0.0.1:4000/labeling)" in page
    assert artifact_of(registry.client, run_id, LABELLED).startswith(b"\x89PNG")
    before = registry.client.get_run(run_id).data.tags

    again = steps.labeling_report.run(session)
    assert (first.changed, again.changed) == (True, False)

    put(lake, "label_requests", request("another", status="open"))
    assert steps.labeling_report.run(session).changed
    assert registry.client.get_run(run_id).data.tags == before  # that says nothing of a version

    put(lake, "human_labels", answer("wrong", status="taken_back", read_order=5))
    steps.labeling_report.run(session)
    assert "100.0% of 1 that people labelled" in page_of(registry, model)


def test_what_mlflow_cannot_be_told_is_a_warning_and_told_once_it_is_there_again(
    registry,  # noqa: F811
    settings,
    monkeypatch,
) -> None:
    model = registry.entered()
    lake = of_run(settings, model, registry.client.get_model_version(MODEL, str(model.version)).run_id)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = settings.model_copy(update={"mlflow": MlflowSettings(tracking_uri=f"http://127.0.0.1:{free_port()}")})
    warnings = Warnings()

    with opened(away) as store:
        made = steps.labeling_report.run(session_of(away, store), warnings)

    assert made.changed
    assert any(measure.figure == "accuracy" for measure in written(lake))
    (warning,) = warnings.messages
    assert "MLflow's store at http://127.0.0.1" in warning
    assert "people's answers" not in page_of(registry, model)

    back = steps.labeling_report.run(session_of(settings, registry.resource))
    assert not back.changed
    assert "people's answers" in page_of(registry, model)


def test_pictures_are_small_pngs_whatever_there_is_to_draw(answered) -> None:
    from PIL import Image

    known = counted(LocalEngine(), answered).measures
    for measures in (known, []):
        drawn = [
            pictures.accuracy_and_labels(measures),
            pictures.asking_and_answering(measures),
            pictures.of_version(measures, FIRST),
        ]
        for picture in drawn:
            assert Image.open(io.BytesIO(picture)).size == (800, 320)
            assert len(picture) < 40_000
