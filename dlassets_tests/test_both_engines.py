"""Both engines do the same: a small lake from end to end, row by row, and every SQL text that the package has."""

from __future__ import annotations

import ast
import dataclasses
import datetime as dt
import functools
import inspect
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pytest
from rich.console import Console

import dlassets
from dlassets.alerts.outbox import Alert, raise_alerts, read_alerts
from dlassets.demo.loop import Loop
from dlassets.engines.base import Commit, Engine, Rows, Snapshot
from dlassets.engines.delta_log import open_table
from dlassets.engines.local import LocalEngine
from dlassets.intake.damage import put_back
from dlassets.labeling import answers, consensus, honeypots
from dlassets.labeling.annotators import known_of_people
from dlassets.labeling.exchange.base import ForeignAnswer
from dlassets.labeling.exchange.exporting import Export
from dlassets.labeling.exchange.registry import FORMATS
from dlassets.labeling.exchange.resolving import Known
from dlassets.labeling.folder import FolderService
from dlassets.labeling.requests import send_lost
from dlassets.labeling.retraining import new_labels
from dlassets.labeling.selection import choice as selection
from dlassets.labeling.selection.choice import select_requests
from dlassets.lakehouse import training_set
from dlassets.lakehouse.failures import FAILURE, note
from dlassets.lakehouse.snapshots import evolve
from dlassets.lakehouse.split_groups import straddling
from dlassets.lakehouse.tables import MODEL_VERSIONS, TABLES
from dlassets.lakehouse.training_set import PIXELS, choose, chosen_from
from dlassets.monitoring.labeling_report.counts import judged, versions_of
from dlassets.monitoring.matters import in_tables
from dlassets.monitoring.quality import RULES, check
from dlassets.monitoring.views.bought import bought
from dlassets.monitoring.views.comparison import compare
from dlassets.monitoring.views.contradictions import contradictions
from dlassets.monitoring.views.mistakes import Chosen, mistakes
from dlassets.monitoring.views.open_requests import open_requests, sent_request
from dlassets.monitoring.views.overview import overview
from dlassets.monitoring.views.photos import paths_of, photo, search
from dlassets.monitoring.views.reading import Reading
from dlassets.monitoring.views.waiting import waiting
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.scoring import current
from dlassets.scoring.batch import Scope, Scorer, score_new
from dlassets.scoring.made import predicted
from dlassets.settings import LabelingSettings, LabelSettings, LandingZone, ScoringSettings, Settings, SplitSettings
from dlassets.storage.lake import Lake
from dlassets_tests.registry.conftest import store_of
from dlassets_tests.tables import pins
from dlassets_tests.whole import Whole, comparable

if TYPE_CHECKING:
    import pyarrow as pa

PACKAGE = Path(dlassets.__file__).parent
Conflicts = Literal["drop", "first", "ask"]
Made = Callable[[Engine], Whole]


class Texts:
    """Every text that the embedded engine is given, with the schemas of its tables, and where in the package from."""

    def __init__(self) -> None:
        self.schemas: dict[str, dict[str, pa.Schema]] = {}
        self.lines: set[tuple[Path, int]] = set()

    def record(self, patch: pytest.MonkeyPatch) -> None:
        run = LocalEngine.sql

        def recorded(engine: LocalEngine, query: str, tables: Mapping[str, Snapshot | Rows]) -> Any:
            self.schemas.setdefault(query, {name: _schema(table) for name, table in tables.items()})
            for frame, line in traceback.walk_stack(inspect.currentframe()):
                self.lines.add((Path(frame.f_code.co_filename), line))
            return run(engine, query, tables)

        patch.setattr(LocalEngine, "sql", recorded)


def _schema(table: Any) -> pa.Schema:
    import pyarrow as pa

    if isinstance(table, Snapshot):
        return pa.schema(open_table(table.uri, table.version).schema().to_arrow())
    return table.schema


@pytest.fixture(scope="module")
def texts() -> Iterator[Texts]:
    texts = Texts()
    with pytest.MonkeyPatch.context() as patch:
        texts.record(patch)
        yield texts


@pytest.fixture(scope="module")
def lake_of(texts: Texts, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Make the lake by an engine, each time that it is another one."""
    made: dict[str, Whole] = {}

    def make(engine: Engine) -> Whole:
        if engine.name not in made:
            root = str(tmp_path_factory.mktemp(engine.name))
            zones = Settings(root=root).landing
            settings = Settings(
                root=root,
                labels=LabelSettings(conflicts="ask"),
                labeling=LabelingSettings(threshold=1, relabel_limit=2, honeypot_share=0.2),
                landing={**zones, "listed": LandingZone(uri="listed", labelled=True, label_from="list")},
            )
            with store_of(settings) as store:
                session = Session(settings)
                session.engine, session.mlflow = engine, store
                made[engine.name] = Whole(session)
                made[engine.name].live(photos)
        return made[engine.name]

    return make


@pytest.mark.slow
@pytest.mark.spark
def test_a_lake_is_the_same_row_by_row_whichever_engine_made_it(lake_of, local_engine, spark_engine) -> None:
    one, other = lake_of(local_engine), lake_of(spark_engine)

    for name in TABLES:
        ours, theirs = comparable(one, name), comparable(other, name)
        assert ours.exact == theirs.exact, name
        assert np.allclose(ours.numbers, theirs.numbers, rtol=1e-3, atol=1e-5), name


@pytest.mark.spark
@pytest.mark.slow
def test_a_look_at_a_lake_finds_the_same_by_either_engine(lake_of, local_engine, spark_engine) -> None:
    assert lake_of(local_engine).look() == lake_of(spark_engine).look()


def ask_everything(whole: Whole) -> None:
    """Have every text made that settings decide, and those of what is asked of a lake beside its pipeline."""
    import pyarrow as pa

    whole.look()
    session = whole.session
    engine, tables, model = session.engine, pins(session.lake, *TABLES), session.required_champion()
    package = session.package(model)
    embedder = session.embedder(tables["raw_images"])
    books = {MODEL_VERSIONS.name: evolve(session.lake, MODEL_VERSIONS)}
    versions = versions_of(engine, tables | books, session.model_name)
    put_back(embedder.photos, session.settings, [], {})
    note(embedder.photos, engine.rows(pa.table({"image_id": ["of no photo"], FAILURE.name: [""]})), "none", Commit())
    nobody_asked = dataclasses.replace(tables["label_requests"], version=0)
    for group_by in (None, "camera"):
        straddling(engine, tables, SplitSettings(group_by=group_by))
    for conflicts in get_args(Conflicts):
        labels = LabelSettings(conflicts=conflicts)
        honeypots._honeypots(engine, tables, 1, model, Settings(labels=labels))
        for rule in RULES:
            check(engine, rule, tables, labels, model)
        judged(engine, tables, versions, labels)
        judged(engine, tables, [replace(version, training_set=None) for version in versions], labels)
        for made_of in (session.feature_version, PIXELS):
            choice = choose(
                engine, pins(session.lake, *(table.name for table in chosen_from(made_of))), made_of, labels
            )
            training_set._have_come_back(choice, embedder.photos, tables["training_set"])
        for asking in (
            {},
            {"relabel_limit": 2, "audit_share": 0.5, "share": 0.5, "priorities": {"unlabeled": 1}},
            {"strategy": "hybrid", "run_limit": 1},
            {"strategy": "diversity", "run_limit": 1},
        ):
            asked = Settings(labeling=LabelingSettings(threshold=1, **asking), labels=labels)
            select_requests(engine, {**tables, "label_requests": nobody_asked}, model, asked)
        new_labels(engine, tables, labels)
        for sees_photos in (None, embedder):
            seen = ["deleted_files", "quarantined_files"] if sees_photos else []
            chosen = ("raw_images", "labeled_images", "image_features", *seen)
            for labeled in (True, False):
                again = Scope(labeled, dt.date(2026, 1, 1) if sees_photos else None)
                scorer = Scorer(model, package, ScoringSettings(labeled=labeled), sees_photos, scope=again)
                score_new(engine, pins(session.lake, *chosen), tables["predictions"], scorer, labels, {})
        labelled = session.changed(settings=session.settings.model_copy(update={"labels": labels}))
        steps.images_to_embed(labelled, steps.labelled_image_features.hand_out(labelled))
    Known(engine, tables["label_requests"], tables["raw_images"]).targets([ForeignAnswer("line 1", "a.jpg")])
    export = Export(engine, session.lake, session.settings, tables, FORMATS["csv"])
    export._batch_of_each()
    export._sizes()
    predicted(engine, tables, model)
    cached = selection._Cached(engine, tables, ["of no image"])
    assert (len([*cached.waiting()]), len([*cached.known()])) == (0, 0)
    ask_of_services(engine, session.lake, tables)
    consensus._guesses(engine, tables, ["of no image"])
    consensus._honeypots(engine, tables)
    known_of_people(engine, tables)
    raise_alerts(engine, session.lake, [Alert("run_failed", "A run failed", "of nothing", "a run")])
    read_alerts(engine, session.lake, "waiting")
    look_at_pages(session.settings, tables["raw_images"], model.version)
    current._all(engine, tables, model)
    loop = Loop(session.settings, Console(quiet=True))
    loop.session = session
    loop._people_answer()
    loop._summary()


class Forgetful(FolderService):
    def lost(self, request_ids: Collection[str]) -> set[str]:  # noqa: ARG002
        return {"of no request"}


def ask_of_services(engine: Engine, lake: Lake, tables: Mapping[str, Snapshot]) -> None:
    known = answers._known(engine, tables["human_labels"])
    known.since("folder", "%")
    known.standing("folder", "%", ["of no request"])
    assert not send_lost(engine, lake, Forgetful(Path("/"), Path("/")), tables, Commit()).changed


def look_at_pages(settings: Settings, raw_images: Snapshot, version: int) -> None:
    reading = Reading(settings)
    photos = LocalEngine().sql("SELECT path FROM raw_images", {"raw_images": raw_images}).arrow()
    overview(reading)
    mistakes(reading, "a run", Chosen())
    search(reading, "a")
    photo(reading, photos["path"][0].as_py())
    paths_of(reading, "an image")
    waiting(reading)
    contradictions(reading)
    bought(reading)
    open_requests(reading)
    sent_request(reading, "a request")
    compare(reading, version, version)
    list(in_tables(reading))


@pytest.fixture(scope="module")
def asked(texts: Texts, lake_of: Made) -> Texts:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", "")  # as it was: the demo sets it
        ask_everything(lake_of(LocalEngine()))
    return texts


@pytest.mark.spark
def test_both_engines_plan_every_text(asked, local_engine, spark_engine) -> None:
    ours, theirs = (_empty_rows(engine) for engine in (local_engine, spark_engine))
    for query, schemas in asked.schemas.items():
        by_duckdb = local_engine.sql(query, {name: ours(schema) for name, schema in schemas.items()})
        by_spark = spark_engine.sql(query, {name: theirs(schema) for name, schema in schemas.items()}).frame

        by_spark._jdf.queryExecution().executedPlan()
        assert by_spark.columns == by_duckdb.arrow().column_names, query


def _empty_rows(engine: Engine) -> Callable[[pa.Schema], Rows]:
    """Return what makes rows of a schema, of which there are fewer than there are texts, once each."""
    return functools.cache(lambda schema: engine.rows(schema.empty_table()))


@pytest.mark.spark
def test_no_text_of_the_package_escapes(asked) -> None:
    reached = {site for site in sites() for path, line in asked.lines if path == site[0] and site[1] <= line <= site[2]}

    missing = sorted(f"{path.relative_to(PACKAGE.parent)}:{line}" for path, line, _ in sites() - reached)
    assert missing == [], "have them asked in `ask_everything`"


def sites() -> set[tuple[Path, int, int]]:
    """Return where the package has an engine run SQL, itself or by a function that it hands the text to."""
    modules = {path: ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py") if path.parent.name != "engines"}
    functions = [node for module in modules.values() for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]
    runs = {"sql"} | {function.name for function in functions if _passes_its_text_on(function)}
    return {
        (path, call.lineno, call.end_lineno or call.lineno)
        for path, module in modules.items()
        for call in ast.walk(module)
        if isinstance(call, ast.Call) and _called(call) in runs
    }


def _passes_its_text_on(function: ast.FunctionDef) -> bool:
    parameters = {argument.arg for argument in function.args.args}
    texts = [call.args[0] for call in ast.walk(function) if isinstance(call, ast.Call) and _called(call) == "sql"]
    return any(isinstance(text, ast.Name) and text.id in parameters for text in texts)


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))
