"""A study: it finds better settings, goes on where it was killed, and one trial's death costs that trial alone."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dlassets.engines.base import Snapshot
from dlassets.errors import DlassetsError, SettingsError
from dlassets.lakehouse.tables import TEST, TRAIN, VALIDATION
from dlassets.learning.backbones import BackboneRef
from dlassets.learning.training.job import Job
from dlassets.registry.lifecycle import TAG_PROCESS
from dlassets.registry.store import MlflowStore
from dlassets.registry.tracking import artifact_of
from dlassets.settings import Settings, Span, TrainingSettings, TuningSettings
from dlassets.storage.lake import Lake
from dlassets.tuning import local_trials, record
from dlassets.tuning.local_trials import LocalTrials
from dlassets.tuning.question import Question
from dlassets.tuning.record import PICTURE, TAG_BEAT, TAG_BEST, TAG_WINNER, StudyRecord
from dlassets.tuning.spark_trials import SparkTrials
from dlassets.tuning.study import Best, run_study, winner
from dlassets.tuning.trials import ACCURACY, LOSS
from dlassets_tests.errors import ERRORS, raising
from dlassets_tests.learning.examples import rows
from dlassets_tests.learning.training.test_head_training import put
from dlassets_tests.registry.conftest import store_of
from dlassets_tests.stores import give_store
from dlassets_tests.tuning.objectives import always_refused, bowl, killed_without_weights, no_number, worse_with_l2

LABELS = [3, 12, 40] * 20
SPACE = {"l2": Span(low=1e-3, high=1.0, log=True), "balance": ("none", "weights")}
ONE_AT_A_TIME = TuningSettings(trials=4, processes=1, pruning=False, space=SPACE)
BACKBONE = BackboneRef("efficientnet_lite0")


@dataclass
class Bench:
    mlflow: MlflowStore
    snapshot: Snapshot

    def ask(self, training: TrainingSettings | None = None, space: Any = SPACE) -> Question:
        return Question(Job(self.snapshot, BACKBONE, training or TrainingSettings(l2=0.05)), "features-1", space)

    def study(self, runner: Any, settings=ONE_AT_A_TIME, question=None, report: Any = lambda *_: None) -> Best:
        """Run a study; `runner` may be no more than what each trial does here."""
        runner = runner if isinstance(runner, LocalTrials | SparkTrials) else LocalTrials(runner)
        return run_study(question or self.ask(), settings, self.mlflow.client, self.mlflow.experiment, runner, report)

    def trials(self, run_id: str) -> list[Any]:
        experiment = self.mlflow.client.get_experiment_by_name(self.mlflow.experiment)
        found = self.mlflow.client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{run_id}'")
        return sorted(found, key=lambda run: int(run.data.tags["numbers"]))


@pytest.fixture
def bench(settings: Settings, local_engine, lake: Lake):
    splits = [(split, rows(LABELS, seed=seed, spread=2)) for seed, split in enumerate((TRAIN, VALIDATION, TEST))]
    with store_of(settings) as store:
        yield Bench(store, put(local_engine, lake, *splits))


@pytest.mark.slow
def test_a_study_of_heads_finds_settings_no_worse_than_those_it_began_with(bench) -> None:
    reported = []
    settings = TuningSettings(trials=5, processes=2, space=SPACE)

    question = bench.ask(TrainingSettings(l2=1.0))
    best = bench.study(LocalTrials(), settings, question, lambda *progress: reported.append(progress))

    trials = bench.trials(best.run_id)
    assert [(done, of) for done, of, _ in reported] == [(n, 5) for n in range(1, 6)]
    assert reported[-1][2].value == best.value
    values = {run.info.run_id: run.data.metrics["value"] for run in trials if "value" in run.data.metrics}
    assert best.value == min(values.values()) == values[best.trial_run_id]
    first = trials[0]
    assert float(first.data.params["l2"]) == 1.0
    assert best.value < values[first.info.run_id]  # so strong a penalty is far from the best
    assert first.data.metrics.keys() >= {"train_loss", LOSS, ACCURACY}
    assert len(bench.mlflow.client.get_metric_history(first.info.run_id, LOSS)) > 1
    assert best.settings.l2 == best.chosen["l2"] != 1.0


def test_the_run_of_a_study_says_who_has_won_and_shows_it(bench) -> None:
    best = bench.study(bowl)

    run = bench.mlflow.client.get_run(best.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags[TAG_WINNER] == best.trial_run_id
    assert json.loads(run.data.tags[TAG_BEST]) == best.chosen
    assert run.data.params["training_set_version"] == str(bench.snapshot.version)
    assert run.data.metrics[LOSS] == best.value
    assert artifact_of(bench.mlflow.client, best.run_id, PICTURE).startswith(b"\x89PNG")
    assert {trial.info.status for trial in bench.trials(best.run_id)} == {"FINISHED"}
    names = {trial.info.run_name for trial in bench.trials(best.run_id)}
    assert names == {f"trial {number} of {run.info.run_name}" for number in range(len(best.trials))}


@pytest.mark.slow
def test_the_same_question_and_seed_try_the_same_settings(bench, tmp_path) -> None:
    tried = []
    for name in ("one", "other"):
        settings = Settings(root=str(tmp_path / name))
        give_store(settings)
        best = Bench(MlflowStore(settings), bench.snapshot).study(bowl)
        tried.append([trial.params for trial in best.trials])

    assert tried[0] == tried[1]
    assert tried[0][0] == {"l2": 0.05, "balance": "none"}


def test_a_study_that_has_its_trials_is_left_alone_and_one_that_wants_more_goes_on(bench) -> None:
    first = bench.study(bowl)

    again = bench.study(always_refused)
    more = bench.study(bowl, ONE_AT_A_TIME.model_copy(update={"trials": 6}))

    assert (again.run_id, again.is_new, again.chosen, len(again.trials)) == (first.run_id, False, first.chosen, 4)
    assert (more.run_id, more.is_new, len(more.trials)) == (first.run_id, True, 6)
    assert [trial.params for trial in more.trials[:4]] == [trial.params for trial in first.trials]
    assert all(trial.params not in [one.params for one in first.trials] for trial in more.trials[4:])
    assert more.value <= first.value


@pytest.mark.parametrize(
    "other",
    [
        {"training": TrainingSettings(patience=7)},
        {"training": TrainingSettings(seed=1)},
        {"space": {"l2": Span(low=1e-3, high=2.0, log=True)}},
    ],
)
def test_another_question_is_another_study(bench, other) -> None:
    assert bench.ask(**other).sha256 != bench.ask().sha256


@pytest.mark.parametrize("training", [{"compute": {"attempts": 7}}, {"l2": 0.7, "balance": "weights"}])
def test_where_it_is_computed_and_where_what_is_tuned_stands_is_no_other_question(bench, training) -> None:
    assert bench.ask(TrainingSettings.model_validate(training)).sha256 == bench.ask().sha256


@pytest.mark.slow
def test_a_study_that_another_process_runs_is_refused_until_that_is_gone(bench) -> None:
    import psutil

    done = bench.study(bowl)
    more = ONE_AT_A_TIME.model_copy(update={"trials": 5})
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        name = f"{socket.gethostname()} {other.pid} {psutil.Process(other.pid).create_time()}"
        bench.mlflow.client.set_tag(done.run_id, TAG_PROCESS, name)
        bench.mlflow.client.update_run(done.run_id, status="RUNNING")

        with pytest.raises(DlassetsError, match=f"being run by process {other.pid} of this machine. Wait for it"):
            bench.study(bowl, more)

        assert bench.mlflow.client.get_run(done.run_id).info.status == "RUNNING"
        other.communicate(b"\n")

    assert len(bench.study(bowl, more).trials) == 5


@pytest.fixture
def elsewhere(bench, monkeypatch) -> Best:
    """A study that another machine runs, or did until it was killed; all waits are a hundredth of theirs."""
    for name in ("SECONDS_BETWEEN_BEATS", "PATIENCE_SECONDS", "SECONDS_BETWEEN_LOOKS"):
        monkeypatch.setattr(record, name, getattr(record, name) / 100)
    done = bench.study(bowl)
    bench.mlflow.client.set_tag(done.run_id, TAG_PROCESS, "another-host 7 1.5")
    bench.mlflow.client.update_run(done.run_id, status="RUNNING")
    return done


def test_a_study_that_another_machine_runs_is_refused_while_it_beats(bench, elsewhere, monkeypatch) -> None:
    there = StudyRecord(bench.mlflow.client, bench.mlflow.experiment, bench.ask())
    more = ONE_AT_A_TIME.model_copy(update={"trials": 5})
    monkeypatch.setattr(record, "PATIENCE_SECONDS", 60.0)  # of a machine that is busy; a beat ends it
    with there._beating(), pytest.raises(DlassetsError, match="by process 7 of another-host"):
        bench.study(bowl, more)
    assert bench.mlflow.client.get_run(elsewhere.run_id).info.status == "RUNNING"
    bench.mlflow.client.set_terminated(elsewhere.run_id, "KILLED")


@pytest.mark.slow
def test_a_study_of_another_machine_that_has_stopped_beating_is_gone_on_with(bench, elsewhere) -> None:
    best = bench.study(bowl, ONE_AT_A_TIME.model_copy(update={"trials": 5}))

    assert (best.run_id, len(best.trials)) == (elsewhere.run_id, 5)


@pytest.mark.slow
def test_who_runs_a_study_says_so_as_long_as_it_does(bench, elsewhere) -> None:
    beats = set[str]()

    def report(*_: Any) -> None:
        until = time.monotonic() + 60
        while len(beats) < 2 and time.monotonic() < until:
            beats.add(bench.mlflow.client.get_run(elsewhere.run_id).data.tags[TAG_BEAT])

    bench.study(bowl, ONE_AT_A_TIME.model_copy(update={"trials": 5}), report=report)

    assert len(beats) == 2


@pytest.mark.slow
def test_a_killed_trial_counts_as_failed_and_the_study_goes_on(bench) -> None:
    best = bench.study(killed_without_weights, ONE_AT_A_TIME.model_copy(update={"trials": 6}))

    runs = bench.trials(best.run_id)
    dead = [run for run in runs if run.info.status == "FAILED"]
    assert {run.data.params["balance"] for run in dead} == {"none"}
    assert "exit code -9" in dead[0].data.tags["user_why"]
    assert len(runs) == 6
    assert best.chosen["balance"] == "weights"


@pytest.mark.parametrize(
    ("objective", "failure"),
    [
        (always_refused, ERRORS[1]),
        pytest.param(no_number, DlassetsError("Its validation loss is not a number (nan)."), marks=pytest.mark.slow),
    ],
)
def test_a_study_whose_trials_all_fail_ends_early_and_says_why(bench, objective, failure) -> None:
    with pytest.raises(DlassetsError, match="The first 3 trials all failed, the last one so: ") as raised:
        bench.study(objective, ONE_AT_A_TIME.model_copy(update={"trials": 20}))

    assert str(failure) in str(raised.value)
    assert raised.value.__cause__ is not None
    with raising(failure):
        raise raised.value.__cause__


@pytest.mark.slow
def test_a_trial_that_does_worse_than_most_is_cut_short(bench) -> None:
    settings = TuningSettings(trials=14, processes=1, space={"l2": Span(low=1e-3, high=1.0, log=True)})

    best = bench.study(worse_with_l2, settings, question=bench.ask(space=settings.space))

    runs = bench.trials(best.run_id)
    cut = [run for run in runs if run.info.status == "KILLED"]
    whole = [run for run in runs if run.info.status == "FINISHED"]
    assert cut
    assert len(whole) >= 5
    epochs = bench.mlflow.client.get_metric_history(cut[0].info.run_id, LOSS)
    assert 3 <= len(epochs) < 20
    assert min(float(run.data.params["l2"]) for run in runs) == best.chosen["l2"]


def test_no_trial_starts_when_the_minutes_are_over(bench) -> None:
    bench.study(bowl)

    over, question = ONE_AT_A_TIME.model_copy(update={"minutes": 1e-9}), bench.ask(TrainingSettings(seed=1))
    with pytest.raises(DlassetsError, match="None of 0 trials"):
        bench.study(bowl, over, question)


@pytest.mark.slow
def test_strictly_no_trial_starts_that_would_end_after_the_minutes(bench, monkeypatch) -> None:
    settings = ONE_AT_A_TIME.model_copy(update={"trials": 20, "minutes": 10})
    tried = []
    for place, strictly in enumerate((False, True)):
        ten_seconds_on = itertools.count(0, 10)
        clock = SimpleNamespace(time=time.time, monotonic=lambda clock=ten_seconds_on: float(next(clock)))
        for module in (local_trials, record):
            monkeypatch.setattr(module, "time", clock)
        question = bench.ask(TrainingSettings(seed=place))
        tried.append(len(bench.study(LocalTrials(bowl, strictly), settings, question).trials))

    assert 1 < tried[1] < tried[0] < 20


def test_a_space_with_an_unknown_setting_leaves_no_run(bench) -> None:
    with pytest.raises(SettingsError, match="Did you mean l2"):
        bench.study(bowl, question=bench.ask(space={"l3": (1.0,)}))

    experiment = bench.mlflow.client.get_experiment_by_name(bench.mlflow.experiment)
    assert bench.mlflow.client.search_runs([experiment.experiment_id]) == []


KILLED_HALFWAY = """
import os, signal, sys
from dlassets.engines.base import Snapshot
from dlassets.registry.store import MlflowStore
from dlassets.settings import Settings
from dlassets.tuning.record import StudyRecord
from dlassets_tests.tuning import objectives
from dlassets_tests.tuning import test_study as test_tuning

begin_trial, begun = StudyRecord.begin_trial, []

def begin_and_die(record, trial):
    # In the middle of a trial, however the two processes share them out.
    begun.append(begin_trial(record, trial))
    if len(begun) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return begun[-1]

if __name__ == "__main__":
    StudyRecord.begin_trial = begin_and_die
    root, uri, version = sys.argv[1:]
    bench = test_tuning.Bench(MlflowStore(Settings(root=root)), Snapshot("training_set", uri, int(version)))
    bench.study(objectives.bowl, test_tuning.TuningSettings(trials=5, processes=2, pruning=False))
"""


@pytest.mark.slow
def test_a_study_killed_halfway_goes_on_with_the_trials_it_has(bench, tmp_path) -> None:
    program = tmp_path / "program.py"
    program.write_text(KILLED_HALFWAY)
    arguments = [bench.mlflow.settings.root, bench.snapshot.uri, str(bench.snapshot.version)]
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    killed = subprocess.run([sys.executable, program, *arguments], env=here, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()

    best = bench.study(bowl, TuningSettings(trials=5, processes=2, pruning=False))

    ended = [trial for trial in best.trials if "interrupted" not in trial.user_attrs]
    lost = [trial for trial in best.trials if "interrupted" in trial.user_attrs]
    assert len(ended) == 5
    assert {trial.state.name for trial in lost} == {"FAIL"}
    for trial in lost:
        assert [other.params for other in ended].count(trial.params) == 1  # what was being tried is tried again
    assert len(bench.trials(best.run_id)) == 5 + len(lost)


def test_the_winner_is_that_of_the_newest_study_over_the_same_features(bench) -> None:
    def wins(training: TrainingSettings, features: str = "features-1") -> TrainingSettings | None:
        return winner(bench.mlflow.client, bench.mlflow.experiment, training, features)

    assert wins(TrainingSettings()) is None
    bench.study(bowl, ONE_AT_A_TIME.model_copy(update={"trials": 1}))
    newest = bench.study(bowl, question=bench.ask(TrainingSettings(seed=5)))

    found = wins(TrainingSettings(epochs=7))
    assert found is not None
    assert (found.l2, found.balance, found.epochs, found.seed) == (newest.chosen["l2"], newest.chosen["balance"], 7, 0)
    assert wins(TrainingSettings(), "features-2") is None
    assert wins(TrainingSettings(trainable="all")) is None


@pytest.mark.spark
@pytest.mark.slow
def test_spark_spreads_the_trials_of_the_same_study(bench, spark_engine) -> None:
    begun = bench.study(LocalTrials(), ONE_AT_A_TIME.model_copy(update={"trials": 1}))
    reported = []

    two_at_a_time, runner = ONE_AT_A_TIME.model_copy(update={"processes": 2}), SparkTrials(spark_engine.session)
    best = bench.study(runner, two_at_a_time, report=lambda *progress: reported.append(progress))

    runs = bench.trials(best.run_id)
    assert best.run_id == begun.run_id
    assert [run.info.status for run in runs] == ["FINISHED"] * 4
    assert float(runs[0].data.params["l2"]) == 0.05
    values = [run.data.metrics["value"] for run in runs]
    assert best.value == min(values)
    assert all(run.data.metrics[LOSS] > 0 for run in runs)
    assert reported[-1][:2] == (4, 4)
    assert reported[-1][2].value == best.value
    assert bench.study(SparkTrials(spark_engine.session)).is_new is False
