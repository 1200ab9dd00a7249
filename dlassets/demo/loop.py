"""The whole loop, stage by stage, through the same jobs that Dagster schedules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import dagster as dg
from rich.console import Console

from dlassets.definitions import build_defs
from dlassets.demo.annotator import OpenRequest, answer
from dlassets.demo.photos import HELD_BACK, arrive_labelled, arrive_unlabelled, read_truth
from dlassets.demo.summary import Summary, show
from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import LABEL_REQUESTS, LABELED_IMAGES, TABLES
from dlassets.pipeline.session import Session
from dlassets.resources.display import Display, failure_of
from dlassets.resources.instance import opened_instance
from dlassets.settings import Settings
from dlassets.storage.lake import is_local, local_path

LABELED, UNLABELED = "labeled", "unlabeled"
LOGGER = "demo"


class JobFailedError(DlassetsError):
    """A pipeline's run failed; the message is what its step said."""


class Loop:
    """One lake and the jobs on it. `run` may be killed and run again at any moment: it goes on from what is there."""

    def __init__(self, settings: Settings, console: Console) -> None:
        if not {LABELED, UNLABELED} <= settings.landing.keys():
            raise DlassetsError(
                f"The demo puts its photos into the landing zones {LABELED} and {UNLABELED}: declare both."
            )
        self.settings = settings
        self.display = Display(console)
        self.session = Session(settings)
        self.lake = self.session.lake
        self.verdict: str | None = None
        self._learned_from = -1
        self._retrained = False
        self._warned: set[str] = set()
        self.instance = opened_instance(self.lake)
        self.defs = build_defs(settings, {"progress": self.display}, loggers={LOGGER: self.display.logger})

    def run(self, images: Path, held_back: float = HELD_BACK) -> Summary:
        stages: list[tuple[str, Callable[[], None]]] = [
            ("Photos arrive, labelled by their folders", lambda: self._labelled_arrive(images, held_back)),
            ("Ingest, label, embed, train, evaluate, register, promote", self._train),
            ("More photos arrive, without labels", lambda: self._unlabelled_arrive(images, held_back)),
            ("Ingest them, score them, ask people about the unsure ones", lambda: self._run_job("scoring_pipeline")),
            ("People answer", self._people_answer),
            ("Merge the answers into the labels", lambda: self._run_job("labeling_pipeline")),
            ("Retrain, and promote unless it is shown to be worse", self._retrain),
            ("Score again", self._score_again),
        ]
        for number, (title, work) in enumerate(stages, start=1):
            with self.display.stage(number, len(stages), title):
                work()
        return self._summary()

    def _zone(self, name: str) -> str:
        return self.lake.zone(self.settings.landing[name].uri)

    @property
    def _kept_aside(self) -> str:
        return self.lake.under("demo")

    def _labelled_arrive(self, images: Path, held_back: float) -> None:
        new = arrive_labelled(images, self._zone(LABELED), held_back)
        # A landing zone that is not there is an error to the pipeline, and one may be empty for now.
        for name in (LABELED, UNLABELED):
            if is_local(self._zone(name)):
                local_path(self._zone(name)).mkdir(parents=True, exist_ok=True)
        self.display.print(f"{new:,} new photos in {self._zone(LABELED)}")

    def _unlabelled_arrive(self, images: Path, held_back: float) -> None:
        labelled, unlabelled = self._zone(LABELED), self._zone(UNLABELED)
        new = arrive_unlabelled(images, unlabelled, self._kept_aside, labelled, held_back)
        self.display.print(f"{new:,} new photos in {self._zone(UNLABELED)}")

    def _train(self) -> None:
        from dlassets.registry.validation.validation import GATE

        result = self._execute("training_pipeline")
        verdicts = [check for check in result.get_asset_check_evaluations() if check.check_name == GATE]
        # Where the gate refused it, it did its work: the champion stays, and scoring goes on with it.
        if not result.success and all(verdict.passed for verdict in verdicts):
            raise JobFailedError(failure_of(result))
        self.verdict = verdicts[-1].description
        self.display.print(str(self.verdict))
        self._learned_from = self._labels

    def _retrain(self) -> None:
        """Learn from the answers. Where there are none, the model of the second stage has learned from all labels."""
        if self._labels == self._learned_from:
            self.display.print("no label is new, so the model stands")
            return
        self._train()
        self._retrained = True

    def _score_again(self) -> None:
        if self._retrained:
            self._run_job("scoring_pipeline")
        else:
            self.display.print("the model is the same, and so are its predictions")

    @property
    def _labels(self) -> int:
        return self.session.pin(LABELED_IMAGES).version

    def _run_job(self, name: str) -> None:
        result = self._execute(name)
        if not result.success:
            raise JobFailedError(failure_of(result))

    def _execute(self, name: str) -> dg.ExecuteInProcessResult:
        job = self.defs.resolve_job_def(name)
        result = job.execute_in_process(
            instance=self.instance, raise_on_error=False, run_config={"loggers": {LOGGER: {}}}
        )
        self._warn(result.get_asset_check_evaluations())
        return result

    def _warn(self, checks: Sequence[dg.AssetCheckEvaluation]) -> None:
        """Say, once, what checks found that stops nothing."""
        for check in checks:
            warning = f"{check.asset_key.to_user_string()}: {check.description}"
            if not check.passed and check.severity is dg.AssetCheckSeverity.WARN and warning not in self._warned:
                self._warned.add(warning)
                self.display.print(f"warning: {warning}")

    def _people_answer(self) -> None:
        """Answer what the first model asked. What a later one asks stays open, for whoever tries the lake out."""
        query = (
            "SELECT request_id, batch_id, image_id FROM label_requests WHERE status = 'open' AND requested_at = "
            "(SELECT MIN(requested_at) FROM label_requests) ORDER BY request_id"
        )
        rows = self.session.engine.sql(query, {"label_requests": self.session.pin(LABEL_REQUESTS)}).arrow()
        open_requests = [OpenRequest(**row) for row in rows.to_pylist()]
        answers = self.lake.answers
        given = answer(open_requests, read_truth(self._kept_aside), self.lake.requests, answers)
        self.display.print(f"{given:,} answers in {answers}")

    def _summary(self) -> Summary:
        from dlassets.lakehouse.snapshots import row_count
        from dlassets.lakehouse.tables import TEST, TRAINING_SET
        from dlassets.learning.evaluation.evaluate import evaluate
        from dlassets.learning.examples import read_split
        from dlassets.registry.lifecycle import versions_of
        from dlassets.registry.models import ModelVersion

        session = self.session
        snapshots = {name: session.pin(table) for name, table in TABLES.items()}
        versions = versions_of(session.mlflow.client, session.model_name)
        test = read_split(snapshots[TRAINING_SET.name], TEST)
        oldest, newest = (ModelVersion(session.model_name, version) for version in (versions[0], versions[-1]))
        before, after = ((each.version, evaluate(session.package(each).head, test)) for each in (oldest, newest))
        query = "SELECT COUNT(*) AS sent, COUNT(CASE WHEN status = 'answered' THEN 1 END) AS answered FROM requests"
        by_status = session.engine.sql(query, {"requests": snapshots["label_requests"]}).arrow()
        return Summary(
            images=row_count(snapshots["raw_images"]),
            quarantined=row_count(snapshots["quarantined_files"]),
            before=before,
            after=after,
            requests_sent=by_status["sent"][0].as_py(),
            requests_answered=by_status["answered"][0].as_py(),
            table_versions={name: snapshot.version for name, snapshot in snapshots.items()},
            model_versions=versions,
            champion=session.required_champion().version,
            elapsed=self.display.elapsed,
            verdict=self.verdict,
        )


def run_demo(
    settings: Settings,
    images: Path,
    console: Console,
    *,
    not_taken_in: Sequence[str] = (),
    held_back: float = HELD_BACK,
) -> None:
    """Run the loop on `NNN.class/` folders and show the summary. Raises DlassetsError where a step fails.

    `not_taken_in` says of files of the set that are left out which they are, `held_back` is the share of photos that
    arrive without a label.
    """
    show(console, Loop(settings, console).run(images, held_back), not_taken_in)
