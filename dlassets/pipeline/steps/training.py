"""The steps from photos with labels to a trained model, and what a training takes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from dlassets.lakehouse.tables import (
    DELETED_FILES,
    EVALUATED_ROWS,
    IMAGE_FEATURES,
    IMAGE_PROFILES,
    LABEL_ERRORS,
    LABELED_IMAGES,
    QUARANTINED_FILES,
    RAW_IMAGES,
    TRAINING_SET,
)
from dlassets.masking import masked
from dlassets.pipeline.report import Report
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made, Reads, Step, commit_of, step
from dlassets.pipeline.steps.shared import MOST_SAID, derived, images_of
from dlassets.registry.models import TRAINED_MODEL, TUNED_HYPERPARAMETERS

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from dlassets.engines.base import Snapshot
    from dlassets.lakehouse.derived import Derivation
    from dlassets.lakehouse.training_set import Choice
    from dlassets.learning.examples import Splits
    from dlassets.learning.training.job import Event, Job, OnEvent, Trained
    from dlassets.registry.tracking import TrainingInputs


@step(IMAGE_FEATURES, reads=[RAW_IMAGES, DELETED_FILES, QUARANTINED_FILES])
def image_features(session: Session, read: Reads, report: Report) -> Made:
    """Embed every image that has no features of this version, or every labelled one where labels are read as well."""
    derivation, version = _features(session, read), session.feature_version
    return derived(session, read, derivation, report, "images embedded", feature_version=version)


# What a search embeds beside the lake: all of a lake's photos may be a hundred times as many as have a label.
labelled_image_features = Step(image_features.work, image_features.makes, (*image_features.reads, LABELED_IMAGES))


@step(TRAINING_SET, reads=[LABELED_IMAGES, IMAGE_FEATURES, RAW_IMAGES, DELETED_FILES, QUARANTINED_FILES])
def training_set(session: Session, read: Reads, report: Report) -> Made:  # noqa: ARG001
    """Choose the exact rows that a model learns from and is tested on."""
    from dlassets.lakehouse.training_set import PIXELS, build_training_set

    made_of = session.feature_version if session.settings.training.trainable == "head" else PIXELS
    choice = chosen_rows(session, read, made_of)
    source = session.photos(read[RAW_IMAGES]) if made_of == PIXELS else read[IMAGE_FEATURES]
    provenance = read.provenance(feature_version=made_of, conflicts=session.settings.labels.conflicts)
    current = read.own(TRAINING_SET)
    written = build_training_set(session.engine, choice, source, current, provenance.as_dict())
    return Made(provenance, {TRAINING_SET.name: written}, {"feature_version": made_of})


@step(LABEL_ERRORS, reads=[LABELED_IMAGES, IMAGE_FEATURES])
def label_errors(session: Session, read: Reads, report: Report) -> Made:
    """Judge every label by models that did not learn from it."""
    from dlassets.labeling.label_errors import update_label_errors

    settings, version = session.settings, session.feature_version
    snapshots = read.named(LABELED_IMAGES, IMAGE_FEATURES)
    provenance = read.provenance(feature_version=version, conflicts=settings.labels.conflicts)
    snapshots[LABEL_ERRORS.name] = read.own(LABEL_ERRORS)
    progress = report.progress("folds judged")
    written, details = update_label_errors(session.engine, snapshots, version, settings, provenance.as_dict(), progress)
    if "left_out" in details:
        report.warning(details["left_out"])
    return Made(provenance, {LABEL_ERRORS.name: written}, details)


@step(TUNED_HYPERPARAMETERS, reads=[TRAINING_SET])
def tuned_hyperparameters(session: Session, read: Reads, report: Report) -> Made:
    """Try settings of training, and find those with the least validation loss."""
    from dlassets.engines.spark import SparkEngine
    from dlassets.learning.training.job import Job
    from dlassets.tuning.local_trials import LocalTrials
    from dlassets.tuning.question import Question
    from dlassets.tuning.spark_trials import SparkTrials
    from dlassets.tuning.study import run_study

    job = Job(settled_training_set(read), session.backbone, session.settings.training)
    question = Question(job, session.feature_version, session.settings.tuning.space)
    engine, started = session.engine, time.monotonic()

    def on_trial(done: int, trials: int, best: FrozenTrial | None) -> None:
        so_far = "none has come to its end" if best is None else f"the least validation loss is {best.value:.4f}"
        report.info(f"{done} of {trials} trials done, {so_far}")

    runner = SparkTrials(engine.session) if isinstance(engine, SparkEngine) else LocalTrials()
    mlflow = session.mlflow
    best = run_study(question, session.settings.tuning, mlflow.client, mlflow.experiment, runner, on_trial)
    details = {"best": best, "job": job, "minutes": (time.monotonic() - started) / 60}
    return Made(read.provenance(question=question.sha256), details=details)


@step(TUNED_HYPERPARAMETERS, reads=[TRAINING_SET])
def known_hyperparameters(session: Session, read: Reads, report: Report) -> Made:  # noqa: ARG001
    """Leave it at the newest study there is, if there is any."""
    from dlassets.tuning.study import newest_study

    mlflow, trainable = session.mlflow, session.settings.training.trainable
    newest = newest_study(mlflow.client, mlflow.experiment, trainable, session.feature_version)
    return Made(read.provenance(), details={"newest": newest})


@step(TRAINED_MODEL, reads=[TRAINING_SET, TUNED_HYPERPARAMETERS, IMAGE_PROFILES, LABELED_IMAGES, RAW_IMAGES])
def trained_model(session: Session, read: Reads, report: Report) -> Made:
    """Train on the training set, unless a run has learned from these very inputs already."""
    inputs = training_inputs(session, read)
    run = session.mlflow.find_run(*inputs.digests)
    is_new = run is None
    if run is None:
        train(session, read, inputs, session.mlflow.run(), _tags_of_run(session), report)
        run = session.mlflow.run_of(*inputs.digests)
    return Made(read.provenance(inputs_sha256=inputs.sha256), details={"run": run, "inputs": inputs, "is_new": is_new})


# The mistakes that Dagster shows beside it are seen by their profiles.
@step(EVALUATED_ROWS, reads=[TRAINED_MODEL, IMAGE_PROFILES])
def evaluated_rows(session: Session, read: Reads, report: Report) -> Made:
    """Keep what the model of each training run said of every row of validation and test."""
    from dlassets.lakehouse.snapshots import replanned
    from dlassets.registry.evaluated import evaluated_runs, gather

    read.declared(TRAINED_MODEL)
    mlflow, provenance = session.mlflow, read.provenance()
    runs = evaluated_runs(mlflow, session.lake)
    gathered = replanned(
        lambda: gather(session.engine, read.own(EVALUATED_ROWS), runs, mlflow.client, provenance.as_dict())
    )
    for problem in gathered.problems[:MOST_SAID]:
        report.warning(problem)
    newest = runs[0].info.run_id if runs else None
    return Made(provenance, {EVALUATED_ROWS.name: gathered.written}, {"runs": gathered.runs, "newest": newest})


def images_to_embed(session: Session, read: Reads) -> list[str]:
    """Return a path of every image that `image_features` would embed."""
    from dlassets.lakehouse.derived import images_without

    derivation = _features(session, read)
    paths = images_without(session.engine, read.own(IMAGE_FEATURES), derivation, images_of(read))["path"].to_pylist()
    return [str(path) for path in paths]


def _features(session: Session, read: Reads) -> Derivation:
    from dlassets.lakehouse.content import USABLE
    from dlassets.lakehouse.derived import Derivation
    from dlassets.lakehouse.labels import usable_with_label

    return Derivation(
        IMAGE_FEATURES,
        session.embedder(read[RAW_IMAGES]).kernel(session.backbone),
        done_where=f"feature_version = '{session.feature_version}'",
        images=usable_with_label(session.settings.labels) if LABELED_IMAGES in read else USABLE,
    )


def training_inputs(session: Session, read: Reads) -> TrainingInputs:
    """Return all that decides what a training on the handed training set learns: settings that tuning found, too."""
    from dlassets.registry.tracking import TrainingInputs
    from dlassets.tuning.study import winner

    training = session.settings.training
    if session.settings.tuning.use:
        read.declared(TUNED_HYPERPARAMETERS)
        mlflow = session.mlflow
        training = winner(mlflow.client, mlflow.experiment, training, session.feature_version) or training
    return TrainingInputs.of(session.lake, settled_training_set(read), session.backbone, training)


def chosen_rows(session: Session, read: Reads, made_of: str) -> Choice:
    """Return the rows of a training set that is made of features of this version, or of pixels."""
    from dlassets.lakehouse.training_set import choose, chosen_from

    return choose(session.engine, read.named(*chosen_from(made_of)), made_of, session.settings.labels)


def train(
    session: Session,
    read: Reads,
    inputs: TrainingInputs,
    run: AbstractContextManager[Any],
    tags: Mapping[str, str],
    report: Report,
) -> str:
    """Train, and write everything down in `run`, which gives MLflow's interface to a new run; return that one's id.

    Where the settings say: in this process, in several, or on Spark. `read` gives the photos, profiles and labels that
    pictures and slices of the evaluation are made of.
    """
    from dlassets.lakehouse.training_set import attributes_of
    from dlassets.learning.training.launch import launch, place_of
    from dlassets.learning.training.pixels import note_unseen
    from dlassets.registry.tracking import train_and_log

    def fit(job: Job, on_event: OnEvent, splits: Splits) -> Trained:
        trained = launch(job, place_of(job.settings.compute, session.engine), on_event, splits=splits)
        if trained.left_out:
            commit = commit_of(read.provenance())
            note_unseen(embedder.photos, trained.left_out, job.backbone.view, TRAINED_MODEL.name, commit)
        return trained

    attributes = attributes_of(session.engine, inputs.job.training_set, read[IMAGE_PROFILES], read[LABELED_IMAGES])
    embedder = session.embedder(read[RAW_IMAGES])
    with run as mlflow:
        run_id = str(mlflow.active_run().info.run_id)
        with _events_to(report, session, f"{inputs.job.settings.trainable}-{run_id[:8]}") as on_event:
            for remark in train_and_log(mlflow, inputs, fit, embedder, attributes, tags, on_event):
                report.warning(remark)
        return run_id


@contextmanager
def _events_to(report: Report, session: Session, name: str) -> Iterator[OnEvent]:
    """Give what tells the report of each step and epoch, and TensorBoard, where it is there and the settings say so."""
    from dlassets.extras import TENSORBOARD, installed
    from dlassets.learning.training.curves import curves

    if not session.settings.mlflow.tensorboard or not installed(TENSORBOARD):
        yield report.event
        return
    with curves(f"{session.lake.tensorboard}/{name}") as write:

        def both(event: Event) -> None:
            write(event)
            report.event(event)

        yield both


def settled_training_set(read: Reads) -> Snapshot:
    """Return the version that first had these rows: what care of the table made of it is nothing new to learn from."""
    from dlassets.lakehouse.snapshots import settled

    return settled(read[TRAINING_SET])


def _tags_of_run(session: Session) -> dict[str, str]:
    """Return who trains, and on which engine, in how many processes."""
    from dlassets.registry.lifecycle import TAG_ASSET

    settings = session.settings
    tags = {
        TAG_ASSET: TRAINED_MODEL.name,
        "dlassets.engine": settings.engine,
        "dlassets.processes": str(settings.training.compute.processes),
    }
    if settings.engine == "spark":
        tags["dlassets.spark"] = masked(settings.spark.remote or settings.spark.master)
    if session.run_id:
        link = f"{settings.ui.dagster}/runs/{session.run_id}"
        tags["mlflow.note.content"] = f"Materialized by Dagster run [{session.run_id}]({link})."
    return tags
